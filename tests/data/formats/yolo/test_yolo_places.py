"""Images and label files of YOLO data sets, where people have them. All boxes are compared with what is drawn."""

import os
import unicodedata
import warnings
from pathlib import Path

import pytest

from boxwright.app.train import training_splits
from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import find_source, open_dataset, open_splits
from boxwright.data.formats.problems import DatasetWarning
from boxwright.structures import InputError
from tests.support.dataset_files import write_drawn, yolo_line
from tests.support.whole_sets import drawn_counts

YAML = "train: images/train\nval: images/val\nnames: [red]\n"


def write_pair(image: Path, label: Path, box: tuple[int, int, int, int] = (10, 8, 40, 32)) -> None:
    """Write an image and its label file."""
    write_drawn(image, box)
    label.parent.mkdir(parents=True, exist_ok=True)
    label.write_text(yolo_line(box))


def write_set(root: Path, yaml: str = YAML) -> Path:
    """Write an image each for train and val, and the data.yaml."""
    for split in ("train", "val"):
        write_pair(root / f"images/{split}/{split}0.png", root / f"labels/{split}/{split}0.txt")
    file = root / "data.yaml"
    file.write_text(yaml)
    return file


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/b.png", "labels/train/b.txt"),
        ("images/train/b.png", "images/train/b.txt"),
        ("images/train/b.png", "Labels/train/b.txt"),
        ("images/train/b.png", "LABELS/train/b.TXT"),
        ("images/train/B.PNG", "labels/train/b.txt"),
        ("images/train/deep/b.png", "labels/train/deep/b.txt"),
        ("images/train/deep/b.png", "images/train/deep/b.txt"),
        ("images/train/b.png", "images/train/labels/b.txt"),
        ("images/train/b.png", "images/labels/train/b.txt"),
        ("images/train/deep/images/b.png", "labels/train/deep/images/b.txt"),
        ("images/train/deep/images/b.png", "images/train/deep/labels/b.txt"),
        ("images/train/b.c.png", "labels/train/b.c.txt"),
        ("Images/train/b.png", "labels/train/b.txt"),
        ("IMAGES/train/b.png", "labels/train/b.txt"),
        ("JPEGImages/train/b.png", "labels/train/b.txt"),
        ("train/img/b.png", "train/labels/b.txt"),
        ("train/b.png", "train/labels/b.txt"),
        ("train/b.png", "labels/train/b.txt"),
        ("train/b.png", "train/b.txt"),
        ("train/images/b.png", "train/images/b.txt"),
    ],
)
def test_labels_of_an_image(tmp_path: Path, image: str, label: str) -> None:
    folder = image.partition("/train/")[0] + "/train" if "/train/" in image else image.rpartition("/")[0]
    write_set(tmp_path, f"train: [images/train, {folder}]\nval: images/val\nnames: [red]\n")
    write_pair(tmp_path / image, tmp_path / label, (20, 10, 30, 36))
    assert drawn_counts(tmp_path) == {"train": (2, 2), "val": (1, 1)}


def test_two_label_files_of_an_image(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "images/train/train0.txt").write_text(yolo_line() + "\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        open_splits(tmp_path)  # the same lines
    (tmp_path / "images/train/train0.txt").write_text(yolo_line((1, 1, 5, 5)))
    with pytest.warns(DatasetWarning, match=r"has two different label files; .*labels/train/train0\.txt is read, "):
        assert drawn_counts(tmp_path)["train"] == (1, 1)


def test_links_are_followed_and_end(tmp_path: Path) -> None:
    root, other = tmp_path / "set", tmp_path / "elsewhere"
    write_set(root)
    write_pair(other / "images/cam2/b.png", other / "labels/cam2/b.txt", (20, 10, 30, 36))
    for kind in ("images", "labels"):
        (root / kind / "train/cam2").symlink_to(Path("../../../elsewhere") / kind / "cam2")
    write_pair(root / "images/train/cam1/c.png", root / "labels/train/cam1/c.txt", (30, 10, 50, 36))
    (root / "images/train/cam1/loop").symlink_to("..")  # a folder that holds the link
    (root / "images/train/cam3").symlink_to("cam1")  # a second way to a folder
    (root / "images/train/again.png").symlink_to("train0.png")  # a second name of an image
    assert drawn_counts(root) == {"train": (3, 3), "val": (1, 1)}


def test_a_link_that_was_saved_as_text_is_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "images/train/cam2").write_text("../../../elsewhere/images/cam2")
    with pytest.warns(
        DatasetWarning, match=r"images/train/cam2: holds the path \.\./\.\./\.\./elsewhere/images/cam2: a link"
    ):
        assert drawn_counts(tmp_path) == {"train": (1, 1), "val": (1, 1)}


