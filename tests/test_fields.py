"""Configurations check themselves when they are constructed, and say what is wrong in a person's terms."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
import typing
from dataclasses import field, replace
from typing import Any, ClassVar, Literal

import pytest
import torch

from boxwright.fields import Count, Fraction, Length, NotNegative, Positive, PositiveShare, Share, config, nearest
from boxwright.structures import InputError


@config
class Circle:
    """A round shape."""

    kind: Literal["circle"] = "circle"
    radius: Positive = 1.0
    """In pixels."""


@config
class Square:
    USUAL: ClassVar[bool] = True

    kind: Literal["square", "box"] = "square"
    side: Count = 2
    inner: Count = 1

    def __post_init__(self) -> None:
        if self.inner > self.side:
            raise InputError(f"inner = {self.inner} is larger than side = {self.side}")

    @property
    def area(self) -> int:
        return self.side**2


@config
class Sheet:
    name: str
    main: Circle | Square = Circle()
    shapes: tuple[Circle | Square, ...] = ()
    extra: Circle | Square | None = None
    limit: Square | None = None
    sizes: tuple[int, int] | None = None
    notes: dict[str, float] = field(default_factory=dict)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Circle(radius=-1), "Circle.radius = -1: should be greater than 0"),
        (lambda: Circle(radius=float("nan")), "Circle.radius = nan: should be a finite number"),
        (lambda: Circle(radius=True), "Circle.radius = True: should be a valid number"),
        (lambda: Circle(radius="1"), "Circle.radius = '1': should be a valid number"),
        (lambda: replace(Circle(), radius=0), "Circle.radius = 0: should be greater than 0"),
        (lambda: Square(side=1.5), "Square.side = 1.5: should be a valid integer"),
        (lambda: Square(inner=3), "Square.inner = 3 is larger than side = 2"),
        (lambda: Circle(raduis=1), "Circle has no field 'raduis'; did you mean 'radius'?"),
        (lambda: Circle(depth=1), "Circle has no field 'depth'; it has kind, radius"),
        (lambda: Sheet(), "Sheet.name: must be given"),
        (lambda: Sheet(name="a", main=3), "Sheet.main = 3: should be a Circle or Square"),
        (lambda: Sheet(name="a", main={"kind": "circle"}), "Sheet.main = {'kind': 'circle'}: should be "),
        (lambda: Sheet(name="a", extra="x"), "Sheet.extra = 'x': should be a Circle or Square"),
        (lambda: Sheet(name="a", limit=Circle()), "Sheet.limit = Circle(kind='circle', radius=1.0): should be an "),
        (lambda: Sheet(name="a", shapes=(Circle(), 3)), "Sheet.shapes.1 = 3: should be a Circle or Square"),
        (lambda: Sheet(name="a", shapes=[Circle()]), "Sheet.shapes = [Circle(kind='circle', radius=1.0)]: should be a"),
        (lambda: Sheet(name="a", sizes=[1, 2]), "Sheet.sizes = [1, 2]: should be a valid tuple"),
        (lambda: Sheet(name="a", sizes=(1, "2")), "Sheet.sizes.1 = '2': should be a valid integer"),
        # An inner configuration raises its own error; the outer one adds nothing.
        (lambda: Sheet(name="a", main=Square(inner=9)), "Square.inner = 9 is larger than side = 2"),
    ],
)
def test_a_wrong_value_is_named_with_its_field_and_range(make: Any, message: str) -> None:
    with pytest.raises(InputError) as caught:
        make()
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        (Positive, (0.1, 5), (0, -1, float("inf"))),
        (NotNegative, (0, 2.5), (-0.1, float("inf"))),
        (Fraction, (0, 0.99), (1, -0.1)),
        (Share, (0, 0.5, 1), (1.1, -0.1)),
        (PositiveShare, (0.01, 1), (0, 1.1)),
    ],
)
def test_ranges(kind: Any, good: tuple[float, ...], bad: tuple[float, ...]) -> None:
    holder: Any = config(type("Holder", (), {"__annotations__": {"x": kind}, "__module__": __name__}))
    assert tuple(holder(x=x).x for x in good) == good
    for x in bad:
        with pytest.raises(InputError, match=r"Holder\.x"):
            holder(x=x)


def test_a_default_out_of_range_is_found() -> None:
    @config
    class Wrong:
        size: Count = 0

    with pytest.raises(InputError, match=r"Wrong\.size = 0: should be greater than or equal to 1"):
        Wrong()


def test_it_is_an_ordinary_frozen_dataclass() -> None:
    sheet = Sheet(name="a", main=Square(kind="box"), shapes=(Circle(), Square()), sizes=(1, 2), notes={"x": 1.0})
    assert pickle.loads(pickle.dumps(sheet)) == copy.deepcopy(sheet) == sheet == replace(sheet)
    assert dataclasses.asdict(sheet)["main"] == {"kind": "box", "side": 2, "inner": 1}
    assert [f.name for f in dataclasses.fields(Circle)] == ["kind", "radius"]
    assert typing.get_type_hints(Sheet)["limit"] == Square | None
    assert set(typing.get_args(typing.get_type_hints(Sheet)["extra"])) == {Circle, Square, type(None)}
    assert list(inspect.signature(Circle).parameters) == ["kind", "radius"]
    assert (hash(Circle()), repr(Circle())) == (hash(Circle()), "Circle(kind='circle', radius=1.0)")
    assert (Circle.__doc__, Square().area, sheet.shapes[0]) == ("A round shape.", 4, Circle())
    with pytest.raises(dataclasses.FrozenInstanceError):
        sheet.name = "b"  # type: ignore[misc]


def test_a_whole_number_where_any_is_allowed_becomes_a_float() -> None:
    assert isinstance(Circle(radius=1).radius, float)


def test_a_length_is_kept_as_it_is_given() -> None:
    @config
    class Span:
        steps: Length = 5

    given = [Span(steps=value).steps for value in (40_000, 0.5, 2.0)]
    assert [repr(value) for value in (Span().steps, *given)] == ["5", "40000", "0.5", "2.0"]
    for wrong in (0, -1.0, True, "1"):
        with pytest.raises(InputError, match=r"Span\.steps = .*: should be"):
            Span(steps=wrong)


def test_a_compiled_graph_reads_it() -> None:
    circle = Circle(radius=3)
    double = torch.compile(lambda x: x * circle.radius, fullgraph=True, backend="eager")
    assert double(torch.ones(2)).tolist() == [3.0, 3.0]


def test_nearest() -> None:
    assert nearest("raduis", ["radius", "side"]) == "; did you mean 'radius'?"
    assert nearest("zzz", ["radius", "side"]) == ""
