"""Heads of two-stage detectors: region proposals, boxes, masks, and what R-CNN fits."""
