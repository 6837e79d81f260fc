"""Sampling of the images of an epoch: rare classes more often, and a chosen share of images without objects.

Symbols: N images to train on.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import PlainValidator

from boxwright.fields import Fraction, config
from boxwright.structures import InputError

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex


def _balance(value: Any) -> Any:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if value == "auto" or (number and 0 < value <= 1):
        return value
    raise ValueError(f"{value!r} should be a number in (0, 1], or 'auto'")


Balance = Annotated[float | Literal["auto"], PlainValidator(_balance)]
"""Threshold in (0, 1], or "auto"."""


@config
class SamplingConfig:
    """Choice of the images of an epoch. By default each comes once.

    With a setting an image comes its factor of times in an epoch, on average over epochs: in each epoch the factor
    rounded up or down at random. An epoch is then as long as the sum of the factors. The length of training in epochs
    still counts as many images as the training set has.
    """

    class_balance: Balance | None = None
    """Show images of rare classes more often (repeat factor sampling, LVIS §A.1): a class in a share f of the images
    has the factor ``max(1, sqrt(class_balance / f))``, an image that of its rarest class. "auto" takes the share of the
    most common class. None: all images alike."""
    background: Fraction | None = None
    """Share of images without objects in an epoch. They are repeated or left out for it. None: as the data has them."""


def sampling_factors(
    index: DetectionIndex, members: NDArray[np.int64], config: SamplingConfig
) -> NDArray[np.float64] | None:
    """Return how often each of ``members``, positions int64 ``[N]``, comes in an epoch; None for once each.

    Raises InputError if images without objects are asked for and there are none, or there are no others.
    """
    if config.class_balance is None and config.background is None:
        return None
    present = _labels_present(index, members)
    factors = np.ones(len(members))
    if config.class_balance is not None:
        factors = repeat_factors(present, len(index.classes), config.class_balance)
    if config.background is None:
        return factors
    empty = np.array([len(labels) == 0 for labels in present])
    if config.background > 0 and not empty.any():
        raise InputError(
            f"{index.root}: data.sampling.background = {config.background:g} asks for images without objects, and the "
            "training set has none; set it to none, or add such images"
        )
    if empty.all():
        raise InputError(
            f"{index.root}: no image has an object, so data.sampling.background cannot be met; set it to none"
        )
    if empty.any():
        factors[empty] = config.background / (1 - config.background) * factors[~empty].sum() / empty.sum()
    return factors


def sampling_note(index: DetectionIndex, members: NDArray[np.int64], factors: NDArray[np.float64]) -> str:
    """Describe an epoch of ``members`` that come ``factors`` times each, for the log."""
    empty = np.array([len(labels) == 0 for labels in _labels_present(index, members)])
    share = 100 * factors[empty].sum() / factors.sum()
    return (
        f"sampling: an epoch shows {int(factors.sum() + 1e-6):,} images for the {len(index):,} of the training set, "
        f"some up to {factors.max():.1f} times; {share:.0f} % have no objects"
    )


def _labels_present(index: DetectionIndex, members: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Return the labels that each of ``members`` has, crowd regions aside; masks are not parsed."""
    objects, labels = ~index.crowd, index.labels
    rows = [slice(int(index.box_ends[i]), int(index.box_ends[i + 1])) for i in members.tolist()]
    return [np.unique(labels[row][objects[row]]).astype(np.int64) for row in rows]


def repeat_factors(
    present: list[NDArray[np.int64]], classes: int, threshold: float | Literal["auto"]
) -> NDArray[np.float64]:
    """Compute the repeat factors of images, float64 ``[N]``, at least 1, from the labels that each has (LVIS §A.1).

    A class in a fraction f of the images has the factor max(1, sqrt(threshold / f)); an image takes the largest factor
    of its classes. "auto" is the fraction of the most common class.
    """
    counts = np.zeros(classes)
    for labels in present:
        counts[labels] += 1
    common = counts.max() if threshold == "auto" else threshold * len(present)
    wanted = np.maximum(1.0, np.sqrt(common / np.maximum(counts, 1)))
    return np.array([max((wanted[label] for label in labels.tolist()), default=1.0) for labels in present])
