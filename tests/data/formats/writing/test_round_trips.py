"""Odd but valid data sets survive every chain of formats: names, sizes and boxes, from a seed."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.convert import convert_dataset
from boxwright.data.formats.opening import DatasetFormat, open_splits
from boxwright.data.formats.voc.writer import write_voc
from boxwright.data.formats.writing.output import Written
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.masks import masks
from boxwright.structures import Classes

CLASSES = (
    *("yes", "no", "on", "off", "y", "n", "True", "null", "~", "None", ".nan", ".inf", "-", "?", "=", "<<", "|", ">"),
    *("010", "2.10", "12:30", "1e3", "0x1f", "1_000", "2001-01-01", "-1", "+1", "a: b", "a:", "# c", "d #e", "- f"),
    *("{g}", "[h]", "*i", "&j", "!k", "@l", "`m`", "%n", "'o'", '"p"', "q\\n", "<b>&amp;", "]]>", "r,s", "t/u", "../v"),
    *("é", "日本 語", "Ελλ", "😀", "\u200dw", "names", "path", "train", "with  blanks".replace("  ", " "), "x" * 200),
)
FILES = (
    *("plain.png", "plain.jpg", "a b.png", "e\u0301.png", "ü.png", "quote'\".png", "h#1%20.png", "&<>.png", "-d.png"),
    *("UPPER.PNG", "日本.png", "😀.png", "con.png", "lead and trail .png", " lead.png", "line\nbreak.png", "~t.png"),
    *("back\\slash.png", "frame", "frame.dat", "images.png", "labels.png", "a;b,c.png", "x" * 240 + ".png"),
    *(".hidden.png", "a.b.c.png"),
)


def write_odd(folder: Path) -> DetectionIndex:
    """Write an image under each odd name, each with boxes of several classes; return them as an index."""
    rng = np.random.default_rng(1)
    folder.mkdir(parents=True)
    records = []
    for number, name in enumerate(FILES, start=1):
        Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name, format="PNG")
        labels = [(3 * number + k) % len(CLASSES) for k in range(3)]
        boxes = [[0, 0, 30, 20], [1, 2, 3 + number % 20, 9], [28, 17, 30, 20]]
        records.append(
            ImageRecord(path=folder / name, image_id=number, height=20, width=30, boxes=boxes, labels=labels)
        )
    return DetectionIndex.build(Classes.from_names(CLASSES), records, root=folder, name="train")


def contents(index: DetectionIndex) -> dict[bytes, tuple[list[list[float]], list[str]]]:
    """Return boxes, to a thousandth of a pixel, and class names by the content of the image file."""
    found = {}
    for i in range(len(index)):
        rows = index.annotations(i)
        names = [index.classes.names[label] for label in rows.labels]
        found[index.path(i).read_bytes()] = (np.round(rows.boxes.astype(float), 3) + 0.0).tolist(), names
    assert len(found) == len(index)
    return found


@pytest.mark.parametrize("chain", list(itertools.permutations(("coco", "voc", "yolo"))), ids="-".join)
def test_odd_names_survive_every_chain(tmp_path: Path, chain: tuple[DatasetFormat, ...]) -> None:
    index = write_odd(tmp_path / "images")
    first, *others = chain
    written: Written
    match first:
        case "coco":
            written = write_coco(tmp_path / "coco", {"train": index})
        case "voc":
            written = write_voc(tmp_path / "voc", {"train": index})
        case "yolo":
            written = write_yolo(tmp_path / "yolo", {"train": index})
    assert written.boxes == {"train": 3 * len(FILES)}
    assert len([said for said in written.announcements if "renamed" in said]) == 2
    for before, after in itertools.pairwise([first, *others]):
        assert convert_dataset(tmp_path / before, tmp_path / after, after).announcements == ()
    for name in chain:
        again = open_splits(tmp_path / name)["train"]
        assert again.classes.names == index.classes.names
        assert contents(again) == contents(index)
        for path in (again.path(i) for i in range(len(again))):
            assert path.is_relative_to(tmp_path / name)
            assert path.suffix.lower() in (".png", ".jpg")


def random_set(folder: Path, seed: int) -> DetectionIndex:
    """Write images of odd sizes, down to one pixel and very wide, with boxes of every kind, some with masks."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    records = []
    for number, (height, width) in enumerate(((1, 1), (2, 3), (1, 900), (333, 777), (64, 64), (3, 50_000)), start=1):
        path = folder / f"{number}.png"
        Image.new("RGB", (width, height), tuple(rng.integers(0, 256, 3).tolist())).save(path)
        boxes: list[list[float]] = [[0, 0, width, height]]
        segmentations: list[Any] = [None]
        for _ in range(12):
            x1, x2 = sorted(rng.uniform(0, width, 2).tolist())
            y1, y2 = sorted(rng.uniform(0, height, 2).tolist())
            if rng.random() < 0.5:
                x1, x2 = np.floor(x1).item(), np.floor(x1).item() + 1 + rng.integers(0, 3).item()
            if rng.random() < 0.2:
                x1, y2 = x1 - width / 3, y2 + height / 3  # over the edge
            if x2 - x1 > 0.01 and y2 - y1 > 0.01 and x2 > 0.02 and x1 < width and y1 < height:
                boxes.append([x1, y1, x2, y2])
                segmentations.append([[x1, y1, x2, y1, x2, y2, x1, y2]] if rng.random() < 0.3 else None)
        labels = rng.integers(0, 2, len(boxes)).tolist()
        record = ImageRecord(path=path, image_id=number, height=height, width=width, boxes=boxes, labels=labels)
        record.segmentations = segmentations
        records.append(record)
    whole = np.zeros((64, 64), dtype=bool)
    whole[3:9, 4:60] = True
    records[4].boxes = [[4, 3, 60, 9]]
    records[4].labels, records[4].segmentations = [1], [masks.encode(whole)]
    return DetectionIndex.build(Classes.from_names(["a", "b"]), records, root=folder, name="train")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("first", "second"), list(itertools.product(("coco", "voc", "yolo"), repeat=2)))
