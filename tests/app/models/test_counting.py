"""The stored table of parameters and multiply-adds equals a new count."""

import pytest

from boxwright.app.models.counting import all_rows, table_text
from boxwright.app.models.table import TABLE, model_rows
from boxwright.backbones.build import NAMED_BACKBONES
from boxwright.recipes import RECIPES

REMEDY = "run: python -m boxwright.app.models.counting"


def test_the_table_lists_every_backbone_and_recipe():
    names = [row["name"] for row in model_rows()]
    assert names == [*NAMED_BACKBONES, *RECIPES], REMEDY


@pytest.fixture(scope="module")
def counted() -> dict[str, dict[str, object]]:
    """All rows, counted now: some ten seconds on two cores."""
    return {row["name"]: row for row in all_rows()}


def test_every_row_is_counted_anew(counted: dict[str, dict[str, object]]):
    for row in model_rows():
        assert row == counted[row["name"]], f"{row['name']}: {REMEDY}"
    assert TABLE.read_text(encoding="utf-8") == table_text(list(counted.values())), REMEDY


def test_rows_are_of_the_kind_that_was_asked_for():
    assert {row["kind"] for row in model_rows("backbone")} == {"backbone"}
    assert [row["name"] for row in model_rows("detector")] == list(RECIPES)
