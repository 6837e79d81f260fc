"""Recipes: their types, the strict loader, overlays."""
