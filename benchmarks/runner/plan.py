"""Length of runs on one core from a table of paces, which short runs fill."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

from boxwright.app.train import training_splits
from boxwright.config.recipe import Stage
from boxwright.structures import InputError
from runner.pace import Pace, pace_of
from runner.pool import Place, cores
from runner.rows import Rows
from runner.training import Training

STEPS = 10
"""Steps of a short run."""
APART = ("epochs", "seed", "splits", "backbone_weights", "weights")
"""Parts of a run's key that its pace does not depend on."""


class Plan:
    """Paces of runs, which are kept in the file ``pace.jsonl`` beside the table."""

    def __init__(self, args: argparse.Namespace) -> None:
        self.rows = Rows(args.output.with_name("pace.jsonl"))
        self.place = Place(args.device, cores(1)[0])
        self._images: dict[str, tuple[int, int]] = {}

    def key(self, run: Training) -> dict[str, Any]:
        """Return everything that tells a run's pace from others."""
        key = {name: value for name, value in replace(run, epochs=1.0, seed=0).key.items() if name not in APART}
        return {**key, "steps": STEPS, "device": self.place.device}

    def known(self, run: Training) -> bool:
        """Return True if the pace of a run's recipe at its size was measured before."""
        return self.rows.find(self.key(run)) is not None

    def pace(self, run: Training) -> Pace:
        """Return the pace of a run's recipe at its size, measured by a short run if it is not known."""
        key = self.key(run)
        if (known := self.rows.find(key)) is None:
            train, val = self.images(run)
            seen = min(train, STEPS * run.resolved.batch_size)
            short = replace(
                run, seed=0, epochs=seen / train, sets=(*run.sets, "log_every=2"), splits=(), keep=run.keep / "pace"
            )
            known = asdict(pace_of(short.measure(self.place), round(seen * stages(run)), val))
            self.rows.add(key, known)
        return Pace(**known)

    def images(self, run: Training) -> tuple[int, int]:
        """Return the number of images that a run is trained and validated on."""
        key = str(run.data)
        if key not in self._images:
            train, val = training_splits(run.data)
            if val is None:
                raise InputError(f"{run.data}: has no split to validate on")
            self._images[key] = len(train), len(val)
        return self._images[key]

    def epochs(self, runs: Sequence[Training], minutes: float) -> int:
        """Return the most epochs that each of ``runs`` ends within ``minutes``, validation included."""
        lengths = []
        for run in runs:
            pace, (train, val) = self.pace(run), self.images(run)
            lengths.append(pace.epochs(minutes, round(train * stages(run)), val, per_epoch=0, final=1))
        return min(lengths)

    def minutes(self, run: Training) -> float:
        """Return the minutes that a run takes with the evaluation of its checkpoint."""
        pace, (train, val) = self.pace(run), self.images(run)
        again = 1 + len(run.splits)
        return (again * (pace.start + pace.val * val) + pace.train * train * stages(run) * run.epochs) / 60

    def tell(
        self, runs: Sequence[Training], done: Rows, like: Callable[[Training], Training] = lambda run: run
    ) -> None:
        """Print pace and minutes of all runs, and the sum of those that ``done`` lacks.

        ``like`` returns a run that has the pace and the length of a run in images.
        """
        total = 0.0
        for run in runs:
            minutes, missing = self.minutes(like(run)), done.find(run.key) is None
            total += minutes * missing
            print(
                f"{run.name or run.data.name} {run.recipe} {run.backbone_weights or ''} seed {run.seed}: "
                f"{1 / self.pace(like(run)).train:.1f} images/s, {run.epochs:g} epochs, {minutes:.1f} minutes"
                f"{'' if missing else ', done'}",
                flush=True,
            )
        print(f"{total:.0f} minutes on one core for the runs that are not done", flush=True)


def stages(run: Training) -> float:
    """Return the length of all stages of gradient descent in those of the first."""
    lengths = [stage.length for stage in run.resolved.stages if isinstance(stage, Stage)]
    return sum(lengths) / lengths[0]


def equal_length(runs: Sequence[Training], args: argparse.Namespace, plan: Plan) -> list[Training]:
    """Return the runs with the epochs that the slowest ends within ``--minutes``, if they are given."""
    if args.minutes is None or not runs:
        return list(runs)
    epochs = plan.epochs(runs, args.minutes)
    return [replace(run, epochs=float(epochs)) for run in runs]


def own_lengths(runs: Sequence[Training], args: argparse.Namespace, plan: Plan) -> list[Training]:
    """Return the runs, each with the epochs that its recipe ends within ``--minutes``, if they are given."""
    return [one for run in runs for one in equal_length([run], args, plan)]
