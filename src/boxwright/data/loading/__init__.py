"""Data loaders: sampling, workers, shared memory, collation into dense batches."""
