"""Data sets made from others: divided, filtered, cut into tiles. Nothing here loads torch."""
