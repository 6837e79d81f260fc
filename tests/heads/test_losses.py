"""Classification and box losses: computed values, gradients against autograd, and empty images."""

import math

import pytest
import torch
import torch.nn.functional as F
import torchvision

from boxwright.anchors.coder import BoxCoder
from boxwright.heads.losses import (
    box_regression_loss,
    decoded_box_loss,
    dense_focal_loss,
    softmax_cross_entropy,
)
from boxwright.testing import forbid_host_sync

OVERLAPS = ["iou", "giou", "diou", "ciou"]


def logits(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0)).mul(4).requires_grad_()


def plain_focal(x: torch.Tensor, target: torch.Tensor, alpha: float | None, gamma: float) -> torch.Tensor:
    """Compute RetinaNet's eq. 5."""
    p_t = torch.where(target > 0, x.sigmoid(), 1 - x.sigmoid())
    weight = 1.0 if alpha is None else torch.where(target > 0, alpha, 1 - alpha)
    return weight * (1 - p_t) ** gamma * F.binary_cross_entropy_with_logits(x, target, reduction="none")


@pytest.mark.parametrize(
    ("logit", "target", "loss"),
    [
        (0.0, 1, 0.0433217), (0.0, 0, 0.1299651), (2.0, 1, 0.000450891), (2.0, 0, 1.2375586), (-2.0, 1, 0.4125195),
        (-4.59512, 0, 7.53775e-7), (-4.59512, 1, 1.1283818),
    ],
)  # fmt: skip
def test_focal_loss_of_one_logit(logit: float, target: int, loss: float) -> None:
    found = dense_focal_loss(torch.tensor([[logit]]), torch.tensor([1 - target]), 0.25, 2.0)
    assert found.item() == pytest.approx(loss, rel=1e-5, abs=1e-6)


def test_focal_loss_without_gamma_or_alpha_is_cross_entropy() -> None:
    x, target = logits(5, 1), torch.tensor([0.0, 1, 1, 0, 1])
    expected = F.binary_cross_entropy_with_logits(x.squeeze(1), target, reduction="sum")
    torch.testing.assert_close(dense_focal_loss(x, 1 - target.long(), None, 0.0), expected)


@pytest.mark.parametrize("logit", [-200.0, -90, 90, 200])
@pytest.mark.parametrize("target", [0, 1])
def test_confident_logits_have_finite_losses_and_gradients(logit: float, target: int) -> None:
    x, labels = torch.tensor([[float(logit)]], requires_grad=True), torch.tensor([1 - target])
    for gamma in (0.0, 0.5, 2.0):
        for quality in (None, torch.tensor([0.7 * target])):
            loss = dense_focal_loss(x, labels, 0.25, gamma, quality)
            (gradient,) = torch.autograd.grad(loss, x)
            assert loss.isfinite()
            assert gradient.isfinite().all()
    wrong = abs(logit) if (logit > 0) != target else 0.0
    assert dense_focal_loss(x, labels, None, 2.0).item() == pytest.approx(wrong)


@pytest.mark.parametrize("alpha", [None, 0.25])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 1.5, 2.0, 5.0])
@pytest.mark.parametrize("with_quality", [False, True])
def test_focal_loss_and_gradient_match_the_formula(alpha: float | None, gamma: float, with_quality: bool) -> None:
    mine, theirs = logits(2, 300, 5), logits(2, 300, 5)
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(-1, 6, (2, 300), generator=generator)  # -1 ignored, 5 background
    quality = torch.rand((2, 300), generator=generator) if with_quality else None
    target = F.one_hot(labels.clamp(min=0), 6)[..., :5].float()
    expected = plain_focal(theirs, target, alpha, gamma)
    if quality is not None:
        entropy = F.binary_cross_entropy_with_logits(theirs, quality.unsqueeze(-1).expand(-1, -1, 5), reduction="none")
        at_label = (theirs.sigmoid() - quality.unsqueeze(-1)).abs() ** gamma * entropy
        expected = torch.where(target > 0, at_label, expected)
    expected = (expected * (labels >= 0).unsqueeze(-1)).sum()
    with forbid_host_sync():
        loss = dense_focal_loss(mine, labels, alpha, gamma, quality)
        (loss * 3).backward()
    (expected * 3).backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(mine.grad, theirs.grad, atol=1e-5, rtol=1e-4)
    assert mine.grad is not None
    assert not mine.grad[labels < 0].any()


