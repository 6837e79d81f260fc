"""Parameters and multiply-adds of all backbones and recipes, from a stored table: no network is built to list them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

from boxwright.structures import InputError

Kind = Literal["backbone", "detector"]

TABLE = Path(__file__).with_name("costs.json")
"""The stored table, written by ``python -m boxwright.app.models.counting``. A test recounts it."""


def model_rows(kind: Kind | None = None) -> list[dict[str, Any]]:
    """Return a row for every backbone and every recipe, or for one ``kind`` only.

    A row has name, kind, parameters, multiply_adds and input, counted as
    :func:`boxwright.app.models.counting.all_rows` describes, and the facts of :mod:`boxwright.app.models.facts`.
    """
    rows: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return [row for row in rows if kind in (None, row["kind"])]


def of_family(rows: list[dict[str, Any]], family: str) -> list[dict[str, Any]]:
    """Return the rows of a family such as ``ssd``. Raises InputError for one that does not exist."""
    known = sorted({row["family"] for row in rows if row["family"]})
    name = family.lower().replace("_", "-")
    if name not in known:
        raise InputError(f"--family {family}: there is no such family; there are {', '.join(known)}")
    return [row for row in rows if row["family"] == name]


def one_of_each_network(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the papers' recipes, of several with one network (at other sizes, on other data) the first."""
    first: dict[tuple[str, int], dict[str, Any]] = {}
    for row in rows:
        if row["role"] == "paper":
            first.setdefault((row["family"], row["parameters"]), row)
    return list(first.values())
