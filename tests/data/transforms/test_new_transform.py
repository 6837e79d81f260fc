"""A new transform needs its file, an entry in the union of configurations and a test; omissions fail here."""

from __future__ import annotations

import typing
from typing import Literal

import pytest

from boxwright.data.transforms import configs
from boxwright.data.transforms.configs import CustomConfig, FlipConfig, TransformConfig, build_transform
from boxwright.data.transforms.multi_scale import size_of
from boxwright.fields import config as configuration
from tests.support.tiny_index import generator, painted
from tests.support.transform_cases import COLOUR, GEOMETRIC, OBJECTS, Others

MEMBERS = typing.get_args(TransformConfig)
CASES = [*GEOMETRIC, *COLOUR]


@configuration
class TransposeConfig:
    """Transform without the members that the library needs."""

    kind: Literal["flip"] = "flip"


def forgotten(cls: type, members: tuple[type, ...] = MEMBERS, cases: list[typing.Any] = CASES) -> list[str]:
    """Return the members that ``cls`` lacks to be a transform of the library."""
    missing = [name for name in ("fixed", "output_size", "object_scale") if not hasattr(cls, name)]
    if cls not in members:
        missing.append("member of TransformConfig")
    if getattr(configs, cls.__name__, None) is not cls or cls.__name__ not in configs.__all__:
        missing.append("name in configs.__all__")
    if [other for other in members if getattr(other, "kind", "") == getattr(cls, "kind", "") and other is not cls]:
        missing.append("kind of its own")
    # The cases of custom transforms need a package: tests/data/transforms/custom/test_transform.py.
    if cls is not CustomConfig and not any(isinstance(case, cls) for case in cases):
        missing.append("case in tests/support/transform_cases.py")
    return missing


@pytest.mark.parametrize("cls", MEMBERS, ids=lambda cls: cls.__name__)
def test_nothing_is_forgotten(cls: type) -> None:
    assert forgotten(cls) == []


def test_everything_forgotten_is_named() -> None:
    assert forgotten(TransposeConfig) == [
        "fixed",
        "output_size",
        "object_scale",
        "member of TransformConfig",
        "name in configs.__all__",
        "kind of its own",
        "case in tests/support/transform_cases.py",
    ]


def test_a_transform_without_a_case_in_apply_is_named() -> None:
    transform = build_transform([TransposeConfig()])  # type: ignore[list-item]
    with pytest.raises(AssertionError, match="TransposeConfig"):
        transform(painted(OBJECTS), generator())


@pytest.mark.parametrize("config", CASES, ids=lambda config: config.kind)
@pytest.mark.parametrize(("height", "width"), [(60, 90), (90, 60), (64, 64)])
def test_sizes_and_scales_are_as_stated(config: TransformConfig, height: int, width: int) -> None:
    transform = build_transform([config], fetch=Others())
    before = painted([[8, 8, 48, 40]], height, width)
    after = [transform(before, generator(seed)) for seed in range(4)]
    stated = config.output_size(height, width)
    if stated is not None:
        assert {sample.size for sample in after} == {stated}
    if config.fixed:
        assert stated is not None
        assert config.output_size(2 * height, 3 * width) == stated
    if (scale := config.object_scale(height, width)) is not None:
        for sample in after:
            if sample.to_original[0] == sample.to_original[0]:  # mapped by scale and offset
                assert abs(sample.to_original[1]) == pytest.approx(scale[0], abs=1 / height)
                assert abs(sample.to_original[0]) == pytest.approx(scale[1], abs=1 / width)


@pytest.mark.parametrize("config", CASES, ids=lambda config: config.kind)
def test_a_transform_can_be_set_to_another_size(config: TransformConfig) -> None:
    """Multi-scale training replaces ``size``. Without it, results must scale with the image or with the sides."""
    if size_of(config) is None and config.kind != "resize":
        assert config.output_size(128, 128) in (None, (128, 128))
    elif config.fixed:
        assert config.output_size(60, 90) == size_of(config)


def test_flips_keep_what_a_fixed_size_gave() -> None:
    assert FlipConfig().output_size(3, 5) == (3, 5)
