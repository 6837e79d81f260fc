"""The whole line, through the command line: draw, train, evaluate, detect. Every detector must learn eight pictures."""

import json
from pathlib import Path

import pytest

from boxwright.cli import main
from boxwright.data.scenes import SceneConfig, write_scenes

SIZE = 128
# What a recipe needs beside the settings of all to learn pictures of SIZE.
RECIPES: dict[str, list[str]] = {
    "faster-rcnn-detnet-small-fpn": [],
    "refinedet-small-modern": ["stages.0.length=100"],
    "ssd-small-modern": [
        f"detector.size=[{SIZE}, {SIZE}]",
        "detector.priors.sizes=[9, 19, 42, 65, 88, 111, 134]",
        "detector.priors.steps=none",
        "stages.0.length=90",
    ],
}


@pytest.fixture(scope="module")
def eight_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SceneConfig(size=(SIZE, SIZE), objects=(1, 3), empty=0, smallest=16, common=(0.25, 0.5), hidden=0.3)
    return write_scenes(tmp_path_factory.mktemp("data") / "eight", {"train": 8}, seed=1, config=config)


@pytest.mark.parametrize("recipe", RECIPES)
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
    assert main(["evaluate", str(run), "--data", data, "--split", "train", "--device", "cpu", "--json"]) == 0
    stats = json.loads(capsys.readouterr().out)["stats"]
    assert stats["AP50"] >= 0.9

    pictures = next(path for path in eight_pictures.rglob("*.jpg")).parent
    found = tmp_path / "found"
    assert main(["detect", str(run), str(pictures), "--output", str(found), "--device", "cpu"]) == 0
    assert len(json.loads((found / "detections.json").read_text())) >= 8
    assert len(list(found.rglob("*.jpg"))) == 8
