"""The native API below /v1, and the page at /."""