def test_labels_behind_a_link_of_the_images_alone(tmp_path: Path) -> None:
    root, other = tmp_path / "set", tmp_path / "elsewhere"
    write_set(root)
    write_pair(other / "images/b.png", other / "labels/b.txt", (20, 10, 30, 36))
    (root / "images/train/cam2").symlink_to(other / "images")
    assert drawn_counts(root)["train"] == (2, 2)


def test_overlapping_folders_count_once(tmp_path: Path) -> None:
    write_set(
        tmp_path, "train: [images/train, images/train/sub, images/train/train0.png]\nval: images/val\nnames: [a]\n"
    )
    write_pair(tmp_path / "images/train/sub/b.png", tmp_path / "labels/train/sub/b.txt")
    assert drawn_counts(tmp_path)["train"] == (2, 2)


def test_hidden_files_are_no_data(tmp_path: Path) -> None:
    write_set(tmp_path)
    for folder in ("images/train", "labels/train", "."):
        for name in (
            ".ipynb_checkpoints/train0-checkpoint",
            "__MACOSX/x",
            "@eaDir/train0.png/SYNOPHOTO_THUMB_M",
            "._train0",
        ):
            for suffix in (".png", ".txt", ".yaml", ".json"):
                file = tmp_path / folder / f"{name}{suffix}"
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_bytes(
                    b"\0\5\x16\7\0\2" if suffix != ".png" else (tmp_path / "images/val/val0.png").read_bytes()
                )
        (tmp_path / folder / ".DS_Store").write_bytes(b"x")
        (tmp_path / folder / "Thumbs.db").write_bytes(b"x")
    report = check_dataset(tmp_path)
    assert report.problems == []
    assert {name: split.images for name, split in report.splits.items()} == {"train": 1, "val": 1}
    assert drawn_counts(tmp_path) == {"train": (1, 1), "val": (1, 1)}


@pytest.mark.parametrize("split", ["train", "val"])
def test_two_images_of_one_label_file(tmp_path: Path, split: str) -> None:
    write_set(tmp_path)
    write_drawn(tmp_path / f"images/{split}/{split}0.jpg", (30, 10, 50, 36))
    message = rf"labels/{split}/{split}0\.txt: belongs to two images, .*{split}0\.jpg and {split}0\.png"
    for read in (open_splits, training_splits):
        with pytest.raises(InputError, match=message):
            read(tmp_path)
    assert [p.kind for p in check_dataset(tmp_path).problems if p.severity == "error"] == ["shared-label"]


def test_images_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    (tmp_path / "images/train/phone.jxl").write_bytes(b"\xff\x0a")
    (tmp_path / "labels/train/phone.txt").write_text(yolo_line())
    (tmp_path / "images/train/train0.dng").write_bytes(b"raw beside its PNG")
    with pytest.warns(
        DatasetWarning, match=r"images/train/phone\.jxl: JPEG XL images are not read; convert it.*left out"
    ):
        assert len(training_splits(tmp_path)[0]) == 1
    errors = [p for p in check_dataset(tmp_path).problems if p.severity != "info"]
    assert [(p.kind, Path(p.file).name) for p in errors] == [("unread-image", "phone.jxl")]


