"""Time of inference of trained detectors, all in turn in one process."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from boxwright.app.load import for_inference, load
from boxwright.data.formats.opening import open_splits
from boxwright.data.loading.loader import EvalLoader
from runner.rows import Rows
from runner.training import Training


def keep_times(runs: Sequence[Training], rows: Rows, device: str, rounds: int) -> None:
    """Time a detector of each recipe whose run is in its folder, and keep the milliseconds as ``ms`` in its row."""
    runs = [run for run in runs if run.checkpoint.is_file() and rows.find(run.key) is not None]
    first = {run.recipe: run for run in reversed(runs)}
    if not first:
        return
    times = milliseconds({name: run.checkpoint for name, run in first.items()}, runs[0].data, device, rounds)
    for name, ms in times.items():
        rows.add(first[name].key, {**(rows.find(first[name].key) or {}), "ms": ms})


def milliseconds(
    checkpoints: Mapping[str, Path], data: Path, device: str, rounds: int, sets: dict[str, list[str]] | None = None
) -> dict[str, float]:
    """Return the median time per image of each checkpoint, without the making of given proposals.

    ``sets``: by the same name, overrides of the recipe, as for ``boxwright evaluate --set``. Nothing is timed without
    ``rounds``.
    """
    if rounds < 1:
        return {}
    if device == "cpu":
        torch.set_num_threads(1)
    splits = open_splits(data)
    index = splits.get("val", splits.get("test", next(iter(splits.values()))))
    ready = {}
    for name, path in checkpoints.items():
        loaded = load(path, device, (sets or {}).get(name, ()))
        detector = for_inference(loaded.detector, loaded.device, "fp32")
        # A recipe may pad every batch to one size for its compiled graph; a single image needs no such padding.
        own = loaded.checkpoint.recipe.data
        data_config = replace(own, eval_batch_size=1, workers=0, fixed_size=None, shapes=None)
        loader = EvalLoader(index.subset([0]), data_config)
        ready[name] = detector, next(iter(loader)).images.to(loaded.device)
    times: dict[str, list[float]] = {name: [] for name in ready}
    with torch.inference_mode():
        for number in range(rounds + 2):
            for name, (detector, images) in ready.items():
                start = time.perf_counter()
                detector(images)
                if device == "cuda":
                    torch.cuda.synchronize()
                if number >= 2:
                    times[name].append(time.perf_counter() - start)
    return {name: 1000 * statistics.median(each) for name, each in times.items()}
