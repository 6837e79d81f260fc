"""Choose how many images without objects a data set keeps."""

from __future__ import annotations

import numpy as np

from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError


def check_empty_share(share: float | None) -> None:
    """Raise ``InputError`` for a share of images without objects that is not in 0..1."""
    if share is not None and not 0 <= share <= 1:
        raise InputError(f"--empty-share {share}: give a share of the images from 0 to 1, such as 0.1; 1 keeps all")


def has_objects(index: DetectionIndex) -> np.ndarray:
    """Return a mask of the images with an object that is no crowd region, bool ``[N]``."""
    counts = np.concatenate([[0], np.cumsum(~index.crowd)])[index.box_ends]
    return np.diff(counts) > 0


def kept_backgrounds(empty: np.ndarray, share: float, seed: int) -> np.ndarray:
    """Return a mask of the images to keep, bool ``[N]``: all that are not ``empty``, and a random choice of the others.

    The latter make up at most ``share`` of the images that are kept; 1 keeps all.
    """
    if share == 1:
        return np.ones(len(empty), dtype=bool)
    places = np.flatnonzero(empty)
    full = len(empty) - len(places)
    most = min(len(places), int(full * share / (1 - share) + 1e-9))
    kept = ~empty
    kept[np.random.default_rng(seed).permutation(places)[:most]] = True
    return kept
