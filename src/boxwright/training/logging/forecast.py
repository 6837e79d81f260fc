"""Forecast of the end of a run, told in plain words: once after the first steps, and once validations are measured."""

from __future__ import annotations

from boxwright.io.durations import clock_in, shown

SHORTEST = 10.0
"""Seconds below which the end is not worth a word."""


class Forecast:
    """Tells the time that is left, at most twice in a session."""

    def __init__(self) -> None:
        self._rows = 0
        self._told: bool | None = None  # whether with the time of validations; None before anything is told
        self._validation: float | None = None

    def validated(self, seconds: float) -> None:
        """Take the time of a validation."""
        self._validation = seconds

    def due(self) -> bool:
        """Count a training row. Returns True if the end is to be told with it.

        The first row is left out: the loader starts in it, and the first steps are slow.
        """
        self._rows += 1
        if self._told is None:
            return self._rows > 1
        return not self._told and self._validation is not None

    def text(self, seconds: float, validations: int) -> str | None:
        """Return the words for ``seconds`` of steps and a number of ``validations`` to come; None if it is not long."""
        left = seconds + (self._validation or 0.0) * validations
        self._told = self._validation is not None or not validations
        if left < SHORTEST:
            return None
        more = f", and {validations} validation{'s' if validations > 1 else ''} more" if not self._told else ""
        return f"about {shown(left)} left, until {clock_in(left)}{more}"
