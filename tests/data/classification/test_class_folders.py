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


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write_image(tmp_path / "train" / "cat" / "0.png")
    for name in ("1.dng", "2.jxl"):
        (tmp_path / "train" / "cat" / name).write_bytes(b"x")
    with pytest.warns(UserWarning, match=r"left out .*cat/1\.dng: camera raw files are not read.*and 1 more"):
        assert open_folders(tmp_path)["train"].names.tolist() == [b"cat/0.png"]
    (tmp_path / "train" / "cat" / "0.png").unlink()
    with pytest.raises(InputError, match=r"2\.jxl: JPEG XL images are not read; convert it"):
        open_folders(tmp_path)
