"""The commands that the service adds to `tandem`: `serve`, and `decode` with a service to do the work."""
