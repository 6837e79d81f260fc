"""torchvision's detectors with random weights, and pairs of their tensors and ours from pixels to detections."""

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torchvision
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from boxwright.detectors.contract.detector import Detector
from boxwright.geometry.pooling.feature_table import FeatureTable
from boxwright.geometry.pooling.roi_pooling import pool_regions
from boxwright.structures import Classes, Images
from boxwright.weights.common.imported import build_imported
from boxwright.weights.torchvision.importer import import_torchvision
from tests.support.golden import compare, compare_share

MODELS = (
    "fasterrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_mobilenet_v3_large_fpn",
    "fasterrcnn_mobilenet_v3_large_320_fpn",
    "maskrcnn_resnet50_fpn",
    "maskrcnn_resnet50_fpn_v2",
    "retinanet_resnet50_fpn",
    "retinanet_resnet50_fpn_v2",
    "ssd300_vgg16",
    "ssdlite320_mobilenet_v3_large",
)
FIXED = {"ssd300_vgg16": 300, "ssdlite320_mobilenet_v3_large": 320}


class Tap(NamedTuple):
    """A pair of tensors, ours and the reference's. ``tolerance``: the allowed difference, relative to the largest
    value.

    For lists, in which near ties may swap, ``ours`` is the share of the reference's rows that are among ours, against
    1.
    """

    name: str
    ours: Tensor
    reference: Tensor
    tolerance: float

    def check(self) -> None:
        """Raise AssertionError beyond the tolerance, or record the difference inside ``noted``."""
        if self.name.startswith("share"):
            compare_share(self.name.removeprefix("share of "), self.ours.item(), 1 - self.tolerance)
        else:
            limit = self.tolerance * max(self.reference.abs().max().item(), 1e-12)
            compare(self.name, self.ours.numpy(), self.reference.numpy(), atol=limit, rtol=0)


