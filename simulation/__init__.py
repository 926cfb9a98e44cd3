"""Codes, circuits, noise, fault models and samples of bivariate bicycle codes: everything that needs no decoder."""