def test_dense_focal_loss_in_pieces_is_the_whole() -> None:
    x = logits(3, 20_000, 7)  # two pieces of 2^18 entries
    labels = torch.randint(-1, 8, (3, 20_000), generator=torch.Generator().manual_seed(1))
    loss = dense_focal_loss(x, labels, 0.25, 2.0)
    (gradient,) = torch.autograd.grad(loss, x)
    target = F.one_hot(labels.clamp(min=0), 8)[..., :7].float() * (labels >= 0).unsqueeze(-1)
    expected = torchvision.ops.sigmoid_focal_loss(x, target, 0.25, 2.0) * (labels >= 0).unsqueeze(-1)
    torch.testing.assert_close(loss, expected.sum(), rtol=1e-5, atol=0)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected.sum(), x)[0], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("with_quality", [False, True])
def test_rows_of_the_dense_focal_loss_can_be_weighed(with_quality: bool) -> None:
    x, labels = logits(2, 4, 3), torch.tensor([[0, 3, -1, 2], [1, 2, 3, 0]])
    quality = torch.linspace(0.1, 0.9, 8).reshape(2, 4) if with_quality else None
    weight = torch.tensor([2.0, 0.5]).unsqueeze(1).expand(2, 4)
    loss = dense_focal_loss(x, labels, 0.25, 2.0, quality, weight)
    parts = [dense_focal_loss(x[i], labels[i], 0.25, 2.0, None if quality is None else quality[i]) for i in (0, 1)]
    expected = 2 * parts[0] + 0.5 * parts[1]
    torch.testing.assert_close(loss, expected)
    for mine, theirs in zip(torch.autograd.grad(loss, x), torch.autograd.grad(expected, x), strict=True):
        torch.testing.assert_close(mine, theirs)


@pytest.mark.parametrize("kind", ["smooth_l1", *OVERLAPS])
def test_boxes_can_be_weighed(kind: str) -> None:
    reference, target = torch.tensor([[0.0, 0, 20, 20]]).expand(2, 4), torch.tensor([[4.0, 2, 18, 30], [0, 5, 9, 20]])
    mask, weight = torch.tensor([True, True]), torch.tensor([3.0, 0.5])

    def loss(rows: slice, weight: torch.Tensor | float) -> float:
        part = (torch.zeros(2, 4)[rows], reference[rows], target[rows], mask[rows])
        return box_regression_loss(*part, BoxCoder(), kind, 1.0, weight).item()  # type: ignore[arg-type]

    assert loss(slice(0, 2), weight) == pytest.approx(3 * loss(slice(0, 1), 1.0) + 0.5 * loss(slice(1, 2), 1.0))


def test_dense_focal_loss_takes_permuted_and_half_precision_logits() -> None:
    x, labels = logits(2, 5, 4, 3), torch.tensor([1, 5, -1]).expand(2, 4, 3)
    loss = dense_focal_loss(x.permute(0, 2, 3, 1), labels, 0.25, 2.0)
    loss.backward()
    assert x.grad is not None
    assert x.grad.shape == x.shape
    assert not x.grad[..., 2].any()
    half = x.detach().bfloat16().requires_grad_()
    rough = dense_focal_loss(half.permute(0, 2, 3, 1), labels, 0.25, 2.0)
    rough.backward()
    assert rough.dtype == torch.float32
    assert half.grad is not None
    assert half.grad.dtype == torch.bfloat16
    assert rough.item() == pytest.approx(loss.item(), rel=1e-2)


