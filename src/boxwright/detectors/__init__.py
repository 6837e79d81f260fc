"""Detectors: the contract that all keep, and one file a paper."""
