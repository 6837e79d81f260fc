"""Damaged label files, annotation files and results are read or refused, never more, in bounded time and memory."""

import json
import warnings
from pathlib import Path

import pytest

from boxwright.data.formats.coco.reader import read_coco
from boxwright.data.formats.problems import ProblemLog
from boxwright.evaluation.results_file import evaluate_detections
from tests.support.dataset_files import coco_content, voc_xml, write_coco_files, write_voc_files, write_yolo_files
from tests.support.hostile import assert_read_or_refused
from tests.support.mutations import json_mutations, mutations
from tests.support.whole_sets import whole_reader

pytestmark = pytest.mark.slow

COUNT = 300


def annotated() -> bytes:
    """Return a COCO file that has every key that is read."""
    content = coco_content(3)
    content["images"][2] |= {"file_name": "sub/3.png"}
    rows = content["annotations"]
    rows[0] |= {"iscrowd": 0, "segmentation": [[2, 3, 11, 3, 11, 22]], "bbox": [2, 3, 9, 19], "difficult": "0"}
    runs = {"size": [40, 60], "counts": [0, 800, 1600]}
    rows[1] |= {"iscrowd": 1, "segmentation": runs, "bbox": [0, 0, 20, 40]}
    rows[2] |= {"keypoints": [3, 4, 2], "num_keypoints": 1, "ignore": False}
    return json.dumps(content).encode()


@pytest.mark.parametrize("kind", ["bytes", "tree"])
def test_coco(tmp_path: Path, kind: str) -> None:
    valid = annotated()
    file = write_coco_files(tmp_path / "set", json.loads(valid))
    change = mutations if kind == "bytes" else json_mutations
    inputs = list(change(valid, COUNT, seed=13))
    outcome = assert_read_or_refused(whole_reader(tmp_path / "set", file), inputs, tmp_path)
    assert outcome.read


def test_coco_masks_that_are_skipped(tmp_path: Path) -> None:
    valid = annotated()
    file = write_coco_files(tmp_path / "set", json.loads(valid))

    def read(content: bytes) -> None:
        file.write_bytes(content)
        read_coco(file, log=ProblemLog(skip_masks=True))

    assert_read_or_refused(read, list(json_mutations(valid, COUNT, seed=14)), tmp_path)


@pytest.mark.parametrize("encoding", ["utf-8", "gb2312", "utf-16"])
def test_voc(tmp_path: Path, encoding: str) -> None:
    data = write_voc_files(tmp_path / "set", {"train": ["a", "b"]})
    extra = "<pose>Left</pose><truncated>0</truncated><occluded>1</occluded><part><name>x</name></part>"
    text = f'<?xml version="1.0" encoding="{encoding}"?>' + voc_xml(
        "a.jpg", [("\u5b89\u5168", 1, 2, 30, 20)] * 2, extra=extra
    )
    inputs = list(mutations(text.encode(encoding), COUNT, seed=15))
    outcome = assert_read_or_refused(whole_reader(data, data / "Annotations/a.xml"), inputs, tmp_path)
    assert outcome.read


@pytest.mark.parametrize("shape", ["", "kpt_shape: [2, 3]\n"])
def test_yolo(tmp_path: Path, shape: str) -> None:
    pose = "1 0.4 0.5 0.2 0.3 0.35 0.45 2 0.42 0.5 1\n"
    polygon = "0 0.1 0.2 0.6 0.2 0.6 0.8\n0 0.1 0.2 0.6 0.2 0.6 0.8 0.2 0.9\n"
    text = "1 0.5 0.5 0.5 0.25\n" + (pose if shape else polygon)
    data = write_yolo_files(
        tmp_path / "set", {"train/a": text, "train/b": "0 0.5 0.5 0.2 0.2\n"},
        f"train: images/train\nval: images/train\nnames: [cat, dog]\n{shape}",
    ).parent  # fmt: skip
    inputs = list(mutations(text.encode(), COUNT, seed=16))
    outcome = assert_read_or_refused(whole_reader(data, data / "labels/train/a.txt"), inputs, tmp_path)
    assert outcome.read


@pytest.mark.parametrize("masks", [False, True])
@pytest.mark.parametrize("kind", ["bytes", "tree"])
def test_results(tmp_path: Path, kind: str, masks: bool) -> None:
    index = read_coco(write_coco_files(tmp_path / "set", json.loads(annotated())))
    rows = [
        {"image_id": i, "category_id": 3, "bbox": [1.0, 2, 3, 4.5], "score": 0.5 + 0.1 * i}
        | ({"segmentation": {"size": [40, 60], "counts": [0, 800, 1600]}} if masks else {})
        for i in (1, 2)
    ]
    if masks:
        del rows[0]["bbox"]
    valid = json.dumps(rows).encode()

    def read(content: bytes) -> None:
        file = tmp_path / "found.json"
        file.write_bytes(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            evaluate_detections(index, file)

    change = mutations if kind == "bytes" else json_mutations
    outcome = assert_read_or_refused(read, list(change(valid, COUNT, seed=17)), tmp_path)
    assert outcome.read
