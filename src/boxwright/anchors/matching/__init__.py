"""Assignment of objects to anchors or cells, one method per file."""
