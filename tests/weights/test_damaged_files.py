"""Damaged files of every publisher are read or refused, in bounded time and memory; nothing else happens."""

import io
import math
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch import Tensor

from boxwright.checkpoints.opening import load_detector
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.adoption import misfits
from boxwright.structures import InputError
from boxwright.weights.common.class_names import default_classes
from boxwright.weights.common.foreign_files import read_foreign, tensors_in
from boxwright.weights.darknet.files import parse_cfg, plan_layers
from boxwright.weights.darknet.yolov2 import yolov2_config
from boxwright.weights.darknet.yolov3 import yolov3_config
from boxwright.weights.import_backbone import import_backbone
from boxwright.weights.import_detector import IMPORTERS, import_checkpoint, import_content
from tests.support import caffe_reference
from tests.support.caffe_reference import Random
from tests.support.hostile import assert_read_or_refused
from tests.support.mutations import mutations, tree_mutations
from tests.support.published_layouts import (
    detectron2_shapes,
    detectron_blobs,
    mmdet_ssd512_shapes,
    mmdet_two_stage,
    mmdet_yolov3_shapes,
    one_number,
    refinedet_shapes,
    ssd300_shapes,
)

pytestmark = pytest.mark.slow

COUNT = 300
HEADER = struct.pack("<3iq", 0, 2, 5, 100)
YOLOV1 = """[net]
height=48
width=48
channels=3

[convolutional]
batch_normalize=1
filters=6
size=5
stride=2
pad=1
activation=relu

[maxpool]
size=3
stride=2

[local]
filters=5
size=3
stride=2
pad=1
activation=logistic

[dropout]
probability=.25

[connected]
batch_normalize=1
output=10
activation=tanh

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
jitter=.2
object_scale=1
noobject_scale=.5
"""
OTHER_LAYERS = """[net]
height=64
width=64

[convolutional]
batch_normalize=1
filters=8
size=3
stride=2
pad=1
groups=1
activation=leaky

[reorg]
stride=2

[route]
layers=-1,-1

[upsample]
stride=2

[shortcut]
from=-3
activation=linear

[avgpool]

[convolutional]
filters=1
activation=linear

[region]
anchors = 1.08,1.19, 3.42,4.41
classes=2
coords=4
num=2
softmax=1

[yolo]
mask = 0,1,2
anchors = 10,14, 23,27, 37,58, 81,82, 135,169, 344,319
classes=2
"""
YOLOS = {
    "YOLOv2": (yolov2_config, OTHER_LAYERS.split("[yolo]")[0]),
    "YOLOv3": (yolov3_config, OTHER_LAYERS.split("[region]")[0] + 3 * ("[yolo]" + OTHER_LAYERS.split("[yolo]")[1])),
}
CFGS = {"a YOLOv1": YOLOV1, "other layers": OTHER_LAYERS}


def writing(path: Path, read: Callable[[Path], Any]) -> Callable[[bytes], Any]:
    """Return a function that writes bytes to ``path`` and reads them from there."""

    def run(data: bytes) -> Any:
        path.write_bytes(data)
        return read(path)

    return run


def state() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {f"backbone.layer{n}.weight": torch.rand(4, 3, generator=generator) for n in range(6)}


def zipped(content: Any, **options: Any) -> bytes:
    torch.save(content, buffer := io.BytesIO(), **options)
    return buffer.getvalue()


def python_pickle() -> bytes:
    blobs = {name.replace(".", "_"): value.numpy() for name, value in state().items()}
    return pickle.dumps({"blobs": blobs, "cfg": "MODEL:\n  TYPE: x\n", "lr": np.float32(0.1)}, protocol=2)


FILES: dict[str, Callable[[], bytes]] = {
    "torch's archive": lambda: zipped({"state_dict": state(), "epoch": 3, "meta": {"cfg": "a = 1", "classes": ("a",)}}),
    "torch's older form": lambda: zipped({"model": state(), "epoch": 3}, _use_new_zipfile_serialization=False),
    "a pickle of Detectron": python_pickle,
    "safetensors": lambda: safetensors.torch.save(state(), metadata={"format": "pt"}),
}


@pytest.mark.parametrize("kind", FILES)
def test_containers(kind: str, tmp_path: Path) -> None:
    whole = FILES[kind]()
    read = writing(tmp_path / "model.pth", lambda path: tensors_in(read_foreign(path)))
    assert read(whole)
    assert_read_or_refused(read, [*mutations(whole, 2 * COUNT, seed=1)], tmp_path)


def floats_in(cfg: str) -> int:
    return sum(math.prod(shape) for *_, arrays in plan_layers(parse_cfg(cfg)) for shape in arrays.values())


