"""Find, read and write Pascal VOC data sets."""
