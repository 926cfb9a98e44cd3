"""Two decoders in tandem: a fast one for all shots, an accurate one for those that the first is unsure of."""
