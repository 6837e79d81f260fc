"""Types shared by all parts: image batches, targets, dense detections, pyramid levels, class names, ``InputError``.

Tensors appear in annotations only, so that importing this module does not load torch.

Symbols: B images, G padded ground-truth boxes, D detections per image, H W pixels of the padded network input.
Boxes everywhere are float32 ``x1 y1 x2 y2`` in absolute pixels, ``x2 y2`` exclusive.
"""

from __future__ import annotations

import unicodedata
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:  # error messages, class names and levels are used by commands that never load torch
    import torch
    from torch import Tensor


_LONGEST_NAME = 256
# Invisible characters: soft hyphen, zero-width space, left-to-right marks, word joiner, byte order mark. The joiners
# U+200C and U+200D stay, since Persian, Hindi and emoji are spelled with them.
_TURNING = frozenset(map(chr, (*range(0x202A, 0x202F), *range(0x2066, 0x206A))))
_INVISIBLE: dict[int, None] = dict.fromkeys((0x00AD, 0x061C, 0x200B, 0x200E, 0x200F, 0x2060, 0xFEFF))


class InputError(ValueError):
    """Invalid input from a user. The message names the value, the file and position it came from, and the remedy."""


@dataclass(frozen=True, slots=True)
class Level:
    """Level of a feature pyramid: its name, its ``stride`` in input pixels and the ``channels`` of its feature map."""

    name: str
    stride: int
    channels: int


@dataclass(frozen=True, slots=True)
class Classes:
    """Foreground classes in label order. Label ``k`` has the name ``names[k]`` and the category id ``ids[k]``.

    Category ids are those of the data set's own files. Names are kept as `plain_name` gives them. Raises InputError
    where a name or an id appears twice, and for a name that is empty, too long or has control characters.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]

    def __post_init__(self) -> None:
        if len(self.names) != len(self.ids):
            raise InputError(f"{len(self.names)} class names but {len(self.ids)} category ids; give one id per name")
        if strange := [name for name in self.names if not isinstance(name, str)]:
            raise InputError(f"the class name {strange[0]!r} is not text; give names as text")
        object.__setattr__(self, "names", tuple(map(plain_name, self.names)))
        for position, name in enumerate(self.names):
            if (defect := _name_defect(name)) is not None:
                raise InputError(f"the name of class {position} {defect}")
        for what, values in (("class name", self.names), ("category id", self.ids)):
            if len(set(values)) < len(values):
                counts = Counter(values)
                repeated = sorted(str(value) for value, count in counts.items() if count > 1)
                raise InputError(f"{what} {', '.join(repeated)} appears more than once; each class needs its own")

    def __len__(self) -> int:
        return len(self.names)

    @classmethod
    def from_names(cls, names: list[str] | tuple[str, ...]) -> Classes:
        """Number the classes 1, 2, ..., as COCO files converted from VOC or YOLO data do."""
        return cls(tuple(names), tuple(range(1, len(names) + 1)))


def plain_name(name: str) -> str:
    """Return a class name in composed Unicode, with single blanks between words and without invisible characters."""
    return " ".join(unicodedata.normalize("NFC", name).translate(_INVISIBLE).split())


def _name_defect(name: str) -> str | None:
    """Describe the defect of a class name; None if there is none."""
    if not name:
        return "is empty; give every class a name"
    if len(name) > _LONGEST_NAME:
        return f"has {len(name)} characters ({name[:30]!r}...); shorten it to at most {_LONGEST_NAME}"
    # Control characters and those that turn the direction of writing, which a terminal obeys; halves of pairs.
    if bad := sorted({c for c in name if unicodedata.category(c) in ("Cc", "Cs") or c in _TURNING}):
        return f"is {name!r}, with the control character {bad[0]!r}; remove it"
    return None


class Images(NamedTuple):
    """Padded batch of RGB images.

    ``pixels``: ``[B, 3, H, W]``, uint8 or float in 0..255, padded at the bottom and right with any value.
    ``sizes``: int64 ``[B, 2]``, the true height and width of each image inside the padding.
    ``seeds``: int64 ``[B]``, the seed of each image's random samples of anchors and RoIs. The samples then depend on
    neither the device, nor the number of processes, nor earlier draws. None: samples are drawn from torch's state.
    ``proposals``: float32 ``[B, P, 4]``, precomputed proposals in descending order of score, for detectors without a
    proposal network. Rows of zero area are padding. None for detectors that need no precomputed proposals.
    ``scales``: float32 ``[B, 2]``, the scales of x and y from the original images to these, for detectors that compute
    in pixels of the original (``post.original_from``). None: both are the same.
    """

    pixels: Tensor
    sizes: Tensor
    seeds: Tensor | None = None
    proposals: Tensor | None = None
    scales: Tensor | None = None

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Images:
        """Copy the batch to another device."""
        return Images._make(None if t is None else t.to(device, non_blocking=non_blocking) for t in self)


class Targets(NamedTuple):
    """Padded ground truth. Rows where ``valid`` is false are padding and hold zeros.

    ``boxes``: float32 ``[B, G, 4]``. ``labels``: int64 ``[B, G]`` in 0..K-1. ``valid``, ``crowd``, ``difficult``: bool
    ``[B, G]``. ``masks``: bool ``[B, G, H, W]``, or None where the data set has no masks or they were not requested.
    G may be 0, and an image may have no valid row.
    """

    boxes: Tensor
    labels: Tensor
    valid: Tensor
    crowd: Tensor
    difficult: Tensor
    masks: Tensor | None = None

    def usable(self, difficult: bool) -> Tensor:
        """Return the rows to train on, bool ``[B, G]``: valid, not a crowd region, and easy unless ``difficult``."""
        usable = self.valid & ~self.crowd
        return usable if difficult else usable & ~self.difficult

    def to(self, device: torch.device | str, non_blocking: bool = False) -> Targets:
        """Copy the targets to another device."""
        dense = [t.to(device, non_blocking=non_blocking) for t in self[:5] if t is not None]
        masks = None if self.masks is None else self.masks.to(device, non_blocking=non_blocking)
        return Targets(dense[0], dense[1], dense[2], dense[3], dense[4], masks)


class DetectionBatch(NamedTuple):
    """Detections of a batch with a fixed number of rows per image, in pixels of the network's input, best first.

    ``boxes``: float32 ``[B, D, 4]``. ``scores``: float32 ``[B, D]`` in 0..1. ``labels``: int64 ``[B, D]``. ``valid``:
    bool ``[B, D]``; rows where it is false hold zeros. ``masks``: mask probabilities ``[B, D, m, m]``, or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    valid: Tensor
    masks: Tensor | None = None
