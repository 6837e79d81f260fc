"""A ``...-modern`` recipe teaches its paper's network better and never costs more at inference."""

from dataclasses import replace

import pytest

from boxwright.app.models.counting import detector_row, input_size
from boxwright.recipes import RECIPES

# Sigmoids need no column for the background, so that these heads are a little smaller than the paper's.
SMALLER_HEADS = ("ssd", "refinedet")
MODERN = [name for name in RECIPES if name.endswith("-modern")]


def paper_of(name: str) -> str:
    """The recipe of the same network as its paper taught it; nearly every pair has names that say so."""
    return {"yolov2-modern": "yolov2-voc"}.get(name, name.removesuffix("-modern"))


@pytest.mark.parametrize("name", MODERN)
def test_every_modern_recipe_has_a_paper_of_the_same_cost(name: str) -> None:
    modern, paper = RECIPES[name], RECIPES[paper_of(name)]
    # At one input size: the papers' sides of 800 and 1333 and the modern square of 1024 have about as many pixels.
    same_input = replace(modern, data=replace(modern.data, eval=paper.data.eval, fixed_size=paper.data.fixed_size))
    mine, theirs = (detector_row(recipe)["multiply_adds"] for recipe in (same_input, paper))
    if name.startswith(SMALLER_HEADS):
        assert 0.9 * theirs < mine <= theirs
    else:
        assert mine == theirs


@pytest.mark.parametrize("name", MODERN)
def test_no_modern_recipe_looks_at_more_pixels(name: str) -> None:
    (h, w), (paper_h, paper_w) = input_size(RECIPES[name]), input_size(RECIPES[paper_of(name)])
    assert h * w <= paper_h * paper_w