@pytest.mark.parametrize(
    "label", ["labels/train/gone.txt", "labels/train/deep/gone.txt", "images/train/gone.txt", "labels/train/empty.txt"]
)
def test_labels_without_an_image_are_counted(tmp_path: Path, label: str) -> None:
    write_set(tmp_path)
    file = tmp_path / label
    file.parent.mkdir(exist_ok=True)
    file.write_text("" if file.stem == "empty" else yolo_line())
    (tmp_path / "labels/train/classes.txt").write_text("red\n")
    (tmp_path / "images/train/README.txt").write_text("made in 2020\n")
    message = rf"{file.parent.name}: 1 label files have no image and are not read \(the first: {file.name}\)"
    with pytest.warns(DatasetWarning, match=message):
        training_splits(tmp_path)
    assert [p.kind for p in check_dataset(tmp_path).problems] == ["missing-image"]


def test_names_in_other_unicode_forms(tmp_path: Path) -> None:
    composed = unicodedata.normalize("NFC", "café")
    decomposed = unicodedata.normalize("NFD", composed)
    yaml = f"train: [{composed}.txt, images/{composed}]\nval: images/val\nnames: [red]\n"
    write_set(tmp_path, yaml)
    write_pair(tmp_path / f"images/{decomposed}/{composed}1.png", tmp_path / f"labels/{decomposed}/{decomposed}1.txt")
    write_pair(tmp_path / f"images/train/{decomposed}.png", tmp_path / f"labels/train/{composed}.txt", (20, 10, 30, 36))
    (tmp_path / f"{decomposed}.txt").write_text(f"images/train/{composed}.png\nimages/train/train0.png\n")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn_counts(tmp_path)["train"] == (3, 3)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le"])
@pytest.mark.parametrize(
    "line",
    [
        "images/train/红 a.png", "./images/train/红 a.png", "  images/train/红 a.png  ", '"images/train/红 a.png"',
        "images\\train\\红 a.png", ".\\images\\train\\红 a.png", "{root}/images/train/红 a.png",
    ],
)  # fmt: skip
def test_lines_of_lists(tmp_path: Path, encoding: str, line: str) -> None:
    write_set(tmp_path, "train: train.txt\nval: images/val\nnames: [red]\n")
    write_pair(tmp_path / "images/train/红 a.png", tmp_path / "labels/train/红 a.txt", (20, 10, 30, 36))
    text = f"# a comment\r\n{line}\r\n\r\n".replace("{root}", str(tmp_path))
    (tmp_path / "train.txt").write_bytes(text.encode(encoding))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert drawn_counts(tmp_path)["train"] == (1, 1)


@pytest.mark.parametrize("start", ["/home/x/data/", "C:\\data\\set\\"])
def test_folders_of_another_machine(tmp_path: Path, start: str) -> None:
    path = "images/train".replace("/", start[-1])
    write_set(tmp_path, f"train: {start}{path}\nval: images/val\nnames: [red]\n")
    with pytest.warns(
        DatasetWarning, match=r"line 1, key `train`: .* does not exist; .*/images/train is read in its place"
    ):
        assert drawn_counts(tmp_path)["train"] == (1, 1)


