"""Damaged YAML files, lists and files of class names are read or refused, never more, in bounded time and memory."""

from collections.abc import Callable
from pathlib import Path

import pytest

from boxwright.app.detection.sources import find_sources
from boxwright.weights.import_detector import read_names
from tests.support.dataset_files import write_image, write_voc_files, write_yolo_files
from tests.support.hostile import assert_read_or_refused
from tests.support.mutations import mutations, yaml_mutations
from tests.support.whole_sets import whole_reader

pytestmark = pytest.mark.slow

COUNT = 300
LABELS = {"train/a": "1 0.5 0.5 0.5 0.25\n", "train/\u5b89": "0 0.5 0.5 0.2 0.2\n", "val/c": "0 0.5 0.5 0.2 0.2\n"}
YAML = """\
path: .
train: [images/train, "images/val"]
val: images/val
test: nowhere
nc: 2
names: {0: cat, 1: dog}
kpt_shape: [2, 3]
flip_idx: [1, 0]
download: https://example.com/a.zip
"""


@pytest.mark.parametrize("kind", ["bytes", "tree"])
def test_yaml(tmp_path: Path, kind: str) -> None:
    file = write_yolo_files(tmp_path / "set", LABELS, YAML.replace("kpt_shape: [2, 3]\nflip_idx: [1, 0]\n", ""))
    change = mutations if kind == "bytes" else yaml_mutations
    inputs = list(change(YAML.encode(), COUNT, seed=21))
    assert assert_read_or_refused(whole_reader(file, file), inputs, tmp_path).read


def yolo_list(folder: Path) -> tuple[Path, Path, str]:
    data = write_yolo_files(folder, LABELS, "train: train.txt\nval: images/val\nnames: [cat, dog]\n")
    return data, folder / "train.txt", "# a remark\nimages/train/a.png\n./images/train/\u5b89.png\n"


def voc_list(folder: Path) -> tuple[Path, Path, str]:
    root = write_voc_files(folder, {"train": ["a", "b c"], "val": ["d"]})
    return root, root / "ImageSets/Main/train.txt", "a\nb c\n"


def voc_labels(folder: Path) -> tuple[Path, Path, str]:
    root = write_voc_files(folder, {"train": ["a", "b"], "val": ["d"]})
    return root, root / "labels.txt", "cat\ndog\nb\u0142\u0105d\n"


def darknet(folder: Path, names: bool) -> tuple[Path, Path, str]:
    write_yolo_files(folder, LABELS).unlink()
    (folder / "train.txt").write_text("images/train/a.png\n")
    (folder / "valid.txt").write_text("images/val/c.png\n")
    texts = {
        "obj.data": "classes = 2\ntrain = train.txt\nvalid = valid.txt\nnames = obj.names\nbackup = backup/\n",
        "obj.names": "cat\ndog\n",
    }
    for name, text in texts.items():
        (folder / name).write_text(text)
    name = "obj.names" if names else "obj.data"
    return folder, folder / name, texts[name]


SETS: dict[str, Callable[[Path], tuple[Path, Path, str]]] = {
    "YOLO's list": yolo_list,
    "VOC's list": voc_list,
    "labels.txt": voc_labels,
    "obj.data": lambda folder: darknet(folder, names=False),
    "obj.names": lambda folder: darknet(folder, names=True),
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
@pytest.mark.parametrize("kind", SETS)
def test_lists_of_a_data_set(kind: str, encoding: str, tmp_path: Path) -> None:
    data, file, text = SETS[kind](tmp_path / "set")
    inputs = list(mutations(text.encode(encoding), COUNT, seed=22))
    assert assert_read_or_refused(whole_reader(data, file), inputs, tmp_path).read


def test_lists_of_files_to_detect_in(tmp_path: Path) -> None:
    (tmp_path / "set").mkdir()
    names = ["a.png", "b c.png", "\u5b89.png"]
    for seed, name in enumerate(names):
        write_image(tmp_path / "set" / name, seed=seed)

    def read(content: bytes) -> None:
        (tmp_path / "set/list.txt").write_bytes(content)
        find_sources([tmp_path / "set/list.txt"])

    inputs = list(mutations("\n".join(names).encode(), COUNT, seed=23))
    assert assert_read_or_refused(read, inputs, tmp_path).read


def test_files_of_class_names(tmp_path: Path) -> None:
    def read(content: bytes) -> None:
        (tmp_path / "classes.txt").write_bytes(content)
        read_names(tmp_path / "classes.txt")

    inputs = list(mutations("cat\ndog\nb\u0142\u0105d\n".encode(), COUNT, seed=24))
    assert assert_read_or_refused(read, inputs, tmp_path).read
