"""The commands in ``benchmarks/``: each explains itself, its settings fit every recipe, finished runs are kept."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from boxwright.backbones.build import build_backbone, named_backbone
from boxwright.checkpoints.backbone_files import load_pretrained, read_card
from boxwright.config.recipe import Recipe, Stage
from boxwright.recipes import RECIPES, resolve_recipe
from boxwright.structures import InputError

FOLDER = Path(__file__).resolve().parents[1] / "benchmarks"
COMMANDS = sorted(path.name for path in FOLDER.glob("*.py") if "__main__" in path.read_text())


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Import a module of ``benchmarks/`` as its commands do."""
    monkeypatch.syspath_prepend(str(FOLDER))

    def found(name: str) -> ModuleType:
        return importlib.import_module(name)

    return found


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