@pytest.mark.parametrize("start", ["/home/x/data/", "C:\\data\\set\\", "/content/"])
def test_lists_of_another_machine(tmp_path: Path, start: str) -> None:
    write_set(tmp_path, "train: train.txt\nval: images/val\nnames: [red]\n")
    path = "images/train/train0.png"
    (tmp_path / "train.txt").write_text(start + (path.replace("/", "\\") if "\\" in start else path) + "\n")
    with pytest.warns(DatasetWarning, match=r"1 paths do not exist and are found by their last folders \(the first: "):
        assert drawn_counts(tmp_path)["train"] == (1, 1)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"train\.txt: the list is empty; name an image on each line"),
        (b"# nothing\n", r"train\.txt: the list is empty"),
        (b"images/train/train0.png\nimages/train/a.png\nb.png\n",
         r"train\.txt, line 2: the image images/train/a\.png does not exist, nor do the images of 1 more lines"),
        ("images/train/红.png\n".encode("gbk"), r"train\.txt, line 1: byte 13 is not UTF-8 text; save it as UTF-8"),
        ("images/日本.png\n".encode("shift_jis"), r"train\.txt, line 1: byte 7 is not UTF-8 text; save it as UTF-8"),
        ("images/caf\xe9.png\n".encode("latin-1"), r"train\.txt, line 1: byte 10 is not UTF-8 text; save it as UTF-8"),
    ],
)  # fmt: skip
def test_defects_of_lists(tmp_path: Path, content: bytes, message: str) -> None:
    write_set(tmp_path, "train: train.txt\nval: images/val\nnames: [red]\n")
    (tmp_path / "train.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_dataset(tmp_path, "train")
    assert len(open_dataset(tmp_path, "val")) == 1  # a command needs the splits that it uses, no others
    assert [p.severity for p in check_dataset(tmp_path).problems][:1] == ["error"]


@pytest.mark.parametrize("value", ["images/train/train0.png", "[images/train/train0.png]"])
def test_an_image_as_a_split(tmp_path: Path, value: str) -> None:
    write_set(tmp_path, f"train: {value}\nval: images/val\nnames: [red]\n")
    assert drawn_counts(tmp_path) == {"train": (1, 1), "val": (1, 1)}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("data.zip", "data.zip is an archive; unpack it"), ("clip.mp4", "clip.mp4 is a video; save its frames"),
        ("a.json", "a.json is a JSON file; for COCO annotations"), ("b.yaml", "b.yaml is another YAML file; name"),
        ("x.csv", "x.csv is not a list of images; name a folder"), ("x.jxl", "x.jxl: JPEG XL images are not read"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("key", ["train", "val"])
def test_other_files_as_a_split(tmp_path: Path, name: str, message: str, key: str) -> None:
    file = write_set(tmp_path, f"{key}: {name}\nnames: [red]\n")
    (tmp_path / name).write_bytes(b"\x89\0\xff")
    with pytest.raises(InputError, match=rf"data\.yaml, line 1, key `{key}`: {message}"):
        open_splits(file)


@pytest.mark.parametrize("value", ["../test/images", "test/images", "/nowhere/test/images", "missing.txt"])
def test_a_test_folder_that_is_not_there_stops_no_training(tmp_path: Path, value: str) -> None:
    write_set(tmp_path / "set", f"{YAML}test: {value}\n")
    with pytest.warns(DatasetWarning, match=r"data\.yaml, line 4, key `test`: .* does not exist"):
        train, val = training_splits(tmp_path / "set")
    assert (len(train), val is not None and len(val)) == (1, 1)
    problems = check_dataset(tmp_path / "set").problems
    assert [(p.kind, p.severity) for p in problems] == [("no-folder", "warning")]
    with pytest.raises(InputError, match=r"key `test`: .* does not exist"):
        open_dataset(tmp_path / "set", "test")


def test_a_pattern_is_named(tmp_path: Path) -> None:
    write_set(tmp_path, "train: images/train/*.png\nnames: [red]\n")
    with pytest.raises(InputError, match=r"does not exist .*; patterns are not read, name the folder or a list"):
        open_splits(tmp_path)


@pytest.mark.parametrize("key", ["train", "val"])
def test_a_missing_folder_that_training_needs(tmp_path: Path, key: str) -> None:
    write_set(tmp_path, YAML.replace(f"images/{key}", "nowhere") + "test: images/val\n")
    for read in (open_splits, training_splits):
        with pytest.raises(InputError, match=rf"key `{key}`: nowhere does not exist"):
            read(tmp_path)
    assert [p.severity for p in check_dataset(tmp_path).problems if p.kind == "no-folder"] == ["error"]


def test_a_folder_inside_and_one_outside(tmp_path: Path) -> None:
    write_set(tmp_path / "set", "train: ../images/train\nnames: [red]\n")
    assert open_dataset(tmp_path / "set").path(0) == tmp_path / "set/images/train/train0.png"
    write_drawn(tmp_path / "images/train/other.png")
    with pytest.raises(InputError, match=r"\.\./images/train can mean .*; write the absolute path"):
        open_dataset(tmp_path / "set")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (["data.yaml", "data (1).yaml"], r"holds data\.yaml, data \(1\)\.yaml; name the one you mean"),
        (["data.yaml", "dataset.yaml"], r"holds data\.yaml, dataset\.yaml; name the one"),
        (["a.yaml", "b.yml"], r"holds a\.yaml, b\.yml; name the one"),
        (["x/data.yaml", "y/data.yaml"], r"holds x/data\.yaml, y/data\.yaml; name the one"),
    ],
)
def test_two_data_yaml(tmp_path: Path, files: list[str], message: str) -> None:
    for file in files:
        source = write_set(tmp_path / "set")
        (tmp_path / file).parent.mkdir(exist_ok=True)
        source.rename(tmp_path / file)
    with pytest.raises(InputError, match=message):
        find_source(tmp_path)


