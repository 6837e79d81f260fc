"""The processes that make batches: how they start, what they share, how they end.

How workers start: on Linux they are forked. Forking a process with threads is safe only as long as the child does not
take a lock some thread held; a worker prints nothing, runs torch on one thread (so it never enters the parent's
OpenMP pool) and never touches the accelerator, and it starts with the data set already in shared pages. "spawn", the
default elsewhere, and "forkserver" start clean processes; the data set's arrays then travel through shared memory, so
memory does not grow either, but the main module must be importable and each worker imports torch anew.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
import sys
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Literal, TypeAlias

import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from boxwright.data.loading.sampler import Numbers
from boxwright.data.loading.sharing import Shared
from boxwright.structures import InputError

StartMethod: TypeAlias = Literal["fork", "spawn", "forkserver"]


class SampleError(InputError):
    """A sample of a batch cannot be read or prepared. The message names its file or image id."""


class _SharedDataset(Dataset[Any]):
    """A data set for workers that are not forked."""

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.shared = Shared(dataset)

    def __getitem__(self, number: int) -> Any:
        return self.shared.value[number]


class Workers:
    """torch's DataLoader set up for whole batches by number, and its start and end."""

    def __init__(
        self, dataset: Dataset[Any], workers: int, pin_memory: bool, prefetch: int, start_method: StartMethod | None
    ) -> None:
        self.method = start_method or ("fork" if sys.platform == "linux" else "spawn")
        if self.method not in multiprocessing.get_all_start_methods():
            known = ", ".join(multiprocessing.get_all_start_methods())
            raise InputError(f"start_method = {self.method!r} is not one of this system's: {known}")
        self.workers = workers
        self.numbers = Numbers()
        with _worker_count_is_the_users():
            self._loader = DataLoader(
                dataset if workers == 0 or self.method == "fork" else _SharedDataset(dataset),
                batch_size=None,
                sampler=_Restartable(self),
                num_workers=workers,
                pin_memory=pin_memory and torch.cuda.is_available(),
                # Its own generator: torch draws a seed for the workers from it, and must not draw from the global
                # state, which a resumed run restores before it starts its workers.
                generator=torch.Generator().manual_seed(0),
                worker_init_fn=_prepare_worker,
                multiprocessing_context=self.method if workers else None,
                prefetch_factor=prefetch if workers else None,
                persistent_workers=workers > 0,
            )

    def start(self, numbers: Numbers) -> Iterator[Any]:
        """An iterator over the batches with these numbers. Running workers are used again."""
        self.numbers = numbers
        with _interrupts_held_back(), _worker_count_is_the_users():
            # Python warns of every fork with threads about; the head of this file says why this one is safe.
            warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
            return iter(self._loader)

    def stop(self) -> None:
        """End the workers and wait for them."""
        running = self._loader._iterator  # torch has no public way to end persistent workers
        self._loader._iterator = None
        if running is not None and hasattr(running, "_shutdown_workers"):
            running._shutdown_workers()  # pyright: ignore[reportAttributeAccessIssue]


class _Restartable(Sampler[int]):
    """The numbers that were last asked for."""

    def __init__(self, workers: Workers) -> None:
        self.workers = workers

    def __iter__(self) -> Iterator[int]:
        return iter(self.workers.numbers)


def _prepare_worker(_: int) -> None:
    """One thread a worker, and Ctrl-C is the parent's: it ends its workers itself."""
    torch.set_num_threads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.excepthook = _tell_unless_nobody_listens


def _tell_unless_nobody_listens(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """The thread that hands over a batch may find that the parent has gone on without it: that is how passes end."""
    if not issubclass(kind, ConnectionError | EOFError):
        sys.__excepthook__(kind, error, trace)


@contextlib.contextmanager
def _worker_count_is_the_users() -> Iterator[None]:
    """torch warns of more workers than cores, when a loader is made or when it starts, by version."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create", category=UserWarning)
        yield


@contextlib.contextmanager
def _interrupts_held_back() -> Iterator[None]:
    """Workers inherit the blocked signal, so that none dies with a traceback before it could learn to ignore it."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
