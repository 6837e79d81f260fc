"""Import of Darknet's files as detectors and as pretrained backbones, and truncated files."""

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from boxwright.backbones.classifier import Classifier
from boxwright.backbones.darknet import DarknetConfig
from boxwright.data.transforms.resizing import LetterboxConfig, WarpConfig
from boxwright.detectors.yolov1 import YOLOv1Config
from boxwright.detectors.yolov2 import YOLOv2Config
from boxwright.detectors.yolov3 import YOLOv3Config
from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import COCO, VOC
from boxwright.weights.common.imported_backbone import build_classifier
from boxwright.weights.darknet.files import parse_cfg, plan_layers
from boxwright.weights.darknet.models import import_darknet, import_darknet_backbone

HEADER = struct.pack("<3iq", 0, 2, 5, 100)


def floats_of(cfg: Path, layers: int | None = None) -> int:
    """Return the number of parameters of the first layers of the cfg."""
    plan = plan_layers(parse_cfg(cfg.read_text()))[:layers]
    return sum(int(np.prod(shape)) for *_, arrays in plan for shape in arrays.values())


def written(folder: Path, cfg: Path, layers: int | None = None) -> Path:
    """Write the weights of the first layers, all zero, as a sparse file."""
    path = folder / f"{cfg.parent.name}.weights"
    with path.open("wb") as file:
        file.write(HEADER)
        file.truncate(len(HEADER) + 4 * floats_of(cfg, layers))
    return path


@pytest.mark.parametrize(
    ("case", "config", "classes", "transform"),
    [
        ("darknet_yolov1_tiny", YOLOv1Config, VOC, WarpConfig(size=(448, 448), interpolations=("corners",))),
        ("darknet_yolov2_tiny_voc", YOLOv2Config, VOC, LetterboxConfig(size=(416, 416), interpolation="corners")),
        ("darknet_yolov3_tiny", YOLOv3Config, COCO, LetterboxConfig(size=(416, 416), interpolation="corners")),
    ],
)
def test_what_is_imported(
    shared_golden: Path, tmp_path: Path, case: str, config: type, classes: Classes,
    transform: WarpConfig | LetterboxConfig,
) -> None:  # fmt: skip
    cfg = shared_golden / case / "network.cfg"
    weights = written(tmp_path, cfg)
    imported = import_darknet(cfg, weights)
    assert isinstance(imported.config, config)
    assert imported.classes is classes
    net = parse_cfg(cfg.read_text())[0]
    assert imported.transforms[0].size == (net.integer("height"), net.integer("width"))  # type: ignore[union-attr]
    assert type(imported.transforms[0]) is type(transform)
    with pytest.raises(InputError, match=rf"is for {len(classes)} classes, but the detector has 1 names"):
        import_darknet(cfg, weights, Classes.from_names(["one"]))
    short = written(tmp_path, cfg, 9)
    with pytest.raises(
        InputError, match=rf"holds {floats_of(cfg, 9):,} floats after a header of 20 bytes, but .* descr"
    ):
        import_darknet(cfg, short)


DARKNET19 = """[net]
height=64
width=64
channels=3
{trunk}
[convolutional]
filters=10
size=1
stride=1
pad=1
activation=linear

[avgpool]

[softmax]
groups=1

[cost]
type=sse
"""


def darknet19() -> str:
    def conv(filters: int, size: int = 3) -> str:
        return (
            f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride=1\npad=1\nactivation=leaky\n"
        )

    pool = "[maxpool]\nsize=2\nstride=2\n"
    stages = [[32], [64], [128, 64, 128], [256, 128, 256], [512, 256, 512, 256, 512], [1024, 512, 1024, 512, 1024]]
    parts = ["".join(conv(filters, 1 if place % 2 else 3) for place, filters in enumerate(stage)) for stage in stages]
    return DARKNET19.format(trunk=pool.join(parts))


def test_a_classifier(tmp_path: Path) -> None:
    """The order of the file is written out by hand: the last layer and the first norm."""
    cfg = tmp_path / "darknet19.cfg"
    cfg.write_text(darknet19())
    numbers = np.random.default_rng(0).normal(size=floats_of(cfg)).astype("<f4")
    (tmp_path / "a.weights").write_bytes(HEADER + numbers.tobytes())
    imported = import_darknet_backbone(tmp_path / "a.weights", cfg)
    assert imported.config == DarknetConfig(variant="darknet19", out_levels=(5,))
    assert imported.classes == 10
    assert imported.pixels.std == (255.0, 255.0, 255.0)
    model = build_classifier(imported, "a.weights")
    assert isinstance(model, Classifier)
    state = model.state_dict()
    norm = next(name for name in state if name.endswith("running_mean"))
    np.testing.assert_array_equal(state[norm].numpy(), numbers[64:96])
    np.testing.assert_array_equal(state["fc.weight"].flatten().numpy(), numbers[-10240:])
    np.testing.assert_array_equal(state["fc.bias"].numpy(), numbers[-10250:-10240])


