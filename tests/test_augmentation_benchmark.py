"""The benchmark of augmentation: each variant differs from the recipe in one thing, and its gain is told."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import pytest

from boxwright.data.formats.coco.writer import write_coco
from boxwright.structures import InputError
from tests.support.tiny_index import write_index


def test_variants_of_augmentation_differ_in_one_thing(tmp_path: Path, benchmark: Any) -> None:
    augmentation, folder = benchmark("augmentation"), tmp_path / "bccd"
    index = write_index(tmp_path)
    write_coco(folder, {"train": index, "val": index}, images="link")
    args = argparse.Namespace(
        data=[folder], recipe="retinanet-lite0", epochs=None, minutes=None, seeds=[0, 1], set=[], size=None,
        backbone_weights=None, freeze_at=None, workers=0, variants=list(augmentation.NAMES), device="cpu",
        output=tmp_path / "augmentation.md",
    )  # fmt: skip
    plan, rows = benchmark("runner.plan").Plan(args), benchmark("runner.rows").Rows(tmp_path / "augmentation.jsonl")
    runs = augmentation.runs_of(args, tmp_path, plan)["bccd"]
    assert list(runs) == list(augmentation.NAMES)
    plain = runs["default"][0].resolved
    for variant, (first, second) in runs.items():
        changed = first.resolved
        assert (changed != plain) == (variant != "default")
        assert changed.stages == plain.stages
        assert changed.stages[0].length == 12  # type: ignore[union-attr]
        assert (first.seed, second.seed) == (0, 1)
    sizes = [transform.size for transform in runs["mosaic"][0].resolved.data.train if transform.kind == "mosaic"]
    assert sizes == [plain.data.eval[-1].size]  # type: ignore[union-attr]
    assert runs["mosaic_closed"][0].resolved.data.close_mosaic == pytest.approx(2.4)
    assert augmentation.section("bccd", runs, rows) == ([], {})
    stats = {**dict.fromkeys(("AP", "AP50", "AP75", "APs", "APm", "APl"), 0.5)}
    for variant, ap in (("default", 0.5), ("mosaic", 0.53), ("mixup", 0.49)):
        for run in runs[variant]:
            rows.add(run.key, {"val": {**stats, "AP": ap}, "minutes": 1.0, "speed": 2.0})
    lines, gains = augmentation.section("bccd", runs, rows)
    assert gains == {"mosaic": pytest.approx(0.03), "mixup": pytest.approx(-0.01)}
    assert lines[1] == "## bccd, 12 epochs"
    assert lines[-2].startswith("| + mosaic | 2 | 0.530")
    assert lines[-2].endswith("| +0.030 |")
    assert augmentation.verdicts({"bccd": gains, "coco_mini": {"mosaic": -0.01}})[-2:] == [
        "| + mosaic | +0.030 | -0.010 | 1 of 2 |",
        "| + mixup | -0.010 | – | 0 of 1 |",
    ]
    args.data = [folder.rename(tmp_path / "other")]
    with pytest.raises(InputError, match="no length in the table EPOCHS"):
        augmentation.runs_of(args, tmp_path, plan)
