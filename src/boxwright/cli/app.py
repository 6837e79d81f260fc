"""The entry of the command line: all commands, errors and exit codes.

A file holds one command or group of commands. What a command does is in ``boxwright.app`` and below. Heavy modules are
imported inside the commands, so that ``--help`` is quick.

Exit codes: 0 success; 1 done, but with something to report (defects found, a file that could not be read); 2 the input
was refused and nothing was done; 130 stopped by Ctrl-C. With ``--json`` stdout holds one JSON value and nothing else;
progress and messages go to stderr.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cyclopts import App, CycloptsError, Parameter

import boxwright
from boxwright.cli import data, demo, detect, evaluate, models, pretrain, proposals, train, weights
from boxwright.io.files import write_error
from boxwright.structures import InputError

EPILOGUE = """
Start with `boxwright demo`. On your own data: `boxwright data check PATH`, then
`boxwright train faster-rcnn-detnet-small-fpn --data PATH`.

Exit codes: 0 success; 1 done, but with defects or unreadable files; 2 the input was refused; 130 stopped.
`--debug` or `BOXWRIGHT_DEBUG=1` shows where in the code an error comes from.
"""

app = App(
    name="boxwright",
    help="Train, evaluate and run object detectors on your own images.",
    version=boxwright.__version__,
    help_format="markdown",
    help_epilogue=EPILOGUE,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
app.command(data.data_app)
app.command(weights.weights_app)
app.command(demo.demo, help_epilogue=demo.EXAMPLES)
app.command(detect.detect, help_epilogue=detect.EXAMPLES)
app.command(evaluate.evaluate, help_epilogue=evaluate.EXAMPLES)
app.command(models.models, help_epilogue=models.EXAMPLES)
app.command(pretrain.pretrain, help_epilogue=pretrain.EXAMPLES)
app.command(proposals.proposals, help_epilogue=proposals.EXAMPLES)
app.command(train.train, help_epilogue=train.EXAMPLES)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line, by default that of this process, and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("BOXWRIGHT_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _fail(f"{error}".strip(), debug)
    except KeyboardInterrupt as stopped:
        if not str(stopped):  # an interrupted training has printed more itself
            print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise  # a bug: show the traceback
        return _fail(message, debug)


def message_of(error: Exception) -> str | None:
    """Return the message for an error that is no bug, such as bad input or a full disk; None for others."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return str(write_error(Path(error.filename), error))
    if isinstance(error, OSError) and error.errno is not None:
        return str(error.strerror or error)
    return None


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return 2


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    """Print a warning to the user without its position in the code."""
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)
