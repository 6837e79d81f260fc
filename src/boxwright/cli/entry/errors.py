"""Errors as people and programs meet them: a message, the kind of error and an exit code.

| exit code | meaning |
|---|---|
| 0 | success |
| 1 | done, but with something to report: defects found, a file that could not be read |
| 2 | refused: bad input, or the machine lacks memory, disk space or a device |
| 70 | a fault in Boxwright itself; please report it |
| 130 | stopped by Ctrl-C |
"""

from __future__ import annotations

import os
import select
import sys
from pathlib import Path
from typing import Any, Literal, NamedTuple

from boxwright.io.files import FULL, write_error
from boxwright.structures import InputError

REFUSED = 2
FAULT = 70

Kind = Literal["usage", "input", "machine", "fault", "stopped"]


class UsageError(InputError):
    """A command line that cannot be read."""


class Failure(NamedTuple):
    """The end of a command that failed."""

    message: str
    kind: Kind
    exit_code: int

    def to_dict(self) -> dict[str, Any]:
        """Return what ``--json`` prints."""
        return {"error": self._asdict()}


def failure_of(error: BaseException) -> Failure:
    """Return message, kind and exit code for an exception; kind ``fault`` for all that bad input does not explain."""
    if isinstance(error, UsageError):
        return Failure(str(error), "usage", REFUSED)
    if isinstance(error, InputError):
        return Failure(str(error), "input", REFUSED)
    if (message := _machine_message(error)) is not None:
        return Failure(message, "machine", REFUSED)
    first = (str(error).strip().splitlines() or [""])[0]
    what = f"{type(error).__name__}: {first}" if first else type(error).__name__
    report = "please report it with this command, the traceback above and the output of `boxwright env`"
    return Failure(f"this is a fault in Boxwright ({what}); {report}", "fault", FAULT)


def _machine_message(error: BaseException) -> str | None:
    """Return the message for an error of the machine: memory, files, GPU; None for others."""
    text = str(error)
    if isinstance(error, OSError):
        return _system_message(error)
    if type(error).__name__ == "OutOfMemoryError" or "CUDA out of memory" in text:
        return f"the memory of the GPU is full: {_first_sentence(text)}. {SMALLER}, or use --device cpu"
    if isinstance(error, MemoryError) or "can't allocate memory" in text or "not enough memory: you tried" in text:
        return f"the memory is full. {SMALLER}, or use fewer --workers"
    if "no kernel image is available" in text or "NVIDIA driver" in text or "CUDA driver version" in text:
        return f"PyTorch cannot use the GPU: {_first_sentence(text)}. Install a PyTorch for it, or use --device cpu"
    return None


SMALLER = "Use smaller batches (--batch-size; --set batch_size=N for pretrain) or smaller images (--size for train)"


def _first_sentence(text: str) -> str:
    return text.strip().splitlines()[0].split(". ")[0].rstrip(".") if text.strip() else "no further details"


def _system_message(error: OSError) -> str | None:
    if error.errno is None:
        return None
    if error.filename is not None and error.errno in FULL:
        return str(write_error(Path(os.fsdecode(error.filename)), error))
    what = FULL.get(error.errno) or error.strerror or str(error)
    return what if error.filename is None else f"{os.fsdecode(error.filename)}: {what}"


def output_is_closed() -> bool:
    """Return True if the reader of stdout or stderr, such as ``head``, has gone."""
    if not hasattr(select, "poll"):  # Windows
        return True
    poll = select.poll()
    for stream in (1, 2):
        poll.register(stream, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def discard_output() -> None:
    """Send the rest of the output to nowhere, so that the interpreter does not fail to flush it at its end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            os.dup2(nowhere, stream.fileno())
