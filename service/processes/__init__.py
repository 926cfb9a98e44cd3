"""The processes that serve: uvicorn with bounds, and several workers."""
