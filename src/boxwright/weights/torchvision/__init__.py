"""Importers and exporters of torchvision."""
