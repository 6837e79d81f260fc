"""Box and classification losses, computed in float32 for inputs of any floating-point type.

Symbols: K foreground classes, C columns of a softmax (K + 1), s = sigmoid(logit).

A dense head has up to 100,000 anchors times 80 classes in an image. A focal loss that autograd differentiates would
allocate a dozen tensors of that size. The focal loss here computes its derivative together with its value, in chunks
that fit the processor's cache, and keeps only the derivative.
"""

from __future__ import annotations

from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from boxwright.anchors.coder import Coder
from boxwright.anchors.matching.matcher import Matches
from boxwright.anchors.sampler import hard_negatives
from boxwright.geometry.boxes import complete_iou, distance_iou, generalized_iou, pair_iou

OverlapLoss = Literal["iou", "giou", "diou", "ciou"]
BoxLoss = Literal["smooth_l1", "iou", "giou", "diou", "ciou"]


def smooth_l1(x: Tensor, beta: float) -> Tensor:
    """Smooth L1: ``x^2 / (2 beta)`` where ``|x| < beta``, else ``|x| - beta / 2``; L1 for a ``beta`` of 0.

    Fast R-CNN eq. 3 has beta 1. The Caffe code states ``sigma``, and beta is ``1 / sigma^2``.
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
    """Sum of :func:`box_regression_losses`, each multiplied by its ``weight``, a shape that broadcasts to ``mask``.

    The sum is exactly 0, and so is its gradient, if ``mask`` selects nothing.
    """
    losses = box_regression_losses(deltas, reference, target, mask, coder, kind, beta)
    return torch.where(mask, weight * losses, 0.0).sum()


def box_regression_losses(
    deltas: Tensor, reference: Tensor, target: Tensor, mask: Tensor, coder: Coder, kind: BoxLoss, beta: float
) -> Tensor:
    """Loss ``[...]`` of predicted ``deltas`` ``[..., 4]`` at ``reference`` boxes against ``target`` boxes.

    "smooth_l1" compares encoded deltas and sums over the four. The other kinds are those of :func:`decoded_box_loss`.
    Loss and gradient are 0 outside ``mask``.
    """
    if kind != "smooth_l1":
        # Deltas outside the mask may decode to infinity, and 0 times its gradient would be NaN.
        deltas = torch.where(mask.unsqueeze(-1), deltas.float(), 0.0)
        return decoded_box_loss(coder.decode(reference, deltas), target, mask, kind)
    # Rows outside the mask hold arbitrary boxes. The reference in their place keeps infinities out of the gradient.
    target = torch.where(mask.unsqueeze(-1), target, reference)
    loss = smooth_l1(deltas.float() - coder.encode(reference, target), beta).sum(-1)
    return torch.where(mask, loss, 0.0)


def decoded_box_loss(boxes: Tensor, target: Tensor, mask: Tensor, kind: OverlapLoss) -> Tensor:
    """One minus the overlap of ``boxes`` ``[..., 4]`` with their ``target`` boxes: ``[...]``.

    ``kind``: "iou", "giou" (Rezatofighi et al. 2019), "diou" or "ciou" (Zheng et al. 2020). Loss and gradient are 0
    outside ``mask``.
    """
    measure = {"iou": pair_iou, "giou": generalized_iou, "diou": distance_iou, "ciou": complete_iou}[kind]
    chosen = mask.unsqueeze(-1)
    overlap = measure(torch.where(chosen, boxes.float(), 0.0), torch.where(chosen, target, 0.0))
    return torch.where(mask, 1 - overlap, 0.0)


def softmax_cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Softmax cross-entropy of each row of ``logits`` ``[..., C]`` with ``labels`` int64 ``[...]`` in 0..C-1."""
    flat = F.cross_entropy(logits.flatten(0, -2).float(), labels.flatten(), reduction="none")
    return flat.reshape(labels.shape)


