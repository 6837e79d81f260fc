"""Convert configurations to plain trees of dicts, lists and scalars, and read them back strictly.

A tree holds what JSON and TOML can hold, and loses nothing. On reading, every key must exist, every value must have the
type and range of its field, and the field ``kind`` decides a union of configurations. Options of earlier versions are
read at their new paths (:mod:`boxwright.config.moved`).
"""

from __future__ import annotations

import dataclasses
import functools
import json
import typing
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from pydantic import TypeAdapter, ValidationError

from boxwright.config.moved import MOVED, KeyPath, Moves, Renewal
from boxwright.fields import field_types, kinds, nearest, union_members
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


def from_tree(kind: type[T], tree: Any, describe: Describe = lambda path: "", moves: Moves = MOVED) -> T:
    """Read ``tree``, written by this or an earlier version, as a ``kind``.

    Raises InputError naming the key, its origin and the nearest right key.
    """
    tree = renewed(kind, tree, describe, moves=moves)
    return _Reader(describe, tree).read(kind, tree, ())


def renewed(kind: Any, tree: Any, describe: Describe, base: Any = None, moves: Moves = MOVED) -> Any:
    """``tree`` with options that have moved since it was written at their new paths; ``base`` is what it changes."""
    return Renewal(lambda path, message: located(describe, path, message), moves).renew(kind, tree, base)


def located(describe: Describe, path: KeyPath, message: str) -> InputError:
    """The error ``message``, after where the value at ``path`` came from."""
    origin = describe(path)
    return InputError(f"{origin}: {message}" if origin else message)


def dotted(path: KeyPath) -> str:
    """``("stages", "0", "length")`` as a person types it: ``stages.0.length``."""
    return ".".join(path)


def leaf_paths(tree: Any, path: KeyPath = ()) -> Iterator[KeyPath]:
    """The path of every dict entry in ``tree``, inner and outer."""
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