def test_dense_focal_loss_where_all_is_ignored_or_nothing_is_there() -> None:
    x = logits(2, 3, 4)
    loss = dense_focal_loss(x, torch.full((2, 3), -1), 0.25, 2.0)
    loss.backward()
    assert loss.item() == 0
    assert x.grad is not None
    assert not x.grad.any()
    assert dense_focal_loss(logits(2, 0, 4), torch.zeros(2, 0).long(), 0.25, 2.0).item() == 0


def test_quality_focal_loss_is_zero_where_the_score_is_the_quality() -> None:
    found = dense_focal_loss(torch.zeros(1, 1), torch.zeros(1).long(), None, 1.5, torch.full((1,), 0.5))
    assert found.item() == 0


@pytest.mark.parametrize("quality", [None, torch.tensor([0.3, 0.6, 0.9])])
def test_focal_loss_compiles_to_one_graph(quality: torch.Tensor | None) -> None:
    labels = torch.tensor([0, 3, -1])

    def loss(x: torch.Tensor) -> torch.Tensor:
        return dense_focal_loss(x, labels, 0.25, 2.0, quality)

    plain, compiled = logits(3, 3), logits(3, 3)
    loss(plain).backward()
    torch.compile(loss, fullgraph=True, backend="aot_eager")(compiled).backward()
    torch.testing.assert_close(compiled.grad, plain.grad)


def test_cross_entropy_of_every_row() -> None:
    x = torch.tensor([[[0.0, 0, 0], [math.log(2), 0, 0]]])
    found = softmax_cross_entropy(x, torch.tensor([[2, 0]]))
    assert found.tolist() == [pytest.approx([math.log(3), math.log(2)])]
    assert softmax_cross_entropy(x.half(), torch.tensor([[2, 0]])).dtype == torch.float32


@pytest.mark.parametrize("kind", OVERLAPS)
def test_overlap_losses_of_decoded_boxes(kind: str) -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 10], [math.inf, 0, 10, math.nan]], requires_grad=True)
    target = torch.tensor([[0.0, 0, 10, 10], [0, 0, 10, 5], [0, 0, 0, 0]])
    loss = decoded_box_loss(boxes, target, torch.tensor([True, True, False]), kind)  # type: ignore[arg-type]
    loss.sum().backward()
    angle = 4 / math.pi**2 * (math.atan(2) - math.pi / 4) ** 2
    shift = 2.5**2 / 200
    half = {"iou": 0.5, "giou": 0.5, "diou": 0.5 + shift, "ciou": 0.5 + shift + angle**2 / (0.5 + angle)}[kind]
    assert loss.tolist() == pytest.approx([0, half, 0], abs=1e-6)
    assert boxes.grad is not None
    assert boxes.grad.isfinite().all()
    assert not boxes.grad[2].any()


@pytest.mark.parametrize("kind", ["smooth_l1", *OVERLAPS])
def test_box_loss_falls_along_its_gradient_and_is_zero_without_objects(kind: str) -> None:
    reference, target = torch.tensor([[0.0, 0, 20, 20]]), torch.tensor([[4.0, 2, 18, 30]])
    coder, yes, no = BoxCoder(), torch.tensor([True]), torch.tensor([False])

    def loss(deltas: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return box_regression_loss(deltas, reference, target, mask, coder, kind, 1.0)  # type: ignore[arg-type]

    deltas = torch.zeros(1, 4, requires_grad=True)
    (gradient,) = torch.autograd.grad(loss(deltas, yes), deltas)
    assert loss(deltas - 0.01 * gradient, yes) < loss(deltas, yes)
    assert loss(coder.encode(reference, target), yes).item() == pytest.approx(0, abs=1e-6)
    wild = torch.full((1, 4), 1e4, requires_grad=True)
    unclamped = BoxCoder(clamp=None)  # decodes to infinity
    nothing = box_regression_loss(wild, reference, target, no, unclamped, kind, 1.0)  # type: ignore[arg-type]
    assert nothing.item() == 0
    assert not torch.autograd.grad(nothing, wild)[0].any()
