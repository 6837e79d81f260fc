"""Anchors: generation, matching with ground truth, sampling, box coding."""
