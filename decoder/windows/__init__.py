"""Sliding windows: any decoder that tells errors decodes experiments of any length, a few layers at a time."""
