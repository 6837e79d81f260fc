"""Recipes changed to another size of the network's input."""

from __future__ import annotations

from dataclasses import replace

from boxwright.config.recipe import Recipe
from boxwright.data.config import DataConfig
from boxwright.data.transforms.configs import TransformConfig
from boxwright.data.transforms.multi_scale import MultiScaleConfig, scaled, size_of
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.detectors.ssd import SSDConfig
from boxwright.detectors.yolov1 import YOLOv1Config
from boxwright.geometry.rounding import round_up
from boxwright.structures import InputError


def with_input_size(recipe: Recipe, size: int | tuple[int, int]) -> Recipe:
    """Change the size of the images that the network sees; ``size`` is that of validation and inference.

    One number is the side of a square, or the short side where the recipe keeps the aspect; two are height and width,
    or the limits of both sides there. The sizes of training and of ``data.multi_scale`` change in proportion. Anchors
    stay as they are: they belong to the strides of the network. Raises InputError for a detector of one size.
    """
    data = recipe.data
    last = _sized(data)
    if last is None:
        raise InputError(
            f"--size: {recipe.name} evaluates images at their own size; end data.eval with a resize or a letterbox"
        )
    old = (last.short[0], last.long) if isinstance(last, ResizeConfig) else size_of(last)
    assert old is not None
    if isinstance(last, ResizeConfig):
        new = (size, round(size / old[0] * old[1])) if isinstance(size, int) else (min(size), max(size))
    else:
        new = (size, size) if isinstance(size, int) else size
    if new == old:
        return recipe
    _check_any_size(recipe, old)
    factors = (new[0] / old[0], new[1] / old[1])
    multi_scale = None if data.multi_scale is None else _multi_scale(data.multi_scale, factors, data.pad_multiple)
    changed = replace(
        data,
        train=tuple(_changed(transform, last, old, new, data.pad_multiple) for transform in data.train),
        eval=tuple(_changed(transform, last, old, new, data.pad_multiple) for transform in data.eval),
        fixed_size=None if data.fixed_size is None else _padded(data.fixed_size, factors, data.pad_multiple),
        shapes=None if data.shapes is None else tuple(_padded(s, factors, data.pad_multiple) for s in data.shapes),
        multi_scale=multi_scale,
    )
    return replace(recipe, data=changed)


def _sized(data: DataConfig) -> TransformConfig | None:
    """Return the transform that decides the size of evaluated images: the last with a size."""
    sized = [t for t in data.eval if isinstance(t, ResizeConfig) or size_of(t) is not None]
    return sized[-1] if sized else None


def _check_any_size(recipe: Recipe, size: tuple[int, int]) -> None:
    """Raise InputError if the detector is made for inputs of one size."""
    detector = recipe.detector
    match detector:
        case SSDConfig():
            why, family = "its default boxes and the layers that make its maps", "ssd"
        case YOLOv1Config():
            why, family = "its fully connected layers", "yolov1"
        case _:
            return
    raise InputError(
        f"--size: {recipe.name} takes images of {size[0]} x {size[1]} only, for which {why} are made; take a recipe of "
        f"another size (`boxwright models --family {family} --all` lists them), or a detector of any size, such as "
        "refinedet-small, retinanet-small or yolov3-small"
    )


def _changed(
    transform: TransformConfig, last: TransformConfig, old: tuple[int, int], new: tuple[int, int], multiple: int
) -> TransformConfig:
    """Return ``transform`` for an input of size ``new`` in place of ``old``, both of the transform ``last``."""
    factors = (new[0] / old[0], new[1] / old[1])
    if isinstance(last, ResizeConfig) and isinstance(transform, ResizeConfig):
        short = tuple(max(1, round(side * factors[0])) for side in transform.short)
        return replace(transform, short=short, long=max(*short, round(transform.long * factors[1])))
    if size_of(transform) == old:
        return scaled([transform], factors)[0]  # the size itself, although it may need padding
    if isinstance(last, ResizeConfig):
        factors = (factors[0], factors[0])
    return scaled([transform], factors, multiple)[0]


def _padded(size: tuple[int, int], factors: tuple[float, float], multiple: int) -> tuple[int, int]:
    """Return a size of batches that holds images which are larger by ``factors``."""
    factor = max(factors)
    return round_up(round(size[0] * factor), multiple), round_up(round(size[1] * factor), multiple)


def _multi_scale(config: MultiScaleConfig, factors: tuple[float, float], multiple: int) -> MultiScaleConfig:
    if factors[0] != factors[1]:
        raise InputError(
            "--size: the recipe trains at several sizes, which are square; give one number, or add "
            "--set data.multi_scale=none"
        )

    def moved(side: int, step: int) -> int:
        return max(step, step * round(side * factors[0] / step))

    return replace(
        config,
        sizes=None if config.sizes is None else tuple(dict.fromkeys(moved(side, multiple) for side in config.sizes)),
        low=moved(config.low, config.step),
        high=moved(config.high, config.step),
        last_size=None if config.last_size is None else moved(config.last_size, multiple),
    )
