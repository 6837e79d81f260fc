"""Importers of well-known PyTorch ports: ssd.pytorch, RefineDet.PyTorch, DetNet_pytorch."""
