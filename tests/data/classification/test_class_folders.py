"""Class folders with links, and with images that cannot be read."""

from pathlib import Path

import pytest

from boxwright.data.classification.folders import open_folders
from boxwright.structures import InputError
from tests.support.dataset_files import write_image


def test_linked_folders_of_a_class_are_read(tmp_path: Path) -> None:
    write_image(tmp_path / "data" / "train" / "cat" / "0.png")
    write_image(tmp_path / "data" / "train" / "dog" / "0.png", seed=1)
    write_image(tmp_path / "more" / "1.png", seed=2)
    (tmp_path / "data" / "train" / "dog" / "more").symlink_to(tmp_path / "more")
    split = open_folders(tmp_path / "data")["train"]
    assert split.names.tolist() == [b"cat/0.png", b"dog/0.png", b"dog/more/1.png"]
    assert split.labels.tolist() == [0, 1, 1]


def test_other_words_for_a_split(tmp_path: Path) -> None:
    for number, place in enumerate(("training/cat", "training/dog", "valid/cat", "valid/dog")):
        write_image(tmp_path / place / "0.png", seed=number)
    assert {name: len(split) for name, split in open_folders(tmp_path).items()} == {"train": 2, "val": 2}
    write_image(tmp_path / "val" / "cat" / "0.png")
    with pytest.raises(InputError, match="holds val, valid; name the one you mean"):
        open_folders(tmp_path)


def test_a_class_with_the_name_of_a_split(tmp_path: Path) -> None:
    for number, place in enumerate(("dev", "ops")):
        write_image(tmp_path / place / "0.png", seed=number)
    assert open_folders(tmp_path)["train"].classes == ("dev", "ops")


def test_validation_images_alone_are_not_trained_on(tmp_path: Path) -> None:
    for number, place in enumerate(("valid/cat", "valid/dog")):
        write_image(tmp_path / place / "0.png", seed=number)
    with pytest.raises(InputError, match="has val but no folder train; put the training images into one"):
        open_folders(tmp_path)


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "cat" / "0.png")
    for name in ("1.dng", "2.jxl"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"left out .*cat/1\.dng: camera raw files are not read.*and 1 more"):
        assert open_folders(tmp_path)["train"].names.tolist() == [b"cat/0.png"]
    (tmp_path / "train" / "cat" / "0.png").unlink()
    with pytest.raises(InputError, match=r"2\.jxl: JPEG XL images are not read; convert it"):
        open_folders(tmp_path)
