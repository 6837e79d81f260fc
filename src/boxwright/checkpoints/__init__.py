"""Checkpoints: writing and opening them, weight transfer, test-time overrides, the Hugging Face hub."""
