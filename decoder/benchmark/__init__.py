"""How often decoders are wrong, and how long they take, on the same shots in the same run."""
