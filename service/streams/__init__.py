"""Streams of detection events over WebSockets."""
