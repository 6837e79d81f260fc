"""Progress of a run on stderr: a live bar on a terminal, lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import timedelta
from typing import Any, Literal, Protocol

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from boxwright.io.text import printable_lines

Row = dict[str, Any]
Log = Literal["auto", "bar", "lines", "quiet"] | Callable[[str], None]


class Reporter(Protocol):
    """Receiver of the messages and rows of a run."""

    def say(self, text: str) -> None: ...
    def step(self, step: int) -> None: ...
    def row(self, row: Row) -> None: ...
    def close(self) -> None: ...


class Lines:
    """Writes one line per row, for files, pipes and callbacks."""

    def __init__(self, write: Callable[[str], None], total: int) -> None:
        self.write = write
        self.total = total

    def say(self, text: str) -> None:
        """Write a message."""
        self.write(text)

    def step(self, step: int) -> None:
        """Ignore a finished step: rows say enough."""

    def row(self, row: Row) -> None:
        """Write a training row."""
        self.write(f"step {row['step']}/{self.total}  {describe(row)}")

    def close(self) -> None:
        """Do nothing: nothing is open."""


class Bar:
    """A progress bar with the losses, speed and memory of the last row."""

    def __init__(self, console: Console, total: int, done: int) -> None:
        self.progress = Progress(
            TextColumn("step"),
            MofNCompleteColumn(),
            BarColumn(bar_width=24),
            TimeElapsedColumn(),
            TextColumn("{task.fields[text]}"),
            console=console,
        )
        self.task = self.progress.add_task("train", total=total, completed=done, text="")
        self.progress.start()

    def say(self, text: str) -> None:
        """Print a message above the bar."""
        self.progress.console.print(printable_lines(text), markup=False, highlight=False)

    def step(self, step: int) -> None:
        """Show a finished step."""
        self.progress.update(self.task, completed=step)

    def row(self, row: Row) -> None:
        """Show a training row."""
        self.progress.update(self.task, text=describe(row))

    def close(self) -> None:
        """Stop the bar and leave it on the screen."""
        self.progress.stop()


def open_reporter(log: Log, main: bool, total: int, done: int) -> Reporter:
    """Open a reporter: "auto" is a bar on a terminal and lines elsewhere. Only the main process reports."""
    if not main or log == "quiet":
        return Lines(lambda text: None, total)
    if callable(log):
        return Lines(log, total)
    console = Console(stderr=True)
    if log == "bar" or (log == "auto" and console.is_terminal):
        return Bar(console, total, done)
    return Lines(lambda text: print(printable_lines(text), file=sys.stderr, flush=True), total)


def describe(row: Row) -> str:
    """Return a training row as text."""
    parts = [f"epoch {row['epoch']:.2f}"]
    if "figures" in row:  # of a stage that fits: means over its images since the row before
        figures = ", ".join(f"{value:.4g} {name.replace('_', ' ')}" for name, value in row["figures"].items())
        parts.append(f"fitting {row['stage']}: {figures} an image")
    else:
        terms = ", ".join(f"{key.removeprefix('loss_')} {row[key]:.4g}" for key in row if key.startswith("loss_"))
        parts += [f"loss {row['loss']:.4g}" + (f" ({terms})" if terms else ""), f"lr {row['lr']:.3g}"]
    if row.get("images_per_second"):
        parts.append(f"{row['images_per_second']:.1f} images/s")
    if row.get("eta") is not None:
        parts.append(f"{timedelta(seconds=round(row['eta']))} left")
    if row.get("memory"):
        parts.append(f"{row['memory'] / 1e9:.2f} GB")
    return "  ".join(parts)


class Clock:
    """Measures the time of steps between rows, without the time of validations and checkpoints."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.away = 0.0
        self.step: int | None = None

    def pause(self, seconds: float) -> None:
        """Leave ``seconds`` out of the current interval."""
        self.away += seconds

    def seconds_per_step(self, step: int) -> float | None:
        """Return the mean over the steps since the last call; None at the first call."""
        now = time.perf_counter()
        result = None
        if self.step is not None and step > self.step:
            result = max(1e-9, now - self.start - self.away) / (step - self.step)
        self.start, self.away, self.step = now, 0.0, step
        return result
