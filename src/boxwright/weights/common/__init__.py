"""Parts that all importers share: reading files safely, recognising them, renaming tensors."""
