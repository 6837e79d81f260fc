"""Drawing, and `Detections`."""

import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from rich.console import Console

from boxwright.detections import Detections
from boxwright.drawing import class_colour, draw_boxes, font_size, line_width
from boxwright.structures import Classes, InputError

NAMES = Classes(("cat", "a class with quite a long name"), (3, 70))


def grey(width: int, height: int) -> Image.Image:
    return Image.new("RGB", (width, height), (128, 128, 128))


def changed(before: Image.Image, after: Image.Image) -> np.ndarray:
    """Return the pixels that differ, bool [H, W]."""
    return (np.asarray(before) != np.asarray(after)).any(axis=2)


def two() -> Detections:
    masks = np.zeros((2, 20, 30), dtype=bool)
    masks[0, 2:9, 3:20] = True
    masks[1, 1:4, 1:4] = True
    return Detections(
        np.array([[3, 2, 20, 9], [1, 1, 4, 4]]), np.array([0.9, 0.25]), np.array([1, 0]), NAMES, (20, 30), masks
    )


def test_colours_are_stable_and_far_apart():
    assert class_colour(0) == class_colour(0)
    first = [class_colour(k) for k in range(24)]
    distances = [sum(abs(a - b) for a, b in zip(p, q, strict=True)) for p, q in itertools.combinations(first, 2)]
    assert min(distances) > 30
    assert all(0 <= channel <= 255 for k in range(200) for channel in class_colour(k))


def test_line_and_text_grow_with_the_image():
    assert line_width((320, 240)) == 1 < line_width((1280, 960)) < line_width((6000, 4000))
    assert font_size((320, 240)) == 10 < font_size((1280, 960)) < font_size((6000, 4000))


def test_box_is_drawn_at_its_exclusive_corners_and_the_input_is_left_alone():
    image = grey(100, 80)
    drawn = draw_boxes(image, [[40, 30, 60, 50]], [0], ["x"])
    assert not changed(grey(100, 80), image).any()
    colour = class_colour(0)
    for x, y in ((40, 30), (59, 49), (40, 49), (59, 30)):
        assert drawn.getpixel((x, y)) == colour
    assert drawn.getpixel((50, 40)) == (128, 128, 128)  # not filled


@pytest.mark.parametrize("box", [(0, 0, 8, 8), (92, 0, 100, 8), (0, 52, 8, 60), (92, 52, 100, 60), (-9, -9, 300, 300)])
def test_labels_stay_inside_and_text_is_whole(box: tuple[int, int, int, int]):
    """Text has the same number of dark pixels in every corner as in the centre, so none is cut off."""

    def ink(at: tuple[int, int, int, int]) -> int:
        drawn = np.asarray(
            draw_boxes(grey(100, 60), [at], [0], ["dog"], difficult=[True])
        )  # dashed boxes have no dark rim
        return int((drawn < 90).all(axis=2).sum())

    assert ink(box) == ink((40, 30, 60, 40)) > 5


def test_a_name_too_long_for_the_image_is_shortened():
    drawn = draw_boxes(grey(40, 40), [[5, 20, 30, 38]], [0], ["an exceedingly long class name"])
    assert drawn.size == (40, 40)
    assert changed(grey(40, 40), drawn)[:20].any()


def test_labels_of_boxes_in_one_place_do_not_hide_each_other():
    image = grey(200, 200)
    one = changed(image, draw_boxes(image, [[50, 80, 150, 120]], [0], ["dog"])).sum()
    both = changed(image, draw_boxes(image, [[50, 80, 150, 120]] * 2, [0, 0], ["dog"])).sum()
    assert both > one


def test_crowd_and_difficult_boxes_are_dashed():
    image = grey(200, 200)
    full, crowd, difficult = (
        changed(image, draw_boxes(image, [[20, 60, 180, 190]], [0], ["x"], **flags)).sum()
        for flags in ({}, {"crowd": [True]}, {"difficult": [True]})
    )
    assert crowd == difficult < full


def test_masks_tint_what_they_cover_only():
    masks = np.zeros((1, 40, 40), dtype=bool)
    masks[0, 20:30, 20:30] = True
    drawn = draw_boxes(grey(40, 40), [[2, 12, 38, 38]], [1], ["", ""], masks=masks)
    difference = changed(grey(40, 40), drawn)
    assert difference[20:30, 20:30].all()
    assert not difference[15:19, 20:30].any()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"labels": [0, 1]}, "1 boxes but 2 labels"),
        ({"labels": [0], "scores": [0.1, 0.2]}, "1 boxes but 2 scores"),
        ({"labels": [0], "masks": np.zeros((1, 9, 9))}, "masks are 9x9 but the image is 20x10"),
    ],
)
def test_what_disagrees_is_refused(arguments: dict, words: str):
    with pytest.raises(InputError, match=words):
        draw_boxes(grey(20, 10), [[0, 0, 5, 5]], names=["a", "b"], **arguments)


