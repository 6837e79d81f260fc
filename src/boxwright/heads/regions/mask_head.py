"""The mask branch: a small fully convolutional network on each pooled region (Mask R-CNN §3).

Symbols: B images, R regions an image, N = B R, n regions with work to do, P cells of the pooled side, m = 2 P the side
of a mask, C channels of the pyramid, K foreground classes, G ground-truth boxes.

A region takes half a billion multiply-adds, and few rows of the padded batch hold an object. A CPU therefore computes
those rows alone, inside one operator whose inputs and outputs have fixed shapes. The operator computes the loss and its
gradient together, a few regions at a time, and keeps no activations. A GPU computes all rows: to count those with an
object would synchronise with the host.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from itertools import pairwise
from typing import Any, Literal

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from boxwright.backbones.layers.norm import FrozenBatchNorm, make_norm
from boxwright.fields import Count, CountOrZero, NotNegative, config
from boxwright.geometry.constants import constant
from boxwright.geometry.paste import PasteConfig
from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.class_rows import tiled_rows

_ROWS = 32  # regions whose activations are in memory at once: 60 MB at the paper's widths


@config
class MaskHeadConfig:
    """Constants of Mask R-CNN §3 and figure 4 (right), with what its code adds."""

    pooling: RoIPoolingConfig = RoIPoolingConfig(size=14)
    """RoI pooling."""
    convs: Count = 4
    """Number of 3x3 convolutions before the transposed one."""
    channels: Count = 256
    """Their width."""
    norm: Literal["none", "frozen_bn"] = "none"
    """Norm after each convolution. "frozen_bn" is for loaded weights (torchvision's second Mask R-CNN). There is no
    live one: most of the regions computed on a GPU hold no object and would spoil its statistics."""
    class_agnostic: bool = False
    """Predict one mask for all classes instead of one per class."""
    target: Literal["binary", "soft"] = "binary"
    """Target of a cell: the mean of the ground truth's pixels thresholded at a half ("binary", detectron2; Detectron
    rasterises polygons to the same end), or that mean itself ("soft", torchvision)."""
    target_samples: CountOrZero = 0
    """Points averaged along each axis of a cell of the target; 0 for as many as it has pixels."""
    weight: NotNegative = 1.0
    """Weight of the loss."""
    paste: PasteConfig = PasteConfig()
    """Conversion of predicted masks to pixels of the image."""


class MaskHead(nn.Module):
    """Convolutions, a transposed one that doubles the side, and a 1x1 one to a map for each class."""

    def __init__(self, config: MaskHeadConfig, channels: int, num_classes: int) -> None:
        super().__init__()
        self.config = config
        widths = [channels] + [config.channels] * config.convs
        self.convs = nn.ModuleList(_hidden_conv(a, b, config.norm) for a, b in pairwise(widths))
        self.deconv = nn.ConvTranspose2d(config.channels, config.channels, 2, stride=2)
        self.predict = nn.Conv2d(config.channels, 1 if config.class_agnostic else num_classes, 1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
                if layer.bias is not None:
                    nn.init.zeros_(layer.bias)
        # As detectron2. Drawn like the layers before it, with few classes its first logits would be tens.
        nn.init.normal_(self.predict.weight, std=0.001)
        nn.init.zeros_(self.predict.bias)  # type: ignore[arg-type]

    @property
    def side(self) -> int:
        """Side of a predicted mask, m."""
        return 2 * self.config.pooling.size

    def class_rows(self) -> dict[str, Tensor]:
        """Class of each row of the layers that tell classes apart, see ``boxwright.heads.class_rows``."""
        if self.config.class_agnostic:
            return {}
        return tiled_rows(self, "predict", torch.arange(self.predict.out_channels))

    def forward(self, pooled: Tensor, labels: Tensor) -> Tensor:
        """Map ``[B, R, P, P, C]`` and labels ``[B, R]`` to float32 logits of each region's class, ``[B, R, m, m]``."""
        x = pooled.flatten(0, 1).permute(0, 3, 1, 2)
        for layer in self.convs:
            x = F.relu(F.conv2d(x, *_conv_parts(layer), padding=1), inplace=True)
        hidden = _doubled(x, self.deconv.weight, self.deconv.bias)
        logits = _own_maps(hidden, self.predict.weight, self.predict.bias, self._columns(labels).flatten())
        return _arranged(logits, pooled.shape[2]).float().unflatten(0, labels.shape)

    def masks(self, pooled: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
        """Compute mask probabilities ``[B, R, m, m]`` of each region's class; zero where not ``valid``."""
        if pooled.device.type != "cpu":
            return self(pooled, labels).sigmoid() * valid[..., None, None]
        pooled = _as_autocast(pooled)
        logits = mask_logits(pooled.flatten(0, 1), valid.flatten(), self._columns(labels).flatten(), self._parts())
        return logits.unflatten(0, labels.shape).sigmoid() * valid[..., None, None]

    @torch.no_grad()
    def targets(self, masks: Tensor, boxes: Tensor, truth: Tensor, positive: Tensor) -> Tensor:
        """Crop the target masks of ``positive`` regions, ``[B, R, m, m]``, from bool ``masks`` ``[B, G, H, W]``.

        ``truth`` ``[B, R]``: index of the object that each region is matched to.
        """
        config = self.config
        cropped = crop_masks(masks, boxes, truth, positive, self.side, config.target_samples, config.pooling.aligned)
        return cropped if config.target == "soft" else (cropped >= 0.5).float()

    def loss(self, pooled: Tensor, labels: Tensor, positive: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Compute L_mask, the mean binary cross-entropy on the positives' own maps (§3); 0 without positives."""
        count = positive.sum().clamp(min=1)
        if pooled.device.type == "cpu":
            columns = self._columns(torch.where(positive, labels, 0)).flatten()
            total = _MaskLoss.apply(
                _as_autocast(pooled).flatten(0, 1),
                positive.flatten(),
                columns,
                target.flatten(0, 1),
                torch.is_grad_enabled(),
                *self._parts(),
            )
        else:
            logits = self(pooled, torch.where(positive, labels, 0))
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((2, 3))
            total = torch.where(positive, entropy, 0.0).sum()
        return {"mask": self.config.weight * total / count}

    def _columns(self, labels: Tensor) -> Tensor:
        """Return the index of the map that each label reads."""
        return torch.zeros_like(labels) if self.config.class_agnostic else labels

    def _parts(self) -> list[Tensor]:
        """Return weight and bias of each layer, in order."""
        convs = [part for layer in self.convs for part in _conv_parts(layer)]
        return [*convs, *(part for layer in (self.deconv, self.predict) for part in (layer.weight, layer.bias))]  # type: ignore[list-item]


def _hidden_conv(inputs: int, outputs: int, norm: str) -> nn.Module:
    """Build a 3x3 convolution, as ``conv`` before ``norm`` if there is one."""
    if norm == "none":
        return nn.Conv2d(inputs, outputs, 3, padding=1)
    conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
    return nn.Sequential(OrderedDict[str, nn.Module](conv=conv, norm=make_norm(norm, outputs)))


def _conv_parts(layer: nn.Module) -> tuple[Tensor, Tensor]:
    """Return weight and bias of a hidden convolution, with its norm folded in."""
    conv = layer.get_submodule("conv") if isinstance(layer, nn.Sequential) else layer
    norm = layer.get_submodule("norm") if isinstance(layer, nn.Sequential) else None
    assert isinstance(conv, nn.Conv2d)
    if isinstance(norm, FrozenBatchNorm):
        scale, shift = norm.scale_and_shift()
        return conv.weight * scale[:, None, None, None], shift
    assert conv.bias is not None  # it has no norm, or one that has been folded into it
    return conv.weight, conv.bias


def _as_autocast(pooled: Tensor) -> Tensor:
    """Cast ``pooled`` to the precision of autocast, which the operators below do not see."""
    if torch.is_autocast_enabled("cpu"):
        return pooled.to(torch.get_autocast_dtype("cpu"))
    return pooled


def _pieces(rows: Tensor) -> list[Tensor]:
    """Split the indices of true ``rows`` into chunks."""
    return [piece for piece in rows.nonzero().squeeze(1).split(_ROWS) if len(piece)]


def _unfolded(weight: Tensor) -> Tensor:
    """Reshape the weight of a transposed 2x2 convolution of stride 2 to a matrix ``[4 C', C]``."""
    return weight.permute(2, 3, 1, 0).flatten(0, 2)


def _doubled(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Apply the transposed convolution and ReLU to ``[n, C, P, P]``: ``[n, P P 4, C']``, four rows for each cell."""
    assert bias is not None
    hidden = F.linear(x.permute(0, 2, 3, 1), _unfolded(weight), bias.repeat(4))
    return F.relu(hidden.reshape(x.shape[0], -1, weight.shape[1]), inplace=True)


def _own_maps(hidden: Tensor, weight: Tensor, bias: Tensor | None, column: Tensor) -> Tensor:
    """Apply the 1x1 convolution to the map ``column`` of each region only: ``[n, P P 4]``."""
    assert bias is not None
    return torch.matmul(hidden, weight.flatten(1)[column].unsqueeze(-1)).squeeze(-1) + bias[column].unsqueeze(1)


def _arranged(logits: Tensor, cells: int) -> Tensor:
    """Arrange ``[n, P P 4]``, four rows for each cell, as maps ``[n, m, m]``."""
    return logits.reshape(-1, cells, cells, 2, 2).transpose(2, 3).reshape(-1, 2 * cells, 2 * cells)


@torch.library.custom_op("boxwright::mask_logits", mutates_args=())
def mask_logits(pooled: Tensor, rows: Tensor, column: Tensor, parts: Sequence[Tensor]) -> Tensor:
    """Run the branch on the regions where ``rows``, bool ``[N]``, is true: float32 ``[N, m, m]``, zero elsewhere.

    ``pooled`` ``[N, P, P, C]``; ``column`` ``[N]``: the map that each region reads; ``parts``: weights and biases.
    """
    cells = pooled.shape[1]
    out = pooled.new_zeros((len(pooled), 2 * cells, 2 * cells), dtype=torch.float32)
    parts = [part.to(pooled.dtype) for part in parts]
    deconv, deconv_bias, predict, predict_bias = parts[-4:]
    with torch.autocast(pooled.device.type, enabled=False):
        for index in _pieces(rows):
            x = pooled[index].permute(0, 3, 1, 2)
            for weight, bias in zip(parts[:-4:2], parts[1:-4:2], strict=True):
                x = F.conv2d(x, weight, bias, padding=1).relu_()
            logits = _own_maps(_doubled(x, deconv, deconv_bias), predict, predict_bias, column[index])
            out[index] = _arranged(logits, cells).float()
    return out


@mask_logits.register_fake
def _(pooled: Tensor, rows: Tensor, column: Tensor, parts: Sequence[Tensor]) -> Tensor:
    side = 2 * pooled.shape[1]
    return pooled.new_empty((pooled.shape[0], side, side), dtype=torch.float32)


@torch.library.custom_op("boxwright::mask_loss", mutates_args=())
def mask_loss(
    pooled: Tensor, rows: Tensor, column: Tensor, target: Tensor, parts: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum each region's mean cross-entropy with ``target`` ``[N, m, m]`` over ``rows``, and compute its gradient.

    Other arguments are those of :func:`mask_logits`. Returns the loss, the gradient of ``pooled``, and the gradients of
    ``parts`` in one float32 vector.
    """
    slope = torch.zeros_like(pooled)
    sums = [torch.zeros_like(part, dtype=torch.float32) for part in parts]
    total = pooled.new_zeros((), dtype=torch.float32)
    cast = [part.to(pooled.dtype) for part in parts]
    with torch.autocast(pooled.device.type, enabled=False):
        for index in _pieces(rows):
            loss, steep, parted = _loss_and_slopes(pooled[index], column[index], target[index], cast)
            total += loss
            slope[index] = steep
            for whole, share in zip(sums, parted, strict=True):
                whole += share
    return total, slope, torch.cat([whole.flatten() for whole in sums])


@mask_loss.register_fake
def _(
    pooled: Tensor, rows: Tensor, column: Tensor, target: Tensor, parts: Sequence[Tensor]
) -> tuple[Tensor, Tensor, Tensor]:
    number = sum(part.numel() for part in parts)
    return (
        pooled.new_empty((), dtype=torch.float32),
        torch.empty_like(pooled),
        pooled.new_empty((number,), dtype=torch.float32),
    )


def _loss_and_slopes(
    pooled: Tensor, column: Tensor, target: Tensor, parts: Sequence[Tensor]
) -> tuple[Tensor, Tensor, list[Tensor]]:
    """Compute the loss of a few regions and the gradients of ``pooled`` and of each of ``parts``.

    The backward pass is written out, because autograd records nothing inside an operator.
    """
    layers = [pooled.permute(0, 3, 1, 2)]
    for weight, bias in zip(parts[:-4:2], parts[1:-4:2], strict=True):
        layers.append(F.conv2d(layers[-1], weight, bias, padding=1).relu_())
    deconv, deconv_bias, predict, predict_bias = parts[-4:]
    hidden = _doubled(layers[-1], deconv, deconv_bias)  # [n, P P 4, C']
    logits = _arranged(_own_maps(hidden, predict, predict_bias, column), pooled.shape[1]).float()
    loss = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2)).sum()

    cells, pixels = pooled.shape[1], logits[0].numel()
    gap = (logits.sigmoid() - target) / pixels
    gap = gap.reshape(-1, cells, 2, cells, 2).transpose(2, 3).reshape(len(pooled), 1, -1).to(pooled.dtype)
    by_predict = torch.zeros_like(predict.flatten(1)).index_add_(0, column, torch.bmm(gap, hidden).squeeze(1))
    by_predict_bias = torch.zeros_like(predict_bias).index_add_(0, column, gap.sum((1, 2)))

    by_hidden = gap.transpose(1, 2) * predict.flatten(1)[column].unsqueeze(1)
    by_hidden = by_hidden.mul_(hidden > 0).reshape(-1, 4 * deconv.shape[1])  # [n P P, 4 C']
    inputs = layers[-1].permute(0, 2, 3, 1).reshape(-1, deconv.shape[0])
    by_deconv = (by_hidden.T @ inputs).reshape(2, 2, deconv.shape[1], deconv.shape[0]).permute(3, 2, 0, 1)
    by_deconv_bias = by_hidden.sum(0).reshape(4, -1).sum(0)
    slope = (by_hidden @ _unfolded(deconv)).reshape(layers[-1].permute(0, 2, 3, 1).shape).permute(0, 3, 1, 2)

    slopes = [by_deconv, by_deconv_bias, by_predict.reshape(predict.shape), by_predict_bias]
    for number in range(len(layers) - 1, 0, -1):
        weight = parts[2 * number - 2]
        slope = slope * (layers[number] > 0)
        slope, by_weight, by_bias = torch.ops.aten.convolution_backward(
            slope, layers[number - 1], weight, [weight.shape[0]], [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True] * 3
        )
        slopes = [by_weight, by_bias, *slopes]
    return loss, slope.permute(0, 2, 3, 1), slopes


class _MaskLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, pooled: Tensor, rows: Tensor, column: Tensor, target: Tensor, learn: bool, *parts: Tensor
    ) -> Tensor:
        if not learn:
            logits = mask_logits(pooled, rows, column, list(parts))
            entropy = F.binary_cross_entropy_with_logits(logits, target, reduction="none").mean((1, 2))
            return torch.where(rows, entropy, 0.0).sum()
        total, slope, slopes = mask_loss(pooled, rows, column, target, list(parts))
        ctx.save_for_backward(slope, slopes)
        ctx.shapes = [part.shape for part in parts]
        ctx.dtypes = [part.dtype for part in parts]
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        slope, slopes = ctx.saved_tensors
        each = (slopes * grad).split([shape.numel() for shape in ctx.shapes])
        by_parts = [
            part.reshape(shape).to(dtype) for part, shape, dtype in zip(each, ctx.shapes, ctx.dtypes, strict=True)
        ]
        return (slope * grad.to(slope.dtype), None, None, None, None, *by_parts)


@torch.library.custom_op("boxwright::crop_masks", mutates_args=())
def crop_masks(
    masks: Tensor, boxes: Tensor, truth: Tensor, rows: Tensor, side: int, samples: int, aligned: bool
) -> Tensor:
    """RoIAlign of bool ``masks`` ``[B, G, H, W]``: of mask ``truth`` ``[B, R]`` in box ``[B, R, 4]``, where ``rows``.

    float32 ``[B, R, side, side]`` in 0..1, zero elsewhere. ``samples`` along each axis of a cell, 0 for its pixels.
    """
    out = boxes.new_zeros((*truth.shape, side, side), dtype=torch.float32)
    # By image: as floats the masks of a whole batch would take gigabytes.
    for b in range(len(boxes)):
        here = rows[b].nonzero().squeeze(1)
        used, which = truth[b, here].unique(return_inverse=True)
        regions = torch.cat([which.unsqueeze(1).float(), boxes[b, here].float()], dim=1)
        if len(here):
            planes = masks[b, used].unsqueeze(1).float()
            out[b, here] = torchvision.ops.roi_align(planes, regions, side, 1.0, samples, aligned).squeeze(1)
    return out


@crop_masks.register_kernel("cuda")
def _(masks: Tensor, boxes: Tensor, truth: Tensor, rows: Tensor, side: int, samples: int, aligned: bool) -> Tensor:
    if masks.shape[1] == 0:
        return boxes.new_zeros((*truth.shape, side, side), dtype=torch.float32)
    pixel = constant([0, 0, 1, 1], boxes.device)
    boxes = torch.where(rows.unsqueeze(-1), boxes.float(), pixel)  # almost no work for rows without an object
    regions = torch.cat([truth.unsqueeze(-1).float(), boxes], dim=2)
    cropped = [
        torchvision.ops.roi_align(planes.unsqueeze(1).float(), region, side, 1.0, samples, aligned).squeeze(1)
        for planes, region in zip(masks, regions, strict=True)
    ]
    return torch.stack(cropped) * rows[..., None, None]


@crop_masks.register_fake
def _(masks: Tensor, boxes: Tensor, truth: Tensor, rows: Tensor, side: int, samples: int, aligned: bool) -> Tensor:
    return boxes.new_empty((*truth.shape, side, side), dtype=torch.float32)
