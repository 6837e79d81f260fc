"""YOLOv1 on trunks that are none of Darknet's own: read from the cfg, or refused by the name of a layer."""

import struct
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from boxwright.checkpoints.opening import load_detector
from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov1 import YOLOv1
from boxwright.structures import Classes, InputError
from boxwright.weights.darknet.files import parse_cfg
from boxwright.weights.darknet.yolov1 import yolov1_config

TRUNK = """[net]
height=48
width=48

[crop]
crop_height=48
crop_width=48
noadjust=1

[convolutional]
filters=6
size=5
stride=2
pad=1
activation=relu

[convolutional]
batch_normalize=1
filters=8
size=3
groups=2
padding=1
activation=elu

[maxpool]
size=3
stride=2

[local]
filters=5
size=3
stride=2
pad=1
activation=logistic

[convolutional]
filters=4
size=1
activation=ramp

[connected]
output=10
activation=tanh

[dropout]
probability=.25

[connected]
output=63
activation=linear

[detection]
classes=2
coords=4
side=3
num=1
softmax=0
sqrt=1
"""
RESCALED = {  # Darknet's activations, written down from their formulas
    "relu": lambda x: x * (x > 0), "elu": lambda x: torch.where(x >= 0, x, x.exp() - 1),
    "logistic": lambda x: 1 / (1 + (-x).exp()), "ramp": lambda x: x * (x > 0) + 0.1 * x,
    "tanh": lambda x: ((2 * x).exp() - 1) / ((2 * x).exp() + 1),
}  # fmt: skip


@torch.inference_mode()
def test_any_trunk_is_read_from_the_cfg(tmp_path: Path) -> None:
    """A forward pass by hand: an activation and a norm of their own in each layer, groups, a pool with overlap."""
    generator = torch.Generator().manual_seed(1)
    arrays = [
        {"bias": (6,), "weight": (6, 3, 5, 5)},
        {"bias": (8,), "scale": (8,), "mean": (8,), "var": (8,), "weight": (8, 3, 3, 3)},
        {"bias": (5, 6, 6), "weight": (36, 5, 8, 3, 3)},
        {"bias": (4,), "weight": (4, 5, 1, 1)},
        {"bias": (10,), "weight": (10, 144)},
        {"bias": (63,), "weight": (63, 10)},
    ]
    drawn = [
        {name: torch.rand(shape, generator=generator) * (0.3 if name == "weight" else 1) + 0.01
         for name, shape in layer.items()} for layer in arrays
    ]  # fmt: skip
    numbers = torch.cat([value.flatten() for layer in drawn for value in layer.values()])
    (tmp_path / "mine.cfg").write_text(TRUNK)
    (tmp_path / "mine.weights").write_bytes(struct.pack("<4i", 0, 1, 0, 5) + numbers.numpy().astype("<f4").tobytes())
    detector = load_detector(tmp_path / "mine.weights", classes=["a", "b"])
    assert isinstance(detector, YOLOv1)
    pixels = torch.rand(1, 3, 48, 48, generator=generator)

    one, two, three, four, five, six = drawn
    x = RESCALED["relu"](F.conv2d(pixels, one["weight"], one["bias"], 2, 2))  # 24 x 24
    x = F.conv2d(x, two["weight"], None, 1, 1, groups=2)
    shaped = {name: value[:, None, None] for name, value in two.items() if name != "weight"}
    x = (x - shaped["mean"]) / (shaped["var"] + 1e-5).sqrt() * shaped["scale"] + shaped["bias"]
    x = RESCALED["elu"](x)
    x = F.max_pool2d(F.pad(x, (1, 1, 1, 1), value=-torch.inf), 3, 2)  # a padding of 2 in all: 12 x 12
    windows = F.pad(x, (1, 1, 1, 1)).unfold(2, 3, 2).unfold(3, 3, 2)[0]  # [8, 6, 6, 3, 3]
    weight = three["weight"].unflatten(0, (6, 6))  # [6, 6, 5, 8, 3, 3]
    x = RESCALED["logistic"](torch.einsum("chwij,hwocij->ohw", windows, weight)[None] + three["bias"])
    x = RESCALED["ramp"](F.conv2d(x, four["weight"], four["bias"]))
    x = RESCALED["tanh"](x.flatten(1) @ five["weight"].T + five["bias"])
    torch.testing.assert_close(detector.outputs(pixels)[0], x @ six["weight"].T + six["bias"], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[local]", "[route]"), r"line \d+: \[route\] is none of the layers of YOLOv1 that are read"),
        (("activation=ramp", "activation=stair"), r"has activation=stair; those that are read are leaky, "),
        (("activation=linear", "activation=leaky"), r"\[detection\] must follow a \[connected\] layer with activation"),
        (("groups=2", "groups=4"), r"cannot have 4 groups|describes"),
        (("crop_width=48", "crop_width=40"), r"\[crop\] is none of the layers"),
    ],
)
def test_layers_that_are_not_read_are_named(change: tuple[str, str], message: str, tmp_path: Path) -> None:
    assert change[0] in TRUNK
    text = TRUNK.replace(*change)
    with pytest.raises(InputError, match=message):
        build_detector(yolov1_config(parse_cfg(text)), Classes.from_names(["a", "b"]))
