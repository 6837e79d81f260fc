"""Dividing images over splits: every class in proportion, groups together, sizes as asked for."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.splitting import assign_splits, class_counts, group_numbers, split_index, split_sizes
from boxwright.structures import Classes, InputError


def known_counts() -> np.ndarray:
    """60 images of 3 classes: 30 have class 0, 20 class 1, 10 class 2 (with two objects), and 15 have none."""
    counts = np.zeros((60, 3), dtype=np.int32)
    counts[:30, 0] = 1
    counts[25:45, 1] = 3
    counts[20:30, 2] = 2
    return counts


def presence(counts: np.ndarray) -> np.ndarray:
    """Images with each class, and without any, bool ``[N, K + 1]``."""
    return np.concatenate([counts > 0, (counts == 0).all(axis=1, keepdims=True)], axis=1)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("shares", [{"val": 0.2}, {"val": 0.25, "test": 0.1}, {"val": 7}, {"test": 13, "val": 0.1}])
def test_every_class_is_within_one_image_of_its_share(shares: dict[str, float], seed: int) -> None:
    counts = known_counts()
    sizes = split_sizes(60, shares)
    splits = assign_splits(counts, sizes, seed=seed)
    assert {name: len(rows) for name, rows in splits.items()} == sizes
    assert sorted(np.concatenate(list(splits.values()))) == list(range(60))
    for name, rows in splits.items():
        ideal = presence(counts).sum(axis=0) * sizes[name] / 60
        assert (np.abs(presence(counts)[rows].sum(axis=0) - ideal) <= 1).all()


def test_many_rare_classes_are_within_one_image_too() -> None:
    rng = np.random.default_rng(0)
    counts = (rng.random((600, 40)) < rng.random(40) ** 2 * 0.1) * rng.integers(1, 5, (600, 40))
    sizes = split_sizes(600, {"val": 0.2, "test": 0.1})
    splits = assign_splits(counts, sizes, seed=1)
    for name, rows in splits.items():
        assert len(rows) == sizes[name]
        ideal = presence(counts).sum(axis=0) * sizes[name] / 600
        assert (np.abs(presence(counts)[rows].sum(axis=0) - ideal) <= 1).all()


def test_objects_are_balanced_where_images_leave_a_choice() -> None:
    counts = np.array([[1]] * 20 + [[9]] * 20)  # half of the images have nine objects, half one
    splits = assign_splits(counts, {"train": 30, "val": 10}, seed=3)
    assert counts[splits["val"]].sum() == 50  # of 200


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_together(seed: int) -> None:
    counts = known_counts()
    groups = np.random.default_rng(seed).permutation(np.repeat(np.arange(20), 3))  # 20 videos of 3 images
    splits = assign_splits(counts, {"train": 48, "val": 12}, groups=groups, seed=seed)
    assert not set(groups[splits["train"]]) & set(groups[splits["val"]])
    assert len(splits["val"]) == 12
    of_val = presence(counts)[splits["val"]].sum(axis=0)
    assert (np.abs(of_val - [6, 4, 2, 3]) <= 2).all()


def test_groups_of_very_different_sizes_come_close_to_the_sizes_asked_for() -> None:
    groups = np.repeat(np.arange(7), [30, 11, 8, 5, 3, 2, 1])
    splits = assign_splits(known_counts(), {"train": 48, "val": 12}, groups=groups, seed=0)
    assert not set(groups[splits["train"]]) & set(groups[splits["val"]])
    assert 10 <= len(splits["val"]) <= 14


def test_no_split_is_empty_even_if_one_group_is_most_of_the_images() -> None:
    groups = np.array([0] * 58 + [1, 1])
    splits = assign_splits(known_counts(), {"train": 6, "val": 54}, groups=groups)
    assert sorted(len(rows) for rows in splits.values()) == [2, 58]
    groups = np.array([0] * 57 + [1, 1, 2])
    splits = assign_splits(known_counts(), {"train": 42, "val": 12, "test": 6}, groups=groups)
    assert sorted(len(rows) for rows in splits.values()) == [1, 2, 57]


def test_same_seed_same_split_and_another_seed_another() -> None:
    def val(seed: int) -> list[int]:
        return assign_splits(known_counts(), {"train": 48, "val": 12}, seed=seed)["val"].tolist()

    assert val(0) == val(0)
    assert len({tuple(val(seed)) for seed in range(4)}) == 4


def test_images_without_any_object_and_without_classes_are_divided_too() -> None:
    splits = assign_splits(np.zeros((10, 0), dtype=np.int32), {"train": 8, "val": 2})
    assert [len(rows) for rows in splits.values()] == [8, 2]
    splits = assign_splits(np.zeros((10, 5), dtype=np.int32), {"train": 7, "val": 3})
    assert [len(rows) for rows in splits.values()] == [7, 3]


@pytest.mark.parametrize(
    ("shares", "sizes"),
    [
        ({"val": 0.2}, {"train": 48, "val": 12}),
        ({"val": 0.2, "test": 0.1}, {"train": 42, "val": 12, "test": 6}),
        ({"val": 5, "test": 0}, {"train": 55, "val": 5}),
        ({"val": 1}, {"train": 59, "val": 1}),
        ({"val": 0.025}, {"train": 58, "val": 2}),  # 1.5 images
    ],
)
def test_shares_become_numbers_of_images(shares: dict[str, float], sizes: dict[str, int]) -> None:
    assert split_sizes(60, shares) == sizes


@pytest.mark.parametrize(
    ("shares", "message"),
    [
        ({"val": -0.1}, "val -0.1: give a fraction below 1, such as 0.2, or a whole number of images"),
        ({"val": 1.5}, "val 1.5: give a fraction below 1"),
        ({"val": float("nan")}, "val nan: give a fraction"),
        ({"val": float("inf")}, "val inf: give a fraction"),
        ({"val": 0.001}, "val 0.001: is less than one of the 60 images; give at least 0.02, or a number of images"),
        ({"val": 0.6, "test": 0.4}, "val 0.6 and test 0.4: take all of the 60 images, so that none is left for train"),
        ({"val": 60}, "val 60: take all of the 60 images"),
        ({"val": 0.5, "test": 200}, "val 0.5 and test 200: take all"),
    ],
)
def test_shares_that_cannot_be_are_refused(shares: dict[str, float], message: str) -> None:
    with pytest.raises(InputError) as caught:
        split_sizes(60, shares)
    assert message in str(caught.value)


def test_fewer_groups_than_splits_are_refused() -> None:
    with pytest.raises(InputError, match="60 images in 1 group that stay together: too few for the 2 splits"):
        assign_splits(known_counts(), {"train": 48, "val": 12}, groups=np.zeros(60, dtype=np.int64))
    with pytest.raises(InputError, match="1 image: too few for the 2 splits train, val"):
        assign_splits(known_counts()[:1], {"train": 1, "val": 1})


def test_crowd_regions_and_difficult_boxes_count_as_no_objects() -> None:
    records = [
        ImageRecord(
            path=Path("a.png"),
            image_id=1,
            height=40,
            width=60,
            boxes=[[1, 1, 5, 5]] * 3,
            labels=[0, 1, 1],
            crowd=[False, False, True],
        ),
        ImageRecord(
            path=Path("b.png"), image_id=2, height=40, width=60, boxes=[[1, 1, 5, 5]], labels=[1], difficult=[True]
        ),
        ImageRecord(path=Path("c.png"), image_id=3, height=40, width=60),
    ]
    index = DetectionIndex.build(Classes.from_names(["cat", "dog"]), records)
    assert class_counts(index).tolist() == [[1, 1], [0, 0], [0, 0]]


def index_of(counts: np.ndarray) -> DetectionIndex:
    records = [
        ImageRecord(
            path=Path(f"{i}.png"),
            image_id=i + 1,
            height=40,
            width=60,
            boxes=[[1, 1, 5, 5]] * int(row.sum()),
            labels=np.repeat([0, 1, 2], row),
        )
        for i, row in enumerate(counts)
    ]
    return DetectionIndex.build(Classes.from_names(["a", "b", "c"]), records, root="my_data")


def test_an_index_is_divided_into_training_and_validation() -> None:
    index = index_of(known_counts())
    train, val = split_index(index, 0.2, seed=4)
    assert [len(train), len(val)] == [48, 12]
    assert sorted([*train, *val]) == list(range(60))
    assert (np.abs(presence(class_counts(index))[val].sum(axis=0) - [6, 4, 2, 3]) <= 1).all()
    again = split_index(index, 0.2, seed=4)
    assert [rows.tolist() for rows in again] == [train.tolist(), val.tolist()]
    groups = group_numbers([i // 5 for i in range(60)])
    _, val = split_index(index, 0.25, groups=groups)
    assert len(val) == 15
    assert len(set(groups[val])) == 3


def test_a_small_index_keeps_an_image_for_each_side() -> None:
    assert [len(rows) for rows in split_index(index_of(known_counts()[:3]), 0.05)] == [2, 1]
    assert [len(rows) for rows in split_index(index_of(known_counts()[:2]), 0.99)] == [1, 1]
    with pytest.raises(InputError, match=r"^my_data: 1 image: too few"):
        split_index(index_of(known_counts()[:1]), 0.2)
    with pytest.raises(InputError, match=r"validation share of 1\.5"):
        split_index(index_of(known_counts()), 1.5)


def test_equal_keys_get_one_number() -> None:
    assert group_numbers(["b", "a", "b", ("x", 1), ("x", 1)]).tolist() == [0, 1, 0, 2, 2]