@pytest.mark.parametrize("kind", CFGS)
def test_darknets_cfgs(kind: str, tmp_path: Path) -> None:
    text = CFGS[kind]
    (tmp_path / "a.weights").write_bytes(HEADER + np.full(floats_in(text), 0.01, "<f4").tobytes())
    read = writing(tmp_path / "a.cfg", lambda path: load_detector(path.with_suffix(".weights")))
    outcome = assert_read_or_refused(read, [text.encode(), *mutations(text.encode(), 2 * COUNT, seed=2)], tmp_path)
    assert (outcome.read > 0) == (kind == "a YOLOv1")


@pytest.mark.parametrize("kind", YOLOS)
def test_cfgs_of_yolov2_and_v3(kind: str, tmp_path: Path) -> None:
    """Configurations without weights: what the importer makes of them before it reads a number."""
    make, text = YOLOS[kind]

    def read(data: bytes) -> None:
        sections = parse_cfg(data.decode(errors="replace"))
        config = make(sections)
        plan_layers(sections)
        with torch.device("meta"):
            build_detector(config, default_classes(2))

    assert_read_or_refused(read, [text.encode(), *mutations(text.encode(), COUNT, seed=8)], tmp_path)


def test_darknets_weights(tmp_path: Path) -> None:
    (tmp_path / "a.cfg").write_text(YOLOV1)
    whole = HEADER + np.full(floats_in(YOLOV1), 0.01, "<f4").tobytes()
    read = writing(tmp_path / "a.weights", import_checkpoint)
    assert_read_or_refused(read, [*mutations(whole, COUNT, seed=3)], tmp_path)
    backbone = writing(tmp_path / "b.weights", import_backbone)
    assert_read_or_refused(backbone, [*mutations(whole, COUNT, seed=4)], tmp_path)


def test_caffemodels(tmp_path: Path) -> None:
    random = Random(1)
    random.conv("conv1_1", 8, 3)
    random.conv("conv4_3_norm_mbox_loc", 16, 8)
    random.blobs["conv4_3_norm"] = (random.draw(8),)
    whole = caffe_reference.write(tmp_path / "whole", random.blobs).read_bytes()
    for read in (import_checkpoint, import_backbone):
        run = writing(tmp_path / "a.caffemodel", read)
        assert_read_or_refused(run, [*mutations(whole, 2 * COUNT, seed=5)], tmp_path)


def test_a_text_description_is_no_caffemodel(tmp_path: Path) -> None:
    text = b'name: "net"\nlayer { name: "conv1" type: "Convolution" convolution_param { num_output: 8 } }\n'
    read = writing(tmp_path / "a.caffemodel", import_checkpoint)
    outcome = assert_read_or_refused(read, [text, *mutations(text, COUNT, seed=6)], tmp_path)
    assert outcome.read == 0


def expanded(shapes: dict[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: tensor.to("meta") for name, tensor in one_number(shapes).items()}


LAYOUTS: dict[str, Callable[[], dict[str, Any]]] = {
    "detectron2 fpn": lambda: {"model": expanded(detectron2_shapes("fpn"))},
    "detectron2 c4": lambda: {"model": expanded(detectron2_shapes("c4"))},
    "detectron2 retinanet": lambda: {"model": expanded(detectron2_shapes("retinanet"))},
    "detectron": lambda: {"blobs": detectron_blobs(expanded(detectron2_shapes("mask")))},
    "mmdet": lambda: {"state_dict": mmdet_two_stage(expanded(detectron2_shapes("mask"))), "meta": {"CLASSES": ["a"]}},
    "mmdet ssd": lambda: {"state_dict": expanded(mmdet_ssd512_shapes()), "meta": {"cfg": "scale=(320, 320)"}},
    "mmdet yolov3": lambda: {"state_dict": expanded(mmdet_yolov3_shapes()), "meta": {"cfg": "scale=(320, 320)"}},
    "ssd.pytorch": lambda: dict(expanded(ssd300_shapes())),
    "RefineDet.PyTorch": lambda: dict(expanded(refinedet_shapes())),
}
SPECIAL = (
    *(torch.empty(shape, device="meta") for shape in ((), (0,), (1,), (3,), (2, 3), (1, 0, 3, 3), (8, 4, 3, 3))),
    torch.empty(256, dtype=torch.int64, device="meta"), torch.empty(64, 64, 1, 1, dtype=torch.complex64, device="meta"),
    *(None, 0, -1, 10**30, "", "scale=(" + "9" * 5000 + ", 1)", [], {}, [1], {"a": 1}, True, 0.5),
)  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_tensors_of_other_names_shapes_and_kinds(layout: str, tmp_path: Path) -> None:
    changed = [*tree_mutations(LAYOUTS[layout](), COUNT, seed=7, special=SPECIAL)]

    def read(number: bytes) -> None:
        content = changed[int(number)]
        if not isinstance(content, dict):
            raise InputError("read_foreign refuses it")
        imported = import_content(content, tmp_path / "model.pth", any_size=True)
        with torch.device("meta"):
            misfits(build_detector(imported.config, imported.classes), imported.state)

    assert len(IMPORTERS) == 7, "a new one needs a layout here"
    assert_read_or_refused(read, [str(number).encode() for number in range(len(changed))], tmp_path)
