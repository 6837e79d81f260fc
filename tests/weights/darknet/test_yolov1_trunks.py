"""YOLOv1 on trunks that are none of Darknet's own: read from the cfg, or refused by the name of a layer."""

import math
import struct
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from boxwright.checkpoints.opening import load_detector
from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov1 import YOLOv1
from boxwright.structures import Classes, Images, InputError, Targets
from boxwright.weights.darknet.files import parse_cfg
from boxwright.weights.darknet.matching import classes_of
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


@pytest.mark.parametrize("sqrt", [0, 1])
@pytest.mark.parametrize("softmax", [0, 1])
@torch.inference_mode()
def test_both_forms_of_classes_and_sides(sqrt: int, softmax: int) -> None:
    text = TRUNK.replace("softmax=0", f"softmax={softmax}").replace("sqrt=1", f"sqrt={sqrt}")
    detector = build_detector(yolov1_config(parse_cfg(text)), Classes.from_names(["a", "b"])).eval()
    assert isinstance(detector, YOLOv1)
    out = torch.zeros(1, 63)  # 9 cells: 18 class values, 9 confidences, 9 boxes
    out[0, 2 * 5 : 2 * 5 + 2] = torch.tensor([0.4, 1.4])
    out[0, 18 + 5] = 0.5
    out[0, 27 + 4 * 5 : 27 + 4 * 5 + 4] = torch.tensor([0.5, 0.25, 0.5, 0.25])  # the last cell of the second row
    predictions = detector.predictions(out)
    width, height = (0.25 * 48, 0.0625 * 48) if sqrt else (0.5 * 48, 0.25 * 48)
    box = torch.tensor([40 - width / 2, 20 - height / 2, 40 + width / 2, 20 + height / 2])
    torch.testing.assert_close(predictions.boxes[0, 5, 0], box)
    torch.testing.assert_close(detector.encode(predictions.boxes)[0, 5, 0], predictions.coded[0, 5, 0])
    found = detector.detections(predictions, Images(torch.zeros(1, 3, 48, 48), torch.tensor([[48, 48]])))
    second = 1 / (1 + math.exp(0.4 - 1.4)) if softmax else 1.4
    assert found.valid.sum() == 2
    assert found.labels[0, 0] == 1
    assert found.scores[0, :2].tolist() == pytest.approx([0.5 * second, 0.5 * (1 - second if softmax else 0.4)])
    torch.testing.assert_close(found.boxes[0, 0], box.clamp(max=48))


def test_a_softmax_is_trained_as_in_darknet() -> None:
    """Its gradient is class_scale * (softmax - target) in cells with an object, as Darknet sets it."""
    text = TRUNK.replace("softmax=0", "softmax=1\nclass_scale=3")
    detector = build_detector(yolov1_config(parse_cfg(text)), Classes.from_names(["a", "b"]))
    assert isinstance(detector, YOLOv1)
    out = torch.rand(1, 63, generator=torch.Generator().manual_seed(0)).requires_grad_()
    predictions = detector.predictions(out)
    boxes = torch.tensor([[[17.0, 18.0, 30.0, 31.0]]])  # its centre is in cell 4
    yes, no = torch.ones(1, 1, dtype=torch.bool), torch.zeros(1, 1, dtype=torch.bool)
    targets = Targets(boxes, torch.tensor([[1]]), yes, no, no)
    assigned = detector.assign(predictions.boxes, targets, torch.zeros(1, dtype=torch.int64))
    detector.losses(predictions, assigned)["classification"].backward()
    assert out.grad is not None
    expected = torch.zeros(9, 2)
    expected[4] = 3 * (out.detach()[0, 8:10].softmax(0) - torch.tensor([0.0, 1.0]))
    torch.testing.assert_close(out.grad[0, :18].unflatten(0, (9, 2)), expected)


def test_options_that_are_left_out_are_darknets() -> None:
    named = ("sqrt=1", "softmax=0", "classes=2")
    text = TRUNK.replace("output=63", "output=54")  # of one class
    for option in named:
        assert f"{option}\n" in text
        text = text.replace(f"{option}\n", "")
    sections = parse_cfg(text)
    assert classes_of(sections[-1]) == 1
    config = yolov1_config(sections)
    assert config.head.sides == "shares"
    assert (config.loss.kind, config.loss.rescore) == ("squared", False)
    assert (config.loss.coord_scale, config.loss.noobject_scale) == (1, 1)
