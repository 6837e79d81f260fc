"""Tasks that the training loop runs: detection and classification."""
