"""Training: recipes, the loop that runs them, checkpoints and the record that a run leaves."""
