"""Decoding over HTTP: `service.app.create_app` is the application, `service.cli` the `tandem` command."""
