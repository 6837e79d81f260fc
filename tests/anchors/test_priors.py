"""Default boxes of SSD: their sizes, positions and clipping."""

import math
from dataclasses import replace

import pytest
import torch

from boxwright.anchors.priors import PriorConfig, default_boxes, paper_sizes
from boxwright.detectors.ssd import SSDConfig
from boxwright.geometry.boxes import xyxy_to_cxcywh
from boxwright.recipes import get_recipe

CPU = torch.device("cpu")


MAPS_300 = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]


@pytest.mark.parametrize(
    ("recipe", "side", "rule"),
    [
        ("ssd300-voc", 300, {"maps": 6, "first": 10, "low": 20}),
        ("ssd300-coco", 300, {"maps": 6, "first": 7, "low": 15}),
        ("ssd512-voc", 512, {"maps": 7, "first": 7, "low": 15}),
        ("ssd512-coco", 512, {"maps": 7, "first": 4, "low": 10}),
        ("ssd-small", 224, {"maps": 6, "first": 7, "low": 15}),
    ],
)
def test_published_sizes_of_priors_follow_the_papers_rule(recipe: str, side: int, rule: dict[str, int]) -> None:
    config = get_recipe(recipe).detector
    assert isinstance(config, SSDConfig)
    assert config.priors.sizes == paper_sizes(side, **rule)


def test_the_equation_itself_reaches_its_upper_end() -> None:
    assert paper_sizes(300, maps=6, first=10, low=20, even=True) == pytest.approx(
        (30, 60, 112.5, 165, 217.5, 270, 322.5)
    )


def test_first_cell_of_the_first_map() -> None:
    """Centre .0133333, sides .1, .1414214 and .1414214 x .0707107 both ways."""
    priors = xyxy_to_cxcywh(default_boxes(PriorConfig(), MAPS_300, (300, 300), CPU)[:4]) / 300
    assert priors[:, :2].flatten().tolist() == pytest.approx([0.0133333] * 8, abs=1e-6)
    expected = [[0.1, 0.1], [0.1414214, 0.1414214], [0.1414214, 0.0707107], [0.0707107, 0.1414214]]
    torch.testing.assert_close(priors[:, 2:], torch.tensor(expected), atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("clip", "widest", "last_centre", "leftmost"),
    [
        ("none", 373.352, 304.0, -108.296),  # a step of 32 carries the tenth centre past the border
        ("sides", 300.0, 304.0, -108.296),
        ("all", 300.0, 300.0, -108.296),
        ("corners", 300.0, 294.697, 0.0),
    ],
)
def test_clipping_of_priors(clip: str, widest: float, last_centre: float, leftmost: float) -> None:
    priors = default_boxes(PriorConfig(clip=clip), MAPS_300, (300, 300), CPU)  # type: ignore[arg-type]
    form = xyxy_to_cxcywh(priors)
    found = [form[:, 2].max().item(), form[:, 0].max().item(), priors[:, 0].min().item()]
    assert found == pytest.approx([widest, last_centre, leftmost], abs=1e-3)


def test_centres_by_step_and_by_cell_count() -> None:
    by_step = default_boxes(PriorConfig(square=False), MAPS_300, (300, 300), CPU)
    by_count = default_boxes(PriorConfig(square=False, steps=None), MAPS_300, (300, 300), CPU)
    assert by_step.shape == by_count.shape == (3 * 1444 + 5 * (361 + 100 + 25) + 3 * (9 + 1), 4)
    centres = [xyxy_to_cxcywh(boxes)[3 * 1443, 0].item() for boxes in (by_step, by_count)]
    assert centres == pytest.approx([37.5 * 8, 37.5 * 300 / 38])
    torch.testing.assert_close(by_step[-30:], by_count[-30:])  # steps of 100 and 300 are 300 / 3 and 300 / 1


def test_truncated_sizes_are_caffes() -> None:
    recipe = get_recipe("ssd512-voc").detector
    assert isinstance(recipe, SSDConfig)
    sides = [cell[0][0] for cell in replace(recipe.priors, truncate=True).shapes]
    assert sides == [35, 76, 153, 230, 307, 384, 460]
    assert replace(recipe.priors, truncate=True).shapes[-1][1][0] == math.sqrt(460 * 537)
    assert recipe.priors.shapes[0][0][0] == 35.84
