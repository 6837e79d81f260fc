"""Count parameters and multiply-adds of backbones and recipes.

``python -m boxwright.app.models.counting`` writes the table that ``boxwright models`` shows.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from torch import Tensor, nn

from boxwright.app.models.facts import backbone_facts, recipe_facts
from boxwright.app.models.table import TABLE
from boxwright.app.progress import ProgressBar
from boxwright.backbones.count import backbone_rows, built_of_shapes, count_multiply_adds, count_parameters
from boxwright.config.recipe import Recipe
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.preparation import Preparation
from boxwright.geometry.rounding import round_up
from boxwright.io.files import atomic_text
from boxwright.recipes import RECIPES, resolve_recipe
from boxwright.structures import Classes, InputError

COCO_CLASSES = 80
"""Number of classes with which detectors are counted."""
LANDSCAPES = [(600, width) for width in range(600, 1201, 10)]
"""Heights and widths of images of all usual aspects; the largest after resizing is the one that is counted."""


def all_rows() -> list[dict[str, Any]]:
    """Count every named backbone and the detector of every recipe, with the facts of `boxwright.app.models.facts`.

    A row has name, kind, parameters, multiply_adds, input, family, role, description, published and measured_on.

    A backbone is counted as a classifier of 1000 classes at 224 by 224 (``input`` 224). A detector is counted with 80
    classes on one image of the size at which its recipe evaluates, ``input`` [height, width], padded as in inference:
    backbone, pyramid, proposal head on every level, and box head on all proposals that the recipe keeps. Only
    convolutions and matrix products have multiply-adds; RoI pooling, NMS and element-wise operations have none.
    """
    rows = [{**row, **backbone_facts(row["name"])} for row in backbone_rows()]
    with ProgressBar("counting", len(rows) + len(RECIPES)) as bar:
        bar.advance(len(rows))
        for recipe in RECIPES.values():
            rows.append(detector_row(recipe))
            bar.advance()
    return rows


def table_text(rows: list[dict[str, Any]]) -> str:
    """Format rows as the stored table: JSON with one row per line, so that a diff shows what changed."""
    return "[\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]\n"


def recipe_row(name: str) -> dict[str, Any]:
    """Count the detector of a recipe given by its name or as a TOML file."""
    return detector_row(resolve_recipe(name, None, []))


def detector_row(recipe: Recipe) -> dict[str, Any]:
    """Count the detector of one recipe, as :func:`all_rows` does."""
    size = input_size(recipe)
    regions = None if recipe.data.proposals is None else recipe.data.proposals.most
    parameters, multiply_adds = _cost(recipe.detector, size, regions)
    return {
        "name": recipe.name,
        "kind": "detector",
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "input": list(size),
        **recipe_facts(recipe),
    }


@functools.cache
def _cost(config: DetectorConfig, size: tuple[int, int], regions: int | None) -> tuple[int, int]:
    """Count parameters and multiply-adds at input ``size``; cached, because recipes share detectors.

    ``regions``: maximum number of precomputed proposals; None for detectors that take none.
    """
    classes = Classes.from_names([str(k) for k in range(COCO_CLASSES)])
    preparation = None if regions is None else Preparation(most_proposals=regions)
    detector = built_of_shapes(lambda: build_detector(config, classes, preparation))
    return count_parameters(detector), count_multiply_adds(Outputs(detector), size)


def input_size(recipe: Recipe) -> tuple[int, int]:
    """Return height and width of the largest padded landscape image that the recipe evaluates."""
    if recipe.data.fixed_size is not None:
        return recipe.data.fixed_size
    sizes = [_evaluated_size(recipe, height, width) for height, width in LANDSCAPES]
    height, width = max(sizes, key=lambda size: size[0] * size[1])
    multiple = recipe.data.pad_multiple
    return round_up(height, multiple), round_up(width, multiple)


def _evaluated_size(recipe: Recipe, height: int, width: int) -> tuple[int, int]:
    for position, transform in enumerate(recipe.data.eval):
        size = transform.output_size(height, width)
        if size is None:
            place = f"{recipe.name}: data.eval.{position} ({transform.kind})"
            raise InputError(f"{place} gives images of random sizes; evaluate at one size")
        height, width = size
    return height, width


class Outputs(nn.Module):
    """A detector whose forward maps a normalised image to the raw outputs of its heads."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """Map ``[B, 3, H, W]`` to the outputs of the heads."""
        return self.detector.outputs(pixels)


if __name__ == "__main__":
    with atomic_text(TABLE) as file:
        file.write(table_text(all_rows()))
