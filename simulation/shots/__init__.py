"""Shots: drawn by stim, kept in files, and compared with what an experiment would give."""
