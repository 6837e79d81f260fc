"""Weights of classes: rows by label, by several targets, background and ignored rows, and that gradients scale."""

import pytest
import torch
import torch.nn.functional as F

from boxwright.heads.class_weights import ClassWeights
from boxwright.heads.losses import dense_focal_loss, softmax_cross_entropy

WEIGHTS = torch.tensor([2.0, 1.0, 0.5])


@pytest.fixture
def weights() -> ClassWeights:
    made = ClassWeights()
    made.set(WEIGHTS)
    return made


def test_nothing_is_weighted_at_first() -> None:
    made, losses = ClassWeights(), torch.ones(2)
    assert made(losses, torch.tensor([0, 1])) is losses
    assert made.of(torch.tensor([0])) is None
    assert made.state_dict() == {}


def test_rows_have_the_weight_of_their_class(weights: ClassWeights) -> None:
    labels = torch.tensor([[0, 1, 2], [3, -1, 0]])  # 3 is background, -1 ignored
    assert weights(torch.full((2, 3), 4.0), labels).tolist() == [[8.0, 4.0, 2.0], [4.0, 4.0, 8.0]]
    assert weights.state_dict() == {}
    weights.set(None)
    assert weights.of(labels) is None


def test_a_row_of_several_classes_has_the_largest_weight(weights: ClassWeights) -> None:
    targets = torch.tensor([[1.0, 0, 1], [0, 0, 1], [0, 0, 0], [0, 1, 1]])
    assert weights(torch.ones(4), targets).tolist() == [2.0, 0.5, 1.0, 1.0]


@pytest.mark.parametrize("loss", ["softmax", "focal", "sigmoid"])
def test_the_gradient_of_a_row_scales_with_its_weight(loss: str, weights: ClassWeights) -> None:
    logits = torch.randn(5, 4 if loss == "softmax" else 3, requires_grad=True)
    labels = torch.tensor([0, 1, 2, 0, 3])
    targets = F.one_hot(labels, 4)[:, :3].float()

    def gradient(weighted: ClassWeights) -> torch.Tensor:
        if loss == "softmax":
            total = weighted(softmax_cross_entropy(logits, labels), labels).sum()
        elif loss == "focal":
            total = dense_focal_loss(logits, labels, 0.25, 2.0, weight=weighted.of(labels))
        else:
            each = F.binary_cross_entropy_with_logits(logits, targets, reduction="none").sum(-1)
            total = weighted(each, targets).sum()
        return torch.autograd.grad(total, logits)[0]

    factor = torch.tensor([2.0, 1.0, 0.5, 2.0, 1.0]).unsqueeze(1)
    torch.testing.assert_close(gradient(weights), factor * gradient(ClassWeights()))
