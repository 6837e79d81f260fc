"""Read whole data sets in tests: against what is drawn in their images, or with one file damaged."""

import warnings
from collections.abc import Callable
from pathlib import Path

import pytest

from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import open_splits
from tests.support.dataset_files import drawn_box


def drawn_counts(path: Path) -> dict[str, tuple[int, int]]:
    """Return images and boxes of each split, after comparing each box with the rectangle that is drawn."""
    splits = open_splits(path)
    for index in splits.values():
        for i in range(len(index)):
            for box in index.annotations(i).boxes.tolist():
                assert box == pytest.approx(drawn_box(index.path(i)), abs=0.05)
    return {name: (len(index), index.num_boxes) for name, index in splits.items()}


def whole_reader(data: Path, file: Path) -> Callable[[bytes], None]:
    """Return a function that replaces a file of a data set, checks the set, and reads it as training does."""

    def read(content: bytes) -> None:
        file.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            report = check_dataset(data, workers=1)
            assert all(len(str(problem)) < 10_000 for problem in report.problems)
            for index in open_splits(data).values():
                for i in range(len(index)):
                    index.annotations(i)
                    if index.has_masks and index.size(i)[0] * index.size(i)[1] < 1_000_000:
                        index.masks(i)

    return read
