"""Markdown tables of the runs: means over seeds, precision by overlap and size, and differences with their error."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

FIGURES = ("AP", "AP50", "AP75", "APs", "APm", "APl")
AREAS = ("all", "small", "medium", "large")
IOUS = tuple(range(50, 100, 5))
STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26)
"""Standard errors within which 95 % of chance differences lie, for 2, 3 ... 10 seeds; 1.96 for very many."""


def markdown(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return the lines of a table."""
    lines = ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    return [*lines, *("| " + " | ".join(row) + " |" for row in rows)]


def defined(values: Iterable[float | None]) -> list[float] | None:
    """Return the values, or None if one is undefined: absent, NaN, or -1 as pycocotools writes it."""
    found = [math.nan if value is None else value for value in values]
    return None if not found or any(math.isnan(value) or value < 0 for value in found) else found


def mean(values: Iterable[float | None], digits: int = 3, spread: bool = True) -> str:
    """Return mean and standard deviation, or a dash where a value is undefined or there is none."""
    found = defined(values)
    if found is None:
        return "–"
    deviation = f" ± {statistics.stdev(found):.{digits}f}" if spread and len(found) > 1 else ""
    return f"{statistics.mean(found):.{digits}f}{deviation}"


def write_lines(output: Path, lines: Sequence[str]) -> None:
    """Write a table to its file."""
    output.write_text("\n".join(lines) + "\n", encoding="utf-8")


def at(tables: Mapping[str, Any], metric: str, area: str = "all") -> float:
    """Return one metric (AP, AR, AP50 ... AR95) of the tables by overlap; NaN where the data has no such object."""
    found = tables[metric[:2]][area][metric]
    return math.nan if found is None else found


def overlap_table(metric: str, names: Sequence[str], scores: Mapping[tuple[str, int], Any], head: str) -> list[str]:
    """Return means over seeds at each overlap, by area: DetNet's table 3 (AP) or 4 (AR).

    ``scores``: the tables by overlap of each name and seed.
    """
    each = [f"{metric}{iou}" for iou in IOUS]
    rows = []
    for name in names:
        own = [tables for (other, _), tables in scores.items() if other == name]
        for area in AREAS:
            first = mean(at(tables, metric, area) for tables in own)
            rest = [mean((at(tables, column, area) for tables in own), spread=False) for column in each]
            rows.append([name, area, first, *rest])
    return markdown([head, "objects", f"{metric} (mean)", *each], rows)


def difference(
    names: tuple[str, str], seeds: Sequence[int], scores: Mapping[tuple[str, int], Any], metric: str, area: str = "all"
) -> str | None:
    """Return the mean over seeds of the first minus the second, and its significance; None where a run is missing."""
    if any((name, seed) not in scores for name in names for seed in seeds):
        return None
    one, other = ([at(scores[name, seed], metric, area) for seed in seeds] for name in names)
    differences = [a - b for a, b in zip(one, other, strict=True)]
    if any(math.isnan(d) for d in differences):
        return "the data has no such object."
    middle = statistics.mean(differences)
    if len(differences) < 2:
        return f"{middle:+.3f} from one seed, which says nothing about chance."
    error = statistics.stdev(differences) / math.sqrt(len(differences))
    margin = STUDENT[min(len(differences) - 2, len(STUDENT) - 1)] * error
    if abs(middle) <= margin:
        verdict = f"undecided: {len(differences)} seeds differ by up to ± {margin:.3f} by chance (95 %)"
    else:
        verdict = "so here (beyond chance at 95 %)" if middle > 0 else "the contrary here (beyond chance at 95 %)"
    return f"{middle:+.3f} ± {error:.3f}; {verdict}."
