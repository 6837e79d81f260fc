"""The packed index returns what was put in, and is small."""

import pickle
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import Classes, InputError

CLASSES = Classes(("cat", "dog"), (7, 90))
SQUARE = [[1.0, 1.0, 5.0, 1.0, 5.0, 5.0, 1.0, 5.0]]


def records() -> list[ImageRecord]:
    return [
        ImageRecord(path=Path("/d/i/a.jpg"), image_id=11, height=10, width=20, boxes=[[1, 2, 4, 8], [0, 0, 6, 6]],
                    labels=[1, 0], crowd=[False, True], difficult=[True, False], ids=[5, 9], areas=[3.5, None],
                    segmentations=[SQUARE, None]),
        ImageRecord(path=Path("/d/i/ä b.jpg"), image_id=12, height=30, width=10),
        ImageRecord(path=Path("/e/c.jpg"), image_id=3, height=8, width=8, boxes=[[0.1, 0.2, 0.3, 0.5]], labels=[0],
                    box_format="xywh"),
    ]  # fmt: skip


def test_round_trip() -> None:
    index = DetectionIndex.build(CLASSES, records(), root="/d", name="train")
    assert len(index) == 3
    assert index.num_boxes == 3
    assert [index.path(i) for i in range(3)] == [Path("/d/i/a.jpg"), Path("/d/i/ä b.jpg"), Path("/e/c.jpg")]
    assert index.relative_path(0) == "i/a.jpg"
    assert [index.image_id(i) for i in range(3)] == [11, 12, 3]
    assert index.size(1) == (30, 10)
    np.testing.assert_allclose(index.aspect_ratios, [2, 1 / 3, 1])
    rows = index.annotations(0)
    assert rows.boxes.dtype == np.float32
    assert rows.boxes.tolist() == [[1, 2, 4, 8], [0, 0, 6, 6]]
    assert rows.labels.dtype == np.int64
    assert rows.labels.tolist() == [1, 0]
    assert rows.crowd.tolist() == [False, True]
    assert rows.difficult.tolist() == [True, False]
    assert rows.area.tolist() == [3.5, 36.0]  # the missing one is the box's
    assert rows.ids.tolist() == [5, 9]
    assert rows.segmentations == [SQUARE, None]
    assert index.annotations(1).boxes.shape == (0, 4)
    assert index.annotations(-1).ids.tolist() == [3]  # ids count from 1 through the data set
    with pytest.raises(IndexError):
        index.path(3)


def test_what_voc_annotates_of_an_object_is_carried() -> None:
    """The view of an object and the like are kept for writers, and do not change the fingerprint."""
    plain = DetectionIndex.build(CLASSES, records(), root="/d")
    assert plain.poses == ["Unspecified"] * 3
    assert not plain.truncated.any()
    made = records()
    made[0].truncated, made[0].occluded, made[0].poses = [True, False], [False, True], ["Right", "Frontal"]
    index = DetectionIndex.build(CLASSES, made, root="/d").subset([2, 0])
    assert index.poses == ["Unspecified", "Right", "Frontal"]
    assert index.truncated.tolist() == [False, True, False]
    assert index.occluded.tolist() == [False, False, True]
    assert index.crowd.tolist() == [False, False, True]
    assert index.difficult.tolist() == [False, True, False]
    assert index.fingerprint() == plain.subset([2, 0]).fingerprint()
    made[0].poses = ["Right"]
    with pytest.raises(InputError, match="2 boxes but 1 poses"):
        DetectionIndex.build(CLASSES, made, root="/d")


def test_masks() -> None:
    index = DetectionIndex.build(CLASSES, records(), root="/d")
    masks = index.masks(0)
    assert masks.shape == (2, 10, 20)
    assert masks.dtype == bool
    expected = np.zeros((10, 20), dtype=bool)
    expected[1:5, 1:5] = True
    np.testing.assert_array_equal(masks[0], expected)
    assert masks[1].sum() == 36  # no segmentation of its own: the box
    assert index.masks(1).shape == (0, 30, 10)
    plain = DetectionIndex.build(CLASSES, records()[1:], root="/d")
    assert not plain.has_masks
    assert plain.annotations(1).segmentations is None
    with pytest.raises(InputError, match="boxes only"):
        plain.masks(0)


def test_subset() -> None:
    index = DetectionIndex.build(CLASSES, records(), root="/d", name="train")
    part = index.subset([2, 0, 0])
    assert [part.image_id(i) for i in range(3)] == [3, 11, 11]
    assert part.annotations(0).ids.tolist() == [3]
    for i in (1, 2):
        assert part.path(i) == index.path(0)
        assert part.annotations(i).segmentations == [SQUARE, None]
        np.testing.assert_array_equal(part.annotations(i).boxes, index.annotations(0).boxes)
    assert part.name == "train"
    assert not index.subset([1, 2]).has_masks
    assert len(index.subset([])) == 0
    assert index.subset(range(3)).fingerprint() == index.fingerprint()


def test_select_boxes() -> None:
    index = DetectionIndex.build(CLASSES, records(), root="/d", name="train")
    assert index.select_boxes(np.ones(3, dtype=bool)).fingerprint() == index.fingerprint()
    part = index.select_boxes(np.array([True, False, True]))
    assert [part.annotations(i).ids.tolist() for i in range(3)] == [[5], [], [3]]
    assert part.annotations(0).segmentations == [SQUARE]
    assert part.difficult.tolist() == [True, False]
    bare = index.select_boxes(np.array([False, True, False]))
    assert not bare.has_masks
    assert bare.annotations(0).crowd.tolist() == [True]
    assert [len(bare.annotations(i).labels) for i in range(3)] == [1, 0, 0]


