"""Messages for command lines that cannot be read: unknown commands and options, values that are missing or wrong."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence
from typing import Any

from cyclopts import App, Argument, CoercionError, CycloptsError, MissingArgumentError, UnknownCommandError
from cyclopts.exceptions import ArgumentOrderError, UnknownOptionError, UnusedCliTokensError

from boxwright.cli.common import NEGATIVES
from boxwright.cli.entry.errors import UsageError
from boxwright.cli.entry.words import OTHER_COMMANDS, OTHER_OPTIONS, OTHER_TRAINING_OPTIONS, assignments
from boxwright.fields import nearest

PLAIN = {"int": "a whole number", "float": "a number"}


def refuse_assignments(words: Sequence[str], app: App) -> None:
    """Raise UsageError for options written ``key=value``, with the way to write the first of them here."""
    chain = []
    while len(chain) < len(words) and words[len(chain)] in app:
        app = app[words[len(chain)]]
        chain.append(words[len(chain)])
    if not chain or not (found := assignments(words[len(chain) :])):
        return
    key, value = found[0]
    names = option_names(app)
    same = [name for name in names if name.lstrip("-").lower() == key.replace("_", "-")]
    there = same or _served_by(key, names)
    refused, command = f"unexpected argument `{key}={value}`", " ".join(["boxwright", *chain])
    if there and there[0].isupper():
        raise UsageError(f"{refused}: write {shlex.quote(value)} alone, as the argument {there[0]} of `{command}`")
    if there:
        option = there[0] if " " in there[0] else f"{there[0]} {shlex.quote(value)}"
        raise UsageError(f"{refused}: options are written with dashes here; write {option}")
    if key in ("task", "mode"):
        raise UsageError(f"{refused}: the command is `{command}`; leave it out")


def usage_error(error: CycloptsError, app: App) -> UsageError:
    """Return the error to report for one of the parser."""
    chain = list(error.command_chain or ())
    command = " ".join([app.name[0], *chain])
    match error:
        case UnknownCommandError():
            return UsageError(_unknown_command((error.unused_tokens or [""])[0], chain, error.app or app, app))
        case UnknownOptionError():
            word = error.token.keyword or error.token.value
            names = [name for argument in error.argument_collection if argument.parse for name in argument.names]
            return UsageError(_unknown_option(word, command, names))
        case UnusedCliTokensError():
            spare = ", ".join(f"`{token}`" for token in error.unused_tokens or ())
            plural = "s" if len(error.unused_tokens or ()) > 1 else ""
            return UsageError(f"unexpected argument{plural} {spare}; `{command} --help` shows what it takes")
        case ArgumentOrderError() if error.argument is not None:
            return UsageError(f"after an argument by name, give the next one by name too: {error.argument.names[0]}")
        case MissingArgumentError() if type(error) is MissingArgumentError:
            return UsageError(_missing(error, command, error.app or app))
        case CoercionError() if error.argument is not None and error.token is not None and not error.msg:
            return UsageError(_wrong_value(error))
    return UsageError(str(error).strip())


def state_usage(words: Sequence[str], app: App) -> None:
    """Give the command of a command line the first line of its help: its arguments by name, then its options."""
    parts = [app.name[0]]
    for word in words:
        if word not in app or word in ("--help", "-h"):
            break
        app = app[word]
        parts.append(word)
    arguments = arguments_of(app)
    if not arguments:
        return
    placed = [argument for argument in arguments if argument.field_info.is_positional]
    for argument in placed:
        name = argument.field_info.name.upper()
        several = "..." if argument.field_info.kind is argument.field_info.VAR_POSITIONAL else ""
        parts.append(f"{name}{several}" if argument.required else f"[{name}{several}]")
    required = [argument.names[0] for argument in arguments if argument.required and argument not in placed]
    parts += [f"{name} {PLACEHOLDERS.get(name, name.removeprefix('--').upper())}" for name in required]
    app.usage = f"Usage: {' '.join([*parts, '[OPTIONS]'])}"


PLACEHOLDERS = {"--data": "PATH", "--output": "PATH", "--count": "N"}


def arguments_of(app: App) -> list[Argument]:
    """Return the arguments of a command, those of its request among them."""
    if app.default_command is None:
        return []
    arguments = app.assemble_argument_collection(default_parameter=NEGATIVES)
    return [argument for argument in arguments if argument.parse and not argument.children]


def option_names(app: App) -> list[str]:
    """Return the names of a command's arguments: options as written, positional ones in capitals."""
    return [name for argument in arguments_of(app) for name in argument.names]


def _unknown_command(word: str, chain: Sequence[str], inside: App, app: App) -> str:
    names = [name for name in inside if not name.startswith("-")]
    path = " ".join([*chain, word])
    known = f"{' '.join([app.name[0], *chain])} has the commands {', '.join(sorted(names))}"
    if word.startswith("-"):
        return f"unknown option {word}; `{' '.join([app.name[0], *chain, '--help'])}` shows the options"
    other = OTHER_COMMANDS.get(path)
    if other is not None:
        return f"there is no command `{path}`; did you mean `{other}`?"
    if "=" in word:
        return f"`{word}` is not a command: write the command first, then options as --data PATH; {known}"
    return f"there is no command `{path}`{nearest(word, names) or f'; {known}'}"


def _unknown_option(word: str, command: str, names: Sequence[str]) -> str:
    key = word.split("=")[0]
    served = _served_by(key.lstrip("-"), names)
    if served and served[0].isupper():
        return f"unknown option {key}; give it without an option, as the argument {served[0]} of `{command}`"
    if served:
        return f"unknown option {key}; use {served[0]}"
    near = nearest(key, [name for name in names if name.startswith("--")])
    return f"unknown option {key}{near or f'; `{command} --help` shows the options'}"


def _served_by(key: str, names: Iterable[str]) -> list[str]:
    """Return what a command has in place of another program's option."""
    names = set(names)
    key = key.replace("_", "-")
    choices = OTHER_OPTIONS.get(key, ())
    if "--epochs" in names:
        choices = (*OTHER_TRAINING_OPTIONS.get(key, ()), *choices)
    return [choice for choice in choices if choice.split(",")[0].split(" ")[0] in names]


def _missing(error: MissingArgumentError, command: str, app: App) -> str:
    spare = [word for word in error.unused_tokens or () if word.startswith("--")]
    known = option_names(app)
    if unknown := [word for word in spare if word.split("=")[0] not in known]:
        return _unknown_option(unknown[0], command, known)
    assert error.argument is not None
    name = error.keyword or error.argument.name
    if error.keyword is not None or error.tokens_so_far:
        count, _ = error.argument.token_count()
        got = f", not {len(error.tokens_so_far)}" if error.tokens_so_far else ""
        return f"{name} takes {count} values{got}" if count > 1 else f"{name} requires a value"
    what = name if name.startswith("-") else f"the argument {name}"
    return f"`{command}` requires {what}; `{command} --help` shows an example"


def _wrong_value(error: Any) -> str:
    wanted = PLAIN.get(getattr(error.target_type, "__name__", ""))
    if wanted is None:
        return str(error).strip()
    return f"{error.token.keyword or error.argument.name} {error.token.value}: give {wanted}"
