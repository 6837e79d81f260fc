"""Convert configurations to plain trees of dicts, lists and scalars, and read them back strictly.

A tree holds what JSON and TOML can hold, and loses nothing. On reading, every key must exist, every value must have the
type and range of its field, and the field ``kind`` decides a union of configurations. Options of earlier versions are
read at their new paths (:mod:`boxwright.config.moved`).
"""

from __future__ import annotations

import dataclasses
import datetime
import functools
import json
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from boxwright.config.bounds import check_bounds, shortened
from boxwright.config.moved import MOVED, KeyPath, Moves, Renewal, entry_type
from boxwright.fields import (
    choose,
    field_types,
    kinds,
    names_a_field,
    nearest,
    path_of,
    union_members,
    validator,
    wrong_value,
)
from boxwright.structures import InputError

T = TypeVar("T")

Describe = Callable[[KeyPath], str]
"""Gives the origin of a value for errors: a file or a command line flag."""


def to_tree(value: Any) -> Any:
    """Return ``value`` as dicts, lists and scalars; a configuration becomes the dict of its fields."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: to_tree(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, list | tuple):
        return [to_tree(v) for v in value]
    if isinstance(value, dict):
        return {k: to_tree(v) for k, v in value.items()}
    return value


def from_tree(
    kind: type[T], tree: Any, describe: Describe = lambda path: "", moves: Moves = MOVED, trained: bool = False
) -> T:
    """Read ``tree``, written by this or an earlier version, as the configuration class ``kind``.

    ``trained``: drop deleted options that acted in training alone, whatever their value.
    Raises InputError naming the key, its origin and the nearest right key.
    """
    check_bounds(tree, describe)
    tree = renewed(kind, tree, describe, moves=moves, trained=trained)
    for path, value in _leaves(tree):
        if isinstance(value, datetime.date | datetime.time):  # TOML has them, JSON has not
            raise located(describe, path, f"{dotted(path)} = {value}: no option takes a date or time")
    try:
        return validator(kind).validate_json(json.dumps(tree))
    except ValidationError as error:
        raise located(describe, *_explain(kind, tree, error.errors(include_url=False))) from None


def renewed(
    kind: Any, tree: Any, describe: Describe, base: Any = None, moves: Moves = MOVED, trained: bool = False
) -> Any:
    """Return ``tree`` with the moved options at their new paths; ``base`` is the tree that an overlay changes."""
    return Renewal(lambda path, message: located(describe, path, message), moves, trained).renew(kind, tree, base)


def located(describe: Describe, path: KeyPath, message: str) -> InputError:
    """Return an error whose ``message`` begins with the origin of the value at ``path``."""
    origin, message = describe(path), shortened(message, 2000)
    return InputError(f"{origin}: {message}" if origin else message)


def dotted(path: KeyPath) -> str:
    """Return ``("stages", "0", "length")`` as a person types it: ``stages.0.length``."""
    return ".".join(path)


def leaf_paths(tree: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every entry of a dict or list in ``tree``, at all depths."""
    items = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ()
    for key, value in items:
        here = (*path, str(key))
        yield here
        yield from leaf_paths(value, here)


def differences(old: Any, new: Any, most: int = 4) -> str:
    """Describe the first ``most`` values in which two trees differ, for a message."""
    before, now = ({dotted(path): value for path, value in _leaves(tree)} for tree in (old, new))
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    values = "; ".join(f"{key}: {before.get(key)!r} there, {now.get(key)!r} now" for key in changed[:most])
    return values + ("; ..." if len(changed) > most else "")


def _leaves(tree: Any) -> Iterator[tuple[KeyPath, Any]]:
    for path in leaf_paths(tree):
        value = tree
        for key in path:
            value = value[int(key)] if isinstance(value, list) else value[key]
        if not isinstance(value, dict | list):
            yield path, value


