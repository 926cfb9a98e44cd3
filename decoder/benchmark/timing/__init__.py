"""How long decoders take."""
