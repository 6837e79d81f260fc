"""What there is to train: backbones and recipes as rows, each with its cost."""

from __future__ import annotations

import functools
from typing import Any, Literal

from torch import Tensor, nn

from boxwright.app.progress import ProgressBar
from boxwright.backbones.count import backbone_rows, built_of_shapes, count_multiply_adds, count_parameters
from boxwright.config.recipe import Recipe
from boxwright.data.transforms.configs import LetterboxConfig, ResizeConfig, WarpConfig
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.recipes import RECIPES
from boxwright.structures import Classes

COCO_CLASSES = 80
"""Classes that a detector is counted with."""


def model_rows(kind: Literal["backbone", "detector"] | None = None) -> list[dict[str, Any]]:
    """Every backbone and every recipe's detector, or only one ``kind``: name, kind, parameters, multiply_adds, input.

    A backbone is counted as the classifier of 1000 classes at 224 by 224 (``input`` 224). A detector is counted with
    80 classes on one image of the size that its recipe evaluates at, ``input`` [height, width], padded as in use:
    backbone, pyramid, proposal head on every level, and box head on all proposals that the recipe keeps. Multiply-adds
    are those of convolutions and matrix products; pooling of regions, NMS and other glue have none.
    """
    recipes = [] if kind == "backbone" else list(RECIPES.values())
    rows = [] if kind == "detector" else backbone_rows()
    with ProgressBar("counting", len(rows) + len(recipes)) as bar:  # a hundred networks take some seconds
        bar.advance(len(rows))
        for recipe in recipes:
            rows.append(detector_row(recipe))
            bar.advance()
    return rows


def detector_row(recipe: Recipe) -> dict[str, Any]:
    """One recipe's detector. See :func:`model_rows`."""
    size = input_size(recipe)
    regions = None if recipe.data.proposals is None else recipe.data.proposals.most
    parameters, multiply_adds = _cost(recipe.detector, size, regions)
    return {
        "name": recipe.name,
        "kind": "detector",
        "parameters": parameters,
        "multiply_adds": multiply_adds,
        "input": list(size),
    }


@functools.cache
def _cost(config: DetectorConfig, size: tuple[int, int], regions: int | None) -> tuple[int, int]:
    """Parameters and multiply-adds at an input of ``size``, with so many given proposals where there is a limit;
    recipes that share a detector share the counting."""
    classes = Classes.from_names([str(k) for k in range(COCO_CLASSES)])
    detector = built_of_shapes(lambda: build_detector(config, classes))
    if regions is not None:
        detector.most_proposals = regions
    return count_parameters(detector), count_multiply_adds(_Outputs(detector), size)


def input_size(recipe: Recipe) -> tuple[int, int]:
    """Height and width of a padded landscape image as the recipe evaluates it."""
    height, width = 0, 0
    for transform in recipe.data.eval:
        match transform:
            case ResizeConfig(short=short, long=long):
                height, width = short[0], long
            case LetterboxConfig(size=size) | WarpConfig(size=size):
                height, width = size
            case _:
                pass
    if recipe.data.fixed_size is not None:
        return recipe.data.fixed_size
    multiple = recipe.data.pad_multiple
    return -(-height // multiple) * multiple, -(-width // multiple) * multiple


class _Outputs(nn.Module):
    """A detector from a normalised image to the raw outputs of its heads."""

    def __init__(self, detector: Detector) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, pixels: Tensor) -> list[Tensor]:
        """``[B, 3, H, W]`` to whatever the heads give."""
        return self.detector.outputs(pixels)
