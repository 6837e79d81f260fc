"""Read and write COCO detection files."""
