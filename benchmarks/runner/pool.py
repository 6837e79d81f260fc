"""Runs side by side, each in a process of its own with one thread on one core."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Protocol

from runner.rows import Rows, Values


@dataclass(frozen=True)
class Place:
    """Device and processor core of a run. ``core`` None leaves the core to the system."""

    device: str = "cpu"
    core: int | None = None

    def command(self, command: Sequence[str]) -> list[str]:
        """Return a command line that stays on the core, where the system has `taskset`."""
        bound = self.device == "cpu" and self.core is not None and shutil.which("taskset")
        return ["taskset", "--cpu-list", str(self.core), *command] if bound else list(command)

    def environment(self) -> dict[str, str]:
        """Return the environment of a child process: one thread on a CPU, which waits without spinning."""
        threads = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OMP_WAIT_POLICY": "PASSIVE"}
        return {**os.environ, **(threads if self.device == "cpu" else {})}

    def run(self, command: Sequence[str], log: Path) -> float:
        """Run a command with its output in the file ``log``, and return its seconds.

        Raises RunFailed with the end of the output if the command fails.
        """
        log.parent.mkdir(parents=True, exist_ok=True)
        start = time.monotonic()
        with log.open("w") as file:
            done = subprocess.run(
                self.command(command), env=self.environment(), stdout=file, stderr=file, stdin=subprocess.DEVNULL
            )
        if done.returncode:
            raise RunFailed(f"{' '.join(map(str, command))}\n{log.read_text(errors='replace')[-2000:]}")
        return time.monotonic() - start


class RunFailed(Exception):
    """A child process that ended with an error, with its command and the end of its output."""


class Run(Protocol):
    """One run of a comparison."""

    @property
    def key(self) -> dict[str, Any]:
        """Everything that tells the run from the others."""
        ...

    def measure(self, place: Place) -> Values:
        """Make the run, and return its results."""
        ...


def run_all(
    runs: Sequence[Run], rows: Rows, jobs: int, device: str = "cpu", then: Callable[[], None] = lambda: None
) -> None:
    """Make all runs that ``rows`` lacks, ``jobs`` at a time in their order, and keep each as it ends.

    ``then`` is called after each, for example to write the table. A run that fails does not stop the others. Stops the
    program at the end, with all errors, if any failed.
    """
    missing = [run for run in runs if rows.find(run.key) is None]
    print(f"{len(runs) - len(missing)} of {len(runs)} runs are there already: {rows.path}", flush=True)
    free: SimpleQueue[int] = SimpleQueue()
    for core in cores(jobs):
        free.put(core)

    def make(run: Run) -> None:
        with _taken(free) as core:
            rows.add(run.key, run.measure(Place(device, core)))
        print(_told(run.key), _told(rows.find(run.key) or {}), flush=True)

    failed = []
    with ThreadPoolExecutor(jobs) as pool:
        waiting = {pool.submit(make, run): run for run in missing}
        try:
            for done in as_completed(waiting):
                if error := done.exception():
                    if not isinstance(error, RunFailed):
                        raise error
                    failed.append(str(error))
                    print(f"failed: {error}", file=sys.stderr, flush=True)
                then()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    if failed:
        raise SystemExit(f"{len(failed)} of {len(missing)} runs failed; the others are kept in {rows.path}")


def cores(jobs: int) -> list[int]:
    """Return a core for each job, in turn where there are fewer."""
    allowed = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))
    return [allowed[job % len(allowed)] for job in range(jobs)]


@contextmanager
def _taken(cores: SimpleQueue[int]):
    core = cores.get()
    try:
        yield core
    finally:
        cores.put(core)


def _told(values: dict[str, Any]) -> str:
    """Return the plain entries of a dictionary in one line."""
    return " ".join(f"{name}={value}" for name, value in values.items() if not isinstance(value, dict))
