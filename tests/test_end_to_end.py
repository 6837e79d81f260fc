"""The whole line, through the command line: draw, train, evaluate, detect. Every detector must learn eight pictures."""

import json
from pathlib import Path
from typing import Any

import pytest

from boxwright.cli.app import main
from boxwright.data import open_dataset
from boxwright.data.scenes import SceneConfig, write_scenes
from tests.support.evaluation_helpers import run_pycocotools

SIZE = 128
# What a recipe needs beside the settings of all to learn pictures of SIZE.
RECIPES: dict[str, list[str]] = {
    "faster-rcnn-detnet-small-fpn": [],
    # Most anchors of the larger objects cross the edge of so small a picture, and none of those may learn.
    "faster-rcnn-c4-small": ["detector.rpn.assign.straddle=none"],
    "rfcn-detnet-small": ["stages.0.length=280"],
    "mask-rcnn-detnet-small-fpn": ["detector.head.samples=16", "detector.mask.channels=32"],
    "refinedet-small-modern": ["stages.0.length=85"],
    "retinanet-small-modern": ["stages.0.length=110"],
    "yolov1-small-modern": ["detector.grid=4"],
    "yolov2-small-modern": [],
    "yolov3-small-modern": ["stages.0.length=75"],
    "ssd-small-modern": [
        f"detector.size=[{SIZE}, {SIZE}]",
        "detector.priors.sizes=[9, 19, 42, 65, 88, 111, 134]",
        "detector.priors.steps=none",
        "stages.0.length=70",
    ],
}

# Those that have another one's heads or losses learn in the slow tests.
SLOW = {
    "faster-rcnn-detnet-small-fpn",
    "faster-rcnn-c4-small",
    "rfcn-detnet-small",
    "yolov1-small-modern",
    "yolov2-small-modern",
}


@pytest.fixture(scope="module")
def eight_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SceneConfig(size=(SIZE, SIZE), objects=(1, 3), empty=0, smallest=16, common=(0.25, 0.5), hidden=0.3)
    return write_scenes(tmp_path_factory.mktemp("data") / "eight", {"train": 8}, seed=1, config=config)


def check_masks(data: Path, scored: dict[str, Any], saved: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Boxes and masks score as pycocotools says, and the results file scores as the checkpoint does."""
    truth, found = open_dataset(data, "train").to_coco(), json.loads(saved.read_text())
    for kind, stats in (("bbox", scored["stats"]), ("segm", scored["masks"]["stats"])):
        ours = [-1 if value is None else value for value in stats.values()]
        if kind == "segm":  # where boxes are given too, pycocotools takes their areas for those of the masks
            found = [{key: value for key, value in each.items() if key != "bbox"} for each in found]
        assert ours == pytest.approx(run_pycocotools(truth, found, kind).stats.tolist(), abs=1e-9)
    assert main(["evaluate", "--detections", str(saved), "--data", str(data), "--split", "train", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["masks"]["stats"]["AP"] == pytest.approx(scored["masks"]["stats"]["AP"], abs=1e-6)


@pytest.mark.parametrize(
    "recipe", [pytest.param(name, marks=pytest.mark.slow if name in SLOW else ()) for name in RECIPES]
)
def test_overfits_eight_pictures(
    recipe: str, eight_pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = [
        f'data.train=[{{kind = "letterbox", size = [{SIZE}, {SIZE}]}}]',
        f"data.eval.0.size=[{SIZE}, {SIZE}]",
        "data.workers=0",
        "stages.0.length=140",
        "stages.0.unit=steps",
        "stages.0.schedule.warmup.steps=20",
        "ema.decay=0.9",
        "validation.every=70",
        "validation.unit=steps",
        *RECIPES[recipe],
    ]
    sets = [part for setting in settings for part in ("--set", setting)]
    run, data = tmp_path / "run", str(eight_pictures)
    options = ["--output", str(run), "--device", "cpu", "--val-split", "train", "--train-split", "train"]
    assert main(["train", recipe, "--data", data, *options, *sets]) == 0
    capsys.readouterr()
    saved = tmp_path / "found.json"
    words = ["evaluate", str(run), "--data", data, "--split", "train", "--device", "cpu", "--json"]
    assert main([*words, "--save", str(saved)]) == 0
    scored = json.loads(capsys.readouterr().out)
    assert scored["stats"]["AP50"] >= 0.9
    assert ("masks" in scored) == recipe.startswith("mask-rcnn")
    if "masks" in scored:
        assert scored["masks"]["stats"]["AP50"] >= 0.7  # shapes of 20 pixels take longer to learn than their boxes
        check_masks(eight_pictures, scored, saved, capsys)

    pictures = next(path for path in eight_pictures.rglob("*.jpg")).parent
    found = tmp_path / "found"
    assert main(["detect", str(run), str(pictures), "--output", str(found), "--device", "cpu"]) == 0
    detections = json.loads((found / "detections.json").read_text())
    assert len(detections) >= 8
    assert ("segmentation" in detections[0]) == recipe.startswith("mask-rcnn")
    assert len(list(found.rglob("*.jpg"))) == 8
