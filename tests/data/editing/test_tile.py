"""Data sets cut into tiles, in the three formats: each box is where the rectangle is drawn."""

import csv
import json
import os
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.editing.tile import TILE_PATTERN, TILES_FILE, TileRules, tile_dataset
from boxwright.data.formats.opening import detect_format, open_splits
from boxwright.data.formats.writing.whole import CopyOptions
from boxwright.data.images import read_image
from boxwright.data.masks.masks import encode
from boxwright.structures import InputError
from tests.support.drawn_sets import COLOURS, Object, draw, found_objects, write_set

SIZE = (200, 150)
SPLITS: dict[str, dict[str, list[Object]]] = {
    "train": {
        "a.png": [("red", 5, 4, 25, 30), ("green", 70, 40, 110, 62), ("blue", 150, 100, 199, 149)],
        "b.png": [("blue", 60, 80, 76, 88)],
        "empty.png": [],
    },
    "val": {"c.png": [("green", 2, 2, 190, 140)], "none.png": []},
}


@pytest.fixture(params=["coco", "voc", "yolo"])
def data(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_set(tmp_path / "in", request.param, SPLITS, size=SIZE)


@pytest.mark.parametrize("overlap", [0, 0.3])
def test_boxes_lie_on_what_is_drawn(data: Path, tmp_path: Path, overlap: float) -> None:
    rules = TileRules(size=64, overlap=overlap, min_visible=0, empty_share=1)
    report = tile_dataset(data, tmp_path / "out", rules)
    assert detect_format(tmp_path / "out") == report.format
    whole = set()
    for split, index in open_splits(tmp_path / "out").items():
        sources = {path.stem: read_image(path) for path in data.rglob("*.png") if path.stem in SPLITS_OF[split]}
        covered = {name: np.zeros(SIZE[::-1], dtype=bool) for name in sources}
        for i in range(len(index)):
            path, rows = index.path(i), index.annotations(i)
            found = re.fullmatch(r"(.+)_x(\d+)_y(\d+)", path.stem)
            assert found is not None
            origin, x, y = found[1], int(found[2]), int(found[3])
            height, width = index.size(i)
            assert (height, width) == (64, 64)
            pixels = read_image(path)
            assert (pixels == sources[origin][y : y + height, x : x + width]).all()
            covered[origin][y : y + height, x : x + width] = True
            drawn = found_objects(path)
            boxes = {index.classes.names[k]: b for k, b in zip(rows.labels, rows.boxes.tolist(), strict=True)}
            assert set(boxes) == set(drawn)
            for name, box in boxes.items():
                assert (
                    box == pytest.approx(drawn[name], abs=1e-3)
                    or max(np.subtract(drawn[name][2:], drawn[name][:2])) < 3
                )
                whole.add((origin, name, *(round(v) for v in np.add(box, (x, y, x, y)))))
        assert all(mask.all() for mask in covered.values())
    small = {
        (name[:-4], *row)
        for images in SPLITS.values()
        for name, rows in images.items()
        for row in rows
        if max(row[3] - row[1], row[4] - row[2]) <= 64 * overlap
    }
    assert small <= whole
    assert report.splits["train"].boxes_before == 4
    with (tmp_path / "out" / TILES_FILE).open(newline="") as file:
        rows = list(csv.DictReader(file))
    listed = {(row["split"], row["tile"]): row for row in rows}
    assert len(listed) == len(rows) == sum(counts.tiles for counts in report.splits.values())
    if report.format == "coco":
        for split in SPLITS:
            content = json.loads((tmp_path / f"out/annotations/instances_{split}.json").read_text())
            for entry in content["images"]:
                row = listed[split, entry["file_name"]]
                assert entry["origin"] == row["origin"]
                assert entry["window"] == [int(row[key]) for key in ("x", "y", "width", "height")]
    for split, index in open_splits(tmp_path / "out").items():
        for i in range(len(index)):
            row = listed[split, index.path(i).name]
            x, y, width, height = (int(row[key]) for key in ("x", "y", "width", "height"))
            pixels = read_image(data / row["origin"])
            assert (read_image(index.path(i)) == pixels[y : y + height, x : x + width]).all()


SPLITS_OF = {split: {name[:-4] for name in images} for split, images in SPLITS.items()}


def test_small_parts_empty_tiles_and_the_messages(data: Path, tmp_path: Path) -> None:
    format = detect_format(data)
    beside = {
        "d.png": [("red", 5, 4, 25, 30), ("green", 60, 10, 80, 20)]
    }  # a fifth of the green in the tile of the red
    data = write_set(tmp_path / "more", format, SPLITS | {"train": SPLITS["train"] | beside}, size=SIZE)
    report = tile_dataset(data, tmp_path / "out", TileRules(size=64, overlap=0, min_visible=0.3, empty_share=0.25))
    index = open_splits(tmp_path / "out")["train"]
    marked = {"coco": index.crowd, "voc": index.difficult, "yolo": np.zeros(index.num_boxes, dtype=bool)}[format]
    counts = report.splits["train"]
    assert counts.ignored > 0
    assert int(marked.sum()) == (0 if format == "yolo" else counts.ignored)
    assert counts.boxes == index.num_boxes
    empty = sum(not len(index.annotations(i).labels) for i in range(len(index)))
    with_objects = len(index) - sum(marked[index.box_ends[i] : index.box_ends[i + 1]].all() for i in range(len(index)))
    assert empty <= (len(index) - with_objects) <= with_objects / 3
    assert counts.left_out == 4 * 4 * 3 - len(index)
    val = open_splits(tmp_path / "out")["val"]
    assert len(val) == 2 * 12  # all tiles of a split that is held back
    said = " ".join(report.announcements)
    assert f"train: {counts.ignored} parts of objects are less than 30% of the object" in said
    assert "--empty-share 0.25" in said
    assert "val: 1 objects are whole in no tile: tiles of 64 pixels overlap by 0" in said
    assert "val: 1 objects are too large for a tile to show 30% of them" in said


def test_images_no_larger_than_a_tile_stay_as_they_are(data: Path, tmp_path: Path) -> None:
    report = tile_dataset(data, tmp_path / "out", TileRules(size=200, empty_share=0), CopyOptions(images="link"))
    assert (report.splits["train"].passed, report.splits["train"].tiles) == (3, 3)
    assert any(text.startswith("no image is larger than a tile of 200 pixels") for text in report.announcements)
    before, after = open_splits(data), open_splits(tmp_path / "out")
    for split, index in before.items():
        for i in range(len(index)):
            assert after[split].path(i).name == index.path(i).name
            assert after[split].path(i).samefile(index.path(i))
            np.testing.assert_allclose(after[split].annotations(i).boxes, index.annotations(i).boxes, atol=1e-4)
    tile_dataset(data, tmp_path / "copied", TileRules(size=200))
    copied = open_splits(tmp_path / "copied")["train"].path(0)
    assert copied.read_bytes() == before["train"].path(0).read_bytes()
    assert not copied.samefile(before["train"].path(0))


def test_long_images_have_tiles_of_their_height(data: Path, tmp_path: Path) -> None:
    tile_dataset(data, tmp_path / "out", TileRules(size=180, empty_share=1))
    index = open_splits(tmp_path / "out")["train"]
    assert {index.size(i) for i in range(len(index))} == {(150, 180)}
    assert {index.path(i).stem for i in range(2)} == {"a_x0_y0", "a_x20_y0"}


def test_masks_are_cut_with_their_boxes(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "coco", SPLITS, size=SIZE, polygons=True)
    tile_dataset(data, tmp_path / "out", TileRules(size=64, min_visible=0, empty_share=0))
    index = open_splits(tmp_path / "out")["train"]
    assert index.with_mask.all()
    for i in range(len(index)):
        pixels = read_image(index.path(i)).astype(int)
        for label, mask in zip(index.annotations(i).labels, index.masks(i), strict=True):
            drawn = np.abs(pixels - COLOURS[index.classes.names[label]]).max(axis=2) < 40
            assert (mask == drawn).all()


def test_run_lengths_crowds_and_sparse_ids_are_cut(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "coco", {"train": {"a.png": SPLITS["train"]["a.png"]}}, size=SIZE)
    file = data / "annotations/instances_train.json"
    content = json.loads(file.read_text())
    for number, category in enumerate(content["categories"]):
        category["id"] = 80 - 7 * number
    mask = np.zeros(SIZE[::-1], dtype=bool)
    mask[30:90, 50:100] = True
    mask[40:50, 60:70] = False
    content["annotations"] = [
        {"id": 3, "image_id": 1, "category_id": 66, "bbox": [50, 30, 50, 60], "area": int(mask.sum())}
        | {"iscrowd": crowd, "segmentation": encode(mask)}
        for crowd in (0, 1)
    ]
    file.write_text(json.dumps(content))
    tile_dataset(data, tmp_path / "out", TileRules(size=64, min_visible=0))
    index = open_splits(tmp_path / "out")["train"]
    assert index.classes.ids == (66, 73, 80)
    for i in range(len(index)):
        found = re.fullmatch(r"a_x(\d+)_y(\d+)", index.path(i).stem)
        assert found is not None
        part = mask[int(found[2]) :, int(found[1]) :][:64, :64]
        assert index.annotations(i).crowd.tolist() == [False, True]
        for cut in index.masks(i):
            assert (cut == part).all()
        ys, xs = np.nonzero(part)
        assert index.annotations(i).boxes[0].tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert len(index) >= 4


def test_turned_images_are_tiled_upright(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "coco", {"train": {"a.png": SPLITS["train"]["a.png"]}}, size=SIZE)
    image = Image.open(data / "train/a.png")
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise
    image.transpose(Image.Transpose.ROTATE_90).save(data / "train/a.png", exif=exif)
    tile_dataset(data, tmp_path / "out", TileRules(size=64, min_visible=0))
    index = open_splits(tmp_path / "out")["train"]
    for i in range(len(index)):
        rows = index.annotations(i)
        boxes = {index.classes.names[k]: b for k, b in zip(rows.labels, rows.boxes.tolist(), strict=True)}
        assert boxes == found_objects(index.path(i))


def test_jpeg_by_request(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "yolo", SPLITS, size=SIZE)
    tile_dataset(data, tmp_path / "out", TileRules(size=64, quality=95))
    names = [path.name for path in (tmp_path / "out/images/train").iterdir()]
    assert names
    assert all(re.fullmatch(TILE_PATTERN + r"\.jpg", name) for name in names)
    assert Image.open(tmp_path / "out/images/train" / names[0]).format == "JPEG"


def test_images_of_one_name_stay_apart(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "yolo", {"train": {"a.png": [("red", 5, 4, 25, 30)]}}, size=SIZE)
    draw(data / "images/train/more/a.png", [("green", 9, 9, 30, 30)], SIZE)
    draw(data / "images/train/a_2_x0_y0.png", [], (60, 60), shade=1)
    (data / "labels/train/more").mkdir()
    (data / "labels/train/more/a.txt").write_text("1 0.0975 0.13 0.105 0.14\n")
    tile_dataset(data, tmp_path / "out", TileRules(size=64, empty_share=1))
    for path in (tmp_path / "out/images/train").iterdir():
        label = (tmp_path / "out/labels/train" / path.name).with_suffix(".txt").read_text()
        assert [line.split()[0] for line in label.splitlines()] == [
            "01"[name == "green"] for name in found_objects(path)
        ]
    assert len(list((tmp_path / "out/images/train").iterdir())) == 2 * 12 + 1
    with (tmp_path / "out" / TILES_FILE).open(newline="") as file:
        for row in csv.DictReader(file):
            x, y, width, height = (int(row[key]) for key in ("x", "y", "width", "height"))
            pixels = read_image(data / row["origin"])[y : y + height, x : x + width]
            assert (read_image(tmp_path / "out/images/train" / row["tile"]) == pixels).all()


def test_names_that_are_not_utf8(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "yolo", {"train": {"a.png": [("red", 5, 4, 25, 30)]}}, size=SIZE)
    try:
        for folder, suffix in (("images", b".png"), ("labels", b".txt")):
            (data / folder / "train/a").with_suffix(suffix.decode()).rename(
                data / folder / "train" / os.fsdecode(b"caf\xe9" + suffix)
            )
    except OSError:
        pytest.skip("the file system takes UTF-8 names only")
    tile_dataset(data, tmp_path / "out", TileRules(size=64, empty_share=0))
    with (tmp_path / "out" / TILES_FILE).open(newline="") as file:
        rows = [(row["tile"], row["origin"]) for row in csv.DictReader(file)]
    assert rows == [("caf__x0_y0.png", r"images/train/caf\udce9.png")]


def test_memory_does_not_grow_with_the_number_of_tiles_and_images(tmp_path: Path) -> None:
    def peak(folder: str, images: int, size: int) -> int:
        objects = [("red", 1000 + k, 100, 1100 + k, 150) for k in range(3)]
        splits = {"train": {f"{n}.png": objects for n in range(images)}}
        data = write_set(tmp_path / folder, "coco", splits, size=(10_000, 400))
        tracemalloc.start()
        tile_dataset(data, tmp_path / f"{folder}_out", TileRules(size=size, empty_share=0))
        most = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return most

    pixels = 10_000 * 400 * 3
    assert peak("one", 1, 200) < 2.5 * pixels
    assert peak("four", 4, 100) < 2.5 * pixels


def test_a_dry_run_writes_nothing(data: Path, tmp_path: Path) -> None:
    rules = TileRules(size=64)
    dry = tile_dataset(data, tmp_path / "out", rules, dry_run=True)
    assert not (tmp_path / "out").exists()
    assert tile_dataset(data, tmp_path / "out", rules).splits == dry.splits


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({"size": 0}, "--size 0: give the side of a tile, at least 16 pixels"),
        ({"size": -640}, "--size -640"),
        ({"overlap": 1}, "--overlap 1: give a share of the tile's side from 0 to below 1"),
        ({"overlap": 64}, "from 0 to below 1, such as 0.2; 64 pixels are 0.1"),
        ({"overlap": 640}, "from 0 to below 1, such as 0.2"),
        ({"overlap": -0.1}, "--overlap -0.1"),
        ({"overlap": float("nan")}, "--overlap nan"),
        ({"min_visible": 1.5}, "--min-visible 1.5"),
        ({"empty_share": -1}, "--empty-share -1"),
        ({"quality": 0}, "--quality 0"),
        ({"seed": -1}, "--seed -1"),
    ],
)
def test_rules_out_of_range(rules: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        TileRules(**rules)  # type: ignore[arg-type]


def test_refusals(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "out"
    with pytest.raises(InputError, match="there is no such file or folder"):
        tile_dataset(tmp_path / "none", out, TileRules())
    with pytest.raises(InputError, match="exists and is not empty"):
        tile_dataset(data, data, TileRules())
    monkeypatch.setattr("boxwright.data.editing.tile._MOST_TILES", 59)
    with pytest.raises(InputError, match="60 tiles: that is more than 59; give a larger --size or less --overlap"):
        tile_dataset(data, out, TileRules(size=64, overlap=0))
    monkeypatch.undo()
    picture = next(data.rglob("a.png"))
    picture.write_bytes(picture.read_bytes()[:300])
    with pytest.raises(InputError, match=r"a\.png: the image is damaged"):
        tile_dataset(data, out, TileRules(size=64))
    assert not out.exists()
    assert not [path for path in tmp_path.iterdir() if path.name.startswith(".")]


def test_the_overlap_told_is_below_a_tile(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "coco", {"val": {"a.png": [("red", 2, 2, 28, 28)]}}, size=(30, 30))
    report = tile_dataset(data, tmp_path / "out", TileRules(size=16, overlap=0.99), dry_run=True)
    assert any("tiles of 16 pixels overlap by 15" in text for text in report.announcements)


def test_a_split_without_any_object(tmp_path: Path) -> None:
    data = write_set(tmp_path / "in", "coco", {"train": {"a.png": []}}, size=SIZE)
    with pytest.raises(InputError, match="split train: no tile has an object; keep those without with --empty-share 1"):
        tile_dataset(data, tmp_path / "out", TileRules(size=64))
    assert tile_dataset(data, tmp_path / "out", TileRules(size=64, empty_share=1)).splits["train"].tiles == 12
