"""The mask branch: its operators against plain layers and autograd, its targets against torchvision's."""

from dataclasses import replace

import pytest
import torch
import torchvision
from torch import Tensor, nn
from torch.nn import functional as F

from boxwright.geometry.pooling.roi_pooling import RoIPoolingConfig
from boxwright.heads.regions.mask_head import MaskHead, MaskHeadConfig
from boxwright.structures import InputError
from tests.support.two_stage_cases import plain_logits

TINY = MaskHeadConfig(pooling=RoIPoolingConfig(size=4), convs=2, channels=6)
CLASSES = 3


def head(config: MaskHeadConfig = TINY) -> MaskHead:
    torch.manual_seed(0)
    built = MaskHead(config, 5, CLASSES)
    for parameter in built.parameters():
        nn.init.normal_(parameter, std=0.3)
    return built


def regions(batch: int = 2, count: int = 40) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Pooled ``[B, R, 4, 4, 5]``, labels, which are positive, targets ``[B, R, 8, 8]``."""
    generator = torch.Generator().manual_seed(1)
    pooled = torch.randn((batch, count, 4, 4, 5), generator=generator)
    labels = torch.randint(0, CLASSES, (batch, count), generator=generator)
    positive = torch.rand((batch, count), generator=generator) < 0.6
    return pooled, labels, positive, torch.rand((batch, count, 8, 8), generator=generator)


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_logits_are_those_of_the_layers(class_agnostic: bool) -> None:
    module = head(replace(TINY, class_agnostic=class_agnostic))
    pooled, labels, valid, _ = regions()
    column = torch.zeros_like(labels) if class_agnostic else labels
    expected = plain_logits(module, pooled)[torch.arange(80), column.flatten()].unflatten(0, (2, 40))
    torch.testing.assert_close(module(pooled, labels), expected)
    masks = module.masks(pooled, labels, valid)
    torch.testing.assert_close(masks[valid], expected.sigmoid()[valid])
    assert not masks[~valid].any()


@pytest.mark.parametrize("class_agnostic", [False, True])
def test_loss_and_gradients_are_autograds(class_agnostic: bool) -> None:
    """More positives than go at once, some classes and images without."""
    module = head(replace(TINY, class_agnostic=class_agnostic, weight=0.7))
    pooled, labels, positive, target = regions()
    labels[labels == 1] = 2
    positive[1] = False
    labels = torch.where(positive, labels, CLASSES)  # as box heads mark background
    results = []
    for dense in (False, True):
        module.zero_grad()
        x = pooled.clone().requires_grad_()
        if dense:
            column = torch.zeros_like(labels) if class_agnostic else labels.clamp(max=CLASSES - 1)
            own = plain_logits(module, x)[torch.arange(80), column.flatten()].unflatten(0, (2, 40))
            loss = 0.7 * F.binary_cross_entropy_with_logits(own[positive], target[positive])
        else:
            loss = module.loss(x, labels, positive, target)["mask"]
        (3 * loss).backward()
        results.append([loss.detach(), x.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)])
    assert len(results[0]) == 2 + 8
    for mine, expected in zip(*results, strict=True):
        torch.testing.assert_close(mine, expected, atol=1e-6, rtol=1e-4)
    with torch.no_grad():
        torch.testing.assert_close(module.loss(pooled, labels, positive, target)["mask"], results[1][0])


def test_without_positives_loss_and_gradients_are_zero() -> None:
    module = head()
    pooled, labels, positive, target = regions()
    pooled.requires_grad_()
    loss = module.loss(pooled, labels, torch.zeros_like(positive), target)["mask"]
    loss.backward()
    assert loss == 0
    for tensor in (pooled, *module.parameters()):
        assert tensor.grad is not None
        assert not tensor.grad.any()


def test_what_is_not_positive_may_be_anything() -> None:
    module = head()
    pooled, labels, positive, target = regions()
    expected = module.loss(pooled, labels, positive, target)["mask"]
    spoilt = torch.where(positive[..., None, None, None], pooled, torch.inf)
    labels = torch.where(positive, labels, 99)
    assert module.loss(spoilt, labels, positive, target)["mask"] == expected


def test_autocast_halves_the_precision_and_no_more() -> None:
    module = head()
    pooled, labels, positive, target = regions()
    full = module.loss(pooled, labels, positive, target)["mask"]
    with torch.autocast("cpu", torch.bfloat16):
        half = module.loss(pooled, labels, positive, target)["mask"]
        masks = module.masks(pooled, labels, positive)
    half.backward()
    assert half.dtype == masks.dtype == torch.float32
    torch.testing.assert_close(half, full, atol=0.02, rtol=0.02)
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in module.parameters())


def discs(count: int, height: int, width: int) -> Tensor:
    """Bool ``[count, H, W]``."""
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    radius = torch.arange(count) * 4 + 9
    return (y[None] - height // 2) ** 2 + (x[None] - width // 2) ** 2 < radius[:, None, None] ** 2


def test_soft_targets_are_torchvisions() -> None:
    module = head(replace(TINY, pooling=RoIPoolingConfig(size=4, aligned=False), target="soft"))
    positive = regions(count=6)[2]
    masks = torch.stack([discs(3, 60, 70), discs(3, 60, 70).flip(0)])
    generator = torch.Generator().manual_seed(3)
    low = torch.rand((2, 6, 2), generator=generator) * 40
    boxes = torch.cat([low, low + 5 + 40 * torch.rand((2, 6, 2), generator=generator)], -1)
    truth = torch.randint(0, 3, (2, 6), generator=generator)
    target = module.targets(masks, boxes, truth, positive)
    assert 0.1 < target[positive].mean() < 0.9
    each = [
        torchvision.ops.roi_align(
            masks[b].float()[:, None], torch.cat([truth[b, :, None].float(), boxes[b]], 1), (8, 8), 1.0
        )[:, 0]
        for b in range(2)
    ]
    torch.testing.assert_close(target[positive], torch.stack(each)[positive])
    assert not target[~positive].any()


def test_binary_targets_are_one_from_a_half_on() -> None:
    masks = torch.zeros(1, 1, 16, 16, dtype=torch.bool)
    masks[..., :7] = True  # half of the cell from 6 to 8
    boxes, truth, positive = torch.tensor([[[0.0, 0, 16, 16]]]), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1, 1)
    config = replace(TINY, pooling=RoIPoolingConfig(size=4, aligned=True))
    soft = head(replace(config, target="soft")).targets(masks, boxes, truth, positive.bool())[0, 0]
    hard = head(config).targets(masks, boxes, truth, positive.bool())[0, 0]
    assert soft[4].tolist() == pytest.approx([1, 1, 1, 0.5, 0, 0, 0, 0])
    assert hard[4].tolist() == [1, 1, 1, 1, 0, 0, 0, 0]


def test_few_samples_are_coarser() -> None:
    masks, positive = discs(1, 64, 64)[None], torch.ones(1, 1, dtype=torch.bool)
    boxes, truth = torch.tensor([[[0.0, 0, 64, 64]]]), torch.zeros(1, 1, dtype=torch.int64)
    fine, coarse = (
        head(replace(TINY, target="soft", target_samples=samples)).targets(masks, boxes, truth, positive)
        for samples in (0, 1)
    )
    assert not torch.equal(fine, coarse)
    torch.testing.assert_close(fine, coarse, atol=0.6, rtol=0)


def test_targets_without_objects() -> None:
    none = torch.zeros(2, 0, 16, 16, dtype=torch.bool)
    zeros = torch.zeros(2, 5, dtype=torch.int64)
    assert head().targets(none, torch.zeros(2, 5, 4), zeros, zeros.bool()).shape == (2, 5, 8, 8)


def test_one_graph_with_gradients() -> None:
    module = head()
    pooled, labels, positive, target = regions()
    compiled = torch.compile(module.loss, fullgraph=True, backend="aot_eager")
    graph = compiled(pooled, labels, positive, target)["mask"]
    torch.testing.assert_close(graph, module.loss(pooled, labels, positive, target)["mask"])
    graph.backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_bad_widths_are_refused() -> None:
    with pytest.raises(InputError, match=r"MaskHeadConfig\.convs = 0: should be greater than or equal to 1"):
        MaskHeadConfig(convs=0)
