"""The dialect of all configurations: one class decorator, and the types of their fields.

    @config
    class SGDConfig:
        lr: Positive = 0.02
        \"\"\"Learning rate.\"\"\"

A configuration is a frozen dataclass with keyword arguments only. Its values are checked when it is constructed, and
so on ``dataclasses.replace``: ``SGDConfig(lr=-1)`` raises ``InputError: SGDConfig.lr = -1: should be greater than 0``.
Types are strict: no text for a number, no list for a tuple. A range is part of a field's type; ``__post_init__`` checks
how fields relate. A field that takes several configurations (``SGDConfig | AdamWConfig``) is decided by their ``kind``.
"""

from __future__ import annotations

import dataclasses
import difflib
import functools
import inspect
import re
import sys
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Any, TypeVar, dataclass_transform

from pydantic import ConfigDict, Discriminator, Field, Tag, TypeAdapter, ValidationError, WrapValidator
from pydantic_core import ArgsKwargs, ErrorDetails

from boxwright.structures import InputError

C = TypeVar("C")


def _as_given(value: Any, check: Callable[[Any], float]) -> float:
    """Check ``value`` as a float, but keep a whole number whole: 40000 is stored and printed without a fraction."""
    checked = check(value)
    return value if isinstance(value, int) else checked


Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""Number above 0."""
Length = Annotated[Positive, WrapValidator(_as_given)]
"""Number of steps or epochs above 0."""
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""Number from 0."""
Finite = Annotated[float, Field(allow_inf_nan=False)]
"""Any number, but neither infinite nor NaN."""
Fraction = Annotated[float, Field(ge=0, lt=1)]
"""Number in [0, 1)."""
Share = Annotated[float, Field(ge=0, le=1)]
"""Number in [0, 1]: a probability, an IoU, a part of a whole."""
PositiveShare = Annotated[float, Field(gt=0, le=1)]
"""Number in (0, 1]."""
InnerShare = Annotated[float, Field(gt=0, lt=1)]
"""Number in (0, 1)."""
Factor = Annotated[float, Field(ge=1, allow_inf_nan=False)]
"""Number from 1."""
Count = Annotated[int, Field(ge=1)]
"""Whole number from 1."""
CountOrZero = Annotated[int, Field(ge=0)]
"""Whole number from 0."""
Channels = Annotated[int, Field(ge=8, multiple_of=8)]
"""Number of channels: a multiple of 8."""
Width = Annotated[int, Field(ge=8)]
"""Channels of a layer, from 8."""

_TAG = "kind="  # begins the name of a union's member in the place that pydantic gives for an error


@dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(dataclasses.field,))
def config(cls: type[C]) -> type[C]:
    """Make ``cls`` a configuration: a frozen, keyword-only dataclass that is checked when it is constructed.

    A wrong value raises InputError naming the class, the field, the value and what is allowed.
    """
    hints = typing.get_type_hints(cls, localns=sys._getframe(1).f_locals, include_extras=True)
    cls.__annotations__ = {name: _decided_by_kind(hints[name]) for name in inspect.get_annotations(cls)}
    made: Any = dataclasses.dataclass(frozen=True, kw_only=True)(cls)
    made.__pydantic_config__ = ConfigDict(strict=True, extra="forbid", validate_default=True)

    @functools.wraps(made.__init__)
    def __init__(self: Any, **values: Any) -> None:
        try:
            validator(made).validate_python(ArgsKwargs((), values), self_instance=self)
        except ValidationError as error:
            raise InputError(_explain(made, error.errors(include_url=False)[0])) from None

    made.__init__ = __init__
    return made


def validator(cls: Any) -> Any:
    """Return pydantic's validator of the configuration ``cls``.

    It is built on the first call, because a program constructs few of the classes that it imports.
    """
    return _validator(cls)


@functools.cache
def _validator(cls: Any) -> Any:
    return TypeAdapter(cls).validator


def field_types(cls: Any) -> dict[str, Any]:
    """Return the types of the fields of a configuration by name, with their ranges."""
    return _field_types(cls)


