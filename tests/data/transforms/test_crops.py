"""Class folders and their crops: order, errors, randomness by position in the stream."""

import os
from pathlib import Path

import pytest
import torch

from boxwright.data.classification.folders import open_folders
from boxwright.data.transforms.crops import CropConfig, CropPass, CropStream, centre_crop, random_crop
from boxwright.structures import InputError
from tests.support.dataset_files import class_folders


def test_labels_follow_the_names_of_the_folders(tmp_path: Path) -> None:
    splits = open_folders(class_folders(tmp_path))
    assert list(splits) == ["train", "val"]
    train = splits["train"]
    assert train.classes == ("blue", "red")
    assert train.labels.tolist() == [0] * 4 + [1] * 4
    assert train.path(5) == tmp_path / "train" / "red" / "1.png"
    assert train.read(5)[..., 0].mean() > train.read(5)[..., 2].mean()
    assert train.subset([7, 0]).labels.tolist() == [1, 0]
    assert train.fingerprint() != splits["val"].subset([0]).fingerprint()


def test_folders_without_splits_are_for_training(tmp_path: Path) -> None:
    class_folders(tmp_path)
    assert list(open_folders(tmp_path / "train")) == ["train"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / "train" / "green").mkdir(), "green: this class folder has no image"),
        (lambda root: (root / "val" / "red").rename(root / "val" / "rot"), "different class folders, such as 're"),
        (lambda root: (root / "train").rename(root / "test"), "no folder train"),
    ],
)
def test_bad_folders_are_named(tmp_path: Path, change, message: str) -> None:
    class_folders(tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=message):
        open_folders(tmp_path)


def test_a_class_cannot_be_called_train(tmp_path: Path) -> None:
    flat = class_folders(tmp_path) / "train"
    (flat / "red").rename(flat / "train")
    with pytest.raises(InputError, match="train is the name of a split, but beside 'blue' it seems to be a class"):
        open_folders(flat)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such folder"):
        open_folders(tmp_path / "nowhere")
    with pytest.raises(InputError, match="has no class folders"):
        open_folders(tmp_path)


def test_the_order_is_that_of_the_names_whatever_the_file_system_gives(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nested folders too. Files that macOS and others leave beside images are ignored."""
    class_folders(tmp_path, splits=("train",))
    red = tmp_path / "train" / "red"
    for place, name in (("b", "0"), ("a", "1"), ("a/z", "2"), ("a/y", "3")):
        (red / place).mkdir(parents=True, exist_ok=True)
        (red / f"{name}.png").rename(red / place / f"{name}.png")
    before = open_folders(tmp_path)["train"]
    (red / "._4.png").write_bytes(b"what the Finder knows of 4.png")
    (red / ".thumbnails").mkdir()
    (red / ".thumbnails" / "4.png").write_bytes((red / "a" / "1.png").read_bytes())
    scan = os.scandir

    class Backwards:
        """File system that lists names in reverse order."""

        def __init__(self, path) -> None:
            self.entries = iter(sorted(scan(path), key=lambda entry: entry.name, reverse=True))

        def __iter__(self):
            return self.entries

        def __next__(self):
            return next(self.entries)

        def __enter__(self):
            return self

        def __exit__(self, *_) -> None: ...

        def close(self) -> None: ...

    monkeypatch.setattr(os, "scandir", Backwards)
    train = open_folders(tmp_path)["train"]
    names = [train.path(i).relative_to(red).as_posix() for i in range(4, len(train))]
    assert names == ["a/1.png", "a/y/3.png", "a/z/2.png", "b/0.png"]
    assert train.fingerprint() == before.fingerprint()


def test_the_name_is_that_of_the_folder_that_was_given(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = class_folders(tmp_path / "shapes")
    assert open_folders(data)["train"].name == "shapes"
    monkeypatch.chdir(data)
    assert open_folders(".")["val"].name == "shapes"
    (data / "train").rename(tmp_path / "flat")
    monkeypatch.chdir(tmp_path)
    assert open_folders("flat")["train"].subset([0]).name == "flat"


@pytest.mark.parametrize("size", [(3, 200), (200, 3), (20, 24), (1, 1)])
def test_views_have_one_size_whatever_the_picture(size: tuple[int, int]) -> None:
    config = CropConfig(size=16, eval_size=18)
    image = torch.randint(0, 256, (3, *size), dtype=torch.uint8)
    for seed in range(5):
        assert random_crop(image, config, torch.Generator().manual_seed(seed)).shape == (3, 16, 16)
    assert centre_crop(image, config).shape == (3, 16, 16)


def test_a_full_crop_without_changes_is_the_picture() -> None:
    config = CropConfig(size=16, eval_size=16, scale=(1, 1), aspect=(1, 1), flip=0, jitter=0)
    image = torch.randint(0, 256, (3, 16, 16), dtype=torch.uint8)
    assert torch.equal(random_crop(image, config, torch.Generator()), image)
    assert torch.equal(centre_crop(image, config), image)
    flipped = random_crop(image, CropConfig(size=16, eval_size=16, scale=(1, 1), aspect=(1, 1), flip=1, jitter=0),
                          torch.Generator())  # fmt: skip
    assert torch.equal(flipped, image.flip(-1))


def test_the_stream_depends_on_seed_and_place_alone(tmp_path: Path) -> None:
    train = open_folders(class_folders(tmp_path))["train"]
    config = CropConfig(size=8, eval_size=8)
    with_workers = CropStream(train, config, 4, seed=1, workers=2)
    alone = CropStream(train, config, 4, seed=1)
    batches = [next(alone) for _ in range(4)]
    for batch in batches:
        other = next(with_workers)
        assert torch.equal(batch.pixels, other.pixels)
        assert torch.equal(batch.indexes, other.indexes)
    with_workers.close()
    assert sorted(torch.cat([b.indexes for b in batches[:2]]).tolist()) == list(range(8)), "every image once an epoch"
    assert not torch.equal(batches[0].indexes, batches[2].indexes)
    alone.load_state_dict({"batches": 3})
    assert torch.equal(next(alone).pixels, batches[3].pixels)
    halves = [CropStream(train, config, 2, seed=1, rank=rank, world=2) for rank in (0, 1)]
    assert torch.equal(torch.cat([next(half).pixels for half in halves]), batches[0].pixels)


def test_a_pass_sees_every_image_once(tmp_path: Path) -> None:
    train = open_folders(class_folders(tmp_path))["train"]
    for world in (1, 2):
        seen = [
            batch.indexes
            for rank in range(world)
            for batch in CropPass(train, CropConfig(size=8, eval_size=8), 3, rank=rank, world=world)
        ]
        assert sorted(torch.cat(seen).tolist()) == list(range(8))


def test_a_damaged_picture_is_named(tmp_path: Path) -> None:
    train = open_folders(class_folders(tmp_path))["train"]
    train.path(2).write_bytes(b"not an image")
    with pytest.raises(InputError, match=r"blue/2\.png"):
        list(CropPass(train, CropConfig(size=8, eval_size=8), 3))