def mined_cross_entropy(ce: Tensor, matches: Matches, ratio: float, minimum: int) -> Tensor:
    """Sum of the cross-entropies ``ce`` ``[B, N]`` of positives and hard negatives (SSD §2.2).

    ``ratio``, ``minimum``: number of hard negatives; see :func:`hard_negatives`.
    """
    hard = hard_negatives(ce.detach(), matches, ratio, minimum=minimum)
    return torch.where(matches.positive | hard, ce, 0.0).sum()


def dense_focal_loss(
    logits: Tensor,
    labels: Tensor,
    alpha: float | None,
    gamma: float,
    quality: Tensor | None = None,
    weight: Tensor | None = None,
) -> Tensor:
    """Sum of the focal loss of ``logits`` ``[..., K]`` (RetinaNet §3, eq. 5).

    ``labels`` ``[...]``: the class of each row, K for background, -1 to ignore it. ``gamma`` 0 gives cross-entropy.
    ``alpha`` weights the entry at the label and ``1 - alpha`` all others; None gives all a weight of 1. With a
    ``quality`` ``[...]`` in 0..1, the entry at the label has the quality focal loss instead (GFL eq. 5),
    ``|quality - s|^gamma`` times the cross-entropy with the quality, and ``alpha`` does not weight it.
    ``weight`` ``[...]`` multiplies the loss of each row. No gradient flows to ``quality`` or ``weight``, and the
    gradient is not differentiable.
    """
    return _DenseFocalLoss.apply(logits, labels, quality, weight, alpha, gamma)  # type: ignore[no-any-return]


def _power(base: Tensor, exponent: float) -> Tensor:
    """``base ** exponent`` for a base in 0..1, without the slow general power for the common exponents."""
    if exponent == 0:
        return torch.ones_like(base)
    if exponent == 1:
        return base
    return base * base if exponent == 2 else base.pow(exponent)


def _against_zero(x: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Focal loss ``s^gamma softplus(x)`` of float32 logits with target 0, and its derivative.

    For a target of 1 pass ``-x`` and negate the derivative.
    """
    s, loss = torch.sigmoid(x), F.softplus(x)
    weight = _power(s, gamma)
    # d/dx = s^gamma (gamma (1 - s) softplus + s). This form has no division, so it is finite at s = 0.
    slope = torch.addcmul(loss, loss, s, value=-1).mul_(gamma).add_(s).mul_(weight)
    return loss.mul_(weight), slope


def _against_quality(x: Tensor, quality: Tensor, gamma: float) -> tuple[Tensor, Tensor]:
    """Quality focal loss of float32 logits, and its derivative."""
    s = torch.sigmoid(x)
    entropy = F.softplus(x) - x * quality
    gap = s - quality
    size = gap.abs()
    weight = _power(size, gamma)
    # For gamma < 1 the power's derivative is infinite at a gap of 0, where the sign makes the product 0.
    steep = gamma * _power(size.clamp(min=1e-6), gamma - 1) * gap.sign() * s * (1 - s)
    return weight * entropy, steep * entropy + weight * gap


class _DenseFocalLoss(torch.autograd.Function):
    """Sum over all entries with target 0, then replace the terms of the entries at the labels."""

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
        for chunk, factor, target in zip(*_in_chunks(rows, off * kept, slope), strict=True):
            loss, steep = _against_zero(chunk.float(), gamma)
            sums.append(loss.sum(-1).dot(factor))
            target.copy_(steep.mul_(factor.unsqueeze(-1)))
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


def _in_chunks(rows: Tensor, *others: Tensor) -> list[tuple[Tensor, ...]]:
    """Split each tensor along its first dimension so that a chunk of ``rows`` has at most 1 MB, on a GPU 64 MB.

    Under a compiler, which fuses the operations, nothing is split.
    """
    if torch.compiler.is_compiling():
        return [(rows,), *((other,) for other in others)]
    count = max(1, (2**18 if rows.device.type == "cpu" else 2**24) // rows.shape[1])
    return [tensor.split(count) for tensor in (rows, *others)]
