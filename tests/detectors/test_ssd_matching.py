"""Matching of SSD: thresholds, forced matches, difficult objects and crowds."""

import pytest
import torch

from boxwright.detectors.ssd import SSD, SSDConfig
from boxwright.structures import Classes, Targets
from tests.support.dense_cases import PLAIN_SSD
from tests.support.options import with_options

TEN = [0.0, 0.0, 10.0, 10.0]


def strip(iou: float) -> list[float]:
    """Return a box within TEN whose IoU with it is ``iou``."""
    return [0.0, 0.0, 10.0, 10 * iou]


def matched(config: SSDConfig, priors: list[list[float]], boxes: list[list[float]], **flags: list[bool]) -> list[str]:
    """Return the number of the object of each prior, "-" for a negative, "?" for an ignored one."""
    detector, truth = SSD(config, Classes.from_names(["a", "b"])), torch.tensor([boxes])
    no = torch.zeros(truth.shape[:2], dtype=torch.bool)
    targets = Targets(truth, no.long(), ~no, no, no)
    targets = targets._replace(**{name: torch.tensor([values]) for name, values in flags.items()})
    matches = detector.match(targets, torch.tensor(priors), [len(priors)])
    rows = zip(matches.truth[0].tolist(), matches.positive[0].tolist(), matches.negative[0].tolist(), strict=True)
    return [str(truth) if positive else "-" if negative else "?" for truth, positive, negative in rows]


def test_two_objects_that_want_one_prior() -> None:
    """IoU with priors 0 and 1: object 0 .60 and .40, object 1 .70 and about .30."""
    priors, boxes = [TEN, [0.0, 0, 10, 15]], [strip(0.6), strip(0.7)]
    assert matched(PLAIN_SSD, priors, boxes) == ["1", "0"]
    assert matched(with_options(PLAIN_SSD, {"assign.forced": "parallel"}), priors, boxes) == ["1", "-"]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ["0", "0", "-"]),
        ({"assign.inclusive": False}, ["0", "-", "-"]),
        ({"assign.positive_iou": 0.3}, ["0", "0", "0"]),
        ({"assign.negative_iou": 0.35}, ["0", "0", "?"]),
    ],
)
def test_thresholds_of_matching(changes: dict[str, object], expected: list[str]) -> None:
    """Priors of IoU 1, .5 and .4 with one object."""
    config = with_options(PLAIN_SSD, changes)  # type: ignore[arg-type]
    assert matched(config, [TEN, strip(0.5), strip(0.4)], [TEN]) == expected


def test_difficult_objects_and_crowds() -> None:
    far = [50.0, 50.0, 60.0, 60.0]
    assert matched(PLAIN_SSD, [TEN, far], [TEN, far], difficult=[False, True]) == ["0", "1"]
    assert matched(
        with_options(PLAIN_SSD, {"assign.difficult": False}), [TEN, far], [TEN, far], difficult=[False, True]
    ) == ["0", "-"]
    assert matched(PLAIN_SSD, [TEN, far], [TEN, far], crowd=[False, True]) == ["0", "-"]
