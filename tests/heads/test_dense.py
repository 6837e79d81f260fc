"""The subnets shared by all levels, and the losses of dense heads with a weight for each row."""

import pytest
import torch
from torch import nn

from boxwright.anchors.coder import BoxCoder
from boxwright.backbones.layers.norm import fold_norms
from boxwright.heads.dense import DenseHead, DenseHeadConfig, Subnet, flatten_map
from boxwright.heads.losses import box_regression_loss, dense_focal_loss
from boxwright.structures import InputError


def maps(channels: int = 16) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, channels, 2 * s, s, generator=generator) * s for s in (4, 2, 1)]


def test_flattened_order_is_row_column_anchor() -> None:
    out = torch.arange(2 * 6 * 2 * 3).reshape(2, 6, 2, 3)  # two anchors of three values
    flat = flatten_map(out, 3)
    assert flat.shape == (2, 12, 3)
    for y, x, anchor, value in ((0, 0, 0, 0), (0, 2, 1, 2), (1, 0, 1, 0), (1, 2, 0, 1)):
        assert flat[1, (y * 3 + x) * 2 + anchor, value] == out[1, anchor * 3 + value, y, x]
    channels_last = torch.randn(2, 6, 2, 3).to(memory_format=torch.channels_last)
    assert flatten_map(channels_last, 3).data_ptr() == channels_last.data_ptr(), "a view"


@pytest.mark.parametrize("norm", ["none", "bn", "gn"])
def test_one_set_of_weights_serves_every_level(norm: str) -> None:
    torch.manual_seed(0)
    head = DenseHead(DenseHeadConfig(convs=2, norm=norm), 16, per_cell=3, num_classes=5).eval()  # type: ignore[arg-type]
    together = head(maps())
    assert [tuple(t.shape) for t in together[0]] == [(2, 96, 5), (2, 24, 5), (2, 6, 5)]
    assert [tuple(t.shape) for t in together[1]] == [(2, 96, 4), (2, 24, 4), (2, 6, 4)]
    for i, level in enumerate(maps()):
        alone = head([level])
        torch.testing.assert_close([alone[0][0], alone[1][0]], [together[0][i], together[1][i]])


def test_batch_norm_takes_the_statistics_of_all_levels() -> None:
    torch.manual_seed(0)
    subnet = Subnet(DenseHeadConfig(convs=1, norm="bn"), 16).train()
    out = subnet(maps())
    layer = subnet.layers[0]
    raw = torch.cat([layer.conv(m).permute(0, 2, 3, 1).reshape(-1, 16) for m in maps()])
    mean, deviation = raw.mean(0), (raw.var(0, correction=0) + 1e-5).sqrt()
    for level, value in zip(maps(), out, strict=True):
        expected = (layer.conv(level) - mean[:, None, None]) / deviation[:, None, None]
        torch.testing.assert_close(value, expected.relu(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(layer.norm.running_mean, 0.1 * mean)
    assert layer.norm.num_batches_tracked == 1
    out[0].sum().backward()
    assert layer.conv.weight.grad.abs().max() > 0


def test_batch_norms_of_the_head_fold_away() -> None:
    torch.manual_seed(0)
    head = DenseHead(DenseHeadConfig(convs=2, norm="bn"), 16, per_cell=1, num_classes=2)
    head(maps())  # moves the statistics off their start
    folded = fold_norms(head.eval())
    assert not any(isinstance(m, nn.BatchNorm2d) for m in folded.modules())
    torch.testing.assert_close(folded(maps()), head(maps()), atol=1e-5, rtol=1e-4)


def test_rows_are_weighed() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 6, 3, requires_grad=True)
    labels = torch.tensor([[0, 1, 3, 3, -1, 2], [3, 3, 3, 0, -1, 3]])
    weight = torch.tensor([[0.5], [2.0]]).expand(2, 6)
    weighed = dense_focal_loss(logits, labels, 0.25, 2.0, weight=weight)
    parts = [dense_focal_loss(logits[b], labels[b], 0.25, 2.0) for b in range(2)]
    torch.testing.assert_close(weighed, 0.5 * parts[0] + 2 * parts[1])
    (mine,) = torch.autograd.grad(weighed, logits)
    (expected,) = torch.autograd.grad(0.5 * parts[0] + 2 * parts[1], logits)
    torch.testing.assert_close(mine, expected)

    reference = torch.tensor([[0.0, 0, 10, 10], [5, 5, 15, 25]]).expand(2, 2, 4)
    deltas, target = torch.randn(2, 2, 4), reference + 1
    mask = torch.tensor([[True, False], [True, True]])
    for kind in ("smooth_l1", "giou"):
        losses = [
            box_regression_loss(deltas[b], reference[b], target[b], mask[b], BoxCoder(), kind, 1.0)  # type: ignore[arg-type]
            for b in range(2)
        ]
        both = box_regression_loss(
            deltas,
            reference,
            target,
            mask,
            BoxCoder(),
            kind,
            1.0,
            torch.tensor([[3.0], [1.0]]),  # type: ignore[arg-type]
        )
        torch.testing.assert_close(both, 3 * losses[0] + losses[1])


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"convs": -1}, "convs = -1"),
        ({"channels": 12}, "channels = 12"),
        ({"prior": 0.0}, "prior = 0.0"),
    ],
)
def test_a_bad_value_is_named(values: dict, message: str) -> None:
    with pytest.raises(InputError) as caught:
        DenseHeadConfig(**values)
    assert message in str(caught.value)
