"""The share of images without objects."""

import numpy as np
import pytest

from boxwright.data.editing.backgrounds import check_empty_share, kept_backgrounds
from boxwright.structures import InputError


@pytest.mark.parametrize(
    ("full", "empty", "share", "kept"),
    [
        *((18, 10, 0.1, 2), (9, 10, 0.1, 1), (8, 10, 0.1, 0), (9, 1, 0.5, 1), (9, 20, 0.5, 9)),
        *((5, 5, 0, 0), (0, 4, 0.5, 0), (0, 4, 1, 4), (3, 4, 1, 4)),
    ],
)
def test_they_make_up_at_most_the_share(full: int, empty: int, share: float, kept: int) -> None:
    mask = np.random.default_rng(0).permutation(np.arange(full + empty) < empty)
    found = kept_backgrounds(mask, share, seed=1)
    assert int((found & mask).sum()) == kept
    assert found[~mask].all()
    assert kept_backgrounds(mask, share, seed=1).tolist() == found.tolist()


def test_the_seed_decides_which() -> None:
    mask = np.arange(40) < 20
    chosen = {tuple(kept_backgrounds(mask, 0.2, seed).tolist()) for seed in range(5)}
    assert len(chosen) == 5


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_shares_out_of_range(share: float) -> None:
    with pytest.raises(InputError, match=r"--empty-share .* from 0 to 1"):
        check_empty_share(share)
