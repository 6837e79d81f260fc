"""Worker processes that make batches.

On Linux, workers are forked. Forking a process with threads is safe as long as the child takes no lock that a thread
held. So a worker prints nothing, runs torch on one thread (which avoids the parent's OpenMP pool) and does not use the
accelerator. It shares the pages of the data set with its parent. "spawn", the default elsewhere, and "forkserver" start
clean processes. They map the arrays of the data set from shared memory, so memory does not grow either, but the main
module must be importable and each worker imports torch again.

A worker that dies, as when the system kills it for its memory, is noticed where the next batch is asked for and nowhere
else. torch by itself raises wherever the main process happens to be, also amid an optimiser step.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from boxwright.data.loading.sampler import Numbers
from boxwright.data.loading.sharing import Shared
from boxwright.io.signals import interrupts_blocked
from boxwright.structures import InputError

StartMethod: TypeAlias = Literal["fork", "spawn", "forkserver"]


class SampleError(InputError):
    """A sample of a batch cannot be read or prepared. The message names its file or image id."""


class WorkerError(InputError):
    """A worker died. The message says which one, of what, and the probable reason."""


class _SharedDataset(Dataset[Any]):
    """Data set for workers that are not forked."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.shared = Shared(dataset)

    def __getitem__(self, number: int) -> Any:
        return self.shared.value[number]


class Workers:
    """A torch DataLoader of whole batches by number that can be started and stopped."""

    def __init__(
        self, dataset: Dataset[Any], workers: int, pin_memory: bool, prefetch: int, start_method: StartMethod | None
    ) -> None:
        self.method = start_method or ("fork" if sys.platform == "linux" else "spawn")
        if self.method not in multiprocessing.get_all_start_methods():
            known = ", ".join(multiprocessing.get_all_start_methods())
            raise InputError(f"start_method = {self.method!r} is not one of this system's: {known}")
        self.workers = workers
        self.numbers = Numbers()
        with _without_worker_count_warning():
            self._loader = DataLoader(
                dataset if workers == 0 or self.method == "fork" else _SharedDataset(dataset),
                batch_size=None,
                sampler=_Restartable(self),
                num_workers=workers,
                pin_memory=pin_memory and torch.cuda.is_available(),
                # Its own generator, since torch draws a seed for the workers from it, and must not change the
                # global state that a resumed run restores before it starts its workers.
                generator=torch.Generator().manual_seed(0),
                worker_init_fn=_prepare_worker,
                multiprocessing_context=self.method if workers else None,
                prefetch_factor=prefetch if workers else None,
                persistent_workers=workers > 0,
            )

    def start(self, numbers: Numbers) -> Iterator[Any]:
        """Iterate over the batches with these numbers. Running workers are reused."""
        self.numbers = numbers
        with interrupts_blocked(), _without_worker_count_warning(), _without_torch_handler():
            # Python warns of every fork of a process with threads; the module docstring says why it is safe here.
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            return _Watched(self, iter(self._loader))

    def fault(self) -> str | None:
        """Describe a worker that died although it was not told to end; None if all live."""
        processes = getattr(self._loader._iterator, "_workers", [])
        for number, process in enumerate(processes, start=1):
            if (code := process.exitcode) is not None:
                which = f"worker {number} of {self.workers} that load images (process {process.pid})"
                return f"{which} {_cause(code)}"
        return None

    def stop(self) -> None:
        """End the workers and wait for them."""
        running = self._loader._iterator  # torch has no public way to end persistent workers
        self._loader._iterator = None
        if running is not None and hasattr(running, "_shutdown_workers"):
            running._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]


class _Watched(Iterator[Any]):
    """Batches of workers, with a WorkerError in place of torch's RuntimeError where one of them died."""

    def __init__(self, workers: Workers, batches: Iterator[Any]) -> None:
        self.workers, self.batches = workers, batches

    def __next__(self) -> Any:
        if fault := self.workers.fault():
            raise WorkerError(fault)
        try:
            with _torch_handler():
                return next(self.batches)
        except RuntimeError as error:
            if fault := self.workers.fault():
                raise WorkerError(fault) from error
            raise


def _cause(code: int) -> str:
    """Describe how a process ended and why, from its exit code."""
    try:
        name = signal.Signals(-code).name
    except ValueError:
        return f"ended with exit code {code}"
    match name:
        case "SIGKILL":
            return "was killed (SIGKILL), most probably by the system because memory ran out"
        case "SIGBUS":
            return "was stopped by SIGBUS, most probably because shared memory (/dev/shm) is full"
        case "SIGTERM" | "SIGINT" | "SIGHUP":
            return f"was stopped by {name} from outside"
        case _:
            return f"crashed ({name}), most probably in the library that decodes an image"


class _Restartable(Sampler[int]):
    """Sampler of the numbers that were requested last."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def __iter__(self) -> Iterator[int]:
        return iter(self.workers.numbers)


def _prepare_worker(_: int) -> None:
    """Use one thread per worker, and ignore Ctrl-C, since the parent ends its workers itself."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _print_unless_disconnected


def _print_unless_disconnected(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """Print an uncaught error, unless the parent has closed the connection, as at the end of a pass."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


_torch: list[Any] = []
"""torch's handler of SIGCHLD, once torch has set it; it raises if a worker of a loader has died."""


@contextlib.contextmanager
def _without_torch_handler() -> Iterator[None]:
    """Keep the handler of SIGCHLD that is set, and note the one that torch sets when its first loader starts."""
    number = getattr(signal, "SIGCHLD", None)
    if number is None or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(number)
    try:
        yield
    finally:
        if (after := signal.getsignal(number)) is not before:
            _torch[:] = [after]
            signal.signal(number, before)


@contextlib.contextmanager
def _torch_handler() -> Iterator[None]:
    """Set torch's handler of SIGCHLD while a batch is waited for, which would else take seconds to notice a death."""
    if not _torch or threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGCHLD)
    try:
        signal.signal(signal.SIGCHLD, _torch[0])
        yield
    finally:
        signal.signal(signal.SIGCHLD, before)


@contextlib.contextmanager
def _without_worker_count_warning() -> Iterator[None]:
    """Silence torch's warning of more workers than cores; it comes when a loader is made or started, by version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield
