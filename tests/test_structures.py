"""Class names: what is kept, what is replaced, what is refused."""

import pytest

from boxwright.structures import Classes, InputError


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("cat", "cat"), (" cat ", "cat"), ("traffic\nlight", "traffic light"), ("a\t b\r\nc", "a b c"),
        ("traffic\u00a0\u3000light", "traffic light"), ("a\u2028b", "a b"), ("\ufeffcat", "cat"), ("c\u200bat", "cat"),
        ("c\u00adat", "cat"), ("cafe\u0301", "caf\u00e9"),
        ("\u0645\u06cc\u200c\u0631\u0648", "\u0645\u06cc\u200c\u0631\u0648"),
        ("\U0001f469\u200d\U0001f33e", "\U0001f469\u200d\U0001f33e"), ("[red]", "[red]"), ("=1+1", "=1+1"),
    ],
)  # fmt: skip
def test_names_become_one_line(given: str, kept: str) -> None:
    assert Classes.from_names([given]).names == (kept,)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["cat", ""], "the name of class 1 is empty"),
        ([" \n"], "the name of class 0 is empty"),
        (["\u200b"], "is empty"),
        (["a\x1b[31mb"], r"is 'a\\x1b\[31mb', with the control character '\\x1b'"),
        (["a\x00b"], r"'a\\x00b'"),
        (["a\x7fb"], r"'\\x7f'"),
        (["a\x9bb"], r"'\\x9b'"),
        (["a\u202eb"], r"'a\\u202eb'"),
        (["a\u2066b"], r"u2066"),
        (["a\ud800b"], r"ud800"),
        (["x" * 10_000], r"has 10000 characters \('xxx.*'\.\.\.\); shorten it to at most 256"),
        (["cat", "cat "], "class name cat appears more than once"),
        (["caf\u00e9", "cafe\u0301"], "appears more than once"),
        ([3], "the class name 3 is not text"),
    ],
)
def test_names_that_no_file_should_have(names: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Classes.from_names(names)