def pictures(batch: int, height: int, width: int) -> Tensor:
    """Return smooth random images, uint8 ``[B, 3, H, W]``."""
    generator = torch.Generator().manual_seed(height + width)
    coarse = torch.rand((batch, 3, height // 16, width // 16), generator=generator)
    return (nn.functional.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 1) * 255).to(torch.uint8)


SPREADS = {
    r"rpn\.head\.cls_logits": 2.0,
    r"rpn\.head\.bbox_pred": 0.3,
    r"roi_heads\.box_predictor\.cls_score": 2.0,
    r"roi_heads\.box_predictor\.bbox_pred": 1.0,
    r"head\.classification_head\.(cls_logits|module_list\.\d(\.1)?)": 2.0,
}
"""Standard deviations of the last layers' outputs, in the order of the forward: scores that reach 1 would be ties."""


def spread_outputs(model: nn.Module, layers: str, spread: float, pixels: Tensor) -> None:
    """Scale the weights of the matching layers so that their outputs on an image have the standard deviation
    ``spread``.
    """
    found = [m for n, m in model.named_modules() if re.fullmatch(layers, n) and isinstance(m, nn.Conv2d | nn.Linear)]
    seen: dict[nn.Module, list[Tensor]] = {module: [] for module in found}
    hooks = [
        module.register_forward_hook(lambda m, inputs, output: seen[m].append(output.flatten())) for module in found
    ]
    if found:
        model([image.float() / 255 for image in pixels])
    for module, hook in zip(found, hooks, strict=True):
        hook.remove()
        module.weight.mul_(spread / torch.cat(seen[module]).std())


def random_model(name: str, columns: int, size: int = 128) -> nn.Module:
    """Return a model whose norms have seen an image, with spread scores and offsets. Images whose short side is
    ``size`` are not resized.
    """
    torch.manual_seed(columns)
    settings: dict[str, Any] = {} if name in FIXED else {"min_size": size, "max_size": 8 * size}
    build = getattr(torchvision.models.detection, name)
    model = build(weights=None, weights_backbone=None, num_classes=columns, **settings)
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    side = FIXED.get(name, size)
    with torch.no_grad():
        if name == "ssd300_vgg16":
            model.backbone.features[0].weight.mul_(0.02)  # pixels are of the order of 100
        for norm in norms:  # those that see no image below
            norm.running_mean.normal_(std=0.1)
            norm.running_var.uniform_(0.5, 1.5)
            norm.momentum = 1.0
        model.train()
        maps = model.backbone(torch.randn(2, 3, side, side))
        if name.startswith("ssdlite"):
            model.head(list(maps.values()))
        if name not in FIXED:  # pyramids without norms of their own
            levels = dict(zip(range(8), maps.values(), strict=False))
            for key, parameter in model.named_parameters():
                if "fpn.layer_blocks" in key and key.endswith(".0.weight"):
                    parameter.div_(levels[int(key.split(".")[3])].std())
                elif "extra_blocks.p6.weight" in key:
                    parameter.div_(maps["p6"].std())
        model.eval()
        for layers, spread in SPREADS.items():
            spread_outputs(model, layers, spread, pictures(1, side, side + (0 if name in FIXED else 32)))
        if name.startswith("retinanet"):  # its first column is a class like any other, and not one of ours below
            model.head.classification_head.cls_logits.bias.view(-1, columns)[:, 0] = -1000
    return model.eval()


def names(count: int) -> Classes:
    return Classes.from_names([f"class {i}" for i in range(count)])


def imported(name: str, model: nn.Module, columns: int) -> Detector:
    """Import the model with all columns except the first."""
    found = import_torchvision(model.state_dict(), names(columns - 1), small="320_fpn" in name)
    return build_imported(found, name)


def taps(name: str, columns: int, batch: int, height: int, width: int) -> Iterator[Tap]:
    """Iterate over the pairs of a model with random weights."""
    theirs = random_model(name, columns, min(height, width))
    yield from taps_between(name, theirs, imported(name, theirs, columns), batch, height, width)


@torch.inference_mode()
def taps_between(name: str, theirs: nn.Module, ours: Any, batch: int, height: int, width: int) -> Iterator[Tap]:
    """Iterate over all pairs of two models. Heads on regions get torchvision's regions."""
    pixels = pictures(batch, *((FIXED[name],) * 2 if name in FIXED else (height, width)))
    seen: dict[str, Any] = {}
    hooks = [
        module.register_forward_hook(
            lambda module, inputs, output, place=place: seen.update({place: output, f"{place}<": inputs})
        )
        for place, module in theirs.named_modules()
    ]
    expected = theirs([image.float() / 255 for image in pixels])
    for hook in hooks:
        hook.remove()
    padded = seen["transform"][0].tensors
    canvas = torch.zeros(batch, 3, *padded.shape[2:], dtype=torch.uint8)
    canvas[..., : pixels.shape[2], : pixels.shape[3]] = pixels
    images = Images(canvas, torch.tensor([list(pixels.shape[2:])] * batch))
    normalised = ours.normalise(images)
    yield Tap("pixels", normalised, padded, 1e-5)
    maps = ours.maps(normalised) if name in FIXED else ours.neck(ours.backbone(normalised))
    reference = list(seen["backbone"].values())
    for level, (mine, other) in enumerate(zip(maps, reference, strict=True)):
        yield Tap(f"map {level}", mine, other, 1e-4)
    if name in FIXED:
        deltas, logits = ours.predict(maps)
        yield Tap("offsets", deltas, seen["head"]["bbox_regression"], 1e-4)
        yield Tap("logits", logits, _background_last(seen["head"]["cls_logits"]), 1e-4)
    elif name.startswith("retinanet"):
        logits, deltas = ours.head(maps)
        yield Tap("offsets", torch.cat(deltas, 1), seen["head"]["bbox_regression"], 1e-4)
        yield Tap("logits", torch.cat(logits, 1), seen["head"]["cls_logits"][..., 1:], 1e-4)
    else:
        yield from _two_stage_taps(ours, images, maps, seen, expected)
    yield from _detection_taps(ours(images), expected, shift=1)


def _background_last(logits: Tensor) -> Tensor:
    return logits.roll(-1, dims=-1)


def _two_stage_taps(
    ours: Any, images: Images, maps: list[Tensor], seen: dict[str, Any], expected: list[dict[str, Tensor]]
) -> Iterator[Tap]:
    logits, deltas = ours.rpn(maps)
    for level, (score, box) in enumerate(zip(*seen["rpn.head"], strict=True)):
        yield Tap(f"objectness {level}", logits[level], score.permute(0, 2, 3, 1).flatten(1, 2), 1e-4)
        box = box.unflatten(1, (-1, 4)).permute(0, 3, 4, 1, 2).flatten(1, 3)
        yield Tap(f"anchor offsets {level}", deltas[level], box, 1e-4)
    proposals = ours.rpn.propose(logits, deltas, ours.rpn.anchors_of(maps), images.sizes, training=False)
    for b, boxes in enumerate(seen["rpn"][0]):
        mine = proposals.boxes[b][proposals.valid[b]]
        yield Tap(f"share of proposals, image {b}", *_share(mine, boxes, 0.01), 0.05)
    pooled = ours.config.pooled_levels
    scores, offsets = seen["roi_heads.box_predictor"]
    counts = [len(boxes) for boxes in seen["rpn"][0]]
    for b, (score, offset) in enumerate(zip(scores.split(counts), offsets.split(counts), strict=True)):
        table = FeatureTable.from_maps([fmap[b : b + 1] for fmap in maps[:pooled]], ours.strides[:pooled])
        regions = pool_regions(table, seen["rpn"][0][b][None], ours.config.head.pooling)
        mine, box = ours.head(regions)
        yield Tap(f"class logits, image {b}", mine[0], _background_last(score), 1e-4)
        yield Tap(f"box offsets, image {b}", box[0], offset.unflatten(1, (-1, 4))[:, 1:], 1e-4)
    if "roi_heads.mask_predictor" not in seen:
        return
    found = [len(image["labels"]) for image in expected]
    for b, masks in enumerate(seen["roi_heads.mask_predictor"].split(found)):
        boxes, labels = seen["roi_heads.mask_roi_pool<"][1][b], expected[b]["labels"]
        table = FeatureTable.from_maps([fmap[b : b + 1] for fmap in maps[:pooled]], ours.strides[:pooled])
        regions = pool_regions(table, boxes[None], ours.config.mask.pooling)
        own = masks[torch.arange(len(labels)), labels]
        yield Tap(f"mask logits, image {b}", ours.mask_head(regions, labels[None] - 1)[0], own, 1e-4)


def _detection_taps(found: Any, expected: list[dict[str, Tensor]], shift: int) -> Iterator[Tap]:
    for b, reference in enumerate(expected):
        valid = found.valid[b]
        assert len(reference["scores"]) > 10, "the comparison needs detections"
        yield Tap(f"scores, image {b}", found.scores[b, valid], reference["scores"], 1e-4)
        rows = torch.cat([found.labels[b, valid, None] + shift, found.boxes[b, valid]], 1)
        other = torch.cat([reference["labels"][:, None], reference["boxes"]], 1)
        yield Tap(f"share of detections, image {b}", *_share(rows, other, 0.05), 0.05)


def _share(mine: Tensor, reference: Tensor, within: float) -> tuple[Tensor, Tensor]:
    """Return the share of the reference's rows that are among ours, against 1: near ties may swap."""
    near = (mine[:, None] - reference).abs().amax(-1).amin(0) <= within
    return near.float().mean(), torch.tensor(1.0)
