"""Metrics for a terminal and for JSON."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from boxwright.io.text import printable


def percent_table(
    title: str | None, columns: Sequence[str], rows: Sequence[Sequence[str | float]], caption: str | None = None
) -> Table:
    """Return a rich table that shows floats in 0..1 as percent with one decimal, and NaN as a dash."""
    table = Table(title=title, title_justify="left", caption=caption, caption_justify="left")
    first = rows[0] if rows else ()
    for position, column in enumerate(columns):
        is_text = position < len(first) and isinstance(first[position], str)
        table.add_column(column, justify="left" if is_text else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(_cell(value) for value in row))
    return table


def json_safe(value: Any) -> Any:
    """Return nested dicts and lists with None instead of NaN, which JSON does not have."""
    if isinstance(value, dict):
        return {key: json_safe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [json_safe(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _cell(value: str | float) -> str | Text:
    """Return a number as text, and text as it is: square brackets in it are no markup."""
    if isinstance(value, float):
        return "–" if math.isnan(value) else f"{100 * value:.1f}"
    return Text(printable(str(value)))
