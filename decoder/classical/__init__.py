"""Classical decoders: the baselines that stand beside the network, and its fallback."""
