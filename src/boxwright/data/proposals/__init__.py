"""Precomputed region proposals: files and selective search."""
