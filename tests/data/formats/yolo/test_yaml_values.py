"""The values of a data.yaml: names as written, each defect with its line, hostile files in bounded time."""

import time
from pathlib import Path

import pytest

from boxwright.data.formats.opening import open_dataset
from boxwright.data.formats.yolo.yaml_file import Entries, Items, parse_yaml
from boxwright.structures import InputError
from tests.support.dataset_files import drawn_box, write_drawn, yolo_line


def write(root: Path, yaml: str | bytes) -> Path:
    """Write an image with its label, and the data.yaml."""
    write_drawn(root / "images/train/a.png")
    (root / "labels/train").mkdir(parents=True, exist_ok=True)
    (root / "labels/train/a.txt").write_text(yolo_line())
    file = root / "data.yaml"
    file.write_bytes(yaml if isinstance(yaml, bytes) else yaml.encode())
    return file


ODD = ["yes", "no", "on", "off", "y", "True", "2.10", "010", "12:30", "null", "~", "1e3", "0x1F", "2024-01-01", ".inf"]


@pytest.mark.parametrize(
    "text",
    [
        "[" + ", ".join(ODD) + "]",
        "\n" + "".join(f"  - {name}\n" for name in ODD),
        "\n" + "".join(f"  {i}: {name}\n" for i, name in enumerate(ODD)),
        "\n" + "".join(f'  "{i}": "{name}"\n' for i, name in reversed(list(enumerate(ODD)))),
        "\n" + "".join(f"  {i}: !!str {name}\n" for i, name in enumerate(ODD)),
    ],
)
def test_names_are_as_written(tmp_path: Path, text: str) -> None:
    index = open_dataset(write(tmp_path, f"train: images/train\nnames: {text}\n"))
    assert index.classes.names == tuple(ODD)
    assert index.annotations(0).boxes[0].tolist() == pytest.approx(drawn_box(index.path(0)), abs=0.01)


