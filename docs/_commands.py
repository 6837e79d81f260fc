"""Write commands.md from the signatures and help texts of the command line: ``python docs/_commands.py``.

A test compares the page with the output of this script, so that the page lists exactly the options that exist.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from cyclopts import Parameter

from boxwright.cli import demo, detect, env, evaluate, models, pretrain, proposals, recommend, train, weights
from boxwright.cli.data import anchors, augment, check, convert, filter, merge, scenes, show, split, tile
from boxwright.cli.recipe import diff as recipe_diff
from boxwright.cli.recipe import listing as recipe_listing
from boxwright.cli.recipe import show as recipe_show

COMMANDS: dict[str, Callable[..., int]] = {
    "recommend": recommend.recommend,
    "train": train.train,
    "pretrain": pretrain.pretrain,
    "proposals": proposals.proposals,
    "evaluate": evaluate.evaluate,
    "detect": detect.detect,
    "models": models.models,
    "recipe list": recipe_listing.list_recipes,
    "recipe show": recipe_show.show,
    "recipe diff": recipe_diff.diff,
    "demo": demo.demo,
    "env": env.env,
    "data check": check.check,
    "data show": show.show,
    "data convert": convert.convert,
    "data split": split.split,
    "data merge": merge.merge,
    "data filter": filter.filter,
    "data tile": tile.tile,
    "data augment": augment.augment,
    "data anchors": anchors.anchors,
    "data scenes": scenes.scenes,
    "weights list": weights.list_weights,
    "weights fetch": weights.fetch,
    "weights show": weights.show,
    "weights convert": weights.convert,
    "weights export": weights.export,
    "weights push": weights.push,
}

HEAD = """\
# Commands

This page is generated from the help of the command line by `docs/_commands.py`; `boxwright COMMAND --help` and
`boxwright help COMMAND` show the same. `python -m boxwright` is `boxwright`. `--debug`, or `BOXWRIGHT_DEBUG=1`, shows
where in the code an error comes from. `boxwright --install-completion` lets bash, zsh, fish or PowerShell complete
commands and options; it names the files that it writes, and no other command writes them.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | done, but with something to report: defects found, a file that could not be read |
| 2 | refused: bad input, or the machine lacks memory, disk space or a device |
| 70 | a fault in Boxwright itself, with a traceback on stderr; please report it |
| 130 | stopped by Ctrl-C |

With `--json` stdout holds one JSON value and nothing else; progress and messages go to stderr. An error is then
`{"error": {"message": ..., "kind": ..., "exit_code": ...}}`. `kind` is `usage` (the command line cannot be read),
`input` (data, files or settings are refused), `machine` (memory, disk, device), `fault` or `stopped`.
"""


class Row(NamedTuple):
    """A row of a command's table of arguments."""

    option: str
    values: str
    default: str
    help: str


def options_of(function: Callable[..., int]) -> list[Row]:
    """Return name, values, default and help of each argument of a command, positional ones in capitals."""
    rows = []
    hints = typing.get_type_hints(function, include_extras=True)
    for name, argument in inspect.signature(function).parameters.items():
        positional = argument.kind is not argument.KEYWORD_ONLY
        required = argument.default is argument.empty and argument.kind is not argument.VAR_POSITIONAL
        parameter, inner = _split(hints[name])
        if isinstance(inner, type) and dataclasses.is_dataclass(inner):
            rows += _fields_of(inner)
        else:
            default = "required" if required else _default(argument.default)
            row = _row(name, parameter, inner, default, positional)
            both = argument.kind is argument.POSITIONAL_OR_KEYWORD
            rows.append(row._replace(option=f"{row.option} `--{name}`") if both else row)
    return rows


def _fields_of(request: type) -> list[Row]:
    """Return the rows of a request, whose fields are options of the command itself."""
    hints = typing.get_type_hints(request, include_extras=True)
    rows = []
    for field in dataclasses.fields(request):
        parameter, inner = _split(hints[field.name])
        default = "required" if field.default is dataclasses.MISSING else _default(field.default)
        rows.append(_row(field.name, parameter, inner, default, positional=False))
    return rows


def _split(annotation: Any) -> tuple[Parameter, Any]:
    """Split ``Annotated[type, Parameter(...)]``, also where it is one member of a union."""
    for part in (annotation, *typing.get_args(annotation)):
        for meta in getattr(part, "__metadata__", ()):
            if isinstance(meta, Parameter):
                return meta, typing.get_args(part)[0]
    return Parameter(), annotation


def _row(name: str, parameter: Parameter, inner: Any, default: str, positional: bool) -> Row:
    given = parameter.name or (f"--{name.replace('_', '-')}",)
    options = [name.upper()] if positional else list(given)
    if inner is bool and parameter.negative is None:
        options += [f"--no-{option.removeprefix('--')}" for option in given]
    shown = " ".join(f"`{text}`" for text in options)
    return Row(shown, _values(inner), default, parameter.help or "")


def _values(annotation: Any) -> str:
    members = [a for a in typing.get_args(annotation) if a is not type(None)]
    if typing.get_origin(annotation) is typing.Literal:
        return ", ".join(f"`{value}`" for value in members)
    if typing.get_origin(annotation) is tuple:
        if Ellipsis in members:
            return "numbers" if float in members else "text, may be repeated"
        return "two numbers"
    if members:
        return _values(members[0])
    names = {bool: "", int: "a whole number", float: "a number", str: "text", Path: "a path"}
    return names[annotation]


def _default(value: object) -> str:
    if value in (None, (), inspect.Parameter.empty) or isinstance(value, bool):
        return ""
    return f"`{' '.join(map(str, value))}`" if isinstance(value, tuple) else f"`{value}`"


def render() -> str:
    """Return the page."""
    parts = [HEAD]
    for name, function in COMMANDS.items():
        rows = ["| option | value | default | |", "|---|---|---|---|"]
        rows += [f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |" for row in options_of(function)]
        parts.append(f"## boxwright {name}\n\n{inspect.getdoc(function)}\n\n" + "\n".join(rows) + "\n")
    return "\n".join(parts)


if __name__ == "__main__":
    Path(__file__).with_name("commands.md").write_text(render(), encoding="utf-8")
