"""Parts that importers share: reading files safely, checking state dicts, renaming tensors."""
