"""Parameters and multiply-adds equal the published figures."""

import pytest
import torch
from torch import nn

from boxwright.backbones import NAMED_BACKBONES, backbone_rows, count_multiply_adds, count_parameters


@pytest.fixture(scope="module")
def rows() -> dict[str, dict]:
    return {row["name"]: row for row in backbone_rows()}


# Multiply-adds in units of 10^9, as far as the sources state them; parameters exact where they are.
PUBLISHED = [
    ("resnet18", 11_689_512, 1.814),
    ("resnet34", 21_797_672, 3.664),
    ("resnet50", 25_557_032, 4.089),
    ("resnet50-v1", 25_557_032, 3.858),
    ("resnet50-dilated", 25_557_032, 6.05),
    ("resnet101", 44_549_160, 7.801),
    ("resnet101-v1", 44_549_160, 7.570),
    ("resnet152", 60_192_808, 11.514),
    ("vgg11", 132_863_336, 7.609),
    ("vgg16", 138_357_544, 15.470),
    ("vgg16-bn", 138_365_992, 15.470),
    ("vgg19", 143_667_240, 19.632),
    ("zf", 62_357_608, 1.324),  # counted by hand from its layers
    ("mobilenet-v1", 4_231_976, 0.569),
    ("mobilenet-v2", 3_504_872, 0.301),
    ("mobilenet-v3", 5_483_032, 0.217),
    ("detnet59", 18_372_648, 4.846),
    ("detnet59-v1.5", 18_372_648, 5.000),
    ("detnet59-noproj", 17_322_024, 4.640),
    ("detnet59-nodilation", 18_372_648, 4.846),
]


@pytest.mark.parametrize(("name", "parameters", "giga"), PUBLISHED, ids=[p[0] for p in PUBLISHED])
def test_published_figures(rows: dict[str, dict], name: str, parameters: int, giga: float) -> None:
    row = rows[name]
    assert (row["kind"], row["input"]) == ("backbone", 224)
    assert row["parameters"] == parameters
    digits = 2 if name == "resnet50-dilated" else 3
    assert round(row["multiply_adds"] / 1e9, digits) == giga


def test_every_named_backbone_has_a_row(rows: dict[str, dict]) -> None:
    assert list(rows) == list(NAMED_BACKBONES)


def test_the_two_small_backbones_cost_the_same(rows: dict[str, dict]) -> None:
    detnet, resnet = rows["detnet-small"]["multiply_adds"], rows["resnet-small"]["multiply_adds"]
    assert abs(detnet - resnet) < 0.03 * resnet


def test_small_resnets_are_to_the_small_detnet_what_the_large_are_to_detnet59(rows: dict[str, dict]) -> None:
    """DetNet's table 1: 4.8, 3.8 and 7.6 G."""
    small, large = (
        [rows[name]["multiply_adds"] for name in names]
        for names in (("detnet-small", "resnet17-small", "resnet44-small"), ("detnet59", "resnet50-v1", "resnet101-v1"))
    )
    for mine, published in zip(small, large, strict=True):
        assert abs(mine / small[0] - published / large[0]) < 0.04
    assert rows["detnet-small-noproj"]["multiply_adds"] < small[0]


def test_counts_by_hand_and_leaves_the_module_as_it_was() -> None:
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.Flatten(), nn.Linear(8 * 5 * 4, 7)
    )
    net[1].eval()
    state = {k: v.clone() for k, v in net.state_dict().items()}
    assert count_parameters(net) == (8 * 3 * 9 + 8) + 16 + (160 * 7 + 7)
    assert count_multiply_adds(net, (10, 8)) == 5 * 4 * 8 * 3 * 9 + 160 * 7
    torch.testing.assert_close(net.state_dict(), state, rtol=0, atol=0)
    assert [m.training for m in net] == [True, False, True, True]
