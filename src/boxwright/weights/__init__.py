"""Published checkpoints in our layout: one importer a publisher."""
