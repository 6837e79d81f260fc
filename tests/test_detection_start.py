"""``benchmarks/detection_start.py``: what the file of a start holds, and which gains its table counts."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from boxwright.checkpoints.checkpoint import save_checkpoint
from boxwright.detectors.build import build_detector
from boxwright.recipes import get_recipe
from boxwright.structures import Classes
from boxwright.training.tasks.detection import start_from

RECIPE = "retinanet-lite0"


@pytest.fixture
def program(benchmark: Any) -> ModuleType:
    """Import the program as its command does."""
    return benchmark("detection_start")


def test_a_start_has_neck_and_head_without_classes(tmp_path: Path, program: ModuleType, benchmark: Any) -> None:
    """A detector of other classes takes every tensor of the file, and keeps its own backbone and class rows."""
    recipe, drawn = get_recipe(RECIPE), Classes(("mug", "fish"), (1, 2))
    torch.manual_seed(0)
    trained = build_detector(recipe.detector, drawn)
    run = benchmark("runner.training").Training(
        data=tmp_path / "scenes", recipe=RECIPE, epochs=1, seed=0, keep=tmp_path / "runs"
    )
    run.folder.mkdir(parents=True)
    save_checkpoint(run.checkpoint, trained.state_dict(), recipe, drawn, {})
    file = tmp_path / "start.safetensors"
    program.write_start(run, file)
    kept = load_file(file)
    assert not any(name.startswith("backbone.") for name in kept)
    assert not kept.keys() & trained.class_rows().keys()
    assert {value.dtype for value in kept.values() if value.is_floating_point()} == {torch.bfloat16}

    torch.manual_seed(1)
    tuned = build_detector(recipe.detector, Classes(("cell", "platelet", "other"), (1, 2, 3)))
    before = {name: value.clone() for name, value in tuned.state_dict().items()}
    assert f"{len(kept)} of {len(before)} tensors" in start_from(tuned, file)
    for name, value in tuned.state_dict().items():
        assert torch.equal(value, kept[name].to(value) if name in kept else before[name]), name


def test_the_table_counts_finished_pairs(tmp_path: Path, program: ModuleType, benchmark: Any) -> None:
    rows, training = benchmark("runner.rows").Rows(tmp_path / "start.jsonl"), benchmark("runner.training")

    def run(data: str, ap: float | None, weights: Path | None) -> Any:
        made = training.Training(
            data=Path(data), recipe=RECIPE, epochs=3, seed=0, keep=tmp_path, backbone_weights="none", weights=weights
        )
        if ap is not None:
            rows.add(made.key, {"val": {"AP": ap, "AP50": 0.8, "AP75": 0.5}})
        return made

    start = Path("start.safetensors")
    ways = [
        program.Ways(Path(data), [run(data, plain, None)], [run(data, scenes, start)])
        for data, plain, scenes in (("bccd", 0.5, 0.52), ("aerial", 0.4, None), ("coco", None, None))
    ]
    lines, gains = program.table(ways, rows)
    assert gains == [pytest.approx(0.02)]
    assert lines[2:] == [
        "| bccd | 3 | 0.500 | 0.800 | 0.500 | 0.520 | 0.800 | 0.500 | +0.020 |",
        "| aerial | 3 | 0.400 | 0.800 | 0.500 | – | – | – | – |",
    ]
    assert {program.label(way.scenes[0]) for way in ways} == {f"{name}-scenes-0" for name in ("bccd", "aerial", "coco")}
