"""Names with characters that a terminal, an editor or a spreadsheet would obey."""

import json

import pytest

from boxwright.io.text import json_printable, printable, printable_lines, table_cell


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain name", "plain name"),
        ("café 猫 кот 👩‍👩‍👧 ́ü　x\u00a0y", "café 猫 кот 👩‍👩‍👧 ́ü　x\u00a0y"),
        ("a\nb\tc\rd", r"a\nb\tc\rd"),
        ("\x1b[31mred\x1b[0m", r"\x1b[31mred\x1b[0m"),
        ("\x9b2J\x00\x7f\x07", r"\x9b2J\x00\x7f\x07"),
        ("cat\u202egpj.exe\u2066\u2029", r"cat\u202egpj.exe\u2066\u2029"),
        ("\ufefffirst", r"\ufefffirst"),
        ("caf\udce9.jpg", r"caf\xe9.jpg"),
        ("\ud800", r"\ud800"),
        ("[bold]not markup[/bold]", "[bold]not markup[/bold]"),
    ],
)
def test_only_unsafe_characters_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
    shown.encode()


def test_lines_can_be_kept() -> None:
    assert printable_lines("a\x1b\nb\r\n") == "a\\x1b\nb\\r\n"


def test_json_keeps_its_value() -> None:
    value = {"name": "a\x1b[0m\x9b\u202e\udce9 ü \n", "list": [1, 2]}
    text = json_printable(json.dumps(value, ensure_ascii=False, indent=1))
    assert json.loads(text) == value
    assert "ü" in text
    assert not set(text) & {"\x1b", "\x9b", "\u202e", "\udce9"}


@pytest.mark.parametrize(
    ("text", "cell"),
    [
        ("cat", "cat"),
        ("=HYPERLINK(1)", "'=HYPERLINK(1)"),
        ("+1", "'+1"),
        ("-1", "'-1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("＝1", "'＝1"),
        (" =1", "' =1"),
        ("\t=1", r"\t=1"),
        ("\r=1", r"\r=1"),
        ("\n=1", r"\n=1"),
        ("a=1", "a=1"),
        ("", ""),
    ],
)
def test_cells_are_no_formulas(text: str, cell: str) -> None:
    assert table_cell(text) == cell
