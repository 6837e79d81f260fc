"""A modern recipe trains the network of its paper better and costs no more at inference."""

from dataclasses import replace

import pytest
import torch

from boxwright.app.models.counting import detector_row, input_size
from boxwright.config.recipe import Recipe
from boxwright.detectors.build import build_detector
from boxwright.recipes import RECIPES
from boxwright.structures import Classes
from boxwright.training.plan import make_plan

MODERN = [name for name in RECIPES if name.endswith("-modern")]

# Scores by sigmoids need no column for background, so that these have fewer weights and operations than their papers.
SMALLER_HEADS = ("ssd", "refinedet")


def paper_of(name: str) -> Recipe:
    """Return the recipe of the same network as its paper trains it."""
    return RECIPES[{"yolov2-modern": "yolov2-voc"}.get(name, name.removesuffix("-modern"))]


@pytest.mark.parametrize("name", MODERN)
def test_a_modern_recipe_costs_no_more_than_its_paper(name: str) -> None:
    modern, paper = RECIPES[name], paper_of(name)
    # At one input size: the papers' sides of 800 and 1333 and the modern square of 1024 have about as many pixels.
    same_input = replace(modern, data=replace(modern.data, eval=paper.data.eval, fixed_size=paper.data.fixed_size))
    costs = [(detector_row(recipe)["multiply_adds"], *network_size(recipe)) for recipe in (same_input, paper)]
    if name.startswith(SMALLER_HEADS):
        assert all(0.9 * theirs <= mine <= theirs for mine, theirs in zip(*costs, strict=True))
    else:
        assert costs[0] == costs[1]


def network_size(recipe: Recipe) -> tuple[int, int]:
    """Return the number of weights of convolutions and linear layers, and that of the proposals at inference.

    Norms and biases are not counted, because a norm folds into the layer before it.
    """
    with torch.device("meta"):
        detector = build_detector(recipe.detector, Classes.from_names(["a", "b", "c"]))
    weights = sum(p.numel() for p in detector.parameters() if p.ndim > 1)
    rpn = getattr(recipe.detector, "rpn", None)
    return weights, 0 if rpn is None else rpn.post_nms[1]


@pytest.mark.parametrize("name", MODERN)
def test_no_modern_recipe_evaluates_more_pixels(name: str) -> None:
    (h, w), (paper_h, paper_w) = input_size(RECIPES[name]), input_size(paper_of(name))
    assert h * w <= paper_h * paper_w


@pytest.mark.parametrize("name", [name for name in MODERN if name.endswith("-small-modern")])
def test_small_pairs_train_on_as_many_images(name: str) -> None:
    modern, paper = RECIPES[name], paper_of(name)
    assert modern.data.batch_size == paper.data.batch_size
    assert make_plan(modern, 205).total == make_plan(paper, 205).total
