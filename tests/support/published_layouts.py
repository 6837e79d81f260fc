"""Names and shapes of published files, written down from the publishers' networks and not from our importers."""

import math
from collections.abc import Iterator

import torch
from torch import Tensor

from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.weights.common.imported import Imported

BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
Shapes = dict[str, tuple[int, ...]]


def filled(shapes: Shapes, seed: int = 0) -> dict[str, Tensor]:
    """Return random tensors of these shapes, above 0 so that they can be variances."""
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.rand(shape, generator=generator) + 0.5 for name, shape in shapes.items()}


def on_meta(shapes: Shapes) -> dict[str, Tensor]:
    """Return tensors without data, for tests of names and shapes."""
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


def one_number(shapes: Shapes, value: float = 0.0) -> dict[str, Tensor]:
    """Return tensors that hold one number in all places, and so take no memory."""
    return {name: torch.full((), value).expand(shape) for name, shape in shapes.items()}


def loaded(imported: Imported) -> Detector:
    """Build the detector with the tensors of ``imported``, without random initialisation."""
    with torch.device("meta"):
        detector = build_detector(imported.config, imported.classes)
    missing, unexpected = detector.load_state_dict(imported.state, strict=False, assign=True)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    return detector.eval()


def assert_same(mine: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert set(mine) == set(theirs)
    for name, value in theirs.items():
        assert mine[name].shape == value.shape, name
        assert value.is_meta or torch.equal(mine[name], value), name


def bottlenecks(depth: int, stages: tuple[int, ...]) -> Iterator[tuple[int, int, int, int, int, bool]]:
    """Iterate over the bottlenecks: stage, block, inputs, middle, outputs, and True with a projection."""
    for stage in stages:
        out = 256 * 2 ** (stage - 2)
        for block in range(BLOCKS[depth][stage - 2]):
            inputs = out if block else (64 if stage == 2 else out // 2)
            yield stage, block, inputs, out // 4, out, block == 0


def d2_norm(name: str, channels: int) -> Shapes:
    return {f"{name}.{part}": (channels,) for part in ("weight", "bias", "running_mean", "running_var")}


def d2_stages(prefix: str, depth: int, stages: tuple[int, ...]) -> Shapes:
    shapes: Shapes = {}
    for stage, block, inputs, mid, out, projects in bottlenecks(depth, stages):
        at = f"{prefix}res{stage}.{block}."
        layers = {"conv1": (mid, inputs, 1, 1), "conv2": (mid, mid, 3, 3), "conv3": (out, mid, 1, 1)}
        if projects:
            layers["shortcut"] = (out, inputs, 1, 1)
        for layer, shape in layers.items():
            shapes[f"{at}{layer}.weight"] = shape
            shapes |= d2_norm(f"{at}{layer}.norm", shape[0])
    return shapes


def with_bias(name: str, *shape: int) -> Shapes:
    return {f"{name}.weight": shape, f"{name}.bias": shape[:1]}


def d2_rpn(channels: int, anchors: int) -> Shapes:
    root = "proposal_generator.rpn_head."
    return {
        **with_bias(f"{root}conv", channels, channels, 3, 3),
        **with_bias(f"{root}objectness_logits", anchors, channels, 1, 1),
        **with_bias(f"{root}anchor_deltas", 4 * anchors, channels, 1, 1),
    }


def d2_predictor(channels: int, classes: int, agnostic: bool = False) -> Shapes:
    return {
        **with_bias("roi_heads.box_predictor.cls_score", classes + 1, channels),
        **with_bias("roi_heads.box_predictor.bbox_pred", 4 if agnostic else 4 * classes, channels),
    }


def d2_layers(inputs: int) -> Shapes:
    return {
        **with_bias("roi_heads.box_head.fc1", 1024, inputs * 49),
        **with_bias("roi_heads.box_head.fc2", 1024, 1024),
    }


def detectron2_shapes(kind: str, depth: int = 50, classes: int = 80, agnostic: bool = False) -> Shapes:
    """Return the shapes of a detectron2 model. ``kind``: fpn, mask, c4, dc5 or retinanet."""
    pyramid = kind in ("fpn", "mask", "retinanet")
    root = "backbone.bottom_up." if pyramid else "backbone."
    shapes: Shapes = {f"{root}stem.conv1.weight": (64, 3, 7, 7), **d2_norm(f"{root}stem.conv1.norm", 64)}
    shapes |= d2_stages(root, depth, (2, 3, 4) if kind == "c4" else (2, 3, 4, 5))
    if kind == "c4":
        shapes |= {**d2_stages("roi_heads.", depth, (5,)), **d2_rpn(1024, 15), **d2_predictor(2048, classes, agnostic)}
    elif kind == "dc5":
        shapes |= {**d2_rpn(2048, 15), **d2_layers(2048), **d2_predictor(1024, classes, agnostic)}
    else:
        for level in range(3 if kind == "retinanet" else 2, 6):
            shapes |= with_bias(f"backbone.fpn_lateral{level}", 256, 64 * 2**level, 1, 1)
            shapes |= with_bias(f"backbone.fpn_output{level}", 256, 256, 3, 3)
    if kind in ("fpn", "mask"):
        shapes |= {**d2_rpn(256, 3), **d2_layers(256), **d2_predictor(1024, classes, agnostic)}
    if kind == "mask":
        for n in range(1, 5):
            shapes |= with_bias(f"roi_heads.mask_head.mask_fcn{n}", 256, 256, 3, 3)
        shapes |= with_bias("roi_heads.mask_head.deconv", 256, 256, 2, 2)
        shapes |= with_bias("roi_heads.mask_head.predictor", classes, 256, 1, 1)
    if kind == "retinanet":
        shapes |= with_bias("backbone.top_block.p6", 256, 2048, 3, 3)
        shapes |= with_bias("backbone.top_block.p7", 256, 256, 3, 3)
        for subnet in ("cls_subnet", "bbox_subnet"):
            for n in (0, 2, 4, 6):
                shapes |= with_bias(f"head.{subnet}.{n}", 256, 256, 3, 3)
        shapes |= with_bias("head.cls_score", 9 * classes, 256, 3, 3)
        shapes |= with_bias("head.bbox_pred", 36, 256, 3, 3)
    return shapes


_BRANCHES = {"conv1": "branch2a", "conv2": "branch2b", "conv3": "branch2c", "shortcut": "branch1"}


def detectron_blobs(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a detectron2 ``state`` to the blobs of an equivalent Detectron model: norms folded into a scale and a
    shift, background first with a box and a mask of its own, and the momentum of each parameter beside it.
    """
    blobs: dict[str, Tensor] = {}
    depth4 = 1 + max(int(n.split("res4.")[1].split(".")[0]) for n in state if "res4." in n)
    last = {"2": 2, "3": 3, "4": depth4 - 1, "5": 2}  # the block whose sum is a stage's map
    retina = any(name.startswith("head.") for name in state)
    pyramid = any("fpn_" in name for name in state)
    simple = {
        "conv": "conv_rpn_fpn2" if pyramid else "conv_rpn",
        "objectness_logits": "rpn_cls_logits_fpn2" if pyramid else "rpn_cls_logits",
        "anchor_deltas": "rpn_bbox_pred_fpn2" if pyramid else "rpn_bbox_pred",
        "fc1": "fc6", "fc2": "fc7", "cls_score": "retnet_cls_pred_fpn3" if retina else "cls_score",
        "bbox_pred": "retnet_bbox_pred_fpn3" if retina else "bbox_pred", "deconv": "conv5_mask",
        "predictor": "mask_fcn_logits", "p6": "fpn_6", "p7": "fpn_7",
        **{f"mask_fcn{n}": f"_[mask]_fcn{n}" for n in range(1, 5)},
    }  # fmt: skip
    for name, value in state.items():
        parts = name.split(".")
        layer, part = parts[-2], {"weight": "w", "bias": "b"}.get(parts[-1])
        if "norm" in parts:
            if parts[-1] == "weight":
                stem = name.removesuffix("weight")
                scale = value / (state[f"{stem}running_var"] + 1e-5).sqrt()
                shift = state[f"{stem}bias"] - state[f"{stem}running_mean"] * scale
                blob = "res_conv1" if "stem" in parts else "_".join([*parts[-5:-3], _BRANCHES[parts[-3]]])
                blobs |= {f"{blob}_bn_s": scale, f"{blob}_bn_b": shift}
            continue
        if "stem" in parts:
            blob = "conv1"
        elif layer in _BRANCHES and parts[-4].startswith("res"):
            blob = "_".join([*parts[-4:-2], _BRANCHES[layer]])
        elif layer.startswith("fpn_lateral"):
            n = layer[-1]
            blob = f"fpn_inner_res{n}_{last[n]}_sum" + ("" if n == "5" else "_lateral")
        elif layer.startswith("fpn_output"):
            blob = f"fpn_res{layer[-1]}_{last[layer[-1]]}_sum"
        elif parts[-3] in ("cls_subnet", "bbox_subnet"):
            blob = f"retnet_{parts[-3].split('_')[0]}_conv_n{int(layer) // 2}_fpn3"
        else:
            blob = simple[layer]
        if blob == "cls_score":
            value = torch.cat([value[-1:], value[:-1]])
        elif blob in ("bbox_pred", "mask_fcn_logits"):
            value = torch.cat([torch.full_like(value[: 4 if blob == "bbox_pred" else 1], math.pi), value])
        blobs[f"{blob}_{part}"] = value
        blobs[f"{blob}_{part}_momentum"] = torch.zeros_like(value)
    return {**blobs, "lr": torch.tensor([0.1])}


def mmdet_two_stage(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Convert a detectron2 ``state`` to that of an equivalent MMDetection Faster or Mask R-CNN."""
    names = {
        "conv": "rpn_head.rpn_conv", "objectness_logits": "rpn_head.rpn_cls", "anchor_deltas": "rpn_head.rpn_reg",
        "fc1": "roi_head.bbox_head.shared_fcs.0", "fc2": "roi_head.bbox_head.shared_fcs.1",
        "cls_score": "roi_head.bbox_head.fc_cls", "bbox_pred": "roi_head.bbox_head.fc_reg",
        "deconv": "roi_head.mask_head.upsample", "predictor": "roi_head.mask_head.conv_logits",
        **{f"mask_fcn{n}": f"roi_head.mask_head.convs.{n - 1}.conv" for n in range(1, 5)},
        **{f"fpn_lateral{n}": f"neck.lateral_convs.{n - 2}.conv" for n in range(2, 6)},
        **{f"fpn_output{n}": f"neck.fpn_convs.{n - 2}.conv" for n in range(2, 6)},
    }  # fmt: skip
    theirs: dict[str, Tensor] = {}
    for name, value in state.items():
        parts = name.split(".")
        part = parts[-1]
        norm = parts[-2] == "norm"
        layer = parts[-3] if norm else parts[-2]
        if "stem" in parts:
            new = f"backbone.{'bn1' if norm else 'conv1'}"
        elif any(p.startswith("res") for p in parts):
            stage, block = next((int(p[3]), parts[i + 1]) for i, p in enumerate(parts) if p.startswith("res"))
            if layer == "shortcut":
                layer = f"downsample.{int(norm)}"
            elif norm:
                layer = f"bn{layer[-1]}"
            new = f"backbone.layer{stage - 1}.{block}.{layer}"
        else:
            new = names[layer]
        theirs[f"{new}.{part}"] = value
        if norm and part == "running_var":
            theirs[f"{new}.num_batches_tracked"] = torch.tensor(7)
    return theirs


def mmdet_yolov3_shapes(classes: int = 80) -> Shapes:
    """Return the shapes of YOLOv3 on Darknet-53, in the order of its modules."""
    shapes: Shapes = {}

    def conv(name: str, inputs: int, outputs: int, kernel: int) -> None:
        shapes[f"{name}.conv.weight"] = (outputs, inputs, kernel, kernel)
        shapes.update({f"{name}.bn.{part}": (outputs,) for part in ("weight", "bias", "running_mean", "running_var")})

    conv("backbone.conv1", 3, 32, 3)
    for stage, repeats in enumerate((1, 2, 8, 8, 4), start=1):
        out = 32 * 2**stage
        conv(f"backbone.conv_res_block{stage}.conv", out // 2, out, 3)
        for n in range(repeats):
            conv(f"backbone.conv_res_block{stage}.res{n}.conv1", out, out // 2, 1)
            conv(f"backbone.conv_res_block{stage}.res{n}.conv2", out // 2, out, 3)
    for n, (inputs, width) in enumerate(((1024, 512), (512 + 256, 256), (256 + 128, 128)), start=1):
        if n > 1:
            conv(f"neck.conv{n - 1}", width * 2, width, 1)
        for k in range(1, 6):
            first = inputs if k == 1 else width * 2
            conv(f"neck.detect{n}.conv{k}", *((first, width, 1) if k % 2 else (width, width * 2, 3)))
    for n, width in enumerate((512, 256, 128)):
        conv(f"bbox_head.convs_bridge.{n}", width, width * 2, 3)
        shapes.update(with_bias(f"bbox_head.convs_pred.{n}", 3 * (5 + classes), width * 2, 1, 1))
    return shapes


def mmdet_ssd512_shapes(classes: int = 20) -> Shapes:
    """Return the shapes of SSD512 on VGG-16."""
    shapes: Shapes = {}
    channels = 3
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    for index, out in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), widths, strict=True):
        shapes |= with_bias(f"backbone.features.{index}", out, channels, 3, 3)
        channels = out
    shapes |= with_bias("backbone.features.31", 1024, 512, 3, 3)
    shapes |= with_bias("backbone.features.33", 1024, 1024, 1, 1)
    shapes["neck.l2_norm.weight"] = (512,)
    inputs = 1024
    for n, (hidden, out, kernel) in enumerate(
        ((256, 512, 3), (128, 256, 3), (128, 256, 3), (128, 256, 3), (128, 256, 4))
    ):
        shapes |= with_bias(f"neck.extra_layers.{n}.0.conv", hidden, inputs, 1, 1)
        shapes |= with_bias(f"neck.extra_layers.{n}.1.conv", out, hidden, kernel, kernel)
        inputs = out
    for n, (inputs, priors) in enumerate(zip((512, 1024, 512, 256, 256, 256, 256), (4, 6, 6, 6, 6, 4, 4), strict=True)):
        shapes |= with_bias(f"bbox_head.cls_convs.{n}.0", priors * (classes + 1), inputs, 3, 3)
        shapes |= with_bias(f"bbox_head.reg_convs.{n}.0", priors * 4, inputs, 3, 3)
    return shapes


def vgg_shapes(prefix: str) -> Shapes:
    """Return the shapes of the reduced VGG-16 of the PyTorch ports, up to fc7."""
    shapes: Shapes = {}
    channels = 3
    widths = [64] * 2 + [128] * 2 + [256] * 3 + [512] * 6
    for index, out in zip((0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28), widths, strict=True):
        shapes |= with_bias(f"{prefix}{index}", out, channels, 3, 3)
        channels = out
    return shapes | with_bias(f"{prefix}31", 1024, 512, 3, 3) | with_bias(f"{prefix}33", 1024, 1024, 1, 1)


def ssd300_shapes(classes: int = 20) -> Shapes:
    """Return the shapes of ssd.pytorch's SSD300."""
    shapes = {**vgg_shapes("vgg."), "L2Norm.weight": (512,)}
    inputs = 1024
    for n, (out, kernel) in enumerate(((256, 1), (512, 3), (128, 1), (256, 3), (128, 1), (256, 3), (128, 1), (256, 3))):
        shapes |= with_bias(f"extras.{n}", out, inputs, kernel, kernel)
        inputs = out
    for n, (inputs, priors) in enumerate(zip((512, 1024, 512, 256, 256, 256), (4, 6, 6, 6, 4, 4), strict=True)):
        shapes |= with_bias(f"loc.{n}", priors * 4, inputs, 3, 3)
        shapes |= with_bias(f"conf.{n}", priors * (classes + 1), inputs, 3, 3)
    return shapes


def refinedet_shapes(classes: int = 20) -> Shapes:
    """Return the shapes of RefineDet.PyTorch's RefineDet320 and 512."""
    shapes = {**vgg_shapes("vgg."), "conv4_3_L2Norm.weight": (512,), "conv5_3_L2Norm.weight": (512,)}
    shapes |= with_bias("extras.0", 256, 1024, 1, 1) | with_bias("extras.1", 512, 256, 3, 3)
    for n, inputs in enumerate((512, 512, 1024, 512)):
        for module, width, columns in (("arm", inputs, 2), ("odm", 256, classes + 1)):
            shapes |= with_bias(f"{module}_loc.{n}", 12, width, 3, 3)
            shapes |= with_bias(f"{module}_conf.{n}", 3 * columns, width, 3, 3)
        shapes |= with_bias(f"tcb0.{3 * n}", 256, inputs, 3, 3) | with_bias(f"tcb0.{3 * n + 2}", 256, 256, 3, 3)
        shapes |= with_bias(f"tcb2.{3 * n + 1}", 256, 256, 3, 3)
        if n < 3:
            shapes |= with_bias(f"tcb1.{n}", 256, 256, 2, 2)
    return shapes
