"""Stim circuits and detector error models of others: reading them, naming their codes, and keeping them."""
