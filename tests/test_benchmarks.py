"""The commands in ``benchmarks/``: each explains itself, its settings fit every recipe, finished runs are kept."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from boxwright.backbones.build import build_backbone, named_backbone
from boxwright.checkpoints.backbone_files import load_pretrained, read_card
from boxwright.config.recipe import Recipe, Stage
from boxwright.data.formats.opening import open_splits
from boxwright.data.scenes import write_scenes
from boxwright.recipes import RECIPES, resolve_recipe
from boxwright.structures import InputError

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
COMMANDS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.mark.slow
@pytest.mark.parametrize("name", COMMANDS)
def test_explains_itself(name: str) -> None:
    done = subprocess.run([sys.executable, str(FOLDER / name), "--help"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert "usage:" in done.stdout


@pytest.mark.parametrize("name", RECIPES)
def test_a_length_in_epochs_suits_every_recipe(name: str, benchmark: Any) -> None:
    before = RECIPES[name]
    recipe: Recipe = resolve_recipe(name, sets=benchmark("runner.training").length(before, 12))
    ratios = []
    for old, new in zip(before.stages, recipe.stages, strict=True):
        if isinstance(old, Stage) and isinstance(new, Stage):
            assert new.unit == "epochs"
            ratios.append(new.length / old.length)
    assert recipe.stages[0].length == 12  # type: ignore[union-attr]
    assert ratios == pytest.approx([ratios[0]] * len(ratios), rel=1e-2)
    epochs = sum(new.length if isinstance(new, Stage) else 1 for new in recipe.stages)
    assert recipe.validation.unit == "epochs"
    assert recipe.validation.every > epochs


@pytest.mark.parametrize("file", sorted((FOLDER / "pretrained").glob("*.safetensors")), ids=lambda file: file.stem)
def test_the_pretrained_backbones_that_are_kept(file: Path) -> None:
    """Each says what it is, and is the named backbone that its file is called by."""
    card = read_card(file)
    assert file.stat().st_size < 30_000_000
    assert card["data"]["licence"]
    assert card["top1"] > 0.5
    backbone = build_backbone(named_backbone(file.stem))
    state = load_pretrained(file).state
    assert {name: value.shape for name, value in state.items()} == {
        name: value.shape for name, value in backbone.state_dict().items()
    }


@dataclass(frozen=True)
class Counted:
    """A run that notes that it was made, and fails if it is told to."""

    name: str
    made: list[str] = field(default_factory=list)
    error: Exception | None = None

    @property
    def key(self) -> dict[str, Any]:
        return {"recipe": self.name, "seeds": (0, 1)}

    def measure(self, place: Any) -> dict[str, Any]:
        assert place.device == "cpu"
        self.made.append(self.name)
        if self.error is not None:
            raise self.error
        return {"AP": len(self.name) / 10}


def test_finished_runs_are_kept_and_not_repeated(tmp_path: Path, benchmark: Any) -> None:
    rows, pool = benchmark("runner.rows"), benchmark("runner.pool")
    file, made, tables = tmp_path / "results" / "table.jsonl", [], []
    pool.run_all([Counted("ssd", made)], rows.Rows(file), jobs=1)
    again = rows.Rows(file)
    pool.run_all([Counted("ssd", made), Counted("yolov3", made)], again, jobs=2, then=lambda: tables.append(1))
    assert made == ["ssd", "yolov3"]
    assert tables == [1]
    assert [again.find(Counted(name).key) for name in ("ssd", "yolov3", "rcnn")] == [{"AP": 0.3}, {"AP": 0.6}, None]
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    assert [line["key"]["recipe"] for line in lines] == ["ssd", "yolov3"]
    assert set(lines[0]["versions"]) == {"python", "torch", "torchvision"}


def test_rows_of_other_versions_are_made_again(tmp_path: Path, benchmark: Any) -> None:
    rows, pool = benchmark("runner.rows"), benchmark("runner.pool")
    file, made = tmp_path / "table.jsonl", []
    pool.run_all([Counted("ssd", made), Counted("yolov3", made)], rows.Rows(file), jobs=1)
    lines = [json.loads(line) for line in file.read_text().splitlines()]
    lines[0]["versions"]["torch"] = "1.0"
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    pool.run_all([Counted("ssd", made), Counted("yolov3", made)], rows.Rows(file), jobs=1)
    assert made == ["ssd", "yolov3", "ssd"]
    assert len(file.read_text().splitlines()) == 2


def test_a_failed_run_does_not_stop_the_others(
    tmp_path: Path, benchmark: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    rows, pool = benchmark("runner.rows"), benchmark("runner.pool")
    kept, made = rows.Rows(tmp_path / "table.jsonl"), []
    runs = [Counted("ssd", made, pool.RunFailed("no memory")), Counted("yolov3", made)]
    with pytest.raises(SystemExit, match="1 of 2 runs failed"):
        pool.run_all(runs, kept, jobs=1)
    assert [kept.find(run.key) for run in runs] == [None, {"AP": 0.6}]
    assert "failed: no memory" in capsys.readouterr().err


def test_a_command_that_fails_is_told_with_the_end_of_its_output(tmp_path: Path, benchmark: Any) -> None:
    pool = benchmark("runner.pool")
    command = [sys.executable, "-c", "import os; print(os.environ['OMP_NUM_THREADS'], 'thread'); raise SystemExit(3)"]
    with pytest.raises(pool.RunFailed, match=r"(?s)SystemExit\(3\).*1 thread"):
        pool.Place().run(command, tmp_path / "folder" / "log")


def test_a_run_has_a_key_of_all_that_decides_it(tmp_path: Path, benchmark: Any) -> None:
    training = benchmark("runner.training")

    def run(**changes: Any) -> Any:
        settings = {"data": Path("a/bccd"), "recipe": "ssd-small", "epochs": 2.0, "seed": 0, "keep": tmp_path}
        return training.Training(**{**settings, **changes})

    assert run().key == run(keep=tmp_path / "other", files=("data.workers=1",), data=Path("b/bccd")).key
    others = [
        run(seed=1), run(epochs=3.0), run(recipe="yolov3-small"), run(recipe="ssd-small+ema.decay=0.99"),
        run(sets=("data.batch_size=8",)), run(backbone_weights="none"), run(splits=("val", "test")),
        run(recipe="retinanet-lite0"), run(recipe="retinanet-lite0", size="192x256"),
        run(recipe="retinanet-lite0", freeze_at=2),
    ]  # fmt: skip
    keys = [json.dumps(other.key) for other in [run(), *others]]
    assert len(set(keys)) == len(keys)
    assert len({other.folder for other in [run(), *others]}) == len(keys)


@pytest.mark.parametrize(
    ("values", "text"),
    [
        ([0.5], "0.500"),
        ([0.25, 0.75], "0.500 ± 0.354"),
        ([0.5, None], "–"),
        ([0.5, float("nan")], "–"),
        ([-1.0], "–"),
        ([], "–"),
    ],
)
def test_means_over_seeds(values: list[float | None], text: str, benchmark: Any) -> None:
    assert benchmark("runner.tables").mean(values) == text


def tables_by_overlap(ap: float) -> dict[str, Any]:
    """The tables by overlap of one run, with the same value everywhere but for small objects, which are absent."""
    names = [f"{iou}" for iou in range(50, 100, 5)]
    return {
        metric: {
            area: {f"{metric}{name}": None if area == "small" else ap for name in ("", *names)}
            for area in ("all", "small", "medium", "large")
        }
        for metric in ("AP", "AR")
    }


def test_tables_by_overlap_and_differences(benchmark: Any) -> None:
    tables = benchmark("runner.tables")
    found = {("detnet", 0): 0.5, ("detnet", 1): 0.6, ("plain", 0): 0.4, ("plain", 1): 0.52}
    scores = {key: tables_by_overlap(value) for key, value in found.items()}
    lines = tables.overlap_table("AP", ["detnet", "plain"], scores, "backbone")
    assert lines[0].startswith("| backbone | objects | AP (mean) | AP50 |")
    assert lines[2].startswith("| detnet | all | 0.550 ± 0.071 | 0.550 | 0.550 |")
    assert lines[3].startswith("| detnet | small | – | – |")
    assert len(lines) == 2 + 2 * 4
    told = tables.difference(("detnet", "plain"), [0, 1], scores, "AP")
    assert told == "+0.090 ± 0.010; undecided: 2 seeds differ by up to ± 0.127 by chance (95 %)."
    assert tables.difference(("detnet", "plain"), [0, 1], scores, "AR50", "small") == "the data has no such object."
    assert tables.difference(("detnet", "plain"), [0, 2], scores, "AP") is None


@pytest.mark.parametrize(
    ("word", "expected"), [("ssd-small", ("ssd-small", None)), ("rcnn-small:2.5", ("rcnn-small", 2.5))]
)
def test_a_recipe_of_the_line_may_have_its_own_length(word: str, expected: tuple[Any, Any], benchmark: Any) -> None:
    assert benchmark("lineage").own_length(word) == expected


@pytest.mark.parametrize(
    ("word", "message"), [("ssd-small:long", "give NAME or NAME:EPOCHS"), ("ssd-tiny", "there is no recipe")]
)
def test_wrong_recipes_of_the_line(word: str, message: str, benchmark: Any) -> None:
    with pytest.raises(InputError, match=message):
        benchmark("lineage").own_length(word)


@pytest.mark.parametrize(
    ("minutes", "per_epoch", "final", "expected"),
    [
        (10, 0, 0, 56),  # (570 - 10) / (100 * 0.1)
        (10, 1, 0, 46),  # / (10 + 2)
        (10, 1, 1, 46),  # 2 seconds less
        (1, 0.2, 1, 4),  # (57 - 10 - 2) / 10.4
    ],
)
def test_epochs_that_fit_into_minutes(
    minutes: float, per_epoch: float, final: int, expected: int, benchmark: Any
) -> None:
    pace = benchmark("runner.pace").Pace(start=10, train=0.1, val=0.04)
    assert pace.epochs(minutes, 100, 50, per_epoch, final) == expected


def test_minutes_that_no_epoch_fits_into(benchmark: Any) -> None:
    pace = benchmark("runner.pace").Pace(start=18, train=1, val=0.2)
    with pytest.raises(InputError, match=r"--minutes 1: one epoch takes 2.4 minutes"):  # (18 + 100 + 2 * 10) / 0.95
        pace.epochs(1, 100, 50, 1, final=1)


def test_a_subset_holds_every_smaller_one(tmp_path: Path, benchmark: Any) -> None:
    data = write_scenes(tmp_path / "data", {"train": 8, "val": 3}, (64, 64))
    subset = benchmark("runner.subsets").subset
    names = []
    for count in (3, 5):
        splits = open_splits(subset(data, tmp_path / f"{count}", {"train": count, "val": None}))
        assert [len(splits[split]) for split in ("train", "val")] == [count, 3]
        names.append({splits["train"].path(i).name for i in range(count)})
        assert all(splits["train"].path(i).is_file() for i in range(count))
    assert names[0] < names[1]


def test_detections_of_ultralytics_get_the_ids_of_the_data(tmp_path: Path, benchmark: Any) -> None:
    write_scenes(tmp_path / "data", {"train": 1, "val": 2}, (64, 64))
    ids = benchmark("contestants.runs").ids(tmp_path / "data", "val")
    assert ids["images"] == {"val_000000": 1, "val_000001": 2}
    row = {"image_id": 1, "file_name": "val_000001.jpg", "category_id": 3, "bbox": [1, 2, 3, 4], "score": 0.5}
    told = benchmark("contestants.yolo11n").renamed(row, {**ids, "categories": [1, 5, 9]})
    assert told == {"image_id": 2, "category_id": 9, "bbox": [1, 2, 3, 4], "score": 0.5}


def test_torchvisions_ssdlite_is_trained_and_scored(tmp_path: Path, benchmark: Any) -> None:
    """Two steps of two scenes; its detections are those of both images, in their own pixels."""
    ssdlite = benchmark("contestants.ssdlite320")
    splits = open_splits(write_scenes(tmp_path / "data", {"train": 2, "val": 2}, (64, 96)))
    torch.manual_seed(0)
    model = ssdlite.ssdlite320_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=11)
    _, steps = ssdlite.fit(model, ssdlite.Images(splits["train"], train=True), epochs=2)
    assert steps == 2
    found = ssdlite.detect(model, splits["val"])
    assert set(found.image_ids.tolist()) == {1, 2}
    assert set(found.labels.tolist()) <= set(range(10))
    x, y, w, h = found.boxes.T
    assert ((x >= 0) & (y >= 0) & (x + w <= 96.01) & (y + h <= 64.01)).all()


def scored(ap: float, test: float | None = None) -> dict[str, Any]:
    """The values of a run of peers with one AP everywhere."""
    stats = dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), ap)
    values = {"minutes": 9.5, "epochs": 20, "val": stats, "recipe": "retinanet-lite0"}
    return values if test is None else {**values, "test": dict.fromkeys(stats, test)}


def test_the_table_of_peers_has_a_part_for_each_data_set(tmp_path: Path, benchmark: Any) -> None:
    rows = benchmark("runner.rows").Rows(tmp_path / "peers.jsonl")
    rows.add({"pace": "default", "data": "bccd"}, {"start": 8.0})
    key = {"data": "bccd", "minutes": 10.0}
    rows.add({**key, "contestant": "yolo11n@320", "seed": 0}, {**scored(0.4, 0.3), "size": 320})
    rows.add({**key, "contestant": "default", "seed": 0}, scored(0.6, 0.5))
    rows.add({**key, "contestant": "default", "seed": 1}, scored(0.7, 0.5))
    rows.add({"data": "aerial", "minutes": 25.0, "contestant": "scratch", "seed": 0}, scored(0.1))
    lines = benchmark("peers").table(rows)
    heads = [line for line in lines if line.startswith("#")]
    assert heads == ["## aerial, 25 minutes", "## bccd, 10 minutes"]
    assert lines[3] == "| detector | seeds | epochs | AP | AP50 | AP75 | APs | APm | APl | minutes |"
    first, second = lines[-2:]
    assert first.startswith(
        "| Boxwright, default (`retinanet-lite0`), ImageNet weights of its backbone | 2 | 20 | 0.650 ± "
    )
    assert first.endswith("| 0.500 ± 0.000 | 0.500 ± 0.000 | 9.5 |")
    assert second.startswith("| Ultralytics, YOLO11n, 320 pixels, random weights | 1 | 20 | 0.400 |")


def test_the_length_of_runs_is_that_of_the_slowest_and_paces_are_kept(
    tmp_path: Path, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans, training = benchmark("runner.plan"), benchmark("runner.training")
    start = benchmark("runner.pace").START
    data = write_scenes(tmp_path / "data", {"train": 100, "val": 50}, (32, 32))
    measured = []

    def measure(run: Any, place: Any) -> dict[str, Any]:
        """80 images at 10 or 5 a second, 8 seconds to start, and two for validation of 50 images."""
        measured.append(run.recipe)
        assert run.epochs * 100 == 80
        speed = 10 if run.recipe == "retinanet-lite0" else 5
        return {"speed": speed, "minutes": (80 / speed + start + 2) / 60}

    monkeypatch.setattr(training.Training, "measure", measure)
    runs = [
        training.Training(data=data, recipe=name, epochs=1, seed=seed, keep=tmp_path, size="64")
        for name in ("retinanet-lite0", "yolov3-lite0")
        for seed in (0, 1)
    ]
    options = argparse.Namespace(output=tmp_path / "table.md", device="cpu", minutes=5)
    for _ in range(2):
        plan = plans.Plan(options)
        # 0.95 * 300 - 8 - 2 seconds for epochs of 20 and of 10 seconds
        assert [run.epochs for run in plans.equal_length(runs, options, plan)] == [13.0] * 4
        assert [run.epochs for run in plans.own_lengths(runs, options, plan)] == [27.0, 27.0, 13.0, 13.0]
        assert plan.minutes(runs[0]) == pytest.approx((10 + 2 * (start + 2)) / 60)
    assert measured == ["retinanet-lite0", "yolov3-lite0"]


def test_ap_against_the_number_of_images(benchmark: Any) -> None:
    few = benchmark("few_images")
    stats = {"AP": 0.4, "AP50": 0.8, "AP75": 0.5}
    found = {
        (25, "start"): [stats],
        (25, "scratch"): [{**stats, "AP": 0.1}],
        (50, "start"): [stats],
        (50, "scratch"): [],
    }
    names = {"start": "from ImageNet weights", "scratch": "from random weights"}
    lines = few.table(found, names)
    assert lines[0].startswith("| images | AP, from ImageNet weights | AP50, from ImageNet weights |")
    assert lines[2:] == [
        "| 25 | 0.400 | 0.800 | 0.500 | 0.100 | 0.800 | 0.500 | +0.300 |",
        "| 50 | 0.400 | 0.800 | 0.500 | – | – | – | – |",
    ]
    assert few.plot(found, names, "bccd").startswith(b"\x89PNG")


@pytest.mark.parametrize("name", ["refinedet", "focal", "detnet"])
def test_the_rows_of_a_claim_are_recipes_and_its_gains_are_told(name: str, tmp_path: Path, benchmark: Any) -> None:
    """The first of two rows of each gain is better by 0.1."""
    claims = benchmark("claims")
    claim, rows = claims.CLAIMS[name], benchmark("runner.rows").Rows(tmp_path / "claims.jsonl")
    options = argparse.Namespace(
        data=Path("bccd"), epochs=2.0, seeds=[], set=[], backbone_weights=None, size="192x256", freeze_at=2, workers=0
    )
    runs = claims.runs_of(options, tmp_path, claim)
    assert len({json.dumps(run.key) for run in runs}) == len(claim.rows) * len(claim.seeds)
    assert claims.section(claim, runs, rows) == []
    order = {row: place for place, row in enumerate(dict.fromkeys(row for gain in claim.gains for row in gain))}
    for run in runs:
        row = next(row for row, recipe in claim.rows.items() if recipe == run.recipe)
        ap = 0.5 - 0.1 * order[row] + 0.001 * run.seed
        stats = {**dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), ap), "by_iou": tables_by_overlap(ap)}
        rows.add(run.key, {"val": stats, "minutes": 8.0, "speed": 12.0})
        assert claims.label(name, run) == f"{name}-{row}-{run.seed}"
    text = claims.section(claim, runs, rows)
    assert sum(line.startswith("| ") and "`" in line for line in text) == len(claim.rows)
    told = [line for line in text if line.startswith("- AP, ")]
    assert len(told) == len(claim.gains)
    assert all(": +0." in line for line in told)
    assert sum("objects" in line and line.startswith("| backbone") for line in text) == 2 * claim.by_overlap


def test_runs_of_the_line_have_lengths_of_their_own(
    tmp_path: Path, benchmark: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    lineage, training = benchmark("lineage"), benchmark("runner.training")
    data = write_scenes(tmp_path / "data", {"train": 8, "val": 4}, (32, 32))
    values = {"speed": 8.0, "minutes": 0.25}
    monkeypatch.setattr(training.Training, "measure", lambda run, place: values)
    options = argparse.Namespace(
        data=data, output=tmp_path / "line.md", device="cpu", minutes=1.0, epochs=12, seeds=[0], set=[], workers=0,
        backbone_weights=None, size="64", freeze_at=None, only=["yolov2", "ssd"],
    )  # fmt: skip
    recipes = {"retinanet-lite0": None, "yolov2-lite0": None, "ssd-lite0": 3.0}
    runs = lineage.runs_of(options, tmp_path, recipes, ("train", "val"))
    assert [run.size for run in runs] == ["64", "64", None]
    planned = lineage.with_lengths(runs, recipes, options, lineage.Plan(options))
    # 57 seconds less 15 - 1 for the start and validation, and a second for an epoch
    assert [(run.recipe, run.epochs) for run in planned] == [("yolov2-lite0", 43.0), ("ssd-lite0", 3.0)]
