"""Import SSD300 and SSD512 on VGG-16 of weiliu89/caffe, and RefineDet of sfzhang15/RefineDet, from their
``.caffemodel``.

There, scores and offsets of a map are separate convolutions and background is class 0. Here they are one convolution
and background is last. Otherwise our defaults are the conventions of these files.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

from boxwright.anchors.priors import PriorConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.data.transforms.resizing import WarpConfig
from boxwright.detectors.refinedet import RefineDetConfig, RefineDetHeadConfig
from boxwright.detectors.ssd import SSD_POST, SSDConfig
from boxwright.heads.extra_maps import EXTRAS_300, EXTRAS_512
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.caffe.layers import LayerConverter, resnet_depth
from boxwright.weights.caffe.protobuf import CaffeModel, floats_of, integer_of, messages_of
from boxwright.weights.common.class_names import default_classes
from boxwright.weights.common.heads import check_class_count
from boxwright.weights.common.imported import Imported

REFINEDET_SIZES = (320, 512)
"""Input sizes of the authors' RefineDet, whose layers have the same shapes."""
TRANSFORM = 100
"""Field of a data layer with the settings of its images, and RESIZE that of their size in it."""
RESIZE = 8
PRIOR_BOX = 203
"""Field of a layer with the settings of its default boxes."""

_RATIOS = {
    300: ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
    512: ((2.0,), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0, 3.0), (2.0,), (2.0,)),
}
_STEPS = {300: (8, 16, 32, 64, 100, 300), 512: (8, 16, 32, 64, 128, 256, 512)}
_SIZES = {
    (300, "voc"): (30, 60, 111, 162, 213, 264, 315),
    (300, "coco"): (21, 45, 99, 153, 207, 261, 315),
    (512, "voc"): (35.84, 76.8, 153.6, 230.4, 307.2, 384.0, 460.8, 537.6),
    (512, "coco"): (20.48, 51.2, 133.12, 215.04, 296.96, 378.88, 460.8, 542.72),
}


def recognise_ssd(model: CaffeModel) -> bool:
    """Return True for an SSD on VGG-16."""
    return "conv4_3_norm_mbox_loc" in model.layers and "P3_mbox_loc" not in model.layers


def import_ssd(model: CaffeModel, classes: Classes | None = None) -> Imported:
    """Import SSD300 or SSD512, detected by their layers.

    The default boxes are read from the settings in the file. A file without them gets those of VOC for 20 classes, and
    those of COCO otherwise. Since June 2016 Caffe truncates their sizes to whole pixels.
    """
    size: Literal[300, 512] = 512 if "conv10_2_mbox_loc" in model.layers else 300
    sources = ["conv4_3_norm", "fc7", *(f"conv{n}_2" for n in range(6, 10 if size == 300 else 11))]
    converter = LayerConverter(model, f"SSD{size} of weiliu89/caffe")
    converter.vgg16(reduced=True)
    (scale,) = converter.blobs("conv4_3_norm", (1,))
    converter.state["l2.weight"] = scale.flatten()
    for extra, source in enumerate(sources[2:]):
        converter.conv(f"extras.{extra}.0.0", source.replace("_2", "_1"))
        converter.conv(f"extras.{extra}.1", source)
    for number, source in enumerate(sources):
        converter.head(f"heads.{number}.predict", source)
    state = converter.done()
    priors = _priors(model, sources)
    if priors is None:
        count = len(state["heads.0.predict.bias"]) // 4 - 5
        priors = PriorConfig(sizes=_SIZES[size, "voc" if count == 20 else "coco"], ratios=_RATIOS[size],
                             steps=_STEPS[size], truncate=True)  # fmt: skip
    count = len(state["heads.0.predict.bias"]) // priors.per_cell[0] - 5
    check_class_count(count, classes, model.origin)
    return Imported(
        source=f"weiliu89/caffe ssd{size}_vgg16",
        config=SSDConfig(
            size=(size, size),
            extras=EXTRAS_300 if size == 300 else EXTRAS_512,
            priors=priors,
            post=replace(SSD_POST, min_size=0.0),
        ),
        classes=classes or default_classes(count),
        state=state,
        transforms=(WarpConfig(size=(size, size), interpolations=("opencv",)),),
        pad_multiple=1,
    )


def _priors(model: CaffeModel, sources: list[str]) -> PriorConfig | None:
    """Read the default boxes; None where the file has none. Raises InputError where ours cannot reproduce them."""
    layers = [model.layers.get(f"{source}_mbox_priorbox") for source in sources]
    messages = [layer.settings[PRIOR_BOX] for layer in layers if layer is not None and PRIOR_BOX in layer.settings]
    if len(messages) != len(sources):
        return None
    smallest, largest, steps = ([floats_of(message, number) for message in messages] for number in (1, 2, 10))
    ratios = tuple(tuple(ratio for ratio in floats_of(message, 3) if ratio != 1) for message in messages)
    single = all(len(each) == 1 for each in (*smallest, *largest, *steps))
    sizes = [each[0] for each in smallest if each] + largest[-1][:1]
    flips = all(integer_of(message, 4, 1) for message in messages)
    clips = {integer_of(message, 5, 0) for message in messages}
    if not single or not flips or len(clips) > 1 or [each[0] for each in largest] != sizes[1:]:
        raise InputError(
            f"{model.origin}: its default boxes are not SSD's: each map needs one least and one largest size, the "
            "largest being the least of the next map, one step, and ratios that stand both ways"
        )
    return PriorConfig(
        sizes=tuple(round(size, 4) for size in sizes),  # the file's are float32
        ratios=ratios,
        steps=tuple(step[0] for step in steps),
        truncate=True,
        clip="corners" if clips == {1} else "none",
    )


