"""Metrics, logs, and the record of the request at work."""
