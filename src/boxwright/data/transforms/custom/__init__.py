"""Transforms that other packages add."""
