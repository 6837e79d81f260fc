"""Names of splits, classes and files that would leave the output or could not be read again."""

import os
from pathlib import Path

import pytest

from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import open_splits
from boxwright.data.formats.voc.writer import write_voc
from boxwright.data.formats.writing.names import unique_names
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import Classes, InputError
from tests.support.dataset_files import write_image

WRITERS = (write_coco, write_voc, write_yolo)


def index_of(folder: Path, names: list[str], classes: tuple[str, ...] = ("cat",)) -> DetectionIndex:
    """Write an image under each name and return them as an index of a box each."""
    records = []
    for number, name in enumerate(names, start=1):
        path = write_image(folder / name, 20, 30, seed=number, format="PNG")
        records.append(ImageRecord(path=path, image_id=number, height=20, width=30, boxes=[[1, 2, 9, 9]], labels=[0]))
    return DetectionIndex.build(Classes.from_names(classes), records, root=folder, name="train")


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
@pytest.mark.parametrize(
    "name", ["", ".", "..", "../out", "/tmp/out", "a/b", "a\\b", "a\0b", "a\nb", " train", ".hidden", "nul", "x" * 250]
)
def test_a_split_that_is_no_folder_name_is_refused(tmp_path: Path, write, name: str) -> None:  # type: ignore[no-untyped-def]
    index = index_of(tmp_path / "in", ["a.png"])
    with pytest.raises(InputError, match="cannot be the name of a folder"):
        write(tmp_path / "out", {name: index})
    assert [p.name for p in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_splits_that_differ_by_case_are_refused(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    index = index_of(tmp_path / "in", ["a.png"])
    with pytest.raises(InputError, match="'night' and 'Night': differ by case only"):
        write(tmp_path / "out", {"night": index, "Night": index})


@pytest.mark.parametrize(("write", "name"), [(write_coco, "annotations"), (write_yolo, "names"), (write_yolo, "path")])
def test_names_that_the_format_uses_are_refused(tmp_path: Path, write, name: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match="uses this name for something else"):
        write(tmp_path / "out", {name: index_of(tmp_path / "in", ["a.png"])})


def test_splits_of_other_classes_are_refused(tmp_path: Path) -> None:
    splits = {
        "train": index_of(tmp_path / "a", ["a.png"]),
        "val": index_of(tmp_path / "b", ["b.png"], classes=("dog",)),
    }
    for write in WRITERS:
        with pytest.raises(InputError, match="have different classes"):
            write(tmp_path / "out", splits)


def test_characters_that_xml_forbids_are_refused(tmp_path: Path) -> None:
    index = index_of(tmp_path / "in", ["a.png"], classes=("c\uffffat",))
    with pytest.raises(InputError, match=r"class 'c\\uffffat': XML cannot hold"):
        write_voc(tmp_path / "voc", {"train": index})
    write_yolo(tmp_path / "yolo", {"train": index})
    assert open_splits(tmp_path / "yolo")["train"].classes.names == ("c\uffffat",)


@pytest.mark.parametrize("write", WRITERS, ids=lambda write: write.__name__)
def test_file_names_that_are_not_utf_8(tmp_path: Path, write) -> None:  # type: ignore[no-untyped-def]
    """The name of the copy is, so that lists and XML files can hold it."""
    index = index_of(tmp_path / "in", [os.fsdecode(b"caf\xe9.png")])
    said = write(tmp_path / "out", {"train": index}).announcements
    assert said == [
        "1 images were renamed, because their names cannot be used everywhere: 'caf\\udce9.png' to 'caf_.png'"
    ]
    assert open_splits(tmp_path / "out")["train"].path(0).name == "caf_.png"


def test_stems_are_unique_in_any_case_and_form(tmp_path: Path) -> None:
    names = ["a.png", "b/A.jpg", "b/a.png", "\u00e9.png", "b/e\u0301.png", "b/\u00c9.png", "a_2.png"]
    written, said = unique_names({"train": index_of(tmp_path, names)}, one_folder=False)
    assert written["train"] == [
        "a.png",
        "A_2.jpg",
        "a_3.png",
        "\u00e9.png",
        "e\u0301_2.png",
        "\u00c9_3.png",
        "a_2_2.png",
    ]
    assert said == ["5 images were renamed, because two had the same name"]
