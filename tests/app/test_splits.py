"""The split that a command uses: the named one, else a preferred one, else the only one."""

from pathlib import Path

import pytest

from boxwright.app.splits import choose_split
from boxwright.structures import InputError

DATA = Path("my_data")
TEST_SPLITS = ("val", "test")


@pytest.mark.parametrize(
    ("splits", "named", "chosen"),
    [
        (["train", "val", "test"], None, "val"),
        (["train", "test"], None, "test"),  # the second choice
        (["all"], None, "all"),  # the only split
        (["train", "val", "test"], "train", "train"),  # the name given goes first
        (["train", "val"], "valid", "val"),  # another word for the same split
        (["train", "valid"], "valid", "valid"),  # the exact name goes first
    ],
)
def test_choice(splits: list[str], named: str | None, chosen: str) -> None:
    assert choose_split(DATA, splits, named, TEST_SPLITS) == chosen


@pytest.mark.parametrize(
    ("named", "message"),
    [
        ("dev", "my_data: has no split 'dev'; it has train, part; choose one with --val-split"),
        (None, "my_data: has no split 'val' or 'test'; it has train, part; choose one with --val-split"),
    ],
)
def test_refusal_lists_the_splits_and_names_the_option(named: str | None, message: str) -> None:
    with pytest.raises(InputError, match=message):
        choose_split(DATA, ["train", "part"], named, TEST_SPLITS, "--val-split")
