"""Anchors of a data set: box sizes at the network's input, and the report."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from boxwright.app.anchors import find_anchors
from boxwright.app.requests.data import AnchorRequest
from boxwright.config.overlay import parse_set
from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.transforms.configs import LetterboxConfig, WarpConfig, build_transform
from boxwright.data.transforms.network_sizes import network_sizes
from boxwright.data.transforms.sample import SampleSource
from boxwright.detectors.yolov2 import YOLOv2Config
from boxwright.detectors.yolov3 import YOLOv3Config
from boxwright.recipes import resolve_recipe
from boxwright.structures import Classes, InputError
from tests.support.dataset_files import coco_content, write_coco_files
from tests.support.tiny_index import write_index


@pytest.fixture
def index(tmp_path: Path) -> DetectionIndex:
    return write_index(tmp_path, sizes=((40, 60), (61, 40), (33, 33), (51, 77)))


@pytest.mark.parametrize(
    "config", [LetterboxConfig(size=(48, 64)), LetterboxConfig(size=(70, 50)), WarpConfig(size=(48, 64))]
)
def test_sizes_are_those_that_the_network_sees(index: DetectionIndex, config: LetterboxConfig | WarpConfig) -> None:
    transform, source = build_transform([config]), SampleSource(index)
    seen = []
    for i in range(len(index)):
        sample = transform(source(i), torch.Generator())
        seen.append((sample.boxes[:, 2:] - sample.boxes[:, :2])[~sample.crowd])
    np.testing.assert_allclose(network_sizes(index, config.size, config.kind), torch.cat(seen).numpy(), rtol=1e-4)


def test_boxes_are_cut_at_the_edges_and_crowds_left_out() -> None:
    record = ImageRecord(
        path=Path("a.png"),
        image_id=1,
        height=50,
        width=100,
        boxes=[[-10, 10, 20, 90], [0, 0, 5, 5], [90, 0, 100, 10]],
        labels=[0, 0, 0],
        crowd=[False, True, False],
    )
    index = DetectionIndex.build(Classes.from_names(["a"]), [record])
    assert network_sizes(index, None, "keep").tolist() == [[20, 40], [10, 10]]
    assert network_sizes(index, (100, 100), "warp").tolist() == [[20, 80], [10, 20]]
    assert network_sizes(index, (100, 100), "letterbox").tolist() == [[20, 40], [10, 10]]


@pytest.fixture
def data(index: DetectionIndex, tmp_path: Path) -> Path:
    write_coco(tmp_path / "coco", {"train": index}, "copy")
    return tmp_path / "coco"


def test_report_counts_every_box_and_its_settings_parse(data: Path, index: DetectionIndex) -> None:
    report = find_anchors(data, AnchorRequest(count=3, size=(64, 64)))
    assert (report.split, report.boxes + report.left_out) == ("train", int((~index.crowd).sum()))
    assert sum(report.counts) == report.boxes
    areas = [w * h for w, h in report.anchors]
    assert areas == sorted(areas)
    pixels = parse_set(report.settings["pixels"]).tree["detector"]["anchors"]
    cells = parse_set(report.settings["cells"]).tree["detector"]["anchors"]
    assert pixels == [list(pair) for pair in report.anchors]
    np.testing.assert_allclose(np.array(cells) * 32, pixels, atol=0.06)
    assert report.to_dict()["mean_iou"] == report.mean_iou


@pytest.mark.parametrize(("recipe", "count", "unit"), [("yolov3", 9, "pixels"), ("yolov2", 5, "cells")])
def test_the_settings_go_into_a_recipe(data: Path, recipe: str, count: int, unit: str) -> None:
    report = find_anchors(data, AnchorRequest(count=count))
    changed = resolve_recipe(recipe, sets=[report.settings[unit]]).detector
    assert isinstance(changed, YOLOv2Config | YOLOv3Config)
    np.testing.assert_allclose(np.array(changed.anchors) * (1 if unit == "pixels" else 32), report.anchors, atol=0.06)


def test_anchors_depend_on_the_resizing(data: Path) -> None:
    small, large = (find_anchors(data, AnchorRequest(count=2, size=(s, s))) for s in (64, 128))
    np.testing.assert_allclose(np.array(small.anchors) * 2, large.anchors, rtol=0.05)
    kept = find_anchors(data, AnchorRequest(count=2, resize="keep"))
    assert kept.size is None
    assert kept.anchors != small.anchors


def test_boxes_below_a_pixel_are_left_out_and_reported(data: Path) -> None:
    report = find_anchors(data, AnchorRequest(count=1, size=(8, 8)))
    assert report.left_out > 0
    assert f"{report.left_out} smaller than a pixel" in report.lines()[0]


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ({"count": 999}, r"split train: 999 anchors from \d+ boxes of \d+ different sizes: ask for 1 to \d+"),
        ({"count": 0}, "ask for 1 to"),
        ({"count": 2, "size": (0, 10)}, "at least 1 pixel"),
        ({"count": 2, "size": (9, 9), "resize": "keep"}, "omit --size"),
        ({"count": 2, "split": "dev"}, "has no split 'dev'; it has train"),
        ({"count": 2, "restarts": 0}, "restarts = 0"),
    ],
)
def test_refused_with_the_remedy(data: Path, request_: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        find_anchors(data, AnchorRequest(**request_))  # type: ignore[arg-type]


def test_sizes_that_are_wrong_give_no_anchors(tmp_path: Path) -> None:
    """Boxes are scaled by the stated size of their image. Images that are missing are not asked for."""
    content = coco_content(4)
    file = write_coco_files(tmp_path, content)
    (tmp_path / "images/1.png").unlink()
    assert find_anchors(file, AnchorRequest(count=1)).boxes == 4
    content["images"][2] |= {"width": 40, "height": 60}
    file.write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"3\.png, split train, image id 3: is 60x40 pixels but"):
        find_anchors(file, AnchorRequest(count=1))
