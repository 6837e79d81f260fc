"""Smaller copies of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import open_splits
from boxwright.io.files import atomic_folder


def subset(data: Path, folder: Path, counts: Mapping[str, int | None], seed: int = 0) -> Path:
    """Write a data set with the splits in ``counts`` and so many images of each, all for None; images are linked.

    Images are drawn by ``seed``, so that a larger subset of a split holds every smaller one. An existing folder is
    kept. Returns the folder.
    """
    if folder.is_dir():
        return folder
    splits = open_splits(data)
    chosen = {}
    for split, count in counts.items():
        order = np.random.default_rng([seed, len(splits[split])]).permutation(len(splits[split]))
        chosen[split] = splits[split].subset(np.sort(order[:count]))
    folder.parent.mkdir(parents=True, exist_ok=True)
    with atomic_folder(folder) as partial:
        write_coco(partial, chosen, images="link")
    return folder
