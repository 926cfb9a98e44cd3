"""How often decoders fail."""
