"""Selective search (Uijlings et al., IJCV 2013) by OpenCV's contributed modules, behind the extra `selective-search`.

OpenCV's "fast" and "quality" are not the paper's: their thresholds begin at 150 where the paper's begin at 50 or 100.
"""

from __future__ import annotations

import ctypes
import importlib
import os
import signal
from collections.abc import Generator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np

from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.io.signals import interrupts_blocked
from boxwright.structures import InputError

Quality = Literal["fast", "quality"]
SHORTEST = 2
"""Pixels: boxes with a shorter side are dropped, as in py-faster-rcnn."""


def require_opencv() -> Any:
    """Return the OpenCV module. Raises InputError with the command to install it if it or its modules are missing."""
    try:
        cv2 = importlib.import_module("cv2")
        cv2.ximgproc.segmentation.createSelectiveSearchSegmentation  # noqa: B018
    except (ImportError, AttributeError):
        raise InputError(
            "selective search needs OpenCV with its contributed modules; install them with "
            "`pip install 'boxwright[selective-search]'` (and uninstall opencv-python, which hides them)"
        ) from None
    return cv2


def selective_search(path: Path, quality: Quality = "fast") -> tuple[np.ndarray, np.ndarray]:
    """Return boxes float32 ``[P, 4]`` of an image file, best first, and descending scores ``[P]`` in 0..1.

    The scores only express ranks. The ranking is partly random by design, but repeatable for a file.
    """
    return search_pixels(read_image(path), quality)


def search_pixels(pixels: np.ndarray, quality: Quality = "fast") -> tuple[np.ndarray, np.ndarray]:
    """Run selective search on a uint8 ``[H, W, 3]`` RGB array; returns as `selective_search`."""
    cv2 = require_opencv()
    cv2.setNumThreads(1)
    _seed_c_library()
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(pixels[:, :, ::-1]))
    if quality == "fast":
        search.switchToSelectiveSearchFast()
    else:
        search.switchToSelectiveSearchQuality()
    found = np.asarray(search.process(), dtype=np.float32).reshape(-1, 4)
    found = found[(found[:, 2:] >= SHORTEST).all(1)]
    boxes = np.concatenate([found[:, :2], found[:, :2] + found[:, 2:]], 1)
    return boxes, 1 - np.arange(len(boxes), dtype=np.float32) / max(len(boxes), 1)


def _seed_c_library() -> None:
    """Seed the C library's ``rand``, which OpenCV ranks with and its own seed does not affect."""
    ctypes.CDLL("ucrtbase" if os.name == "nt" else None).srand(0)


def search_all(
    index: DetectionIndex, quality: Quality = "fast", workers: int = 1
) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Run selective search on each image, in order, in ``workers`` processes.

    Raises InputError for an image that cannot be read, and if a process dies.
    """
    require_opencv()
    paths = [index.path(i) for i in range(len(index))]
    if workers <= 1:
        yield from (selective_search(path, quality) for path in paths)
        return
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn"), initializer=_leave_interrupts) as pool:
        try:
            with interrupts_blocked():
                found = pool.map(partial(selective_search, quality=quality), paths)
            yield from found
        except BrokenProcessPool:
            raise InputError(
                f"one of the {workers} processes that search for proposals was killed or crashed, most probably "
                "because memory ran out; run the same command again with fewer (--workers): it goes on from there"
            ) from None


def _leave_interrupts() -> None:
    """Ignore Ctrl-C in a worker, also where it cannot be blocked: the parent ends its processes itself."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
