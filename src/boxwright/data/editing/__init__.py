"""Data sets made from others: divided, merged, filtered, cut into tiles. Nothing here loads torch."""
