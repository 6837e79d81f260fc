"""Parts that the benchmarks of training share: rows that are kept, runs side by side, and tables."""
