"""What computes a network: torch, numba or CUDA graphs."""
