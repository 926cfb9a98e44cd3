"""Attacks on a running service, by what they go at: each module has a list `ATTACKS`."""
