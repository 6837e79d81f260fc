"""Change configurations by TOML files and by ``--set a.b=c``.

Rules of merging. A table changes the keys it names. A list replaces a list; a table whose keys are numbers changes
those entries of a list (``[stages.0]``, ``--set stages.0.length=10``). The key ``+`` adds an entry at the end of a list
and ``+1`` one before entry 1; a word stands for the table of that kind (``--set data.train.+=mixup``). A table that
names another ``kind`` starts from that kind's own defaults. ``"none"`` stands for nothing where a value is optional. A
name in place of a backbone's table (``--set detector.backbone=vgg16-bn``, ``=timm:NAME``) stands for all of that
backbone's table.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from boxwright.backbones.build import named_backbone
from boxwright.config.bounds import DEEPEST, check_bounds, shortened
from boxwright.config.config_tree import dotted, from_tree, renewed, to_tree
from boxwright.config.moved import MOVED, KeyPath, Moves
from boxwright.structures import InputError

T = TypeVar("T")

_LARGEST = 1_000_000
"""Bytes of a file, and characters of an option."""
_BARE_WORD = re.compile(r"[A-Za-z_][\w./:+-]*")


@dataclass(frozen=True)
class Overlay:
    """Changes to a configuration: a partial ``tree``, and the file or flag it came from."""

    origin: str
    tree: dict[str, Any]


def read_overlay(path: Path | str) -> Overlay:
    """The TOML file at ``path``."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            text = file.read(_LARGEST + 1)
        if len(text) > _LARGEST:
            raise InputError(f"{path}: more than {_LARGEST // 1000} kB; give the path of a recipe's TOML file")
        tree = tomllib.loads(text.decode())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; give the path of a TOML file") from None
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    except InputError:
        raise
    except (ValueError, RecursionError) as error:  # ValueError also for a number of thousands of digits
        raise InputError(f"{path}: not valid TOML: {_told(error)}") from None
    check_bounds(tree, lambda _: str(path))
    return Overlay(str(path), tree)


def parse_set(text: str) -> Overlay:
    """``a.b.0.c=VALUE``, the argument of ``--set``. VALUE is TOML; a bare word is text."""
    origin = f"--set {shortened(text)}"
    key, equals, value = text.partition("=")
    keys = [k.strip() for k in key.split(".")]
    if not equals or not all(keys):
        raise InputError(f"{origin}: must have the form KEY=VALUE, for example data.batch_size=8")
    if len(text) > _LARGEST or len(keys) > DEEPEST:
        raise InputError(f"{origin}: too long; put it into a TOML file and give that with --config")
    tree: Any = _parse_value(value.strip(), origin)
    for k in reversed(keys):
        tree = {k: tree}
    check_bounds(tree, lambda _: origin)
    return Overlay(origin, tree)


def _parse_value(text: str, origin: str) -> Any:
    try:
        parsed = tomllib.loads(f"value = {text}")
        if len(parsed) > 1:  # lines after the value would be passed over
            raise ValueError("more than one value")
        return parsed["value"]
    except (ValueError, RecursionError) as error:
        if not isinstance(error, tomllib.TOMLDecodeError):
            raise InputError(f"{origin}: {_told(error)}") from None
        if _BARE_WORD.fullmatch(text):
            return text
        key = origin.removeprefix("--set ").partition("=")[0]
        raise InputError(
            f"{origin}: {shortened(text)!r} is not a TOML value; text other than one word, such as a path, needs "
            f"quotes that the shell leaves in place: --set '{key}=\"TEXT\"'"
        ) from None


def _told(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return "too many tables or lists in one another"
    return "a number with too many digits" if "integer string conversion" in str(error) else str(error)


def apply_overlays(base: T, overlays: Sequence[Overlay], moves: Moves = MOVED) -> T:
    """``base`` with the changes of ``overlays`` in their order, checked whole. ``base`` stays as it is."""
    tree = to_tree(base)
    origins: dict[KeyPath, str] = {}
    for overlay in overlays:
        changes = renewed(type(base), overlay.tree, lambda path, origin=overlay.origin: origin, tree, moves)
        tree = _merge(tree, changes, (), overlay.origin, origins)
    return from_tree(type(base), tree, lambda path: _origin_of(path, origins), moves)


def _merge(old: Any, new: Any, path: KeyPath, origin: str, origins: dict[KeyPath, str]) -> Any:
    origins.pop(path, None)  # dicts keep insertion order, and the newest change must come last
    origins[path] = origin
    if isinstance(new, dict) and isinstance(old, list):
        return _merge_entries(old, new, path, origin, origins)
    if isinstance(new, dict) and isinstance(old, dict) and new.get("kind", old.get("kind")) == old.get("kind"):
        merged = dict(old)
        for key, value in new.items():
            merged[key] = _merge(old.get(key), value, (*path, key), origin, origins)
        return merged
    if isinstance(new, dict):  # nothing below is kept: note the origin of every new value
        return {key: _merge(None, value, (*path, key), origin, origins) for key, value in new.items()}
    if isinstance(new, str) and isinstance(old, dict) and path[-1:] == ("backbone",):
        return _backbone(new, path, origin)
    return new


def _backbone(name: str, path: KeyPath, origin: str) -> dict[str, Any]:
    try:
        return to_tree(named_backbone(name))
    except InputError as error:
        raise InputError(f"{origin}: {dotted(path)}: {error}") from None


def _merge_entries(
    old: list[Any], new: dict[str, Any], path: KeyPath, origin: str, origins: dict[KeyPath, str]
) -> list[Any]:
    merged = list(old)
    for key, value in new.items():
        adding = key.startswith("+")
        number = key.removeprefix("+") or str(len(merged))
        index = int(number) if number.isdecimal() else None
        if index is None or index >= len(merged) + adding:
            allowed = f"0 to {len(merged) - 1}" if merged else "none: the list is empty"
            raise InputError(
                f"{origin}: {dotted(path)} is a list; its entries are {allowed}, not {key!r}; + adds one at the end"
            )
        if adding:
            merged[index:index] = _added(value, merged)
        else:
            merged[index] = _merge(merged[index], value, (*path, key), origin, origins)
    return merged


def _added(value: Any, entries: list[Any]) -> list[Any]:
    """Return what is added to a list: each entry of a list, and a word as the table of that kind."""
    with_kind = any(isinstance(entry, dict) and "kind" in entry for entry in entries)
    values = value if isinstance(value, list) else [value]
    return [{"kind": one} if with_kind and isinstance(one, str) else one for one in values]


def _origin_of(path: KeyPath, origins: dict[KeyPath, str]) -> str:
    """The last origin that touched ``path`` or something below it, else what touched the nearest table above."""
    below = [origin for p, origin in origins.items() if p[: len(path)] == path]
    if below:
        return below[-1]
    above = [(len(p), origin) for p, origin in origins.items() if p == path[: len(p)]]
    return max(above)[1] if above else ""
