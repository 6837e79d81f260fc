"""Checks of what a file of weights holds, before anything is built from it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
from torch import Tensor

from boxwright.config.bounds import check_bounds, shortened
from boxwright.config.reading import parse_json
from boxwright.detectors.contract.adoption import not_finite
from boxwright.structures import Classes, InputError

EARLIER = "take an earlier checkpoint of the training, or download the file anew"
_META: Mapping[str, type | tuple[type, ...]] = {
    "step": int,
    "epoch": (int, float),
    "metrics": (dict, type(None)),
    "weights": str,
    "versions": dict,
    "git": (dict, type(None)),
    "data": dict,
    "imported": dict,
}
_KINDS = {dict: "a table", int: "a whole number", float: "a number", str: "text", list: "a list", type(None): "null"}


def load_tensors(path: Path, remedy: str) -> dict[str, Tensor]:
    """Map the tensors of a safetensors file into memory.

    Raises InputError for a file that is damaged, with the ``remedy``, and naming a tensor with a value that is NaN or
    infinite.
    """
    try:
        state = safetensors.torch.load_file(path)
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, RuntimeError, OverflowError) as error:
        told = shortened(str(error))
        raise InputError(f"{path}: truncated or damaged ({path.stat().st_size} bytes; {told}); {remedy}") from None
    check_finite(state, str(path))
    return state


def check_finite(state: Mapping[str, Tensor], what: str, remedy: str = EARLIER) -> None:
    """Raise InputError naming the tensors with values that are NaN or infinite; ``what`` names their file."""
    if named := not_finite(state):
        raise InputError(f"{what}: values that are NaN or infinite in {shortened(named, 400)}; {remedy}")


def parse_header(text: str, path: Path) -> dict[str, Any]:
    """Return Boxwright's part of a header: ``format``, ``recipe``, ``classes`` and ``meta``.

    Raises InputError naming the key that is missing or of another type.
    """
    where = f"{path}: its header"
    header = parse_json(text, where)
    check_bounds(header, lambda _: where)
    check_types(header, {"format": int, "recipe": dict, "classes": dict, "meta": dict}, where)
    check_types(header["classes"], {"names": list, "ids": list}, f"{where}: classes")
    check_meta(header["meta"], where)
    return header


def check_meta(meta: dict[str, Any], where: str) -> None:
    """Raise InputError for an entry of the origin of the weights that has another type than we write."""
    check_types(meta, {key: kind for key, kind in _META.items() if key in meta}, f"{where}: meta")
    if "imported" in meta:
        check_types(meta["imported"], {"source": str}, f"{where}: meta.imported")


def check_types(table: Any, kinds: Mapping[str, type | tuple[type, ...]], where: str) -> None:
    """Raise InputError unless ``table`` is a dict that has the keys of ``kinds`` with values of these types."""
    if not isinstance(table, dict):
        raise InputError(f"{where}: must be a table, not {shortened(repr(table), 80)}; use another copy of the file")
    for key, kind in kinds.items():
        if key not in table:
            raise InputError(f"{where}: lacks {key}; use another copy of the file")
        value = table[key]
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in (kind, *_all(kind))):
            names = " or ".join(_KINDS.get(one, one.__name__) for one in _all(kind))
            shown = shortened(repr(value), 80)
            raise InputError(f"{where}: {key} = {shown}: must be {names}; use another copy of the file")


def _all(kind: type | tuple[type, ...]) -> tuple[type, ...]:
    return kind if isinstance(kind, tuple) else (kind,)


def read_classes(names: list[Any], ids: list[Any], where: str) -> Classes:
    """Return the classes of a file. Raises InputError naming ``where`` for names that are no text, or no names."""
    wrong = [name for name in names if not isinstance(name, str)]
    wrong += [number for number in ids if not isinstance(number, int) or isinstance(number, bool)]
    if wrong or not names:
        shown = shortened(repr(wrong[0]), 80) if wrong else "[]"
        raise InputError(f"{where}: classes: {shown}: must be names as text and ids as whole numbers, at least one")
    try:
        return Classes(tuple(names), tuple(ids))
    except InputError as error:
        raise InputError(f"{where}: {shortened(str(error), 400)}") from None
