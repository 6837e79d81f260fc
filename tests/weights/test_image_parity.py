"""Every publisher with a stored reference, from an image file and a checkpoint file to the detections."""

from pathlib import Path

import pytest

from tests.support.image_parity import ROADS, compare_images


@pytest.mark.parametrize("case", ROADS)
def test_detections_of_a_file_equal_the_publishers(case: str, shared_golden: Path, tmp_path: Path) -> None:
    rows = compare_images(shared_golden / case, tmp_path)
    assert rows
    for row in rows:
        assert row.levels is None or row.levels < 0.001, f"image {row.image}: the input is {row.levels} levels off"
        assert row.share >= max(row.least, 0.99), f"image {row.image}: {row.share:.4f} of the detections"
    if case.startswith(("detnet", "ssd", "refinedet", "mmdet", "d2")):
        assert all(row.share == 1 for row in rows), "every one of the reference's detections"
