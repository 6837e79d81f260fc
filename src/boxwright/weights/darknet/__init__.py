"""Importers of Darknet: cfg and weights files, YOLOv1 to YOLOv3."""
