"""Data sets divided anew: every image once and with its objects, classes in proportion, groups together."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.app.choice.holdout import hold_back
from boxwright.data.editing.split import SplitRules, split_dataset
from boxwright.data.formats.opening import open_dataset, open_splits
from boxwright.data.formats.writing.whole import CopyOptions
from boxwright.structures import InputError
from tests.support.photographs import encoded, photograph
from tests.support.split_sets import many, names_by_split, objects_by_image, write_labelled


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize("to", ["coco", "voc", "yolo"])
@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_every_image_is_in_one_split_with_its_objects(tmp_path: Path, format: str, to: Any) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(60)}, format)
    rules = SplitRules(val=0.2, test=0.1)
    report = split_dataset(data, tmp_path / "new", rules, CopyOptions(format=to))
    assert (report.source_format, report.format, report.output) == (format, to, str(tmp_path / "new"))
    assert objects_by_image(tmp_path / "new") == objects_by_image(data)
    splits = open_splits(tmp_path / "new")
    assert {name: len(index) for name, index in splits.items()} == {"train": 42, "val": 12, "test": 6}
    images = {c.name: c.images for c in report.classes}
    assert images == {
        "ant": {"train": 21, "val": 6, "test": 3},
        "bee": {"train": 14, "val": 4, "test": 2},
        "cow": {"train": 4, "val": 1, "test": 1},
    }
    assert [c.objects["train"] for c in report.classes] == [21, 28, 4]
    assert [report.splits[name].empty for name in splits] == [14, 4, 2]


def test_the_format_stays_if_none_is_asked_for_and_masks_are_kept(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(10)}, polygons=True)
    report = split_dataset(data, tmp_path / "new")
    assert report.format == "coco"
    assert names_by_split(tmp_path / "new").keys() == {"train", "val"}
    assert [len(names) for names in names_by_split(tmp_path / "new").values()] == [8, 2]  # the default
    assert objects_by_image(tmp_path / "new") == objects_by_image(data)


def test_images_can_be_linked(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(10)}, "yolo")
    split_dataset(data, tmp_path / "new", options=CopyOptions(images="link"))
    index = open_splits(tmp_path / "new")["val"]
    assert all(index.path(i).samefile(data / "images/train" / index.path(i).name) for i in range(len(index)))


@pytest.mark.parametrize("format", ["coco", "voc", "yolo"])
def test_splits_are_put_together_and_divided_anew(tmp_path: Path, format: str) -> None:
    parts = {"train": many(8, "a{}.png"), "val": many(7, "b{}.png"), "test": many(5, "c{}.png")}
    data = write_labelled(tmp_path / "data", parts, format)
    report = split_dataset(data, tmp_path / "new", SplitRules(fractions=(0.5, 0.25, 0.25)))
    assert "the splits train, val, test are divided anew" in report.announcements
    assert objects_by_image(tmp_path / "new") == objects_by_image(data)
    assert [len(names) for names in names_by_split(tmp_path / "new").values()] == [10, 5, 5]
    assert {name[0] for name in names_by_split(tmp_path / "new")["train"]} == {"a", "b", "c"}


def test_images_of_one_name_in_two_splits_are_both_kept(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": {"a.png": ["ant"]}, "val": {"a.png": ["bee"]}, "test": many(4)})
    shutil.copy(data / "test/00.png", data / "val/a.png")  # else both are drawn alike
    split_dataset(data, tmp_path / "new", SplitRules(val=2))
    splits = open_splits(tmp_path / "new")
    names = [index.classes.names[label] for index in splits.values() for label in index.labels]
    assert sum(len(index) for index in splits.values()) == 6
    assert sorted(names) == sorted(["ant", "bee", *(label for labels in many(4).values() for label in labels)])


def test_a_split_can_be_kept(tmp_path: Path) -> None:
    parts = {"train": many(20, "a{}.png"), "val": many(7, "b{}.png")}
    data = write_labelled(tmp_path / "data", parts)
    report = split_dataset(data, tmp_path / "new", SplitRules(keep=("valid",), test=0.25))
    found = names_by_split(tmp_path / "new")
    assert found["val"] == sorted(parts["val"])
    assert [len(found["train"]), len(found["test"])] == [15, 5]
    assert sorted(found["train"] + found["test"]) == sorted(parts["train"])
    assert list(report.splits) == ["train", "val", "test"]
    assert not [note for note in report.announcements if "divided anew" in note]


def test_a_kept_split_with_images_of_the_same_group_is_noted(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(20, "v{:02d}.png"), "test": many(3, "v1{}x.png")})
    rules = SplitRules(keep=("test",), group_by=r"v\d\d")
    report = split_dataset(data, tmp_path / "new", rules, dry_run=True)
    note = next(note for note in report.announcements if "together with" in note)
    assert note.startswith(
        "3 images belong together with images of test, which is kept, so that its metrics may be too"
    )
    other = split_dataset(data, tmp_path / "new", SplitRules(keep=("test",), group_by=r".+\."), dry_run=True)
    assert not [note for note in other.announcements if "together with" in note]


@pytest.mark.parametrize("seed", range(3))
def test_groups_stay_in_one_split(tmp_path: Path, seed: int) -> None:
    images = {f"video{i // 5}_{i % 5}.png": labels for i, labels in enumerate(many(60).values())}
    data = write_labelled(tmp_path / "data", {"all": images}, "voc")
    rules = SplitRules(val=0.25, group_by="(.+)_", seed=seed)
    report = split_dataset(data, tmp_path / "new", rules)
    found = names_by_split(tmp_path / "new")
    assert [len(found["train"]), len(found["val"])] == [45, 15]
    assert not {n.split("_")[0] for n in found["train"]} & {n.split("_")[0] for n in found["val"]}
    assert "by --group-by, the 60 images are 12 groups of 5 images" in report.announcements


def test_sizes_that_groups_do_not_allow_are_noted(tmp_path: Path) -> None:
    images = {f"{'ab'[i // 9]}{i}.png": ["ant"] for i in range(12)}
    data = write_labelled(tmp_path / "data", {"train": images})
    report = split_dataset(data, tmp_path / "new", SplitRules(val=0.5, group_by="^."))
    assert [len(names) for names in names_by_split(tmp_path / "new").values()] in ([9, 3], [3, 9])
    assert any("images instead of 6, since groups stay together" in note for note in report.announcements)


def test_near_duplicates_and_copies_stay_in_one_split(tmp_path: Path) -> None:
    names = {f"{kind}{seed}.png": ["ant"] for seed in range(6) for kind in "abc"}
    data = write_labelled(tmp_path / "data", {"train": names})
    for seed in range(6):
        photograph(seed).save(data / f"train/a{seed}.png")
        shutil.copy(data / f"train/a{seed}.png", data / f"train/b{seed}.png")
        encoded(photograph(seed)).save(data / f"train/c{seed}.png")
    for file in data.rglob("*.json"):
        file.write_text(file.read_text().replace('"width":60,"height":40', '"width":320,"height":240').replace(
            '"height":40,"width":60', '"height":240,"width":320'
        ))  # fmt: skip

    def together(split: list[str], kinds: str) -> bool:
        return all(
            len({kind + name[1:] in split for kind in kinds}) == 1 for name in split
        )  # fmt: skip

    report = split_dataset(data, tmp_path / "new", SplitRules(val=6, near_duplicates=True))
    found = names_by_split(tmp_path / "new")
    assert [len(found["train"]), len(found["val"])] == [12, 6]
    assert all(together(split, "abc") for split in found.values())
    said = "18 images are near-duplicates of another one and stay together, in 6 groups, the largest of 3"
    assert said in report.announcements
    for seed in range(3):
        split_dataset(data, tmp_path / f"exact{seed}", SplitRules(val=6, seed=seed))
        assert all(together(split, "ab") for split in names_by_split(tmp_path / f"exact{seed}").values())


def test_ten_images_of_one_class(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": {f"{i}.png": ["ant"] for i in range(10)}}, classes=("ant",))
    report = split_dataset(data, tmp_path / "new", SplitRules(val=0.2, test=0.1))
    assert [count.images for count in report.splits.values()] == [7, 2, 1]
    assert [c.objects for c in report.classes] == [{"train": 7, "val": 2, "test": 1}]


@pytest.mark.parametrize("seed", range(4))
def test_a_class_with_one_image_is_trained_on_and_its_absence_noted(tmp_path: Path, seed: int) -> None:
    images = {f"{i}.png": ["ant"] for i in range(20)} | {"rare.png": ["ant", "cow"]}
    data = write_labelled(tmp_path / "data", {"train": images})
    report = split_dataset(data, tmp_path / "new", SplitRules(val=0.2, seed=seed))
    assert report.classes[2].images == {"train": 1, "val": 0}
    assert [note for note in report.announcements if "has no image with" in note] == [
        "val has no image with cow (1 in all): too few images or groups have it"
    ]


def test_images_without_any_object(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": {f"{i}.png": [] for i in range(10)}})
    report = split_dataset(data, tmp_path / "new", SplitRules(val=3))
    assert [(c.images, c.objects, c.empty) for c in report.splits.values()] == [(7, 0, 7), (3, 0, 3)]


def test_the_same_seed_gives_the_same_splits_and_another_one_others(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(40)})
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        split_dataset(data, tmp_path / name, SplitRules(seed=seed))
    assert names_by_split(tmp_path / "a") == names_by_split(tmp_path / "b") != names_by_split(tmp_path / "c")


def test_the_validation_images_are_those_that_training_holds_back(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(40)})
    split_dataset(data, tmp_path / "new")
    held = hold_back(open_dataset(data)).val
    assert held is not None
    assert names_by_split(tmp_path / "new")["val"] == [held.path(i).name for i in range(len(held))]


def test_a_dry_run_counts_as_the_run_does_and_writes_nothing(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": many(30)})
    before = contents(tmp_path)
    dry = split_dataset(data, tmp_path / "new", dry_run=True)
    assert contents(tmp_path) == before
    assert dry.output is None
    real = split_dataset(data, tmp_path / "new")
    assert (dry.splits, dry.classes) == (real.splits, real.classes)
    assert np.all([isinstance(key, str) for key in real.to_dict()["splits"]])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"val": 1.5}, "val 1.5: give a fraction below 1, such as 0.2, or a whole number of images"),
        ({"val": -1}, "val -1: give a fraction"),
        ({"val": float("nan")}, "val nan: give a fraction"),
        ({"val": 0.01}, "data: val 0.01: is less than one of the 20 images; give at least 0.05, or a number of images"),
        ({"val": 0.7, "test": 0.3}, "val 0.7 and test 0.3: take all of the 20 images, so that none is left for train"),
        ({"val": 0}, "neither val nor test gets images; give --val or --test a fraction, such as 0.2"),
        ({"fractions": (1.0, 0.0, 0.0)}, "neither val nor test gets images"),
        ({"fractions": (0.7, 0.2, 0.2)}, "--fractions 0.7 0.2 0.2: add up to 1.1; give fractions that add up to 1"),
        (
            {"fractions": (70, 20, 10)},
            "--fractions 70 20 10: add up to 100; give fractions that add up to 1, here 0.7 0",
        ),
        ({"fractions": (0.8,)}, "--fractions 0.8: give two or three, for train, val and test"),
        ({"fractions": (0.25,) * 4}, "give two or three"),
        ({"fractions": (1.2, -0.2)}, "--fractions 1.2 -0.2: give numbers from 0 to 1"),
        ({"fractions": (float("nan"), 0.2)}, "--fractions nan 0.2: give numbers from 0 to 1"),
        ({"fractions": (0.0, 1.0)}, "the first is that of train, which needs images"),
        ({"fractions": (0.8, 0.2), "val": 0.2}, "--fractions and --val or --test exclude each other; give one"),
        ({"seed": -1}, "--seed -1: give a whole number of 0 or more"),
        ({"keep": ("tset",)}, "data has no such split; it has train, dev2"),
        ({"keep": ("train",)}, "--keep train: train is one of the new splits; keep another one"),
        ({"keep": ("train", "dev2")}, "--keep train: train is one of the new splits"),
        ({"group_by": "zzz"}, "--group-by zzz: is found in no name of the 20 images, such as 00.png"),
        ({"group_by": "png"}, "--group-by png: finds 'png' in all 20 images"),
        ({"group_by": "^[0-9]", "test": 0.2}, "20 images in 2 groups that stay together: too few for the 3 splits"),
    ],
)
def test_rules_that_cannot_be_are_refused(tmp_path: Path, rules: dict[str, Any], message: str) -> None:
    images = list(many(20).items())
    data = write_labelled(tmp_path / "data", {"train": dict(images[:15]), "dev2": dict(images[15:])})
    before = contents(tmp_path)
    with pytest.raises(InputError) as caught:
        split_dataset(data, tmp_path / "new", SplitRules(**rules))
    assert message in str(caught.value)
    assert contents(tmp_path) == before


def test_data_that_cannot_be_divided_are_refused(tmp_path: Path) -> None:
    data = write_labelled(tmp_path / "data", {"train": {"a.png": ["ant"]}})
    with pytest.raises(InputError, match="take all of the 1 images"):
        split_dataset(data, tmp_path / "new", SplitRules(val=1))
    with pytest.raises(InputError, match=r"data: val 0\.2: is less than one of the 1 images"):
        split_dataset(data, tmp_path / "new")
    other = write_labelled(tmp_path / "other", {"test": many(4)})
    with pytest.raises(InputError, match="no image is left to divide; keep fewer splits than test"):
        split_dataset(other, tmp_path / "new", SplitRules(keep=("test",)))
    with pytest.raises(InputError, match="exists and is not empty; name a new folder"):
        split_dataset(data, other)
    (data / "train/a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"a\.png"):
        split_dataset(data, tmp_path / "new", SplitRules(val=1))
    assert not (tmp_path / "new").exists()
