"""Losses of boxes and classes. All are computed in float32, whatever they are given.

Symbols: K foreground classes, C columns of a softmax (K + 1), s = sigmoid(logit).

A dense head has up to 100,000 anchors times 80 classes an image. Written as a formula for autograd to differentiate, a
focal loss on them writes and keeps a dozen tensors of that size. The ones below work out the derivative together with
the loss, in pieces that stay in the processor's cache, and keep that derivative alone.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.anchors.coder import Coder
from boxwright.geometry.boxes import complete_iou, distance_iou, generalized_iou, pair_iou

OverlapLoss = Literal["iou", "giou", "diou", "ciou"]
BoxLoss = Literal["smooth_l1", "iou", "giou", "diou", "ciou"]


def smooth_l1(x: Tensor, beta: float) -> Tensor:
    """Huber's loss over ``beta``: ``x^2 / (2 beta)`` within ``beta``, ``|x| - beta / 2`` outside; L1 for beta 0.

    ``beta = 1 / sigma^2`` of the Caffe code (Fast R-CNN eq. 3 has beta 1).
    """
    size = x.abs()
    if beta == 0:
        return size
    return torch.where(size < beta, 0.5 * size * size / beta, size - 0.5 * beta)


def box_regression_loss(
    deltas: Tensor,
    reference: Tensor,
    target: Tensor,
    mask: Tensor,
    coder: Coder,
    kind: BoxLoss,
    beta: float,
    weight: Tensor | float = 1.0,
) -> Tensor:
    """Sum of :func:`box_regression_losses`, each times its ``weight``, of a shape that fits ``mask``.

    Exactly 0, with a gradient of 0, where nothing is selected.
    """
    losses = box_regression_losses(deltas, reference, target, mask, coder, kind, beta)
    return torch.where(mask, weight * losses, 0.0).sum()


def box_regression_losses(
    deltas: Tensor, reference: Tensor, target: Tensor, mask: Tensor, coder: Coder, kind: BoxLoss, beta: float
) -> Tensor:
    """Loss ``[...]`` of predicted ``deltas`` ``[..., 4]`` at ``reference`` boxes against ``target`` boxes; 0 outside
    ``mask``, gradient included.

    "smooth_l1" on coded offsets, summed over the four; the others as :func:`decoded_box_loss`.
    """
    if kind != "smooth_l1":
        # Deltas outside the mask may decode to infinity, whose gradient a factor of 0 would make NaN.
        deltas = torch.where(mask.unsqueeze(-1), deltas.float(), 0.0)
        return decoded_box_loss(coder.decode(reference, deltas), target, mask, kind)
    # Rows outside the mask hold arbitrary boxes; swap them for the reference so that no infinity meets the zero below.
    target = torch.where(mask.unsqueeze(-1), target, reference)
    loss = smooth_l1(deltas.float() - coder.encode(reference, target), beta).sum(-1)
    return torch.where(mask, loss, 0.0)


def decoded_box_loss(boxes: Tensor, target: Tensor, mask: Tensor, kind: OverlapLoss) -> Tensor:
    """1 - overlap of ``boxes`` ``[..., 4]`` with their ``target``, ``[...]``; 0 outside ``mask``, gradient included.

    ``kind``: "iou", "giou" (Rezatofighi et al. 2019), "diou" or "ciou" (Zheng et al. 2020).
    """
    measure = {"iou": pair_iou, "giou": generalized_iou, "diou": distance_iou, "ciou": complete_iou}[kind]
    chosen = mask.unsqueeze(-1)
    overlap = measure(torch.where(chosen, boxes.float(), 0.0), torch.where(chosen, target, 0.0))
    return torch.where(mask, 1 - overlap, 0.0)


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Log loss of ``labels`` int64 ``[...]`` in 0..C-1 under ``logits`` ``[..., C]``, one value each: ``[...]``."""
    flat = F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), reduction="none")
    return flat.reshape(labels.shape)


def sigmoid_focal_loss(logits: Tensor, target: Tensor, alpha: float | None, gamma: float) -> Tensor:
    """Focal loss of each logit against its ``target``, 0 or 1, both ``[...]`` (RetinaNet §3, eq. 5).

    ``alpha`` weighs the ones and ``1 - alpha`` the zeros; None weighs neither. ``gamma`` 0 is cross-entropy. Where
    labels are at hand, :func:`dense_focal_loss` needs no target as large as the logits.
    """
    return _FocalLoss.apply(logits, target, alpha, gamma)  # type: ignore[no-any-return]


def quality_focal_loss(logits: Tensor, quality: Tensor, gamma: float) -> Tensor:
    """``|quality - s|^gamma`` times the cross-entropy with a ``quality`` in 0..1, both ``[...]`` (GFL eq. 5)."""
    return _QualityFocalLoss.apply(logits, quality, gamma)  # type: ignore[no-any-return]


