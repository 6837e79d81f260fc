"""Laws of tiles: they cover each pixel once or more, and an object no larger than the overlap is whole in one."""

import itertools
import math

import numpy as np
import pytest

from boxwright.data.editing.windows import ImageRows, starts, windows_of
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.masks import encode, rasterise
from boxwright.data.packing import CROWD, TRUNCATED, ImageRecord
from boxwright.structures import Classes

CASES = [(100, 32, 0.25), (64, 32, 0.5), (65, 32, 0.0), (32, 32, 0.2), (20, 32, 0.2), (33, 32, 0.9), (1000, 64, 0.33)]


@pytest.mark.parametrize(("length", "size", "overlap"), CASES)
def test_tiles_cover_a_side_and_overlap_enough(length: int, size: int, overlap: float) -> None:
    places = starts(length, size, overlap)
    covered = np.zeros(length, dtype=int)
    for place in places:
        assert place + min(size, length) <= length  # nothing is padded
        covered[place : place + size] += 1
    assert covered.min() == 1 if overlap == 0 else covered.min() >= 1
    shared = [first + size - second for first, second in itertools.pairwise(places)]
    assert all(pixels >= overlap * size for pixels in shared)
    longest = min(length, math.ceil(overlap * size))
    for low in range(length - longest + 1):
        assert any(place <= low and low + longest <= place + size for place in places)


@pytest.mark.parametrize(("height", "width"), [(100, 70), (40, 200), (30, 30), (64, 33)])
def test_tiles_cover_each_pixel_of_an_image(height: int, width: int) -> None:
    covered = np.zeros((height, width), dtype=int)
    for x, y, w, h in windows_of(height, width, 32, 0.25):
        assert (w, h) == (min(32, width), min(32, height))
        covered[y : y + h, x : x + w] += 1
        assert covered[y : y + h, x : x + w].shape == (h, w)
    assert covered.min() >= 1


def random_index(rng: np.random.Generator, masks: bool, count: int = 40) -> DetectionIndex:
    low = rng.uniform(0, 90, (count, 2))
    high = np.minimum(low + rng.uniform(1, 30, (count, 2)), (120, 100))
    boxes = np.concatenate([low, high], axis=1)
    polygons = [[[x1, y1, x2, y1, x2, y2, x1, y2]] for x1, y1, x2, y2 in boxes.tolist()]
    record = ImageRecord(
        path="/x/a.png",  # type: ignore[arg-type]
        image_id=1,
        height=100,
        width=120,
        boxes=boxes,
        labels=np.arange(count) % 2,
        segmentations=polygons if masks else None,
    )
    return DetectionIndex.build(Classes.from_names(("a", "b")), [record])


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_boxes_mapped_back_are_those_of_the_image(masks: bool, format: str) -> None:
    index = random_index(np.random.default_rng(0), masks)
    rows, whole, parts = ImageRows(index, 0, format), [], 0.0  # type: ignore[arg-type]
    for x, y, w, h in windows_of(100, 120, 40, 0.75):
        found = rows.inside((x, y, w, h), min_visible=0.3)
        for box, label, flags in zip(found.boxes, found.labels, found.flags, strict=True):
            assert box[0] >= 0
            assert box[0] + box[2] <= w + 1e-9
            original = (np.abs(index.xywh - [box[0] + x, box[1] + y, box[2], box[3]]).max(axis=1) < 1e-9).nonzero()[0]
            if len(original):
                assert index.labels[original[0]] == label
                whole += original.tolist()
                assert not flags & (CROWD | TRUNCATED)
            else:
                assert bool(flags & TRUNCATED) == (format == "voc")
                parts += 1
        assert len(found.boxes) >= found.cut
    assert set(whole) == set(range(index.num_boxes))  # all are smaller than the overlap of 30 pixels
    assert parts > 50
    assert rows.whole.all()
    assert rows.learnt.all()


@pytest.mark.parametrize(("share", "crowd"), [(0.29, True), (0.31, False)])
def test_small_parts_are_ignored(share: float, crowd: bool) -> None:
    record = ImageRecord(path="/a.png", image_id=1, height=50, width=100, boxes=[[0, 10, 100 * 1, 20]], labels=[0])  # type: ignore[arg-type]
    index = DetectionIndex.build(Classes.from_names(("a",)), [record])
    window = (0, 0, round(100 * share), 50)
    found = ImageRows(index, 0, "coco").inside(window, 0.3)
    assert (found.boxes, found.flags) == ([[0, 10, window[2], 10]], [CROWD if crowd else 0])
    assert found.has_objects == (not crowd)
    assert ImageRows(index, 0, "yolo").inside(window, 0.3).boxes == ([] if crowd else [[0, 10, window[2], 10]])
    rows = ImageRows(index, 0, "coco")
    rows.inside(window, 0.3)
    assert (rows.whole.tolist(), rows.learnt.tolist()) == ([False], [not crowd])


def test_what_reaches_over_the_edge_of_the_image_is_no_cut() -> None:
    record = ImageRecord(path="/a.png", image_id=1, height=50, width=100, boxes=[[-3, 10, 20, 52]], labels=[0])  # type: ignore[arg-type]
    index = DetectionIndex.build(Classes.from_names(("a",)), [record])
    found = ImageRows(index, 0, "coco").inside((0, 0, 40, 50), 0.3)
    assert (found.boxes, found.flags, found.cut) == ([[-3, 10, 23, 42]], [0], 0)


def test_the_share_and_box_are_those_of_the_mask() -> None:
    mask = np.zeros((50, 100), dtype=bool)
    mask[10:40, 20:30] = True  # an L: a tall part, and a foot to the right
    mask[35:40, 30:60] = True
    segmentations = [encode(mask)]
    record = ImageRecord(
        path="/a.png",  # type: ignore[arg-type]
        image_id=1,
        height=50,
        width=100,
        boxes=[[20, 10, 60, 40]],
        labels=[0],
        segmentations=segmentations,
    )
    index = DetectionIndex.build(Classes.from_names(("a",)), [record])
    rows = ImageRows(index, 0, "coco")
    right = rows.inside((30, 0, 40, 50), 0.4)  # holds 150 of 450 pixels, though 3/4 of the box
    assert (right.boxes, right.flags) == ([[0, 35, 30, 5]], [CROWD])
    assert (rasterise(right.segmentations[0], 50, 40) == mask[:, 30:70]).all()  # type: ignore[arg-type]
    assert rows.inside((30, 0, 40, 30), 0.4).boxes == []  # an empty corner of the box
    left = rows.inside((0, 0, 30, 50), 0.4)
    assert (left.boxes, left.flags) == ([[20, 10, 10, 30]], [0])
