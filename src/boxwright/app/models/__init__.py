"""Parameters and multiply-adds of backbones and recipes: ``boxwright models``."""
