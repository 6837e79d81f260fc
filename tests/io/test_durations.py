"""Lengths of time, as options give them and as messages show them."""

import pytest

from boxwright.io.durations import as_option, parse_duration, shown
from boxwright.structures import InputError


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("15m", 900), ("1h30m", 5400), ("50ms", 0.05), ("2 h", 7200), ("90S", 90), ("0.5h", 1800), ("10min", 600)],
)
def test_duration_is_read_with_its_unit(text, seconds):
    assert parse_duration(text, "--budget", "15m") == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["15", "m", "", "-5m", "5m!", "1e3s", "0s", "400d", "fifteen minutes"])
def test_text_that_is_no_duration_is_refused_with_an_example(text):
    with pytest.raises(InputError, match=r"--budget .*such as 15m"):
        parse_duration(text, "--budget", "15m")


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.0123, "12 ms"),
        (0.456, "460 ms"),
        (50, "50 s"),
        (14 * 60 + 10, "14 min"),
        (2.2 * 3600, "2 h 10 min"),
        (3 * 86400, "3.0 days"),
    ],
)
def test_duration_is_shown_to_two_digits(seconds, text):
    assert shown(seconds) == text


@pytest.mark.parametrize("seconds", [0.0101, 0.4, 61, 119, 121, 3601, 7201, 100_000, 400_000])
def test_option_is_at_least_the_duration_and_is_read_back(seconds):
    read = parse_duration(as_option(seconds), "--budget", "15m")
    assert seconds <= read <= 1.12 * seconds + 1e-9
