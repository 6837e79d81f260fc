"""Ridge regression against scikit-learn's and the normal equations; whitening; which pairs are kept."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from boxwright.heads.regions.fits.ridge import PairStore, RidgeFitConfig, fit_ridge, ridge, whitening
from boxwright.structures import InputError

PLAIN = RidgeFitConfig(strength=3.0, norm=None, whiten=False)


def pairs(count: int, width: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(count, width, generator=generator)
    mix = torch.randn(width, 4, generator=generator)
    return x, x @ mix + 0.1 * torch.randn(count, 4, generator=generator) + torch.tensor([0.5, 0.0, -0.3, 1.0])


@pytest.mark.parametrize(("count", "width"), [(50, 7), (7, 50), (20, 20)])
def test_as_scikit_learn_solves_it(count: int, width: int) -> None:
    linear = pytest.importorskip("sklearn.linear_model", reason="the extra `rcnn` is not installed")
    x, y = pairs(count, width)
    free = linear.Ridge(alpha=3.0).fit(x.double().numpy(), y.double().numpy())
    weight, bias = fit_ridge(x, y, replace(PLAIN, regularise_bias=False))
    torch.testing.assert_close(weight, torch.tensor(free.coef_).float(), atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(bias, torch.tensor(free.intercept_).float(), atol=1e-5, rtol=1e-4)

    ones = torch.cat([x, torch.ones(count, 1)], 1)
    held = linear.Ridge(alpha=3.0, fit_intercept=False).fit(ones.double().numpy(), y.double().numpy())
    weight, bias = fit_ridge(x, y, PLAIN)
    both = torch.cat([weight, bias[:, None]], 1)
    torch.testing.assert_close(both, torch.tensor(held.coef_).float(), atol=1e-5, rtol=1e-4)


def test_fewer_rows_than_columns_gives_the_same_solution() -> None:
    x, y = (t.double() for t in pairs(6, 9))
    normal = torch.linalg.solve(x.T @ x + 2.0 * torch.eye(9).double(), x.T @ y)
    torch.testing.assert_close(ridge(x, y, 2.0), normal)


def test_whitened_targets_have_unit_covariance_and_come_back() -> None:
    _, y = (t.double() for t in pairs(400, 5))
    mean, forward, back = whitening(y)
    white = (y - mean) @ forward
    torch.testing.assert_close(white.T @ white / len(y), torch.eye(4).double(), atol=0.01, rtol=0.01)
    torch.testing.assert_close(white @ back + mean, y)


def test_whitening_matters_only_to_how_weights_are_held_down() -> None:
    x, y = pairs(300, 5)
    loose = RidgeFitConfig(strength=1e-6, norm=None)
    for one, other in zip(fit_ridge(x, y, loose), fit_ridge(x, y, replace(loose, whiten=False)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    tight = replace(loose, strength=100.0)
    assert not torch.allclose(fit_ridge(x, y, tight)[0], fit_ridge(x, y, replace(tight, whiten=False))[0], atol=1e-3)


def test_the_length_of_features_does_not_matter_where_they_are_scaled() -> None:
    x, y = pairs(100, 5)
    config = RidgeFitConfig(strength=50.0)
    weight, bias = fit_ridge(x, y, config)
    scaled, same = fit_ridge(x * 7, y, config)
    torch.testing.assert_close(scaled * 7, weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(same, bias, atol=1e-5, rtol=1e-4)


def test_no_pair_moves_nothing() -> None:
    weight, bias = fit_ridge(torch.zeros(0, 5), torch.zeros(0, 4), RidgeFitConfig())
    assert weight.shape == (4, 5)
    assert not weight.any()
    assert not bias.any()


def test_the_pairs_kept_do_not_depend_on_how_they_came() -> None:
    x, y = pairs(60, 3)
    noise = torch.rand(60, generator=torch.Generator().manual_seed(4))
    whole, parts = PairStore(10), PairStore(10)
    whole.add(x, y, noise)
    for start in range(0, 60, 7):
        parts.add(*(t[start : start + 7] for t in (x, y, noise)))
        twin = PairStore(10)
        twin.load_state_dict(parts.state_dict())
        parts = twin
    assert whole.seen == parts.seen == 60
    kept, other = whole.pairs(), parts.pairs()
    assert kept is not None
    assert other is not None
    assert torch.equal(kept[0], other[0])
    assert len(kept[0]) == 10
    lowest = {tuple(row) for row in x[noise.argsort()[:10]].tolist()}
    assert {tuple(row) for row in kept[0].tolist()} == lowest


def test_no_more_pairs_are_held_than_asked_for() -> None:
    x, y = pairs(60, 3)
    store = PairStore(10)
    for start in range(0, 60, 7):
        store.add(x[start : start + 7], y[start : start + 7], torch.rand(len(x[start : start + 7])))
        assert all(len(column) <= 10 for column in store.state_dict()["columns"])
        assert all(column.untyped_storage().nbytes() <= 10 * column[0].nbytes for column in store._columns)
    everything = PairStore(None)
    for start in range(0, 60, 7):
        everything.add(x[start : start + 7], y[start : start + 7], torch.rand(len(x[start : start + 7])))
    kept = everything.pairs()
    assert kept is not None
    assert torch.equal(kept[0], x)
    assert torch.equal(kept[1], y)


@pytest.mark.parametrize(("field", "value"), [("overlap", 1.0), ("strength", 0.0), ("norm", 0.0), ("most", 0)])
def test_values_of_ridge_that_cannot_be(field: str, value: float) -> None:
    with pytest.raises(InputError, match=rf"RidgeFitConfig\.{field} = .*should be"):
        replace(RidgeFitConfig(), **{field: value})
