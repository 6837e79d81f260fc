"""Importers of Darknet: cfg and weights files, and YOLOv1 to v3."""