def test_fingerprint_sees_content_and_not_the_place() -> None:
    def print_of(**changes: object) -> str:
        first = records()[0]
        for name, value in changes.items():
            setattr(first, name, value)
        return DetectionIndex.build(CLASSES, [first], root="/d").fingerprint()

    assert len(print_of()) == 64
    assert print_of() == print_of(ids=[1, 2])
    changes = [{"path": Path("/d/i/b.jpg")}, {"labels": [0, 0]}, {"height": 11}, {"crowd": [True, True]}]
    changes += [{"boxes": [[1, 2, 4, 8.001], [0, 0, 6, 6]]}, {"segmentations": [None, None]}]
    assert len({print_of(), *(print_of(**change) for change in changes)}) == len(changes) + 1
    moved = records()[0]
    moved.path = Path("/elsewhere/i/a.jpg")
    assert DetectionIndex.build(CLASSES, [moved], root="/elsewhere").fingerprint() == print_of()


def test_to_coco_keeps_figures_and_ids() -> None:
    content = DetectionIndex.build(CLASSES, records(), root="/d").to_coco()
    assert content["categories"] == [{"id": 7, "name": "cat"}, {"id": 90, "name": "dog"}]
    assert content["images"][0] == {"id": 11, "file_name": "i/a.jpg", "width": 20, "height": 10}
    first, second, third = content["annotations"]
    assert first == {
        "id": 5, "image_id": 11, "category_id": 90, "bbox": [1, 2, 3, 6], "area": 3.5, "iscrowd": 0, "difficult": 1,
        "segmentation": SQUARE,
    }  # fmt: skip
    assert (second["iscrowd"], "segmentation" in second) == (1, False)
    assert third["bbox"] == [0.1, 0.2, 0.3, 0.5]  # bit for bit, since boxes are not converted to corners


@pytest.mark.parametrize("ids", [[0, 4], [4, 4], [-1, 2]])
def test_to_coco_renumbers_ids_that_the_evaluation_mixes_up(ids: list[int]) -> None:
    record = records()[0]
    record.ids = ids
    index = DetectionIndex.build(CLASSES, [record], root="/d")
    assert [row["id"] for row in index.to_coco()["annotations"]] == [1, 2]
    assert index.annotations(0).ids.tolist() == ids


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"labels": [0, 2]}, r"a\.jpg: a label is not one of 0\.\.1"),
        ({"labels": [0]}, r"a\.jpg: 2 boxes but 1 labels"),
        ({"crowd": [True]}, "2 boxes but 1 crowd"),
        ({"areas": [1.0]}, "2 boxes but 1 areas"),
        ({"segmentations": [None]}, "2 boxes but 1 segmentations"),
    ],
)
def test_build_refuses(change: dict[str, object], message: str) -> None:
    record = records()[0]
    for name, value in change.items():
        setattr(record, name, value)
    with pytest.raises(InputError, match=message):
        DetectionIndex.build(CLASSES, [record])


def test_pickle_is_small() -> None:
    """100,000 boxes in 10,000 images take 53 bytes per box, and 32 bytes and the path per image, as documented."""
    rng = np.random.default_rng(0)
    boxes = rng.uniform(0, 100, (10, 4))
    boxes[:, 2:] += 100
    many = [
        ImageRecord(path=Path(f"/d/{i:012d}.jpg"), image_id=i, height=300, width=400, boxes=boxes, labels=[0] * 10)
        for i in range(10_000)
    ]
    index = DetectionIndex.build(CLASSES, many, root="/d")
    size = len(pickle.dumps(index))
    path = len("000000000000.jpg")
    assert size < 100_000 * 53 + 10_000 * (32 + path) + 4096
    copy = pickle.loads(pickle.dumps(index))
    assert copy.fingerprint() == index.fingerprint()
    assert copy.path(9999) == Path("/d/000000009999.jpg")


def test_pickle_with_masks_adds_the_text(tmp_path: Path) -> None:
    record = ImageRecord(path=Path("/d/a.jpg"), image_id=1, height=9, width=9, boxes=[[1, 1, 5, 5]] * 1000,
                         labels=[0] * 1000, segmentations=[SQUARE] * 1000)  # fmt: skip
    size = len(pickle.dumps(DetectionIndex.build(CLASSES, [record])))
    assert size < 1000 * (53 + 8 + len("[[1.0,1.0,5.0,1.0,5.0,5.0,1.0,5.0]]")) + 4096


def test_every_array_travels_apart_from_the_pickle() -> None:
    """A spawned loader worker copies only the rest: classes, names and a few numbers for any size of data set."""
    record = ImageRecord(path=Path("/d/a.jpg"), image_id=1, height=9, width=9, boxes=[[1, 1, 5, 5]] * 1000,
                         labels=[0] * 1000, segmentations=[SQUARE] * 1000)  # fmt: skip
    buffers: list[pickle.PickleBuffer] = []
    index = DetectionIndex.build(CLASSES, [record])
    rest = pickle.dumps(index, protocol=5, buffer_callback=buffers.append)
    assert len(rest) < 2000
    copy = pickle.loads(rest, buffers=buffers)
    assert copy.fingerprint() == index.fingerprint()
    assert copy.annotations(0).segmentations == index.annotations(0).segmentations
    assert DetectionIndex.build(CLASSES, []).fingerprint() != index.fingerprint()