def test_boxes_survive_within_the_stated_rounding(
    tmp_path: Path, seed: int, first: DatasetFormat, second: DatasetFormat
) -> None:
    """Boxes are those of the source, cut to the image, within what the notes say; those left out are counted."""
    index = random_set(tmp_path / "images", seed)
    write_coco(tmp_path / "in", {"train": index})
    convert_dataset(tmp_path / "in", tmp_path / "one", first)
    report = convert_dataset(tmp_path / "one", tmp_path / "two", second)
    again = open_splits(tmp_path / "two")["train"]
    assert report.splits["train"] == {"images": 6, "boxes": again.num_boxes}
    by_content = {again.path(i).read_bytes(): i for i in range(len(again))}
    formats = {first, second}
    lost = 0
    for i in range(len(index)):
        ours, theirs = index.annotations(i), again.annotations(by_content[index.path(i).read_bytes()])
        height, width = index.size(i)
        expected = ours.boxes.astype(float)
        if formats != {"coco"}:
            expected = np.clip(expected, 0, [width, height, width, height])
        if len(theirs.boxes) == len(expected):
            # VOC rounds by half a pixel, and widens what rounds to a pixel or less to two; float32 has 24 bits.
            thin = ((expected[:, 2:] - expected[:, :2]).min(axis=1) < 2).repeat(4).reshape(-1, 4)
            allowed = np.where(thin, 2.0, 0.5) if "voc" in formats else 0.0
            assert (np.abs(theirs.boxes - expected) <= allowed + 0.005).all()
            assert theirs.labels.tolist() == ours.labels.tolist()
        lost += len(expected) - len(theirs.boxes)
        if formats != {"coco"}:
            assert theirs.boxes.min(initial=0) >= -1e-3
            assert (theirs.boxes[:, 2:] <= np.array([width, height]) + 1e-2).all()
    assert lost == 0 or "voc" in formats
