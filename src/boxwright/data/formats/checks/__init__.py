"""Checks that several commands make on a data set that has been read."""
