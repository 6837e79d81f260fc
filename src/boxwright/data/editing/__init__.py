"""Data sets made from others, such as filtered ones. Nothing here loads torch."""
