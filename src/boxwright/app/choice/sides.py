"""Size of the network's input: the shape of the images, and enough pixels for the objects.

A canvas has the aspect ratio in which the images of the set are largest for its number of pixels, in whole cells of the
coarsest map. So 4:3 photographs are not trained with a quarter of margins, as on a square.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from boxwright.app.choice import table
from boxwright.app.choice.candidate import Task, Wishes
from boxwright.app.choice.facts import MachineFacts
from boxwright.app.choice.table import LENGTHS, Known
from boxwright.app.models.counting import input_size
from boxwright.config.input_size import with_input_size
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.network_sizes import network_sizes

Size = tuple[int, int]


def canvas(sizes: np.ndarray, pixels: int, multiple: int = 32) -> Size:
    """Return the height and width, in multiples, of at most about ``pixels`` in which images of ``sizes`` are largest.

    ``sizes``: height and width of the images, ``[N, 2]``. Of canvases with images of one size, the smallest.
    """
    unique, counts = np.unique(np.asarray(sizes, dtype=np.int64), axis=0, return_counts=True)
    limit = max(int(pixels * table.PIXEL_TOLERANCE), multiple**2)
    ends = np.arange(1, limit // multiple**2 + 1) * multiple
    high, wide = (grid.reshape(-1) for grid in np.meshgrid(ends, ends, indexing="ij"))
    kept = (high * wide <= limit) & (np.maximum(high, wide) <= table.LONGEST_ASPECT * np.minimum(high, wide))
    high, wide = high[kept], wide[kept]
    scale = np.zeros(len(high))
    for (height, width), count in zip(unique.tolist(), counts.tolist(), strict=True):
        scale += count * np.log(np.minimum(high / max(height, 1), wide / max(width, 1)))
    scale = np.round(scale / counts.sum(), 3)  # equal but for rounding
    best = np.lexsort((wide, high * wide, -scale))[0]
    return int(high[best]), int(wide[best])


def shape(size: Size) -> str:
    """Return a size as ``--size`` takes it: ``192x256``, height first."""
    return f"{size[0]}x{size[1]}"


def on_canvas(recipe: Recipe, size: int | Size) -> Recipe:
    """Return ``recipe`` for an input of ``size``. Inputs that change in training are squares, so others do not."""
    if recipe.data.multi_scale is not None and not isinstance(size, int) and size[0] != size[1]:
        recipe = replace(recipe, data=replace(recipe.data, multi_scale=None))
    return with_input_size(recipe, size)


def object_pixels(index: DetectionIndex, size: Size, share: float) -> float:
    """Return the side of an object in an input of ``size``, in pixels: the quantile ``share`` of all."""
    areas = network_sizes(index, size, "letterbox").prod(1)
    areas = areas[areas > 0]
    return float(np.sqrt(np.quantile(areas, share))) if len(areas) else 0.0


def choose_size(task: Task, wishes: Wishes, known: Known) -> tuple[Size, str]:
    """Return the smallest canvas at which most objects are large enough, and the reason in words."""
    if wishes.size is not None:
        return input_size(on_canvas(known.base, wishes.size)), "as --size says"
    place = "GPU" if task.machine.on_gpu else "CPU"
    areas = LENGTHS["gpu" if task.machine.on_gpu else "cpu"][wishes.effort].areas
    image = float(np.median(task.index.sizes.astype(np.float64).prod(1)))
    useful = [area for area in areas if area <= table.ENLARGED**2 * image] or list(areas[:1])
    aspect = "in the shape of the images"
    size, small = (0, 0), 0.0
    for area in useful:
        size = canvas(task.index.sizes, area, known.multiple)
        small = object_pixels(task.index, size, table.SMALL_SHARE)
        if small >= table.SMALL_SIDE:
            return size, f"{aspect}; {_most()} of the objects are {small:.0f} px or larger in it"
    few = f"{100 * table.SMALL_SHARE:.0f} % of the objects are below {small:.0f} px even so"
    if useful[-1] < areas[-1]:
        return size, f"{aspect}, which more pixels would only enlarge; {few}"
    return size, f"{aspect}, the largest on a {place} with effort {wishes.effort}; {few}"


def _most() -> str:
    return f"{100 * (1 - table.SMALL_SHARE):.0f} %"


def smaller_sizes(
    index: DetectionIndex, machine: MachineFacts, wishes: Wishes, known: Known, size: Size
) -> Iterator[Size]:
    """Return ``size`` and, unless it is asked for, the smaller canvases of all efforts, in descending order."""
    yield size
    if wishes.size is None:
        lengths = LENGTHS["gpu" if machine.on_gpu else "cpu"]
        areas = sorted({area for length in lengths.values() for area in length.areas}, reverse=True)
        found = dict.fromkeys(canvas(index.sizes, area, known.multiple) for area in areas)
        yield from (other for other in found if other[0] * other[1] < size[0] * size[1])
