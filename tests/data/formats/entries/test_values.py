"""Numbers, whole numbers and flags as annotation tools write them."""

import math
from typing import Any

import pytest

from boxwright.data.formats.entries.values import flag, number, whole


@pytest.mark.parametrize(
    "value",
    [0, 0.0, -0.0, False, None, "", "  ", "0", "0.0", " 0 ", "false", "False", "FALSE", "no", "N", "off", "null"],
)
def test_false(value: Any) -> None:
    assert flag(value) is False


@pytest.mark.parametrize("value", [1, 1.0, True, "1", "1.0", "true", "True", " TRUE\n", "yes", "Y", "on"])
def test_true(value: Any) -> None:
    assert flag(value) is True


@pytest.mark.parametrize("value", [2, -1, 0.5, math.nan, "maybe", "2", "nan", [], {}, [1], "x" * 1000])
def test_no_flag(value: Any) -> None:
    assert flag(value) is None


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3), (3.0, 3), ("3", 3), (" 3 ", 3), ("3.0", 3), ("-3", -3), ("+3", 3), ("0007", 7), (2**63 - 1, 2**63 - 1),
        (str(2**63 - 1), 2**63 - 1), (2**63, None), (str(2**63), None), (10**1000, None), (1e300, None), (1.5, None),
        ("1.5", None), (True, None), (None, None), ("", None), ("abc", None), ("--3", None), (math.nan, None),
        (math.inf, None), ([3], None), ("1_000", None), ("0x10", None), ("\u0663", None),
    ],
)  # fmt: skip
def test_whole_numbers(value: Any, expected: int | None) -> None:
    assert whole(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (3, 3.0), ("3", 3.0), ("3.5", 3.5), (" -.5 ", -0.5), ("1e3", 1000.0), ("5.", 5.0), (10**400, math.inf),
        (-(10**400), -math.inf), ("Infinity", math.inf), ("1e999", math.inf), (True, None), (None, None), ("", None),
        ("12,5", None), ("3 px", None), ("1_0", None), ([3], None), ("e5", None),
    ],
)  # fmt: skip
def test_numbers(value: Any, expected: float | None) -> None:
    assert number(value) == expected


def test_nan_is_a_number_that_is_not_finite() -> None:
    for value in (math.nan, "nan", "NaN", "-nan"):
        found = number(value)
        assert found is not None
        assert math.isnan(found)


@pytest.mark.parametrize("text", ["--nan", "+-inf", "--infinity", "-+nan", "+ inf", "infinit", "naninf"])
def test_no_number(text: str) -> None:
    assert number(text) is None
    assert whole(text) is None
    assert flag(text) is None


@pytest.mark.parametrize(("text", "expected"), [("inf", math.inf), ("-Infinity", -math.inf), (" +INF ", math.inf)])
def test_infinite(text: str, expected: float) -> None:
    assert number(text) == expected
    assert whole(text) is None