class _Reader:
    """One pass over a tree; holds what error messages need."""

    def __init__(self, describe: Describe, root: Any) -> None:
        self.describe = describe
        self.root = root

    def fail(self, path: KeyPath, message: str) -> InputError:
        """The error ``message``, after where the value at ``path`` came from."""
        return located(self.describe, path, message)

    def read(self, annotation: Any, tree: Any, path: KeyPath) -> Any:
        """``tree`` as a value of the type ``annotation``."""
        members = union_members(annotation)
        if type(None) in members:
            if tree is None:
                return None
            members = tuple(m for m in members if m is not type(None))
            if not any(_holds_dataclass(m) for m in members):
                return self.read_leaf(annotation, tree, path)
        if not any(_holds_dataclass(m) for m in members):
            return self.read_leaf(annotation, tree, path)
        classes = [m for m in members if dataclasses.is_dataclass(m)]
        if len(classes) == len(members):
            return self.read_dataclass(self.choose(classes, tree, path), tree, path)
        if len(members) == 1 and typing.get_origin(members[0]) is tuple:
            return self.read_tuple(typing.get_args(members[0]), tree, path)
        raise TypeError(f"{dotted(path)}: cannot read the type {annotation}")

    def choose(self, classes: list[Any], tree: Any, path: KeyPath) -> Any:
        """The member of a union of dataclasses that ``tree["kind"]`` names."""
        if len(classes) == 1:
            return classes[0]
        by_kind = kinds(classes)
        names = ", ".join(repr(k) for k in by_kind)
        if not isinstance(tree, dict):
            raise self.fail(path, f"{dotted(path)} = {tree!r}: must be a table with a kind, one of {names}")
        kind = tree.get("kind")
        if kind is None and (usual := [c for c in classes if getattr(c, "USUAL", False)]):
            return usual[0]
        if kind is None:
            raise self.fail(path, f"{dotted(path)} lacks its kind; set {dotted((*path, 'kind'))} to one of {names}")
        if kind not in by_kind:
            here = (*path, "kind")
            near = nearest(str(kind), list(by_kind))
            raise self.fail(here, f"{dotted(here)} = {kind!r}: must be one of {names}{near}")
        return by_kind[kind]

    def read_dataclass(self, cls: Any, tree: Any, path: KeyPath) -> Any:
        """The table ``tree`` as a ``cls``: keys it does not have are errors, fields left out take their defaults."""
        if not isinstance(tree, dict):
            keys = ", ".join(field_types(cls))
            raise self.fail(path, f"{dotted(path) or 'the recipe'} = {tree!r}: must be a table with the keys {keys}")
        hints = field_types(cls)
        for key in tree:
            if key not in hints:
                raise self.unknown_key(key, list(hints), path)
        values = {key: self.read(hints[key], value, (*path, key)) for key, value in tree.items()}
        missing = [f.name for f in dataclasses.fields(cls) if f.name not in values and _required(f)]
        if missing:
            raise self.fail(path, f"{dotted(path) or 'the recipe'} lacks {', '.join(missing)}")
        try:
            return cls(**values)
        except ValueError as error:
            text = str(error).removeprefix(f"{cls.__name__}: ")
            if text.startswith(f"{cls.__name__}."):  # the error names a field
                raise self.fail(path, f"{dotted((*path, text.removeprefix(f'{cls.__name__}.')))}") from error
            raise self.fail(path, f"{dotted(path) or 'the recipe'}: {text}") from error

    def unknown_key(self, key: str, keys: list[str], path: KeyPath) -> InputError:
        """The error for a ``key`` that is none of ``keys``, with the one that was probably meant."""
        where = f"{dotted(path)} has" if path else "there is"
        here = (*path, key)
        # The right key in the wrong table is as usual a slip on a command line as a misspelt one.
        elsewhere = [dotted(p) for p in leaf_paths(self.root) if p[-1] == key and p != here]
        near = f"; did you mean {elsewhere[0]!r}?" if elsewhere else nearest(key, keys)
        return self.fail(here, f"{where} no key {key!r}{near or '; the keys are ' + ', '.join(keys)}")

    def read_tuple(self, args: tuple[Any, ...], tree: Any, path: KeyPath) -> tuple[Any, ...]:
        """The list ``tree`` as a tuple whose entries have the types ``args``; ``(X, ...)`` means any number of X."""
        if not isinstance(tree, list):
            raise self.fail(path, f"{dotted(path)} = {tree!r}: must be a list")
        if len(args) == 2 and args[1] is Ellipsis:
            args = (args[0],) * len(tree)
        if len(args) != len(tree):
            raise self.fail(path, f"{dotted(path)} has {len(tree)} entries: must have {len(args)}")
        return tuple(self.read(a, t, (*path, str(i))) for i, (a, t) in enumerate(zip(args, tree, strict=True)))

    def read_leaf(self, annotation: Any, tree: Any, path: KeyPath) -> Any:
        """A value without dataclasses inside, checked by pydantic in strict mode: no text for a number and the like."""
        try:
            text = json.dumps(tree)
        except TypeError:
            raise self.fail(path, f"{dotted(path)} = {tree!r}: dates and times have no place here") from None
        try:
            return _adapter(annotation).validate_json(text, strict=True)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            inner = "".join(f".{i}" for i in first["loc"] if isinstance(i, int))
            message = first["msg"].replace("Input should", "should", 1)
            raise self.fail(path, f"{dotted(path)}{inner} = {tree!r}: {message}") from None


def _holds_dataclass(annotation: Any) -> bool:
    return any(
        dataclasses.is_dataclass(member)
        or (typing.get_origin(member) is tuple and any(_holds_dataclass(a) for a in typing.get_args(member)))
        for member in union_members(annotation)
    )


def _required(field: dataclasses.Field[Any]) -> bool:
    return field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING


@functools.cache
def _adapter(annotation: Any) -> TypeAdapter[Any]:
    return TypeAdapter(annotation)
