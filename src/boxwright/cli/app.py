"""The command line as a whole: all commands, their errors and exit codes.

A file holds one command or group of commands. What a command does is in ``boxwright.app`` and below. Heavy modules are
imported inside the commands, so that ``--help`` is quick. The kinds of errors and the exit codes are those of
:mod:`boxwright.cli.entry.errors`. With ``--json`` stdout holds one JSON value and nothing else, also for an error;
progress and messages go to stderr.
"""

from __future__ import annotations

import io
import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from typing import Any

from cyclopts import App, CycloptsError, Group
from rich.console import Console

import boxwright
from boxwright.cli import demo, detect, env, evaluate, models, pretrain, proposals, recommend, train, weights
from boxwright.cli.common import NEGATIVES, OPTIONS, examples, is_main_process, print_json
from boxwright.cli.data.group import data_app
from boxwright.cli.entry.completion import completion_command
from boxwright.cli.entry.errors import Failure, discard_output, failure_of, output_is_closed
from boxwright.cli.entry.interrupts import STOPPED, Interrupts, stopped_line
from boxwright.cli.entry.words import read_words
from boxwright.cli.recipe.group import recipe_app
from boxwright.io.text import printable_lines

EPILOGUE = """
Start with `boxwright demo`. On your own data: `boxwright data check PATH`, then
`boxwright train --data PATH`.

Exit codes: 0 success; 1 done, but with defects or unreadable files; 2 refused; 70 a fault in Boxwright; 130 stopped.
`--debug` or `BOXWRIGHT_DEBUG=1` shows where in the code an error comes from.
"""

app = App(
    name="boxwright",
    help="Train, evaluate and run object detectors on your own images.",
    version=boxwright.__version__,
    version_flags=("--version", "-V"),
    help_format="markdown",
    help_epilogue=EPILOGUE,
    default_parameter=NEGATIVES,
    group_parameters=OPTIONS,
    suppress_keyboard_interrupt=False,
)
# In the order in which a newcomer needs them.
app.command(demo.demo, sort_key=1, help_epilogue=demo.EXAMPLES)
app.command(data_app)  # 2
app.command(models.models, sort_key=3, help_epilogue=models.EXAMPLES)
app.command(recipe_app)  # 3
app.command(recommend.recommend, sort_key=4, help_epilogue=recommend.EXAMPLES)
app.command(train.train, sort_key=5, help_epilogue=train.EXAMPLES)
app.command(evaluate.evaluate, sort_key=6, help_epilogue=evaluate.EXAMPLES)
app.command(detect.detect, sort_key=7, help_epilogue=detect.EXAMPLES)
app.command(weights.weights_app)  # 8
app.command(pretrain.pretrain, sort_key=9, help_epilogue=pretrain.EXAMPLES)
app.command(proposals.proposals, sort_key=10, help_epilogue=proposals.EXAMPLES)
app.command(env.env, sort_key=11, help_epilogue=env.EXAMPLES)
app.command(
    completion_command(app),
    name="--install-completion",
    group=Group.create_ordered("Shell"),
    help_epilogue=examples("boxwright --install-completion", "boxwright --install-completion --shell zsh"),
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process, and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal or file in ASCII gets escapes of what it does not have
            stream.reconfigure(errors="backslashreplace")
    debug = "--debug" in words or os.environ.get("BOXWRIGHT_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    with Interrupts() as interrupts:
        try:
            code = _run(words)
            sys.stdout.flush()
            return code
        except SystemExit as error:
            if isinstance(error.__context__, BrokenPipeError):  # of rich, which has discarded the output itself
                return 0
            return error.code if isinstance(error.code, int) else 0
        except BaseException as error:
            if isinstance(error, BrokenPipeError) and output_is_closed():
                return _unread()
            try:
                return _fail(error, interrupts.happened, debug, "--json" in words)
            except BrokenPipeError:
                return _unread()


def _run(words: list[str]) -> int:
    """Run a command line. Raises UsageError for one that cannot be read."""
    words = read_words(words)
    if any("=" in word and not word.startswith("-") for word in words):
        from boxwright.cli.entry.usage import refuse_assignments

        refuse_assignments(words, app)
    if not {"--help", "-h"}.isdisjoint(words):
        from boxwright.cli.entry.usage import state_usage

        state_usage(words, app)
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            console = Console()  # of the present width
            result = app(words, console=console, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        from boxwright.cli.entry.usage import usage_error

        raise usage_error(error, app) from error
    return result if isinstance(result, int) else 0


def _fail(error: BaseException, interrupted: bool, debug: bool, json: bool) -> int:
    """Report an exception, with ``json`` also as JSON on stdout, and return the exit code."""
    if interrupted or isinstance(error, KeyboardInterrupt):
        message = str(error) if isinstance(error, KeyboardInterrupt) else ""
        failure = Failure(message or "stopped", "stopped", STOPPED)
        if not message:  # an interrupted training has printed more itself
            sys.stderr.write(stopped_line("stopped"))
    else:
        failure = failure_of(error)
        if debug or failure.kind == "fault":
            traceback.print_exception(error)
        print(printable_lines(f"error: {failure.message}"), file=sys.stderr)
    if json and is_main_process():
        print_json(failure.to_dict())
        sys.stdout.flush()
    return failure.exit_code


def _unread() -> int:
    """Return success without a word: the reader of the output, such as ``head``, has what it wanted."""
    discard_output()
    return 0


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    """Print a warning to the user without its position in the code."""
    if issubclass(category, UserWarning):
        print(printable_lines(f"warning: {message}"), file=sys.stderr)