def _explain(kind: type, tree: Any, errors: list[ErrorDetails]) -> tuple[KeyPath, str]:
    """Describe the first of the ``errors`` of reading ``tree`` as a ``kind``; return the path of its value as well."""
    unknown = [error for error in errors if error["type"] == "unexpected_keyword_argument"]
    error = (unknown or errors)[0]  # a misspelt key makes others look absent
    path = path_of(error)
    match error["type"]:
        case "unexpected_keyword_argument":
            return path, _unknown_key(_class_at(kind, tree, path[:-1]), tree, path)
        case "missing":
            *above, last = path
            absent = [p[-1] for p in map(path_of, errors) if p[:-1] == path[:-1]]
            where = dotted(tuple(above))
            if last.isdecimal():
                return tuple(above), f"{where} = {error['input']!r}: must have {int(last) + len(absent)} entries"
            return tuple(above), f"{where or 'the recipe'} lacks {', '.join(absent)}"
        case "dataclass_type":
            keys = ", ".join(field_types(_class_at(kind, tree, path)))
            value = repr(error["input"])
            return path, f"{dotted(path) or 'the recipe'} = {value}: must be a table with the keys {keys}"
        case "union_tag_not_found":
            return _unknown_kind(_type_at(kind, tree, path), error["input"], path)
        case "tuple_type":
            return path, f"{dotted(path)} = {error['input']!r}: must be a list"
        case "value_error":
            message = str(error.get("ctx", {})["error"])
            if names_a_field(message, _class_at(kind, tree, path)):
                return path, dotted((*path, message))
            return path, f"{dotted(path) or 'the recipe'}: {message}"
        case _:
            return path, wrong_value(dotted(path), error)


def _unknown_key(cls: type, tree: Any, path: KeyPath) -> str:
    """Describe a key that ``cls`` does not have, with the one that was probably meant."""
    *above, key = path
    keys = list(field_types(cls))
    # The right key in the wrong table is as usual a slip on a command line as a misspelt one.
    elsewhere = [dotted(p) for p in leaf_paths(tree) if p[-1] == key and p != path]
    near = f"; did you mean {elsewhere[0]!r}?" if elsewhere else nearest(key, keys)
    where = f"{dotted(tuple(above))} has" if above else "there is"
    return f"{where} no key {key!r}{near or '; the keys are ' + ', '.join(keys)}"


def _unknown_kind(annotation: Any, value: Any, path: KeyPath) -> tuple[KeyPath, str]:
    """Describe a ``value`` that is none of the configurations that ``annotation`` allows; return its path as well."""
    by_kind = kinds(member for member in union_members(annotation) if dataclasses.is_dataclass(member))
    names, here = ", ".join(repr(kind) for kind in by_kind), (*path, "kind")
    if not isinstance(value, dict):
        return path, f"{dotted(path)} = {value!r}: must be a table with a kind, one of {names}"
    if value.get("kind") is None:
        return path, f"{dotted(path)} lacks its kind; set {dotted(here)} to one of {names}"
    near = nearest(str(value["kind"]), list(by_kind))
    return here, f"{dotted(here)} = {value['kind']!r}: must be one of {names}{near}"


def _class_at(kind: type, tree: Any, path: KeyPath) -> Any:
    """Return the configuration class of the table at ``path`` in ``tree``, which is read as a ``kind``."""
    value = functools.reduce(lambda v, key: v[int(key)] if isinstance(v, list) else v[key], path, tree)
    return choose(union_members(_type_at(kind, tree, path)), value if isinstance(value, dict) else {})


def _type_at(kind: type, tree: Any, path: KeyPath) -> Any:
    """Return the type of the value at ``path`` in ``tree``, which is read as a ``kind``."""
    annotation: Any = kind
    for key in path:
        members = union_members(annotation)
        if isinstance(tree, list):
            annotation, tree = entry_type(members, int(key)), tree[int(key)]
        else:
            annotation, tree = field_types(choose(members, tree))[key], tree[key]
    return annotation
