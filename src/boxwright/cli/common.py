"""Parts that all commands share: the option ``--json``, output on stdout, examples at the end of a command's help."""

from __future__ import annotations

import json
import os
import re
import sys
import textwrap
from typing import Annotated, Any

from cyclopts import Group, Parameter

from boxwright.app.requests.fields import OUTPUT
from boxwright.io.text import json_printable, printable_lines

Json = Annotated[
    bool,
    Parameter(help="Print the result, or the error, as JSON on stdout.", group=OUTPUT, show_default=False, negative=()),
]

OPTIONS = Group("Options", sort_key=1)
"""The options of a command that belong to no other group of its help."""

NEGATIVES = Parameter(negative_iterable=())
"""Default of all arguments: an option that is on or off has a form with ``--no-``; a list has no negative form."""

FLAT = Parameter(name="*")
"""Marks a request whose fields are options of the command itself."""


def examples(*lines: str) -> str:
    """Format example command lines for the end of a command's help.

    Long ones are continued with a backslash; an option stays with its value.
    """
    whole = (re.sub(r"(--[\w-]+) (?!-)", "\\1\N{NO-BREAK SPACE}", line) for line in lines)
    wrapped = (
        textwrap.wrap(line, 74, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in whole
    )
    text = "\n".join("    " + " \\\n    ".join(parts) for parts in wrapped)
    return "Examples:\n\n" + text.replace("\N{NO-BREAK SPACE}", " ")


def print_json(value: Any) -> int:
    """Print one line of JSON on stdout and return exit code 0."""
    unicode = (sys.stdout.encoding or "").lower().startswith("utf")
    print(json_printable(json.dumps(value, ensure_ascii=not unicode, allow_nan=False)))
    return 0


def say(text: str) -> int:
    """Print text on stdout and return exit code 0."""
    print(printable_lines(text))
    return 0


def is_main_process() -> bool:
    """Return True in the one process of a distributed run that reports its result."""
    return os.environ.get("RANK", "0") == "0"
