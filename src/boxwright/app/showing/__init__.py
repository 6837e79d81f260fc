"""Images of a data set as commands show them."""