def dense_focal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float | None,
    gamma: float,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Summed focal loss of ``logits`` ``[..., K]`` under ``labels`` ``[...]``: a class, K for background, -1 to ignore.

    The same as :func:`sigmoid_focal_loss` against ones at the labels, without that target, and without a graph. With a
    ``quality`` ``[...]`` in 0..1 the entry at the label is :func:`quality_focal_loss` instead, unweighted by ``alpha``.
    ``weight`` ``[...]`` multiplies the loss of each row. Not differentiable in ``quality`` and ``weight``, nor twice.
    """
    return _DenseFocalLoss.apply(logits, labels, quality, weight, alpha, gamma)  # type: ignore[no-any-return]


def _power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent`` for a base of 0..1; the common exponents without the slow general power."""
    if exponent == 0:
        return torch.ones_like(base)
    if exponent == 1:
        return base
    return base * base if exponent == 2 else base.pow(exponent)


def _against_zero(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss ``s^gamma softplus(x)`` of float32 logits whose target is 0, and its derivative.

    A target of 1 is the mirror image: take ``-x``, and the derivative's sign changes.
    """
    s, loss = torch.sigmoid(x), F.softplus(x)
    weight = _power(s, gamma)
    # d/dx = s^gamma (gamma (1 - s) softplus + s): no division, so it holds where s is 0.
    slope = torch.addcmul(loss, loss, s, value=-1).mul_(gamma).add_(s).mul_(weight)
    return loss.mul_(weight), slope


def _against_quality(x: Tensor, quality: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Quality focal loss of float32 logits, and its derivative."""
    s = torch.sigmoid(x)
    entropy = F.softplus(x) - x * quality
    gap = s - quality
    size = gap.abs()
    weight = _power(size, gamma)
    # At no gap the first factor of the weight's derivative may be infinite (gamma < 1) but the sign is 0.
    steep = gamma * _power(size.clamp(min=1e-6), gamma - 1) * gap.sign() * s * (1 - s)
    return weight * entropy, steep * entropy + weight * gap


class _FocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, target: Tensor, alpha: float | None, gamma: float) -> Tensor:
        sign = 1 - 2 * target.float()
        loss, slope = _against_zero(logits.float() * sign, gamma)
        slope = slope * sign
        if alpha is not None:
            balance = torch.where(target > 0.5, alpha, 1 - alpha)
            loss, slope = loss * balance, slope * balance
        ctx.save_for_backward(slope.to(logits.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return (slope * grad).to(slope.dtype), None, None, None


class _QualityFocalLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, logits: Tensor, quality: Tensor, gamma: float) -> Tensor:
        loss, slope = _against_quality(logits.float(), quality.float(), gamma)
        ctx.save_for_backward(slope.to(logits.dtype))
        return loss

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return (slope * grad).to(slope.dtype), None, None


class _DenseFocalLoss(torch.autograd.Function):
    """Every entry as if its target were 0, row by row; then the entries at the labels are put right."""

    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor,
        labels: Tensor,
        quality: Tensor | None,
        weight: Tensor | None,
        alpha: float | None,
        gamma: float,
    ) -> Tensor:
        rows, classes = logits.flatten(0, -2), logits.shape[-1]
        labels = labels.flatten()
        kept = (labels >= 0).float()  # [n]
        if weight is not None:
            kept = kept * weight.flatten()
        off, on = (1.0, 1.0) if alpha is None else (1 - alpha, alpha)

        slope, sums = torch.empty_like(rows, memory_format=torch.contiguous_format), []
        for piece, factor, place in zip(*_in_pieces(rows, off * kept, slope), strict=True):
            loss, steep = _against_zero(piece.float(), gamma)
            sums.append(loss.sum(-1).dot(factor))
            place.copy_(steep.mul_(factor.unsqueeze(-1)))
        total = torch.stack(sums).sum()

        positive = (labels >= 0) & (labels < classes)
        column = torch.where(positive, labels, 0).unsqueeze(-1)
        x = rows.gather(1, column).squeeze(-1).float()
        as_zero, _ = _against_zero(x, gamma)
        if quality is None:
            here, steep = _against_zero(-x, gamma)
            here, steep = on * here, -on * steep
        else:
            here, steep = _against_quality(x, quality.flatten().float(), gamma)
        total = total + torch.where(positive, kept * (here - off * as_zero), 0.0).sum()
        steep = torch.where(positive, (kept * steep).to(slope.dtype), slope.gather(1, column).squeeze(-1))
        ctx.save_for_backward(slope.scatter_(1, column, steep.unsqueeze(-1)).reshape(logits.shape))
        return total

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        (slope,) = ctx.saved_tensors
        return slope * grad.to(slope.dtype), None, None, None, None, None


def _in_pieces(rows: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Each tensor cut along its first side where ``rows`` reaches 1 MB, on a GPU 64 MB; whole if a compiler fuses."""
    if torch.compiler.is_compiling():
        return [(rows,), *((other,) for other in others)]
    count = max(1, (2**18 if rows.device.type == "cpu" else 2**24) // rows.shape[1])
    return [tensor.split(count) for tensor in (rows, *others)]
