"""Networks in Caffe files, at their full size and smaller."""

import torch

from boxwright.detectors.build import build_detector
from boxwright.weights.caffe.protobuf import CaffeLayer, CaffeModel
from boxwright.weights.common.imported import Imported
from tests.support.caffe_reference import Random


def first_blob_small(random: Random, name: str) -> None:
    """Scale the first layer down: pixels reach 150, other maps stay near 1."""
    weight, *bias = random.blobs[name]
    random.blobs[name] = (weight / 60, *bias)


STAGES_101 = {2: list("abc"), 3: ["a", "b1", "b2", "b3"], 4: ["a", *(f"b{n}" for n in range(1, 23))], 5: list("abc")}


def published(blobs: dict[str, tuple[int, ...] | tuple[tuple[int, ...], ...]]) -> CaffeModel:
    """Return a network of full size whose parameters take no memory."""
    layers = {
        name: CaffeLayer(name, "", tuple(torch.zeros(1).expand(shape) for shape in shapes), {})  # type: ignore[arg-type]
        for name, shapes in blobs.items()
    }
    return CaffeModel("", layers, "published.caffemodel")


def full_vgg() -> dict[str, tuple[tuple[int, ...], ...]]:
    shapes: dict[str, tuple[tuple[int, ...], ...]] = {}
    inputs = 3
    for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
        out = min(32 * 2**stage, 512)
        for place in range(1, count + 1):
            shapes[f"conv{stage}_{place}"] = ((out, inputs, 3, 3), (out,))
            inputs = out
    return shapes


def check_shapes(imported: Imported) -> None:
    with torch.device("meta"):
        own = build_detector(imported.config, imported.classes).state_dict()
    own = {name: value for name, value in own.items() if not name.endswith("num_batches_tracked")}
    assert {name: value.shape for name, value in imported.state.items()} == {n: v.shape for n, v in own.items()}
