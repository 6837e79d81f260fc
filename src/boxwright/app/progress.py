"""A progress bar on a terminal, plain lines every few seconds elsewhere; always on stderr, so stdout stays clean."""

from __future__ import annotations

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from boxwright.io.text import printable_lines

_SECONDS_BETWEEN_LINES = 10.0


class ProgressBar:
    """``with ProgressBar("detecting", total) as bar: bar.advance()``; ``bar.say(text)`` prints a line above it."""

    def __init__(self, title: str, total: int | None) -> None:
        self._title, self._total = title, total
        self._done = 0
        self._console = Console(stderr=True, highlight=False)
        self._bar: Progress | None = None
        self._start = self._last_line = time.monotonic()
        if sys.stderr.isatty():
            self._bar = Progress(
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("left"),
                TimeRemainingColumn(),
                console=self._console,
            )
            self._task = self._bar.add_task(title, total=total, rate="")

    def __enter__(self) -> ProgressBar:
        if self._bar is not None:
            self._bar.start()
        return self

    def advance(self, steps: int = 1) -> None:
        """Count steps done."""
        self._done += steps
        now = time.monotonic()
        rate = self._done / max(now - self._start, 1e-9)
        if self._bar is not None:
            self._bar.update(self._task, advance=steps, rate=f"{rate:.1f}/s")
        elif now - self._last_line >= _SECONDS_BETWEEN_LINES:
            self._last_line = now
            of = f" of {self._total}" if self._total else ""
            self.say(f"{self._title}: {self._done}{of}, {rate:.1f}/s")

    def say(self, text: str) -> None:
        """Print a line, above the bar if there is one."""
        self._console.print(printable_lines(text), markup=False, soft_wrap=True)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