def test_a_data_yaml_further_down(tmp_path: Path) -> None:
    write_set(tmp_path / "export/set")
    assert drawn_counts(tmp_path) == {"train": (1, 1), "val": (1, 1)}


@pytest.mark.parametrize("layout", ["darknet", "cvat", "classes", "labelimg", "label-studio"])
def test_sets_without_a_data_yaml(tmp_path: Path, layout: str) -> None:
    if layout in ("darknet", "cvat"):
        write_pair(tmp_path / "obj_train_data/a.png", tmp_path / "obj_train_data/a.txt")
        (tmp_path / "obj.data").write_text(
            "classes = 1\ntrain = data/train.txt\nvalid = data/test.txt\nnames = data/obj.names\nbackup = backup/\n"
            if layout == "darknet"
            else "classes = 1\ntrain = data/train.txt\nnames = data/obj.names\nbackup = backup/\n"
        )
        (tmp_path / "obj.names").write_text("no\n")
        (tmp_path / "train.txt").write_text("data/obj_train_data/a.png\n")
        (tmp_path / "test.txt").write_text("data/obj_train_data/a.png\n")
        expected = {"train": (1, 1), "val": (1, 1)} if layout == "darknet" else {"train": (1, 1)}
    else:
        places = {
            "classes": [("images/train", "labels/train"), ("images/val", "labels/val")],
            "labelimg": [(".", ".")],
            "label-studio": [("images", "labels")],
        }[layout]
        for image, label in places:
            write_pair(tmp_path / image / "a.png", tmp_path / label / "a.txt")
        (tmp_path / "classes.txt").write_text("no\n")
        (tmp_path / "notes.json").write_text('{"categories": [{"id": 0, "name": "no"}], "info": {}}')
        expected = {"train": (1, 1), "val": (1, 1)} if layout == "classes" else {"all": (1, 1)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore" if layout in ("darknet", "cvat") else "error")  # paths by their last folders
        assert drawn_counts(tmp_path) == expected
    assert open_dataset(tmp_path, next(iter(expected))).classes.names == ("no",)


def test_a_link_to_nowhere_is_named(tmp_path: Path) -> None:
    write_set(tmp_path)
    os.symlink("/nowhere/b.png", tmp_path / "images/train/b.png")
    with pytest.raises(
        InputError, match=r"images/train/b\.png: this is a link to /nowhere/b\.png, which does not exist"
    ):
        open_splits(tmp_path)


@pytest.mark.parametrize("name", ["x" * 300, "~nobody/images", "a\\0b"])
def test_paths_that_no_system_has(tmp_path: Path, name: str) -> None:
    file = write_set(tmp_path, f'path: "{name}"\ntrain: images/train\nval: images/val\ntest: "{name}"\nnames: [red]\n')
    with pytest.warns(DatasetWarning, match=r"key `test`: .* does not exist"):
        assert drawn_counts(file) == {"train": (1, 1), "val": (1, 1)}
    (tmp_path / "train.txt").write_text(f"{'x' * 300}/a.png\n")
    file.write_text("train: train.txt\nnames: [red]\n")
    with pytest.raises(InputError, match=r"train\.txt, line 1: the image x+/a\.png does not exist"):
        open_splits(file)
    with pytest.raises(InputError, match="there is no such file or folder"):
        open_splits(tmp_path / ("x" * 300))
