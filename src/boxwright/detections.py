"""`Detections`: the result of a detector on one image."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from boxwright.drawing import draw_boxes
from boxwright.geometry.paste import InstanceMasks
from boxwright.io.text import printable
from boxwright.structures import Classes, InputError

if TYPE_CHECKING:
    from rich.table import Table


@dataclass(frozen=True, slots=True, eq=False)
class Detections:
    """The objects found in one image, in pixels of the original image, usually sorted by score.

    ``boxes`` float32 ``[n, 4]`` x1 y1 x2 y2, exclusive; ``scores`` float32 ``[n]`` in 0..1; ``labels`` int64 ``[n]``,
    indexes into ``names``; ``size`` the (height, width) of the image after its EXIF orientation; ``masks`` a sequence
    of bool ``[height, width]``, as one array or compact `InstanceMasks`, or None; ``path`` the image file, or None.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    names: Classes
    size: tuple[int, int]
    masks: np.ndarray | InstanceMasks | None = None
    path: Path | None = None

    def __post_init__(self) -> None:
        boxes = np.asarray(self.boxes, dtype=np.float32).reshape(-1, 4)
        scores = np.asarray(self.scores, dtype=np.float32).reshape(-1)
        labels = np.asarray(self.labels, dtype=np.int64).reshape(-1)
        if not len(boxes) == len(scores) == len(labels):
            raise InputError(f"{len(boxes)} boxes, {len(scores)} scores and {len(labels)} labels; give one of each")
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(self.names)):
            raise InputError(
                f"labels {labels.min()}..{labels.max()} do not fit {len(self.names)} class names; "
                f"labels run from 0 to {len(self.names) - 1}"
            )
        if self.masks is not None:
            masks = self.masks if isinstance(self.masks, InstanceMasks) else np.asarray(self.masks, dtype=bool)
            if masks.shape != (len(boxes), *self.size):
                raise InputError(f"masks are {masks.shape} but must be {(len(boxes), *self.size)}")
            object.__setattr__(self, "masks", masks)
        object.__setattr__(self, "boxes", boxes)
        object.__setattr__(self, "scores", scores)
        object.__setattr__(self, "labels", labels)

    def __len__(self) -> int:
        return len(self.scores)

    def __getitem__(self, index: int | slice | np.ndarray | list[int] | list[bool]) -> Detections:
        """Return the chosen detections in the given order; a single index gives an object of length 1."""
        if isinstance(index, (int, np.integer)):
            if not -len(self) <= index < len(self):  # also ends a `for` loop
                raise IndexError(f"detection {index} of {len(self)}")
            index = [int(index)]
        rows = np.arange(len(self))[index]
        masks = None if self.masks is None else self.masks[rows]
        return replace(self, boxes=self.boxes[rows], scores=self.scores[rows], labels=self.labels[rows], masks=masks)

    def above(self, threshold: float) -> Detections:
        """Return the detections with a score of at least ``threshold`` (0..1)."""
        return self[np.flatnonzero(self.scores >= threshold)]

    @property
    def class_names(self) -> list[str]:
        """Return the class name of each detection."""
        return [self.names.names[k] for k in self.labels]

    def to_coco(self, image_id: int) -> list[dict[str, Any]]:
        """Return entries of a COCO results file: category ids of the data set, boxes x y width height, masks as RLE."""
        segmentations: list[dict[str, Any] | None] = [None] * len(self)
        if isinstance(self.masks, InstanceMasks):
            segmentations = [*self.masks.run_lengths()]
        elif self.masks is not None:
            segmentations = [*InstanceMasks.from_dense(self.masks).run_lengths()]
        entries: list[dict[str, Any]] = []
        for box, score, label, segmentation in zip(self.boxes, self.scores, self.labels, segmentations, strict=True):
            x1, y1, x2, y2 = (float(v) for v in box)
            entry: dict[str, Any] = {
                "image_id": image_id,
                "category_id": self.names.ids[label],
                "bbox": [_short(v) for v in (x1, y1, x2 - x1, y2 - y1)],
                "score": round(float(score), 6),
            }
            if segmentation is not None:
                entry["segmentation"] = segmentation
            entries.append(entry)
        return entries

    def to_dict(self) -> dict[str, Any]:
        """Return a dictionary for JSON: path, width, height, and one object per detection, without masks."""
        return {
            "path": None if self.path is None else str(self.path),
            "width": self.size[1],
            "height": self.size[0],
            "detections": [
                {
                    "label": int(label),
                    "name": name,
                    "score": round(float(score), 6),
                    "box": [_short(float(v)) for v in box],
                }
                for box, score, label, name in zip(self.boxes, self.scores, self.labels, self.class_names, strict=True)
            ],
        }

    def to_supervision(self) -> Any:
        """Convert to ``supervision.Detections``; needs the optional package ``supervision``."""
        try:
            import supervision
        except ImportError as error:
            raise InputError(
                "to_supervision() needs the package supervision; install it with: pip install 'boxwright[supervision]'"
            ) from error
        return supervision.Detections(
            xyxy=self.boxes.copy(),
            mask=None if self.masks is None else np.array(self.masks, dtype=bool),
            confidence=self.scores.copy(),
            class_id=self.labels.copy(),
            data={"class_name": np.array(self.class_names, dtype=str)},
        )

    def table(self) -> Table:
        """Return a rich table with one row per detection; print it with ``rich.print``."""
        from rich.table import Table
        from rich.text import Text

        title = f"{self.path.name if self.path else 'image'} ({self.size[1]} x {self.size[0]}): {len(self)} found"
        table = Table(title=Text(printable(title)), title_justify="left")
        table.add_column("class")
        for heading in ("score", "x1", "y1", "x2", "y2"):
            table.add_column(heading, justify="right")
        for name, score, box in zip(self.class_names, self.scores, self.boxes, strict=True):
            table.add_row(Text(printable(name)), f"{score:.3f}", *(f"{v:.1f}" for v in box))
        return table

    def draw(self, image: Image.Image | np.ndarray | None = None) -> Image.Image:
        """Return a copy of the image with the detections drawn; without ``image`` the file at ``path`` is read."""
        if image is None:
            if self.path is None:
                raise InputError("these detections have no file; pass the image to draw()")
            image = _open_upright(self.path)
        elif isinstance(image, np.ndarray):
            image = Image.fromarray(image)
        if (image.height, image.width) != tuple(self.size):
            raise InputError(
                f"the image is {image.width}x{image.height} but the detections are for one of "
                f"{self.size[1]}x{self.size[0]}; give the original, rotated by its EXIF orientation"
            )
        return draw_boxes(image, self.boxes, self.labels, self.names.names, self.scores, self.masks)


def _open_upright(path: Path) -> Image.Image:
    """Open an image for display: rotated by EXIF, 16 bits scaled to 8, transparency over white."""
    from PIL import ImageOps

    with Image.open(path) as opened:
        upright = ImageOps.exif_transpose(opened)
    if upright.mode.startswith("I;16"):
        return Image.fromarray((np.asarray(upright) >> 8).astype(np.uint8)).convert("RGB")
    if upright.has_transparency_data:
        seen = upright.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen).convert("RGB")
    return upright.convert("RGB")


def _short(value: float) -> float:
    """Round to enough decimals for COCO's strictest IoU threshold."""
    return round(value, 3)
