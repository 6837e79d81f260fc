"""Run a reader on damaged inputs in a child process of bounded time and memory."""

import faulthandler
import os
import pickle
import resource
import select
import signal
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import torch

from boxwright.structures import InputError

CPU_SECONDS = 20
"""Of one input: far above what any needs, and independent of what else runs on the machine."""
MEMORY = 2 * 2**30
"""Bytes beyond those that the process has when it starts."""
MESSAGE = 5000
"""Characters of an error that a person can still read."""
SILENT_SECONDS = 300
"""Of the wall clock, after which a child that says nothing is killed."""


@dataclass
class Outcome:
    """Counts of inputs that were read and refused, and the faults: an account of each kind, with an input it had."""

    read: int = 0
    refused: int = 0
    faults: dict[str, tuple[str, bytes]] = field(default_factory=dict)
    kinds: Counter[str] = field(default_factory=Counter)


def try_inputs(read: Callable[[bytes], Any], inputs: Sequence[bytes]) -> Outcome:
    """Call ``read`` on each input in a child process, and return what happened.

    A fault is any exception but `InputError`, the death of the process, more than `CPU_SECONDS` for one input, more
    than `MEMORY`, or an error of more than `MESSAGE` characters. The child is forked: ``read`` may be a closure, and
    must not use a GPU.
    """
    outcome, first = Outcome(), 0
    while first < len(inputs):
        first = _run_child(read, inputs, first, outcome)
    return outcome


def assert_read_or_refused(read: Callable[[bytes], Any], inputs: Sequence[bytes], folder: Path) -> Outcome:
    """Assert that every input is read or refused with an `InputError`, and some of them refused.

    Inputs that were neither are left in ``folder``.
    """
    outcome = try_inputs(read, inputs)
    texts = []
    for i, (kind, (account, data)) in enumerate(outcome.faults.items()):
        (folder / f"fault-{i}").write_bytes(data)
        texts.append(f"{outcome.kinds[kind]} times, such as {folder / f'fault-{i}'}:\n{account}")
    assert not texts, f"{len(texts)} kinds of faults:\n" + "\n".join(texts)
    assert outcome.refused, "no input was refused: the inputs are not damaged, or the reader does not look at them"
    return outcome


def _run_child(read: Callable[[bytes], Any], inputs: Sequence[bytes], first: int, outcome: Outcome) -> int:
    """Run a child from input ``first`` on until it ends or dies; return the input from which the next one continues."""
    ours, theirs = os.pipe()
    with tempfile.TemporaryFile("w+", errors="backslashreplace") as log:
        sys.stdout.flush()
        child = os.fork()
        if child == 0:
            os.close(ours)
            _child(read, inputs, first, os.fdopen(theirs, "wb", buffering=0), log)
        os.close(theirs)
        done = _listen(os.fdopen(ours, "rb"), child, first, outcome)
        _, status = os.waitpid(child, 0)
        if done < len(inputs):  # it died over this one
            log.seek(0)
            how = signal.Signals(os.WTERMSIG(status)).name if os.WIFSIGNALED(status) else f"exit {status}"
            why = {"SIGPROF": "took too long", "SIGKILL": "said nothing for too long"}.get(how, "died")
            trace = log.read()
            _note(outcome, why + "".join(trace.splitlines(keepends=True)[:3]), f"{why} ({how})\n{trace}", inputs[done])
            done += 1
    return done


def _listen(pipe: IO[bytes], child: int, first: int, outcome: Outcome) -> int:
    """Take in what the child reports, and return the number of inputs that are done."""
    done = first
    with pipe:
        while True:
            if not select.select([pipe], [], [], SILENT_SECONDS)[0]:
                os.kill(child, signal.SIGKILL)
            try:
                result, kind, account, data = pickle.load(pipe)
            except EOFError:
                return done
            done += 1
            if result == "fault":
                _note(outcome, kind, account, data)
            else:
                outcome.read += result == "read"
                outcome.refused += result == "refused"


def _note(outcome: Outcome, kind: str, account: str, data: bytes) -> None:
    outcome.faults.setdefault(kind, (account, data))
    outcome.kinds[kind] += 1


def _child(read: Callable[[bytes], Any], inputs: Sequence[bytes], first: int, pipe: IO[bytes], log: IO[str]) -> None:
    """Read the inputs and report on each; never returns."""
    try:
        torch.set_num_threads(1)  # threads of OpenMP do not survive a fork
        pages = int(Path("/proc/self/statm").read_text().split()[0]) if Path("/proc/self/statm").is_file() else 0
        if pages:
            limit = pages * resource.getpagesize() + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        faulthandler.register(signal.SIGPROF, log, all_threads=False, chain=True)
        faulthandler.enable(log, all_threads=False)
        for data in inputs[first:]:
            signal.setitimer(signal.ITIMER_PROF, CPU_SECONDS)
            report = _outcome(read, data)
            signal.setitimer(signal.ITIMER_PROF, 0)
            pipe.write(pickle.dumps(report))
        os._exit(0)
    except BaseException:
        traceback.print_exc(file=log)
        log.flush()
    finally:  # whatever happens, the child must not go on as a second run of the tests
        os._exit(3)


def _outcome(read: Callable[[bytes], Any], data: bytes) -> tuple[str, str, str, bytes]:
    try:
        read(data)
    except InputError as error:
        if len(str(error)) < MESSAGE:
            return "refused", "", "", b""
        trace = traceback.format_list(traceback.extract_tb(error.__traceback__)[-3:])
        return "fault", f"long{trace[-1]}", f"a message of {len(str(error))} characters\n{''.join(trace)}", data
    except BaseException as error:
        trace = traceback.format_list(traceback.extract_tb(error.__traceback__)[-6:])
        name = type(error).__name__
        return "fault", name + "".join(trace[-2:]), f"{name}: {str(error)[:200]}\n{''.join(trace)}", data
    return "read", "", "", b""
