"""Boxes, non-maximum suppression and pooling of regions from feature pyramids."""
