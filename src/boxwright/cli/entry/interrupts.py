"""Ctrl-C at any moment ends a command with one line and exit code 130.

While modules are imported, and after the command has ended, the process leaves at once. In between Ctrl-C raises
``KeyboardInterrupt``, so that files are closed and temporary ones removed. This file imports next to nothing, since it
must run before anything else does.
"""

from __future__ import annotations

import os
import signal
import sys

TYPE_CHECKING = False  # type checkers take it as true; `typing` takes longer to import than all of this
if TYPE_CHECKING:
    from types import FrameType, TracebackType
    from typing import Any, Self

STOPPED = 130
"""Exit code of a command that was stopped by Ctrl-C."""

_JSON = b'{"error": {"message": "stopped", "kind": "stopped", "exit_code": 130}}\n'


def leave_at_once() -> None:
    """Make Ctrl-C end the process immediately, which is right while there is nothing to clean up."""
    signal.signal(signal.SIGINT, _leave)


def _leave(number: int, frame: FrameType | None) -> None:
    try:
        if "--json" in sys.argv and os.environ.get("RANK", "0") == "0":
            os.write(1, _JSON)
        os.write(2, stopped_line("stopped").encode())
    except OSError:
        pass
    os._exit(STOPPED)


def leave(code: int) -> None:
    """End the process with an exit code: finish threads, exit handlers and output, but do not tear modules down.

    While Python tears them down, Ctrl-C would kill the process without its exit code. It would also ignore the code
    if Ctrl-C had come while it compiled a string.
    """
    import atexit
    import threading

    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()
    os._exit(code)


def stopped_line(message: str) -> str:
    """Return the line to print when a command was stopped; a terminal has written ``^C`` in the current line."""
    start = "\n" if sys.stderr is not None and sys.stderr.isatty() else ""
    return f"{start}{message}\n"


class Interrupts:
    """Context in which Ctrl-C raises ``KeyboardInterrupt`` and sets ``happened``.

    ``happened`` tells an interrupted command from a faulty one where a library has turned the exception into another.
    Where Python swallows the exception, as in the finaliser of an object, it is raised again a moment later. Outside
    the main thread, where Python allows no signal handlers, the context has no effect.
    """

    def __init__(self) -> None:
        self.happened = False
        self._before: Any = None
        self._hook: Any = None

    def __enter__(self) -> Self:
        try:
            self._before = signal.signal(signal.SIGINT, self._raise)
        except ValueError:  # not the main thread
            return self
        self._hook, sys.unraisablehook = sys.unraisablehook, self._again
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._hook is not None:
            signal.signal(signal.SIGINT, self._before)
            sys.unraisablehook = self._hook

    def _raise(self, number: int, frame: FrameType | None) -> None:
        self.happened = True
        raise KeyboardInterrupt

    def _again(self, unraisable: Any) -> None:
        if not issubclass(unraisable.exc_type, KeyboardInterrupt):
            self._hook(unraisable)
            return
        import threading

        timer = threading.Timer(0.05, _interrupt_main)
        timer.daemon = True
        timer.start()


def _interrupt_main() -> None:
    """Send SIGINT to the main thread, which also ends a wait of it for the system."""
    import threading

    main = threading.main_thread().ident
    if hasattr(signal, "pthread_kill") and main is not None:
        signal.pthread_kill(main, signal.SIGINT)
    else:
        signal.raise_signal(signal.SIGINT)
