"""Configurations as TOML, as people write them: what is written is read back by an overlay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

_BARE_KEY = re.compile(r"[A-Za-z0-9_-]+")


def to_toml(tree: dict[str, Any]) -> str:
    """Return ``tree``, dicts and lists of scalars, as TOML. ``None`` becomes ``"none"``, as overlays have it."""
    return "\n".join(_table(tree, ())).strip() + "\n"


def toml_value(value: Any) -> str:
    """Return ``value`` as it stands behind a key or on a command line."""
    match value:
        case None:
            return '"none"'
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
        case str():
            return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
        case dict():
            return "{" + ", ".join(f"{_key(key)} = {toml_value(inner)}" for key, inner in value.items()) + "}"
        case _:
            return "[" + ", ".join(map(toml_value, value)) + "]"


def _table(table: dict[str, Any], path: tuple[str, ...]) -> Iterator[str]:
    """Yield the lines of a table: its values, then the tables in it, then its lists of tables."""
    for key, value in table.items():
        if not _is_table(value) and not _are_tables(value):
            yield f"{_key(key)} = {toml_value(value)}"
    for key, value in table.items():
        here = (*path, key)
        if _is_table(value):
            yield from ("", f"[{_dotted(here)}]", *_table(value, here))
        elif _are_tables(value):
            for entry in value:
                yield from ("", f"[[{_dotted(here)}]]", *_table(entry, here))


def _is_table(value: Any) -> bool:
    return isinstance(value, dict)


def _are_tables(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_table, value))


def _dotted(path: tuple[str, ...]) -> str:
    return ".".join(map(_key, path))


def _key(key: str) -> str:
    return key if _BARE_KEY.fullmatch(key) else toml_value(key)
