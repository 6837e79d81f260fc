"""Precomputed region proposals in files.

One safetensors file holds the proposals of one split, best first in each image, in pixels of the original images. Its
header names the images and the data set. Reading it executes nothing.

Symbols: N images, M proposals of all images, P proposals of one image.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from boxwright.fields import Count, config
from boxwright.io.files import atomic_path
from boxwright.structures import InputError

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex

FORMAT = "boxwright proposals 1"
SUFFIX = ".safetensors"
_KINDS = {"boxes": "f", "scores": "f", "offsets": "i", "image_ids": "i", "sizes": "i"}
_TOLERANCE = 0.01  # pixels, more than float32 rounds a corner at the edge of a large image


@config
class ProposalsConfig:
    """Files of proposals for a detector that proposes no regions itself; `boxwright proposals` writes them."""

    train: str | None = None
    """File of the training split."""
    val: str | None = None
    """File of the validation split."""
    most: Count = 2000
    """Best proposals of each image that are used, and the number of rows that all images are padded to."""


@dataclass(frozen=True, eq=False, repr=False)
class ProposalSet:
    """Proposals of the images of one split, in flat arrays that loader workers share.

    ``boxes`` float32 ``[M, 4]`` x1 y1 x2 y2, exclusive, in original pixels; ``scores`` float32 ``[M]``, falling within
    each image; ``offsets`` int64 ``[N + 1]`` into both; ``names`` str ``[N]``, the images' paths below the data set's
    folder; ``image_ids`` int64 ``[N]``; ``sizes`` int32 ``[N, 2]`` height, width; ``marks`` int64 ``[N]``, by which two
    images of the same name and size are distinguished (`file_mark`), 0 if unknown; ``fingerprint`` of the data set
    (`DetectionIndex.fingerprint`); ``method``: the method that found them.
    """

    boxes: np.ndarray
    scores: np.ndarray
    offsets: np.ndarray
    names: np.ndarray
    image_ids: np.ndarray
    sizes: np.ndarray
    marks: np.ndarray
    fingerprint: str
    method: str

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        return f"ProposalSet({len(self)} images, {len(self.boxes)} proposals of {self.method})"

    def of(self, i: int) -> np.ndarray:
        """Return the proposals of image ``i``, float32 ``[P, 4]``, best first."""
        return self.boxes[self.offsets[i] : self.offsets[i + 1]]

    def is_of(self, row: int, index: DetectionIndex, i: int) -> bool:
        """Return True if the proposals of image ``row`` belong to the present content of image ``i`` of ``index``."""
        same_size = bool((self.sizes[row] == index.sizes[i]).all())
        return same_size and int(self.marks[row]) == file_mark(Path(index.path(i)))

    @classmethod
    def build(
        cls, index: DetectionIndex, boxes: Sequence[np.ndarray], scores: Sequence[np.ndarray], method: str
    ) -> ProposalSet:
        """Build a set of boxes ``[P, 4]`` and scores ``[P]`` of each image of ``index``, in its order.

        The boxes are sorted by score. Raises InputError for boxes outside their image or without area, and for unequal
        counts.
        """
        if not len(boxes) == len(scores) == len(index):
            raise InputError(f"{len(index)} images, but proposals of {len(boxes)} and scores of {len(scores)}")
        for i, (of_boxes, of_scores) in enumerate(zip(boxes, scores, strict=True)):
            if np.shape(of_boxes) != (len(of_scores), 4) and (len(of_boxes) or len(of_scores)):
                raise InputError(
                    f"{index.relative_path(i)}: boxes of shape {list(np.shape(of_boxes))} with {len(of_scores)} "
                    "scores; give x1, y1, x2, y2 and a score for each"
                )
        orders = [np.argsort(-np.asarray(s, dtype=np.float32), kind="stable") for s in scores]
        made = cls(
            boxes=_joined([np.asarray(b, np.float32).reshape(-1, 4)[o] for b, o in zip(boxes, orders, strict=True)], 4),
            scores=_joined([np.asarray(s, np.float32)[o] for s, o in zip(scores, orders, strict=True)], 0),
            offsets=np.cumsum([0, *(len(o) for o in orders)]).astype(np.int64),
            names=np.array([index.relative_path(i) for i in range(len(index))], dtype=np.str_),
            image_ids=index.image_ids.astype(np.int64),
            sizes=index.sizes.astype(np.int32),
            marks=_marks(index),
            fingerprint=index.fingerprint(),
            method=method,
        )
        made.check("the proposals")
        return made

    def check(self, what: str) -> None:
        """Raise InputError, naming the image, for a proposal that is outside it, has no area or is not finite."""
        if self.offsets[0] != 0 or self.offsets[-1] != len(self.boxes) or (np.diff(self.offsets) < 0).any():
            raise InputError(f"{what}: damaged, its counts do not match its {len(self.boxes)} boxes; create it again")
        owner = np.repeat(np.arange(len(self)), np.diff(self.offsets))
        edges = self.sizes[owner][:, ::-1] + _TOLERANCE
        inside = (self.boxes[:, :2] >= -_TOLERANCE).all(1) & (self.boxes[:, 2:] <= edges).all(1)
        area = (self.boxes[:, 2:] > self.boxes[:, :2]).all(1)
        for wrong, why in ((~area, "has no area"), (~inside, "lies outside the image")):
            if wrong.any():
                row = int(wrong.argmax())
                image = owner[row]
                height, width = self.sizes[image].tolist()
                box = ", ".join(f"{v:g}" for v in self.boxes[row].tolist())
                raise InputError(
                    f"{what}: proposal {row - int(self.offsets[image])} of {self.names[image]} ({width} x {height} "
                    f"pixels), x1 y1 x2 y2 = {box}, {why}, as do {int(wrong.sum()) - 1} more; correct the program that "
                    "wrote them"
                )

    def save(self, path: Path | str) -> Path:
        """Write the file atomically."""
        path = Path(path)
        header = {
            "format": FORMAT,
            "method": self.method,
            "fingerprint": self.fingerprint,
            "names": json.dumps(self.names.tolist()),
        }
        tensors = {
            "boxes": self.boxes,
            "scores": self.scores,
            "offsets": self.offsets,
            "image_ids": self.image_ids,
            "sizes": self.sizes,
            "marks": self.marks,
        }
        path.parent.mkdir(parents=True, exist_ok=True)
        whole = {key: np.ascontiguousarray(value) for key, value in tensors.items()}
        with atomic_path(path, size=sum(value.nbytes for value in whole.values())) as temporary:
            try:
                save_file(whole, temporary, metadata=header)
            except SafetensorError as error:
                raise _system_error(error) from error
        return path

    def aligned(self, index: DetectionIndex, most: int, what: str = "the proposals") -> ProposalSet:
        """Return the ``most`` best proposals of each image of ``index``, in its order.

        Raises InputError if an image is missing, or had another size or content. Warns if the images are the same but
        the annotations have changed.
        """
        rows = {str(name): i for i, name in enumerate(self.names)}
        names = [index.relative_path(i) for i in range(len(index))]
        if missing := [name for name in names if name not in rows]:
            raise InputError(
                f"{what}: holds proposals of {len(self)} images, but {len(missing)} of the {len(index)} images of "
                f"{index.root} are missing, such as {missing[0]}; create a file for this split with "
                f"{_command(index)} and give it in data.proposals, or with --proposals of `boxwright evaluate`"
            )
        chosen = np.array([rows[name] for name in names], dtype=np.int64)
        if (other := (self.sizes[chosen] != index.sizes).any(1)).any():
            i = int(other.argmax())
            (height, width), (own_height, own_width) = self.sizes[chosen[i]].tolist(), index.size(i)
            raise InputError(
                f"{what}: was made for {names[i]} of {width} x {height} pixels, but that of {index.root} has "
                f"{own_width} x {own_height}: it belongs to another data set; create one for this with "
                "`boxwright proposals`"
            )
        marks = _marks(index)
        if (other := (marks != self.marks[chosen]) & (marks != 0) & (self.marks[chosen] != 0)).any():
            i = int(other.argmax())
            raise InputError(
                f"{what}: was made for another image {names[i]} than that of {index.root}, like "
                f"{int(other.sum()) - 1} others: it belongs to another data set, or the images have changed; "
                f"create it again with {_command(index)}"
            )
        if len(index) == len(self) and self.fingerprint != index.fingerprint():
            warnings.warn(
                f"{what}: the images are called as those of {index.root}, but its annotations were others when the "
                "proposals were made; if it is another data set, create them again",
                stacklevel=2,
            )
        starts = self.offsets[chosen]
        counts = np.minimum(self.offsets[chosen + 1] - starts, most)
        offsets = np.cumsum([0, *counts]).astype(np.int64)
        kept = np.repeat(starts - offsets[:-1], counts) + np.arange(offsets[-1])
        return ProposalSet(
            boxes=self.boxes[kept],
            scores=self.scores[kept],
            offsets=offsets,
            names=self.names[chosen],
            image_ids=index.image_ids,
            sizes=index.sizes,
            marks=marks,
            fingerprint=self.fingerprint,
            method=self.method,
        )


def read_proposals(path: Path | str) -> ProposalSet:
    """Read a file of proposals. Raises InputError if it is missing, damaged, or something else."""
    path = Path(os.path.expanduser(path))
    if not path.is_file():
        raise InputError(f"{path}: there is no such file; create it with `boxwright proposals`, or correct the path")
    try:
        with safe_open(path, framework="numpy") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                raise InputError(f"{path}: not a file of proposals; create one with `boxwright proposals`")
            columns = {key: file.get_tensor(key) for key in ("boxes", "scores", "offsets", "image_ids", "sizes")}
            if odd := [key for key, kind in _KINDS.items() if columns[key].dtype.kind != kind or not columns[key].ndim]:
                raise ValueError(f"{odd[0]} is {columns[odd[0]].dtype}")
            unseen = np.zeros(len(columns["image_ids"]), np.int64)
            names = json.loads(header["names"])
            if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
                raise ValueError("names are no list of texts")
            read = ProposalSet(
                **columns,
                marks=file.get_tensor("marks") if "marks" in file.keys() else unseen,  # noqa: SIM118
                names=np.array(names, dtype=np.str_),
                fingerprint=header["fingerprint"],
                method=header["method"],
            )
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        told = str(error)[:200]
        raise InputError(f"{path}: damaged, or not a file of proposals ({told}); create it again") from None
    images, rows = len(read.names), len(read.boxes)
    shapes = {
        "boxes": (rows, 4), "scores": (rows,), "offsets": (images + 1,), "image_ids": (images,), "sizes": (images, 2),
        "marks": (images,),
    }  # fmt: skip
    for key, shape in shapes.items():
        if (found := getattr(read, key).shape) != shape:
            raise InputError(f"{path}: damaged, {key} has shape {list(found)}, not {list(shape)}; create it again")
    read.check(str(path))
    return read


def proposals_for(path: Path | str, index: DetectionIndex, most: int) -> ProposalSet:
    """Read the ``most`` best proposals of each image of ``index``. Raises InputError if the file does not match."""
    return read_proposals(path).aligned(index, most, str(path))


def proposals_of_split(config: ProposalsConfig, split: Literal["train", "val"], index: DetectionIndex) -> ProposalSet:
    """Read the proposals for ``index`` from the file of ``split``. Raises InputError if ``config`` names none."""
    path = config.train if split == "train" else config.val
    if path is None:
        raise InputError(
            f"data.proposals.{split} is not set, but this detector does not propose regions; create them with "
            f"{_command(index)} and name the file: --set 'data.proposals.{split}=\"FILE{SUFFIX}\"'"
        )
    return proposals_for(path, index, config.most)


def _system_error(error: SafetensorError) -> OSError:
    """Return the OSError that safetensors reports as text: "... (os error 28)"."""
    code = re.search(r"os error (\d+)", str(error))
    return OSError(0, str(error)) if code is None else OSError(int(code[1]), os.strerror(int(code[1])))


def _command(index: DetectionIndex) -> str:
    """Return the command that creates a file for ``index``."""
    split = f" --split {index.name}" if index.name and index.name != "all" else ""
    return f"`boxwright proposals --data {index.root}{split} --output FILE{SUFFIX}`"


def file_mark(path: Path) -> int:
    """Hash the length of a file and 4096 bytes in its middle; 0 if there is no file."""
    try:
        with path.open("rb") as file:
            length = os.fstat(file.fileno()).st_size
            file.seek(max(0, length // 2 - 2048))
            middle = file.read(4096)
    except OSError:
        return 0
    return int.from_bytes(hashlib.blake2b(length.to_bytes(8) + middle, digest_size=8).digest(), signed=True) or 1


def _marks(index: DetectionIndex) -> np.ndarray:
    return np.array([file_mark(Path(index.path(i))) for i in range(len(index))], dtype=np.int64)


def _joined(parts: list[np.ndarray], columns: int) -> np.ndarray:
    empty = np.zeros((0, columns) if columns else 0, np.float32)
    return np.concatenate([empty, *parts])
