"""Check, measure and rasterise COCO segmentations with the rules of the COCO mask API.

A segmentation is a list of polygons ``[[x1, y1, x2, y2, ...], ...]``, whose union is the object, or a run-length
encoding ``{"size": [H, W], "counts": ...}``, compressed (text) or not (a list of runs, column by column).
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from boxwright.data.formats.entries.values import number

Segmentation = list[list[float]] | dict[str, Any]


def plain(segmentation: Any) -> Any:
    """Return a segmentation with numbers where it has texts of numbers; anything else unchanged."""
    if isinstance(segmentation, list):
        if {float, int}.issuperset(map(type, segmentation)):
            return segmentation  # without a loop over the many numbers of most files
        return [plain(part) if isinstance(part, list) else _numbered(part) for part in segmentation]
    if isinstance(segmentation, dict) and isinstance(segmentation.get("size"), list):
        size = [int(v) if isinstance(v, float) and v.is_integer() else v for v in map(_numbered, segmentation["size"])]
        return {**segmentation, "size": size}
    return segmentation


def _numbered(value: Any) -> Any:
    found = number(value) if isinstance(value, str) else None
    return value if found is None else found


def is_no_polygons(segmentation: list[Any]) -> bool:
    """Return True if a list holds no polygons at all, but numbers, objects, or a pair of numbers for each point."""
    pairs = len(segmentation) > 2 and all(isinstance(part, list) and len(part) == 2 for part in segmentation)
    return pairs or not any(isinstance(part, list) for part in segmentation)


def defect(segmentation: object, height: int, width: int) -> str | None:
    """Return the defect of a segmentation of an image of the given size; None if it is valid."""
    if isinstance(segmentation, dict):
        return _run_length_defect(segmentation, height, width)
    if not isinstance(segmentation, list):
        return f"a segmentation is a list of polygons or a run-length encoding, not {type(segmentation).__name__}"
    if segmentation and is_no_polygons(segmentation):
        holds = "points" if isinstance(segmentation[0], list) else "values"
        return f"the segmentation is one list of {len(segmentation)} {holds}; write [[x1, y1, x2, y2, ...], ...]"
    for polygon in segmentation:
        if (found := _polygon_defect(polygon, 10 * max(height, width) + 100)) is not None:
            return found
    return None


def _polygon_defect(polygon: object, far: int) -> str | None:
    """Return the defect of one polygon. Coordinates beyond ``far`` would take the mask API for ever."""
    if not isinstance(polygon, list):
        return f"a polygon is a list of coordinates, not {type(polygon).__name__}"
    if len(polygon) < 6 or len(polygon) % 2:
        return (
            f"a polygon has {len(polygon)} coordinates; it takes an x and a y for each of at least 3 points, so "
            "an even number of at least 6"
        )
    for value in polygon:
        if isinstance(value, bool) or not isinstance(value, int | float):
            return f"a polygon has the coordinate {str(value)[:40]!r}, which is no number"
        if isinstance(value, float) and not math.isfinite(value):
            return "a polygon has a coordinate that is not finite"
        if not -far <= value <= far:
            return f"a polygon has the coordinate {str(value)[:20]}, far outside its image"
    return None


def area(segmentation: Segmentation) -> float:
    """Return the area in square pixels: for polygons the sum of their exact areas, as in COCO's files."""
    if isinstance(segmentation, dict):
        return float(np.asarray(_mask_api().area(_run_length(segmentation))).item())
    total = 0.0
    for polygon in segmentation:
        x, y = np.asarray(polygon, dtype=np.float64).reshape(-1, 2).T
        total += abs(float(x @ np.roll(y, -1) - y @ np.roll(x, -1))) / 2
    return total


def rasterise(segmentation: Segmentation, height: int, width: int) -> np.ndarray:
    """Rasterise a segmentation to bool ``[H, W]``."""
    if isinstance(segmentation, dict):
        run_length = _run_length(segmentation)
    else:
        run_length = _mask_api().merge(_mask_api().frPyObjects(segmentation, height, width))
    return np.asarray(_mask_api().decode(run_length)).astype(bool)


def bounds(segmentation: Segmentation) -> tuple[float, float, float, float]:
    """Return the smallest box around a valid segmentation, x1 y1 x2 y2; zeros for an empty run-length mask."""
    if isinstance(segmentation, dict):
        x, y, w, h = np.asarray(_mask_api().to_bbox(_run_length(segmentation)), dtype=float).ravel().tolist()
        return x, y, x + w, y + h
    x = [v for polygon in segmentation for v in polygon[0::2]]
    y = [v for polygon in segmentation for v in polygon[1::2]]
    return float(min(x)), float(min(y)), float(max(x)), float(max(y))


def encode(mask: np.ndarray) -> dict[str, Any]:
    """Encode a bool mask ``[H, W]`` as compressed run-length encoding with text ``counts``, as in JSON files."""
    run_length = _mask_api().encode(np.asfortranarray(mask, dtype=np.uint8))
    counts = run_length["counts"]
    return {
        "size": [int(v) for v in run_length["size"]],
        "counts": counts.decode() if isinstance(counts, bytes) else counts,
    }


@functools.cache
def _mask_api() -> Any:
    """Import the mask API at its first use, since most data sets have no run-length masks."""
    from hotcoco import mask

    return mask


def _run_length(segmentation: dict[str, Any]) -> Any:
    """Return the encoding in the form of the mask API: compressed, with ``counts`` as bytes."""
    height, width = segmentation["size"]
    counts = segmentation["counts"]
    if isinstance(counts, list):
        return _mask_api().frPyObjects({"size": [height, width], "counts": counts}, height, width)
    return {"size": [height, width], "counts": counts.encode() if isinstance(counts, str) else counts}


def _run_length_defect(segmentation: dict[str, Any], height: int, width: int) -> str | None:
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if size != [height, width]:
        stated = f"{str(size)[:40]} (height, width)"
        return f"the run-length encoding is for size {stated}, the image is {height} high, {width} wide"
    if isinstance(counts, str):
        try:
            runs = decompress_counts(counts)
        except ValueError as error:
            return f"the run-length encoding's counts are damaged: {error}"
    elif isinstance(counts, list) and all(isinstance(c, int) and not isinstance(c, bool) for c in counts):
        runs = counts
    else:
        return "a run-length encoding's counts are a text or a list of whole numbers"
    # Checked here because the mask API writes runs past the end of the image out of bounds.
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        return f"the run-length encoding covers {str(sum(runs))[:20]} pixels, the image has {height * width}"
    return None


def decompress_counts(text: str) -> list[int]:
    """Return the runs of COCO's compressed encoding. Raises ``ValueError`` for invalid text.

    A character holds six bits from '0' on, five of them payload, low ones first. From the third run on, each is stored
    as the difference to the run two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in text:
        code = ord(character) - 48
        if not 0 <= code < 64:
            raise ValueError(f"character {character!r} is invalid")
        value |= (code & 0x1F) << shift
        shift += 5
        if shift > 64:
            raise ValueError("a number is too long")
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("it ends within a number")
    return runs
