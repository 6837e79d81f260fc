"""Values of the entries of annotation files: numbers and flags, class names, checks of boxes."""
