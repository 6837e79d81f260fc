"""Images sorted into one folder per class: the data of image classifiers.

``FOLDER/train/CLASS/*.jpg`` and ``FOLDER/val/CLASS/*.jpg``, as ImageNet and its relatives come. Labels are the
positions of the class folders in the order of their names.
"""

from __future__ import annotations

import hashlib
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from boxwright.data.formats.splits import distinct_splits, split_name
from boxwright.data.images import is_image_name, read_image, unreadable_reason, walk_files
from boxwright.structures import InputError

SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class ClassFolders:
    """One split: ``classes`` are the folders' names, ``labels`` int64 ``[N]`` index them.

    ``names`` holds the files' paths below ``root`` as fixed-width bytes, which processes share without copying.
    ``data``: the folder passed to `open_folders`, which is ``root`` or the one above it.
    """

    data: Path
    root: Path
    classes: tuple[str, ...]
    names: NDArray[np.bytes_]
    labels: NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.labels)

    def path(self, i: int) -> Path:
        """Return the file of image ``i``."""
        return self.root / os.fsdecode(bytes(self.names[i]))

    def read(self, i: int) -> np.ndarray:
        """Return image ``i`` as uint8 RGB ``[H, W, 3]``. Raises InputError naming the file if it cannot be read."""
        return read_image(self.path(i))

    def subset(self, indices: Sequence[int] | NDArray[np.int64]) -> ClassFolders:
        """Return the images at ``indices``, in that order, with the same classes."""
        chosen = np.asarray(indices, dtype=np.int64)
        return replace(self, names=self.names[chosen], labels=self.labels[chosen])

    @property
    def name(self) -> str:
        """Return the name of the data set, which is that of its folder."""
        return Path(
            os.path.abspath(self.data)
        ).name  # not resolve(): the name of a link is more telling than that of its target

    def fingerprint(self) -> str:
        """Return the SHA-256, in hex, of classes, file names and labels."""
        digest = hashlib.sha256("\0".join(self.classes).encode())
        digest.update(b"\0".join(self.names.tolist()))
        digest.update(self.labels.tobytes())
        return digest.hexdigest()


def open_folders(path: Path | str) -> dict[str, ClassFolders]:
    """Open the splits below ``path``: ``train``, and ``val`` and ``test`` if they exist, or ``valid`` for val.

    A folder of class folders without splits is ``train`` alone. Files and folders whose names begin with a dot are
    ignored. Raises InputError if no class folder has an image, or if the splits have different classes.
    """
    root = Path(path)
    if not root.is_dir():
        raise InputError(f"{root}: there is no such folder; give one that contains train/CLASS/ and val/CLASS/")
    folders = {folder: split_name(folder) for folder in _folders(root)}
    # Other words for a split are a split's only if class folders are in it: a class may be called "dev".
    named = [(s, root / f) for f, s in folders.items() if s in SPLITS and (f == s or _folders(root / f))]
    present = distinct_splits(root, named)
    others = [name for name in folders if root / name not in present.values()]
    for name in present:
        if others and not _folders(present[name]):
            raise InputError(
                f"{root}: {name} is the name of a split, but beside {', '.join(map(repr, others[:4]))} it seems to be "
                f"a class, as it has no class folders; rename that class to something other than {', '.join(SPLITS)}, "
                "or put all class folders into a folder train"
            )
    splits = {name: _read_split(root, folder) for name, folder in present.items()} or {"train": _read_split(root, root)}
    if "train" not in splits:
        raise InputError(f"{root}: has {', '.join(splits)} but no folder train; put the training images into one")
    known = splits["train"].classes
    for name, split in splits.items():
        if split.classes != known:
            odd = sorted(set(split.classes) ^ set(known))
            raise InputError(
                f"{root}: {name} and train have different class folders, such as {', '.join(map(repr, odd[:4]))}; "
                "give each class a folder in both"
            )
    return splits


def _folders(root: Path) -> list[str]:
    return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and not entry.name.startswith("."))


def _read_split(data: Path, root: Path) -> ClassFolders:
    folders = _folders(root)
    names: list[bytes] = []
    labels: list[int] = []
    unread: list[Path] = []
    for label, folder in enumerate(folders):
        before = len(names)
        top = root / folder
        files = walk_files(top)
        unread += [file for file in files if unreadable_reason(file) is not None]
        start = len(str(top)) - len(folder)
        names += [os.fsencode(str(file)[start:]) for file in files if is_image_name(file)]
        if len(names) == before:
            if unread:
                raise InputError(f"{unread[-1]}: {unreadable_reason(unread[-1])}")
            raise InputError(f"{top}: this class folder has no image; add some or remove it")
        labels += [label] * (len(names) - before)
    if not names:
        raise InputError(f"{root}: has no class folders; put the images of each class into a folder named after it")
    if unread:
        more = f", and {len(unread) - 1} more of {root}" if len(unread) > 1 else ""
        warnings.warn(f"left out {unread[0]}: {unreadable_reason(unread[0])}{more}", stacklevel=2)
    return ClassFolders(data, root, tuple(folders), np.array(names), np.array(labels, dtype=np.int64))
