"""SVMs: liblinear's solution, and which negatives a class keeps."""

from __future__ import annotations

import importlib
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from boxwright.heads.regions.fits.svm import MinedSVM, SVMFitConfig, fit_svm, joined_svms, require_liblinear
from boxwright.structures import InputError

sklearn_svm = pytest.importorskip("sklearn.svm", reason="the extra `rcnn` is not installed")


def clouds(count: int = 40, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    away = torch.zeros(width)
    away[0] = 3.0
    return torch.randn(count, width, generator=generator) + away, torch.randn(3 * count, width, generator=generator)


def test_the_solution_minimises_the_papers_objective() -> None:
    """L2-regularised hinge loss with a weighted positive side and a constant feature, regularised too."""
    positives, negatives = clouds()
    config = SVMFitConfig(c=0.05, tolerance=1e-8, iterations=1_000_000)
    weight, bias = fit_svm(positives, negatives, config, seed=1)

    def objective(w: torch.Tensor, b: torch.Tensor) -> float:
        hinge = lambda x, sign: (1 - sign * (x.double() @ w + b)).clamp(min=0).sum()  # noqa: E731
        held = (w @ w + (b / config.bias) ** 2) / 2
        return float(held + config.c * (config.positive_weight * hinge(positives, 1) + hinge(negatives, -1)))

    best = objective(weight, bias)
    generator = torch.Generator().manual_seed(1)
    for size in (1e-1, 1e-2, 1e-3):
        for _ in range(50):
            step = torch.randn(weight.shape, generator=generator, dtype=torch.float64) * size
            shift = torch.randn((), generator=generator, dtype=torch.float64) * size
            assert objective(weight + step, bias + shift) >= best - 1e-9
    assert torch.equal(weight, fit_svm(positives, negatives, config, seed=1)[0]), "the same bits again"


def test_a_planted_hard_negative_is_found_and_easy_ones_leave() -> None:
    positives, negatives = clouds()
    machine = MinedSVM(SVMFitConfig(c=1.0, retrain=5), 0, positives)
    everything = torch.ones(len(negatives), dtype=torch.bool)
    assert machine.mine(0, negatives, everything) == len(negatives), "the first image gives all"
    machine.update(last=False)
    assert machine.fits == 1
    assert 0 < len(machine.negatives) < len(negatives), "those far below the margin are let go"
    assert (machine.margins(machine.negatives) >= -1.2).all()

    planted = positives[:3] - 0.1  # background that looks like the class
    easy = negatives[machine.margins(negatives) < -1.5][:10]
    image = torch.cat([easy, planted])
    assert machine.mine(1, image, torch.ones(len(image), dtype=torch.bool)) == 3
    assert machine.owners[-3:] == [(1, len(easy)), (1, len(easy) + 1), (1, len(easy) + 2)]
    ignored = torch.zeros(len(image), dtype=torch.bool)
    assert machine.mine(2, image, ignored) == 0, "what overlaps an object is no negative"

    before = machine.margins(planted)
    machine.update(last=False)
    assert machine.fits == 1, "three are not more than five"
    assert machine.mine(3, planted, torch.ones(3, dtype=torch.bool)) == 3
    machine.update(last=False)
    assert machine.fits == 2
    assert (machine.margins(planted) < before).all()
    assert machine.mine(3, planted, torch.ones(3, dtype=torch.bool)) == 0, "none twice"
    machine.update(last=True)
    assert machine.fits == 3, "always at the end"


def test_state_goes_round() -> None:
    positives, negatives = clouds()
    config = SVMFitConfig(c=1.0)
    machine = MinedSVM(config, 0, positives)
    machine.mine(0, negatives, torch.ones(len(negatives), dtype=torch.bool))
    machine.update(last=False)
    twin = MinedSVM.from_state(config, 0, machine.state_dict())
    for one in (machine, twin):
        one.mine(1, positives - 0.5, torch.ones(len(positives), dtype=torch.bool))
        one.update(last=True)
    assert torch.equal(machine.weight, twin.weight)  # type: ignore[arg-type]
    assert machine.owners == twin.owners


def test_scaling_is_folded_into_the_weights() -> None:
    positives, negatives = clouds()
    machine = MinedSVM(SVMFitConfig(c=1.0), 0, positives * 4)
    machine.mine(0, negatives * 4, torch.ones(len(negatives), dtype=torch.bool))
    machine.update(last=True)
    weight, bias = joined_svms([machine], 4.0, ["disc"])
    found = (positives @ weight[0] + bias[0]).double()
    torch.testing.assert_close(found, machine.margins(positives * 4), atol=1e-4, rtol=1e-4)


def test_a_class_without_negatives_is_named() -> None:
    machine = MinedSVM(SVMFitConfig(), 0, torch.ones(2, 3))
    machine.update(last=True)
    with pytest.raises(InputError, match=r"'disc' has no negative window.*data\.proposals\.most"):
        joined_svms([machine], 1.0, ["disc"])


def test_without_scikit_learn_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(importlib, "import_module", absent)
    with pytest.raises(InputError, match=r"pip install 'boxwright\[rcnn\]'"):
        require_liblinear()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"c": 0.0}, r"SVMFitConfig\.c = 0\.0: should be greater than 0"),
        ({"rounds": 0}, r"rounds = 0: should be greater than or equal to 1"),
        ({"evict": -0.5}, "would leave at once"),
        ({"negative_iou": 0.0}, r"negative_iou = 0\.0: should be greater than 0"),
        ({"positives": "overlap", "negative_iou": 0.6}, "a window would be both"),
    ],
)
def test_values_that_cannot_be(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        replace(SVMFitConfig(), **changes)


def test_defaults_are_the_papers() -> None:
    """R-CNN §2.3 and its released code."""
    config = SVMFitConfig()
    assert (config.positives, config.negative_iou, config.c, config.positive_weight) == ("truth", 0.3, 1e-3, 2.0)
    assert (config.bias, config.norm, config.hard, config.evict, config.retrain) == (10.0, 20.0, -1.0001, -1.2, 2000)
    assert (config.rounds, config.norm_images, config.norm_windows) == (1, 200, 200)
    assert np.isclose(config.passes, 2)
