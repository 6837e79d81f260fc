"""Waiting of OpenMP threads, without spinning.

By default a thread that has finished its share of an operation spins for some milliseconds in case more comes. On a
core that another program needs too, the spinning takes the time of threads that have work: beside one busy program on
two cores, training has less than half of its speed. Threads that wait without spinning keep their share, and are as
fast on a machine of their own.
"""

from __future__ import annotations

import os
import sys

_SETTINGS = ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME")
"""Variables by which a user decides how threads wait: of the standard, of GCC's runtime, of Intel's and LLVM's."""

set_here: dict[str, str] = {}
"""Variables that :func:`wait_without_spinning` has set in this process."""


def wait_without_spinning() -> None:
    """Let the threads of this process and its children wait without spinning, unless the user has decided otherwise.

    An OpenMP runtime reads its settings when it is loaded. So this is called before torch is imported, and does nothing
    after.
    """
    if "torch" in sys.modules or any(name in os.environ for name in _SETTINGS):
        return
    set_here["OMP_WAIT_POLICY"] = os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