def recognise_refinedet(model: CaffeModel) -> bool:
    """Return True for a RefineDet on VGG-16 or ResNet-101."""
    return "TL3_1" in model.layers and "P6-up" in model.layers


def refinedet_size(model: CaffeModel) -> int | None:
    """Return the side that a data layer in the file resizes images to; None where it has no such layer."""
    for layer in model.layers.values():
        resizing = messages_of(layer.settings.get(TRANSFORM, b""), RESIZE)
        sides = {integer_of(message, number, 0) for message in resizing for number in (3, 4)}  # height, width
        if len(sides) == 1 and (side := sides.pop()) in REFINEDET_SIZES:
            return side
    return None


def import_refinedet(model: CaffeModel, classes: Classes | None = None, size: int = 320) -> Imported:
    """Import RefineDet on VGG-16 or ResNet-101.

    ``size``: input size, 320 or 512, which the weights do not tell. Models of COCO (80 classes) end with Soft-NMS, as
    in the authors' test code.
    """
    if size < 64 or size % 64:
        raise InputError(f"size = {size}: RefineDet's input is a multiple of 64; its models have 320 or 512")
    depth = resnet_depth(model)
    name = f"refinedet{size}_{'vgg16' if depth is None else f'resnet{depth}'}"
    converter = LayerConverter(model, f"{name} of sfzhang15/RefineDet")
    norm = depth is not None
    if depth is None:
        converter.vgg16(reduced=True)
        sources = ["conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2"]
        for number, source in enumerate(sources[:2]):
            (scale,) = converter.blobs(source, (1,))
            converter.state[f"l2.{number}.weight"] = scale.flatten()
        for number, layer in enumerate(("conv6_1", "conv6_2")):
            converter.conv(f"top.{number}.0", layer)
    else:
        converter.resnet(depth)
        converter.residual("top", "6", projects=True)
        last = {50: ("3d", "4f"), 101: ("3b3", "4b22"), 152: ("3b7", "4b35")}[depth]
        sources = [f"res{block}_relu" for block in (*last, "5c", "6")]
    for k in range(4):
        for layer, ours in ((f"TL{k + 3}_1", f"lateral.{k}.0"), (f"TL{k + 3}_2", f"lateral.{k}.1"),
                            (f"P{k + 3}", f"smooth.{k}"), (f"P{k + 4}-up", f"up.{k}")):  # fmt: skip
            if not (k == 3 and ours.startswith("up")):
                _transfer(converter, f"tcb.{ours}", layer, norm)
        for module, source in (("arm", sources[k]), ("odm", f"P{k + 3}")):
            if norm:
                converter.residual(f"{module}.blocks.{k}", f"{source}_inter", projects=True)
            converter.head(f"{module}.convs.{k}", f"res{source}_inter" if norm else source)
    state = converter.done()
    count = len(state["odm.convs.0.bias"]) // 3 - 5
    check_class_count(count, classes, model.origin)
    return Imported(
        source=f"sfzhang15/RefineDet {name}",
        config=_refinedet_config(depth, coco=count == 80),
        classes=classes or default_classes(count),
        state=state,
        transforms=(WarpConfig(size=(size, size), interpolations=("opencv",)),),
        pad_multiple=1,
    )


def _transfer(converter: LayerConverter, ours: str, layer: str, norm: bool) -> None:
    """Convert a layer of a transfer block: a convolution or transposed convolution, with or without batch norm."""
    if norm:
        converter.conv_norm(f"{ours}.0", f"{ours}.1", layer, f"{layer}_bn", f"{layer}_scale")
    else:
        converter.conv(f"{ours}.0", layer)


def _refinedet_config(depth: int | None, coco: bool) -> RefineDetConfig:
    post = PostprocessConfig(
        score_threshold=0.01, nms_iou=0.45, per_class=1000, detections=500, clip=False, min_size=0.0
    )
    if coco:
        post = replace(post, nms="soft_linear", nms_iou=0.3)
    if depth is None:
        return RefineDetConfig(post=post)
    assert depth in (50, 101, 152)
    return RefineDetConfig(
        backbone=ResNetConfig(depth=depth, stride_in_1x1=True, stem_pool="ceil", norm="bn", out_levels=(3, 4, 5)),
        top="residual",
        top_channels=(128, 512),
        l2_scales=(None, None, None, None),
        head=RefineDetHeadConfig(block=256, norm="bn"),
        post=post,
    )
