"""Data sets: readers and writers of the common formats, one compact index, checks, transforms, loaders, scenes."""

from boxwright.data.formats.opening import detect_format, open_dataset, open_splits
from boxwright.data.images import image_size, read_image
from boxwright.data.index import Annotations, DetectionIndex, ImageRecord

__all__ = [
    "Annotations",
    "DetectionIndex",
    "ImageRecord",
    "detect_format",
    "image_size",
    "open_dataset",
    "open_splits",
    "read_image",
]