@pytest.mark.parametrize("nc", ["nc: 2", "nc: '2'", "nc: 2.0", "nc:", "nc: null"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-16-be"])
def test_number_of_classes_and_encodings(tmp_path: Path, nc: str, encoding: str) -> None:
    text = f"train: images/train\r\nval: ~\r\ntest: null\r\n{nc}\r\nnames: [安全帽, café]\r\n"
    assert open_dataset(write(tmp_path, text.encode(encoding))).classes.names == ("安全帽", "café")


def test_names_from_a_file_and_by_an_anchor(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_bytes("猫\r\ndog \r\n".encode("utf-16"))
    assert open_dataset(write(tmp_path, "train: images/train\nnames: classes.txt\n")).classes.names == ("猫", "dog")
    yaml = "base: &b\n  train: &t images/train\n  names: [no]\n<<: *b\nval: *t\n"
    index = open_dataset(write(tmp_path, yaml), "train")
    assert index.classes.names == ("no",)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("names: [cat, dog, cat]\n", 'line 2, key `names`: class name "cat" appears more than once, first in line 2'),
        ("names:\n- cat\n-\n- dog\n", "line 4, key `names`: class 1 has no name; give it one"),
        ("names: [cat, '']\n", "line 2, key `names`: class 1 has no name"),
        ("names: [[cat, dog]]\n", "line 2, key `names`: class 0 is a list or mapping; give one name for each class"),
        ("names:\n  0: {a: b}\n", "line 3, key `names`: class 0 is a list or mapping"),
        (
            "names: cat\n",
            r'line 2, key `names`: "cat" is one text; give the class names as a list, such as \[cat, dog\]',
        ),
        ("names: {1: cat, 2: dog}\n", "without a gap, but 0 is missing .they count from 1; label files count from 0"),
        ("names: {0: cat, 2: dog}\n", "the keys must be 0 to 1 without a gap, but 1 is missing; number all"),
        ("names: {0: cat, 00: dog}\n", "the class number 0 stands twice"),
        ("names: {cat: 0, dog: 1}\n", 'the key "cat" in line 2 is not a class number; count from 0'),
        ("names: {-1: cat}\n", 'the key "-1" in line 2 is not a class number'),
        ("names: []\n", "line 2, key `names`: is empty; give the class names"),
        ("nc: 3\nnames: [cat]\n", "line 2, key `nc`: nc is 3 but `names` has 1 names"),
        ("nc: two\nnames: [cat]\n", 'line 2, key `nc`: "two" is not a number of classes; write 1, or remove the line'),
        ("nc: 1.5\nnames: [cat]\n", 'line 2, key `nc`: "1.5" is not a number of classes'),
        ("nc: [1]\nnames: [cat]\n", "line 2, key `nc`: a list or mapping is not a number of classes"),
        ("nc: true\nnames: [cat]\n", 'line 2, key `nc`: "true" is not a number of classes'),
        ("", "has no key `names`; add the class names as a list, in the order of the class numbers"),
        ("nc: 3\n", "has no key `names`; add the class names as a list"),
        ("names: [cat]\ntrain: images/val\n", 'line 3: the key "train" stands twice, first in line 1; remove one'),
        (
            "names: [cat]\nvalid: images\nval: images\n",
            "line 4: `valid` and `val` are both the split val; name the one",
        ),
        ("names: [cat]\nval: {a: b}\n", "line 3, key `val`: give a folder, a .txt list of images, or a list of those"),
        ("names: [cat]\nval: [[images]]\n", "line 3, key `val`: give a folder"),
        ("names: !!python/name:os.system ''\n", "line 2: the tag !!python/name:os.system is not read, for safety"),
        ("names: !custom [a]\n", "line 2: the tag !custom is not read"),
        ("names: [cat]\n---\nnames: [dog]\n", "line 3: a second document begins"),
        ("names: [*a]\n", 'line 2: the alias "a" has no anchor above it'),
        ("names: &a [*a]\n", 'line 2: the alias "a" has no anchor above it'),
        ("names:\n\t- cat\n", r"line 3, column \d+: not valid YAML .*; indent it with spaces instead of tabs"),
        ("names: [cat]\n? [a, b]\n: c\n", "line 3: a list or mapping is used as a key"),
    ],
)
def test_defects_have_their_own_words(tmp_path: Path, yaml: str, message: str) -> None:
    file = write(tmp_path, f"train: images/train\n{yaml}")
    for place in (file, tmp_path):
        with pytest.raises(InputError, match=rf"data\.yaml.*{message}"):
            open_dataset(place, "train")


@pytest.mark.parametrize(
    "yaml",
    [
        "a: &a [x,x,x,x,x,x,x,x,x,x]\n" + "".join(
            f"{n}: &{n} [{', '.join([f'*{p}'] * 10)}]\n" for p, n in zip("abcdefgh", "bcdefghi", strict=True)
        ) + "names: *i\n",
        "names: " + "[" * 100_000,
        "names: " + "{a: " * 100_000,
        "names: [" + "9" * 10_000 + "\n",
        "nc: " + "9" * 10_000 + "\nnames: [cat]\n",
        "names: {" + "9" * 10_000 + ": cat}\n",
        "names:\n" + "- a\n" * 400_000,
        "#" * 9_000_000 + "\n",
        "names: [\x00]\n",
        "names: [\x1b]\n",
    ],
    ids=["aliases", "lists", "mappings", "digits", "nc", "keys", "names", "size", "zero", "control"],
)  # fmt: skip
def test_hostile_files_end_soon(tmp_path: Path, yaml: str) -> None:
    file = write(tmp_path, f"train: images/train\n{yaml}")
    start = time.process_time()  # which other programs do not lengthen
    with pytest.raises(InputError, match=r"data\.yaml"):
        open_dataset(file)
    assert time.process_time() - start < 20


def test_lines_of_values(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("a: 1\nb:\n  - x\n  - 'y'\nc: {d: e}\n")
    content = parse_yaml(file)
    assert isinstance(content, Entries)
    items = content.get(next(key for key in content if key == "b"))
    assert isinstance(items, Items)
    assert [(str(v), v.line) for v in items] == [("x", 3), ("y", 4)]
