"""Transforms that combine several images of the data set: mosaic, mixup and copy-paste."""
