"""Make text from files safe to print: names can hold line breaks, escape codes and characters that turn text around."""

from __future__ import annotations

import re

# Control characters of both sets, line and paragraph separators, characters that reorder text, the byte order mark, and
# the surrogates that stand for bytes of a file name that are not UTF-8.
_UNSAFE = re.compile("[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_SHORT = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}
# Spreadsheets take a cell for a formula if it begins so, in the last four cases in full width.
_FORMULA = ("=", "+", "-", "@", "＝", "＋", "－", "＠")  # fmt: skip


def printable(text: str) -> str:
    r"""Replace characters that a terminal or an editor would obey by escapes, such as ``\n``, ``\x1b``, ``\u202e``.

    The result is one line. Letters of all scripts, emoji and spaces stay.
    """
    return _UNSAFE.sub(_escape, text)


def printable_lines(text: str) -> str:
    """Return `printable` text that keeps its line breaks."""
    return "\n".join(printable(line) for line in text.split("\n"))


def json_printable(text: str) -> str:
    r"""Replace characters that a terminal would obey in JSON text by ``\uXXXX``, which reads as the same value."""
    return "\n".join(_UNSAFE.sub(lambda hit: f"\\u{ord(hit[0]):04x}", line) for line in text.split("\n"))


def table_cell(text: str) -> str:
    """Return `printable` text for a cell of a CSV file, with an apostrophe before what would be a formula."""
    safe = printable(text)
    return "'" + safe if safe.lstrip().startswith(_FORMULA) else safe


def _escape(hit: re.Match[str]) -> str:
    code = ord(hit[0])
    if hit[0] in _SHORT:
        return _SHORT[hit[0]]
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a name that is not UTF-8
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
