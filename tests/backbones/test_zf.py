"""ZF's layers: the local normalisation as Caffe defines it, and where the network applies it."""

import torch
from torch import nn

from boxwright.backbones import build_backbone, count_parameters
from boxwright.backbones.zf import ZFConfig, local_normalisation


def test_local_normalisation_by_hand() -> None:
    x = torch.tensor([[[[100.0, 0, 0], [0, 200, 0], [0, 0, 0]]]])
    found = local_normalisation(x)
    corner = 100 / (1 + 5e-5 * (100**2 + 200**2) / 9) ** 0.75  # cells outside the map count as zero
    assert abs(found[0, 0, 0, 0].item() - corner) < 1e-3
    assert found[0, 0, 2, 2] == 0
    other = torch.cat([x, 1000 * torch.ones_like(x)], dim=1)
    assert torch.equal(local_normalisation(other)[:, :1], found), "each channel for itself"


def test_convolutions_have_the_published_size() -> None:
    with torch.device("meta"):
        assert count_parameters(build_backbone(ZFConfig())) == 3_726_464


def test_a_batch_norm_takes_the_place_of_the_local_one() -> None:
    plain = build_backbone(ZFConfig(width=0.25))
    normed = build_backbone(ZFConfig(width=0.25, norm="bn")).eval()
    assert not any(isinstance(m, nn.BatchNorm2d) for m in plain.modules())
    assert sum(isinstance(m, nn.BatchNorm2d) for m in normed.modules()) == 5
    normed.load_state_dict(plain.state_dict(), strict=False)
    x = 500 * torch.rand(1, 3, 64, 64)
    assert not torch.allclose(plain(x)[0], normed(x)[0], rtol=0.05), "the energy of bright pictures is divided out"
