"""Find, read and write YOLO data sets."""
