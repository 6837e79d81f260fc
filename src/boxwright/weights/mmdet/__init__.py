"""Importers of MMDetection."""
