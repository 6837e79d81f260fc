"""Write commands.md from the command line's own signatures and help: ``python docs/_commands.py``.

A test compares the page with what this makes, so that no option is missing from it or left behind in it.
"""

from __future__ import annotations

import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cyclopts import Parameter

from boxwright.cli import app as cli
from boxwright.cli import data as cli_data
from boxwright.cli import weights as cli_weights

COMMANDS: dict[str, Callable[..., int]] = {
    "train": cli.train,
    "pretrain": cli.pretrain,
    "proposals": cli.proposals,
    "evaluate": cli.evaluate,
    "detect": cli.detect,
    "models": cli.models,
    "demo": cli.demo,
    "data check": cli_data.check,
    "data show": cli_data.show,
    "data convert": cli_data.convert,
    "data anchors": cli_data.anchors,
    "data scenes": cli_data.scenes,
    "weights list": cli_weights.list_weights,
    "weights fetch": cli_weights.fetch,
    "weights show": cli_weights.show,
    "weights convert": cli_weights.convert,
    "weights push": cli_weights.push,
}

HEAD = """\
# Commands

This page is made from the command line's own help by `docs/_commands.py`; `boxwright COMMAND --help` shows the same.
`python -m boxwright` is `boxwright`. With `--json` stdout holds one JSON value and nothing else; progress and messages
go to stderr. `--debug`, or `BOXWRIGHT_DEBUG=1`, shows where in the code an error comes from. Exit codes: 0 all is well;
1 done, but with defects or unreadable files; 2 the input was refused; 130 stopped.
"""


def options_of(function: Callable[..., int]) -> list[tuple[str, str, str, str]]:
    """Name, values, default and help of each argument of a command, positional ones in capitals."""
    rows = []
    hints = typing.get_type_hints(function, include_extras=True)
    for name, argument in inspect.signature(function).parameters.items():
        annotation = hints[name]
        parameter = next((m for m in getattr(annotation, "__metadata__", ()) if isinstance(m, Parameter)), Parameter())
        inner = typing.get_args(annotation)[0] if hasattr(annotation, "__metadata__") else annotation
        positional = argument.kind in (argument.POSITIONAL_ONLY, argument.VAR_POSITIONAL)
        option = name.upper() if positional else f"--{name.replace('_', '-')}"
        negatives = [parameter.negative] if isinstance(parameter.negative, str) else list(parameter.negative or ())
        option = " ".join(f"`{text}`" for text in (option, *negatives))
        required = argument.default is argument.empty and argument.kind is not argument.VAR_POSITIONAL
        default = "required" if required else _default(argument.default)
        rows.append((option, _values(inner), default, parameter.help or ""))
    return rows


def _values(annotation: Any) -> str:
    members = [a for a in typing.get_args(annotation) if a is not type(None)]
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in members)
    if typing.get_origin(annotation) is tuple:
        return "text, may be repeated" if Ellipsis in members else "two numbers"
    if members:
        return _values(members[0])
    names = {bool: "", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return names[annotation]


def _default(value: object) -> str:
    if value in (None, (), inspect.Parameter.empty) or isinstance(value, bool):
        return ""
    return f"`{' '.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def render() -> str:
    """The page."""
    parts = [HEAD]
    for name, function in COMMANDS.items():
        rows = ["| option | value | default | |", "|---|---|---|---|"]
        rows += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in options_of(function)]
        parts.append(f"## boxwright {name}\n\n{inspect.getdoc(function)}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(render(), encoding="utf-8")
