"""Every kind of detector that can be built has its cases, recipes and tests."""

from typing import get_args, get_type_hints

from boxwright.detectors.build import DetectorConfig
from boxwright.recipes import RECIPES
from tests.support.detector_cases import CASES

KINDS = {get_args(get_type_hints(config)["kind"])[0] for config in get_args(DetectorConfig)}


def test_each_kind_of_detector_is_in_the_contract_tests() -> None:
    assert {case.config.kind for case in CASES.values()} == KINDS, "add a small configuration to CASES"


def test_each_kind_of_detector_has_a_recipe() -> None:
    assert {recipe.detector.kind for recipe in RECIPES.values()} == KINDS, "add recipes and their tuple to RECIPES"
