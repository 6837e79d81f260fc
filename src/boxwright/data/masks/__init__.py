"""Instance masks: encodings, contours, gaps."""
