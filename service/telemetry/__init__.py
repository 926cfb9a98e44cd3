"""What the service tells of itself: metrics, logs, the record of the request at work."""
