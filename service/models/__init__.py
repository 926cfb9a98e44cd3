"""Models: loaded, bound to experiments, and decoding in batches."""