@functools.cache
def _field_types(cls: Any) -> dict[str, Any]:
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def union_members(annotation: Any) -> tuple[Any, ...]:
    """Return the types of a union, without ``Annotated`` around them; another type is its only member."""
    if typing.get_origin(annotation) is Annotated:
        return union_members(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return tuple(member for part in typing.get_args(annotation) for member in union_members(part))
    return (annotation,)


def kinds(classes: Iterable[Any]) -> dict[str, Any]:
    """Return the configuration classes by the values of their field ``kind``."""
    return {kind: cls for cls in classes for kind in typing.get_args(union_members(field_types(cls)["kind"])[0])}


def choose(members: tuple[Any, ...], table: Mapping[str, Any]) -> Any:
    """Return the configuration class among ``members`` that ``table`` describes, or None if its ``kind`` names none.

    A table without a ``kind`` is of the class that has the class variable ``USUAL``.
    """
    classes = [member for member in members if dataclasses.is_dataclass(member)]
    if len(classes) < 2:
        return classes[0] if classes else None
    kind = table.get("kind")
    if kind is None:
        return next((cls for cls in classes if getattr(cls, "USUAL", False)), None)
    return kinds(classes).get(kind) if isinstance(kind, str) else None


def path_of(error: ErrorDetails) -> tuple[str, ...]:
    """Return the fields and positions that lead to the value of ``error``."""
    return tuple(str(part) for part in error["loc"] if not str(part).startswith((_TAG, "literal[")))


def names_a_field(message: str, cls: Any) -> bool:
    """Return True if ``message`` begins as ``field = value`` or ``field.inner = value`` with a field of ``cls``."""
    field, equals, _ = message.partition(" = ")
    return bool(equals) and field.partition(".")[0] in {f.name for f in dataclasses.fields(cls)}


def wrong_value(path: str, error: ErrorDetails) -> str:
    """Describe a value at ``path`` that has the wrong type or lies out of range."""
    value, wanted = repr(error["input"]), re.sub(r"^\w+ should", "should", error["msg"])
    return f"{path} = {value if len(value) <= 100 else value[:100] + ' ...'}: {wanted}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` with the choice spelled most like ``word``, or "" if none is near."""
    close = difflib.get_close_matches(word, list(choices), n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else ""


def _decided_by_kind(annotation: Any) -> Any:
    """Let ``kind`` decide every union of configurations in ``annotation``: pydantic alone tries them in turn."""
    origin = typing.get_origin(annotation)
    if origin is tuple:
        return tuple[
            tuple(part if part is Ellipsis else _decided_by_kind(part) for part in typing.get_args(annotation))
        ]
    if origin is Annotated:
        inner, *extras = typing.get_args(annotation)
        return Annotated[(_decided_by_kind(inner), *extras)]
    if origin not in (typing.Union, types.UnionType):
        return annotation
    members = union_members(annotation)
    literal: Any = typing.Literal
    if all(typing.get_origin(member) is literal for member in members):  # one error then names all choices
        return literal[tuple(choice for member in members for choice in typing.get_args(member))]
    classes: tuple[Any, ...] = tuple(member for member in members if dataclasses.is_dataclass(member))
    if len(classes) < 2:
        return annotation
    tagged = typing.Union[tuple(Annotated[cls, Tag(_TAG + cls.__name__)] for cls in classes)]  # noqa: UP007
    chosen = Annotated[tagged, Discriminator(_Choice(classes))]
    others = tuple(member for member in members if member not in classes)
    return typing.Union[(chosen, *others)] if others else chosen


class _Choice:
    """Discriminator of a union of configuration classes."""

    def __init__(self, classes: tuple[Any, ...]) -> None:
        self.classes = classes

    def __call__(self, value: Any) -> str | None:
        """Return the tag of the class of an instance, or of the class that a table's ``kind`` names."""
        if isinstance(value, dict):
            cls = choose(self.classes, value)
        else:
            cls = next((cls for cls in self.classes if isinstance(value, cls)), None)
        return None if cls is None else _TAG + cls.__name__

    @property
    def __name__(self) -> str:
        return " or ".join(cls.__name__ for cls in self.classes)


def _explain(cls: type, error: ErrorDetails) -> str:
    """Describe the error in constructing a ``cls``."""
    path = ".".join([cls.__name__, *path_of(error)])
    match error["type"]:
        case "value_error" | "assertion_error":
            message = str(error.get("ctx", {})["error"])
            return f"{path}.{message}" if names_a_field(message, cls) else f"{path}: {message}"
        case "missing" | "missing_keyword_only_argument":
            return f"{path}: must be given"
        case "unexpected_keyword_argument":
            field, names = path_of(error)[-1], list(field_types(cls))
            return f"{cls.__name__} has no field {field!r}{nearest(field, names) or '; it has ' + ', '.join(names)}"
        case "union_tag_not_found":
            allowed = error.get("ctx", {})["discriminator"].removesuffix("()")
            return wrong_value(path, {**error, "msg": f"should be a {allowed}"})
        case _:
            return wrong_value(path, error)