@pytest.mark.parametrize(("layers", "case", "variant"), [
    (23, "darknet_yolov2_voc", "darknet19"), (26, "darknet_yolov2_voc", "darknet19"),
    (15, "darknet_yolov3_tiny", "tiny_v3"), (13, "darknet_yolov2_tiny_voc", "tiny_v2"),
])  # fmt: skip
def test_trunks_of_detectors(shared_golden: Path, tmp_path: Path, layers: int, case: str, variant: str) -> None:
    """Files such as ``.conv.23`` end after a whole layer."""
    cfg = shared_golden / case / "network.cfg"
    imported = import_darknet_backbone(written(tmp_path, cfg, layers), cfg)
    assert isinstance(imported.config, DarknetConfig)
    assert (imported.config.variant, imported.classes) == (variant, None)
    build_classifier(imported, "trunk")


def test_what_is_no_trunk(shared_golden: Path, tmp_path: Path) -> None:
    cfg = shared_golden / "darknet_yolov2_voc" / "network.cfg"
    with pytest.raises(InputError, match="begin with no whole trunk; those known are darknet19"):
        import_darknet_backbone(written(tmp_path, cfg, 10), cfg)
    weights = written(tmp_path, cfg, 23)
    with weights.open("ab") as file:
        file.write(bytes(4))
    with pytest.raises(InputError, match=r"it ends within layer 2[0-9] \(\[convolutional\]\)"):
        import_darknet_backbone(weights, cfg)


def test_darknet53_ends_after_74_layers(tmp_path: Path) -> None:
    def conv(filters: int, size: int, stride: int = 1) -> str:
        return (
            f"[convolutional]\nbatch_normalize=1\nfilters={filters}\nsize={size}\nstride={stride}\npad=1\n"
            "activation=leaky\n"
        )

    text = "[net]\nheight=64\nwidth=64\n" + conv(32, 3)
    for filters, count in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        text += conv(filters, 3, 2) + (conv(filters // 2, 1) + conv(filters, 3) + "[shortcut]\nfrom=-3\n") * count
    tail = "[avgpool]\n[convolutional]\nfilters=1000\nsize=1\nstride=1\npad=1\nactivation=linear\n[softmax]\ngroups=1\n"
    cfg = tmp_path / "darknet53.cfg"
    cfg.write_text(text + tail)
    assert floats_of(cfg) == 41_645_640, "the published size"
    weights = tmp_path / "darknet53.weights"
    with weights.open("wb") as file:
        file.write(HEADER)
        file.truncate(len(HEADER) + 4 * floats_of(cfg))
    whole = import_darknet_backbone(weights, cfg)
    assert (whole.classes, whole.state["fc.weight"].shape) == (1000, torch.Size([1000, 1024]))
    with weights.open("r+b") as file:
        file.truncate(len(HEADER) + 4 * floats_of(cfg, 75))
    assert import_darknet_backbone(weights, cfg).classes is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("activation=leaky", "activation=mish"),
            r"\[convolutional\] has activation=mish, where this network has leaky",
        ),
        (("activation=linear", "activation=logistic"), "has activation=logistic, where this network has linear"),
        (("mask =", "scale_x_y=1.05\nmask ="), r"\[yolo\] has scale_x_y=1.05, which is not read"),
        (("pad=1", "pad=1\ngroups=1\ndilation=2"), "with groups or dilation"),
        (
            ("mask = 3,4,5", "mask = 3,4,9"),
            r"network.cfg, line \d+: \[yolo\] has 9 in its mask; the 6 anchors count from 0",
        ),
        (("mask = 3,4,5", "mask = 3,4,4.5"), r"has 4.5 in its mask"),
        (("mask = 3,4,5\n", ""), r"line \d+: layer 15 \(\[convolutional\]\) is 255 x"),
        (("319", ""), r"\[yolo\] has 11 numbers as anchors; give pairs"),
    ],
)
def test_what_shapes_do_not_tell(change: tuple[str, str], message: str, shared_golden: Path, tmp_path: Path) -> None:
    cfg = tmp_path / "a" / "network.cfg"
    cfg.parent.mkdir()
    text = (shared_golden / "darknet_yolov3_tiny" / "network.cfg").read_text()
    assert change[0] in text
    cfg.write_text(text.replace(*change, 1))
    with pytest.raises(InputError, match=message):
        import_darknet(cfg, written(tmp_path, cfg))
