"""Parameters and multiply-adds equal the published figures, or where there are none those of the papers' tables."""

import pytest
import torch
from torch import nn

from boxwright.backbones import (
    NAMED_BACKBONES,
    backbone_rows,
    build_backbone,
    count_multiply_adds,
    count_parameters,
)


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
    ("mobilenet-v1", 4_231_976, 0.569),
    ("mobilenet-v2", 3_504_872, 0.301),
    ("mobilenet-v3", 5_483_032, 0.217),
    ("efficientnet-lite0", 4_652_008, 0.385),
    ("efficientnet-lite1", 5_416_680, 0.502),
    ("efficientnet-lite2", 6_092_072, 0.577),
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


# The layers as the papers' figures and tables list them. "64x7/2": 64 channels, kernel 7, stride 2; "M": a pool of 2.
VGG16 = "64x3 64x3 M 128x3 128x3 M 256x3 256x3 256x3 M 512x3 512x3 512x3 M 512x3 512x3 512x3"
EXTRACTION = "64x7/2 M 192x3 M 128x1 256x3 256x1 512x3 M" + 4 * " 256x1 512x3" + " 512x1 1024x3 M" + 2 * " 512x1 1024x3"
LAYERS = {
    "vgg16-reduced": VGG16 + " 1024x3 1024x1",  # SSD: pool5 keeps the size
    "vgg16-refinedet": VGG16 + " M 1024x3 1024x1",
    "zf": "96x7/2 M 256x5/2 M 384x3 384x3 256x3",
    "darknet19": "32x3 M 64x3 M 128x3 64x1 128x3 M 256x3 128x1 256x3 M 512x3 256x1 512x3 256x1 512x3 M 1024x3 512x1 "
    "1024x3 512x1 1024x3",
    "darknet53": "32x3 64x3/2 32x1 64x3 128x3/2" + 2 * " 64x1 128x3" + " 256x3/2" + 8 * " 128x1 256x3" + " 512x3/2"
    + 8 * " 256x1 512x3" + " 1024x3/2" + 4 * " 512x1 1024x3",
    "darknet-tiny": "16x3 M 32x3 M 64x3 M 128x3 M 256x3 M 512x3 1024x3",
    "darknet-extraction": EXTRACTION,
    "darknet-yolov1": EXTRACTION + " 1024x3 1024x3/2 1024x3 1024x3",
    "darknet-yolov1-fast": "16x3 M 32x3 M 64x3 M 128x3 M 256x3 M 512x3 M 1024x3 1024x3 1024x3",
}  # fmt: skip
NORMED = ("darknet19", "darknet53", "darknet-tiny", "darknet-extraction")  # scale and shift; the others have a bias


def by_hand(name: str, size: int = 224) -> tuple[int, int, int]:
    """Parameters and multiply-adds of the convolutions in the table, and the side of the last map."""
    parameters = multiply_adds = 0
    channels, side = 3, size
    for layer in LAYERS[name].split():
        if layer == "M":
            side = -(-side // 2)
            continue
        shape, _, stride = layer.partition("/")
        out, kernel = map(int, shape.split("x"))
        side = -(-side // int(stride or 1))
        weights = channels * out * kernel**2
        parameters += weights + out * (2 if name in NORMED else 1)
        multiply_adds += weights * side**2
        channels = out
    return parameters, multiply_adds, side


@pytest.mark.parametrize("name", list(LAYERS))
def test_counts_are_those_of_the_papers_layers(rows: dict[str, dict], name: str) -> None:
    parameters, multiply_adds, side = by_hand(name)
    if name == "zf":  # fc6 to fc8 on 6 x 6 cells
        weights = 256 * 36 * 4096 + 4096 * 4096 + 4096 * 1000
        head = weights + 4096 + 4096 + 1000
    else:
        weights = 1024 * 1000
        head = weights + 1000
        if name == "darknet19":  # its classes are a convolution before the average
            weights *= side**2
    assert rows[name]["parameters"] == parameters + head
    assert rows[name]["multiply_adds"] == multiply_adds + weights


# Operations in units of 10^9, a multiplication and an addition counting as two, with the head of the .cfg.
@pytest.mark.parametrize(
    ("name", "size", "giga"),
    [
        ("darknet19", 224, 5.58),  # YOLO9000 §3 and table 6
        ("darknet19", 256, 7.29),  # pjreddie.com/darknet/imagenet
        ("darknet53", 256, 18.57),  # the same; YOLOv3's table 2 says 18.7
        ("darknet-extraction", 224, 8.52),  # the same; YOLO9000 §3
    ],
)
def test_darknets_operations(name: str, size: int, giga: float) -> None:
    _, _, side = by_hand(name, size)
    trunk = count_multiply_adds(build_backbone(NAMED_BACKBONES[name]), size)
    head = 1024 * 1000 * (side**2 if name != "darknet53" else 1)
    assert round(2 * (trunk + head) / 1e9, 2) == giga


# A .weights file has a header of 16 or 20 bytes and four numbers a channel, two of them running statistics.
@pytest.mark.parametrize(("name", "mebibytes"), [("darknet19", 80), ("darknet53", 159), ("darknet-extraction", 90)])
def test_darknets_files_have_the_published_size(rows: dict[str, dict], name: str, mebibytes: int) -> None:
    statistics = 2 * sum(int(layer.split("x")[0]) for layer in LAYERS[name].split() if layer != "M")
    assert abs(4 * (rows[name]["parameters"] + statistics) / 2**20 - mebibytes) < 0.6


def test_every_backbone_of_a_paper_is_compared_with_it() -> None:
    ours = {name for name in NAMED_BACKBONES if "-small" in name or name == "efficientnet-lite0-detnet"}
    assert {name for name, *_ in PUBLISHED} | set(LAYERS) | ours == set(NAMED_BACKBONES)


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
