"""Compare the sizes that annotations state with those of the image files."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from boxwright.data.images import image_header, image_size
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError


@dataclass(frozen=True)
class WrongSize:
    """An image whose annotations state another size than its file has; sizes are (height, width)."""

    path: Path
    stated: tuple[int, int]
    found: tuple[int, int]

    def __str__(self) -> str:
        said = f"is {self.found[1]}x{self.found[0]} pixels but its annotations say {self.stated[1]}x{self.stated[0]}"
        return said + _remedy(self.path, self.stated, self.found)


def image_sizes(splits: Mapping[str, DetectionIndex], lenient: bool = False) -> dict[Path, tuple[int, int]]:
    """Return height and width of every upright image from its header, read in parallel threads.

    Raises ``InputError`` for the first file that is missing or is no image; if ``lenient``, such files are left out.
    """

    def size(path: Path) -> tuple[int, int] | None:
        try:
            return image_size(path)
        except InputError:
            if not lenient:
                raise
            return None

    paths = list(dict.fromkeys(index.path(i) for index in splits.values() for i in range(len(index))))
    with ThreadPoolExecutor(min(8, (os.cpu_count() or 1) + 4)) as pool:
        return {path: found for path, found in zip(paths, pool.map(size, paths), strict=True) if found is not None}


def refuse_wrong_sizes(splits: Mapping[str, DetectionIndex], sizes: Mapping[Path, tuple[int, int]]) -> None:
    """Raise ``InputError`` that names the first image whose annotations state another size, both sizes and the number.

    ``sizes``: height and width of the images, as `image_sizes` returns them.
    """
    wrong: list[tuple[str, WrongSize]] = []
    for split, index in splits.items():
        for i in range(len(index)):
            path, stated = index.path(i), index.size(i)
            if path in sizes and sizes[path] != stated:
                place = f"{path}, split {split}, image id {index.image_id(i)}"
                wrong.append((place, WrongSize(path, stated, sizes[path])))
    if wrong:
        place, first = wrong[0]
        others = f", and {len(wrong) - 1} more images have a wrong size" if len(wrong) > 1 else ""
        raise InputError(f"{place}: {first}{others}; `boxwright data check` lists all defects")


def _remedy(path: Path, stated: tuple[int, int], found: tuple[int, int]) -> str:
    """Return what seems to have happened to an image, and what to do."""
    if stated == found[::-1]:
        if (image_header(path)[1] or 1) in range(5, 9):
            return (
                ", the size before its EXIF orientation; annotate the upright image, "
                "or remove the orientation from the file"
            )
        return ", width and height swapped; correct the annotations"
    alike = abs(stated[0] * found[1] - stated[1] * found[0]) <= max(*stated, *found)  # within a pixel
    if alike and not 0.9 < stated[0] / found[0] < 1.1:
        return (
            ", as if one had been resized; restore the image that was annotated, "
            "or scale the boxes and the size in the annotations"
        )
    return "; correct the annotations, or restore the image that was annotated"
