"""Data sets made from others: split, merged, filtered, cut into tiles. Nothing here loads torch."""
