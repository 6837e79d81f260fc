"""Parameters and multiply-adds of all backbones and recipes, from a stored table: no network is built to list them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

Kind = Literal["backbone", "detector"]

TABLE = Path(__file__).with_name("costs.json")
"""The stored table, written by ``python -m boxwright.app.models.counting``. A test recounts it."""


def model_rows(kind: Kind | None = None) -> list[dict[str, Any]]:
    """Return a row for every backbone and every recipe, or for one ``kind`` only.

    A row has name, kind, parameters, multiply_adds and input. They are counted as
    :func:`boxwright.app.models.counting.all_rows` describes.
    """
    rows: list[dict[str, Any]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return [row for row in rows if kind in (None, row["kind"])]
