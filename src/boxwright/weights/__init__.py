"""Importers of published checkpoints: a folder for each publisher."""