def test_detections_choose_and_count():
    found = two()
    assert len(found) == 2
    assert found.class_names == [NAMES.names[1], "cat"]
    assert [len(one) for one in found] == [1, 1]
    assert found[-1].class_names == ["cat"]
    assert found[np.array([False, True])].scores.tolist() == [0.25]
    assert len(found.above(0.25)) == 2
    assert found.above(0.5).masks is not None
    assert len(found.above(0.95)) == 0


def test_coco_entries_have_the_data_sets_ids_and_widths():
    entries = two().to_coco(17)
    assert json.loads(json.dumps(entries)) == entries
    assert [(e["image_id"], e["category_id"], e["bbox"]) for e in entries] == [
        (17, 70, [3.0, 2.0, 17.0, 7.0]),
        (17, 3, [1.0, 1.0, 3.0, 3.0]),
    ]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of pycocotools, about numpy
def test_coco_masks_are_what_pycocotools_reads():
    mask_api = pytest.importorskip("pycocotools.mask")
    found = two()
    assert found.masks is not None
    for entry, mask in zip(found.to_coco(1), found.masks, strict=True):
        code = {**entry["segmentation"], "counts": entry["segmentation"]["counts"].encode()}
        assert (mask_api.decode(code).astype(bool) == mask).all()


def test_to_dict_and_table_name_every_detection():
    from rich.console import Console

    value = two().to_dict()
    assert (value["width"], value["height"]) == (30, 20)
    assert value["detections"][0] == {"label": 1, "name": NAMES.names[1], "score": 0.9, "box": [3.0, 2.0, 20.0, 9.0]}
    console = Console(width=100)
    with console.capture() as capture:
        console.print(two().table())
    assert "0.900" in capture.get()
    assert "cat" in capture.get()


@pytest.mark.filterwarnings("ignore:OpenCV")
def test_supervision_gets_the_same_values():
    pytest.importorskip("supervision")
    value = two().to_supervision()
    assert value.xyxy.tolist() == [[3, 2, 20, 9], [1, 1, 4, 4]]
    assert value.data["class_name"].tolist() == [NAMES.names[1], "cat"]
    assert value.mask.sum() == two().masks.sum()  # pyright: ignore[reportOptionalMemberAccess]


def test_without_supervision_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(__import__("sys").modules, "supervision", None)
    with pytest.raises(InputError, match="pip install"):
        two().to_supervision()


def test_nothing_found_is_an_ordinary_value(tmp_path):
    found = Detections(np.zeros((0, 4)), np.zeros(0), np.zeros(0), NAMES, (20, 30))
    assert (len(found), found.to_coco(1), found.to_dict()["detections"]) == (0, [], [])
    assert not changed(grey(30, 20), found.draw(grey(30, 20))).any()


def test_draw_reads_the_file_upright(tmp_path):
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees
    grey(20, 30).save(path, exif=exif)
    found = Detections(np.array([[5, 5, 20, 15]]), np.ones(1), np.zeros(1), NAMES, (20, 30), path=path)
    assert found.draw().size == (30, 20)
    with pytest.raises(InputError, match="20x30"):
        found.draw(grey(20, 30))


def test_detections_that_disagree_are_refused():
    with pytest.raises(InputError, match="1 boxes, 2 scores"):
        Detections(np.zeros((1, 4)), np.zeros(2), np.zeros(1), NAMES, (5, 5))
    with pytest.raises(InputError, match="labels run from 0 to 1"):
        Detections(np.zeros((1, 4)), np.zeros(1), np.array([2]), NAMES, (5, 5))


HOSTILE = ("two\nlines", "\x1b[31mred\x07", "a\u202eb", "nul\x00", "[/bold]", "x" * 100_000, "", "caf\udce9", "\ud83d")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_box_that_is_not_finite_is_refused(value: float):
    with pytest.raises(InputError, match=r"box 1 is \[3\.0, .*cannot be drawn"):
        draw_boxes(grey(30, 20), [[3, 2, 20, 9], [3, value, 20, 9]], [0, 0], ["x"])


def test_a_box_of_any_size_can_be_drawn():
    assert changed(grey(30, 20), draw_boxes(grey(30, 20), [[-1e30, -5, 1e30, 1e9]], [0], ["x"])).any()


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
@pytest.mark.parametrize("size", [(30, 20), (640, 480)])
def test_any_name_can_be_drawn(name: str, size: tuple[int, int]):
    image = grey(*size)
    drawn = draw_boxes(image, [[3, 2, 20, 9]], [0], [name], scores=[0.5])
    assert drawn.size == size
    assert changed(image, drawn).any()


@pytest.mark.parametrize("name", ["\x1b[31mred\x07.jpg", "a\nb.jpg", "a\u202eb.jpg", "[bold].jpg", "caf\udce9.jpg"])
def test_a_table_shows_names_as_they_are_and_without_control_characters(name: str):
    classes = Classes(("[/bold]",), (1,))
    found = Detections(np.array([[3, 2, 20, 9]]), np.array([0.9]), np.array([0]), classes, (20, 30), path=Path(name))
    output = io.StringIO()
    Console(file=output, width=120).print(found.table())
    text = output.getvalue()
    assert all(character.isprintable() for line in text.splitlines() for character in line)
    assert "[/bold]" in text
    assert "[bold]" not in name or "[bold]" in text
