"""Requests of ``boxwright data anchors`` and ``data augment``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from boxwright.app.requests.fields import OUTPUT, ConfigFile, TrainSplit, VocZeroBased


@dataclass(frozen=True, kw_only=True)
class AnchorRequest:
    """Options of ``boxwright data anchors``. ``size`` is (height, width) of the network's input."""

    count: Annotated[int, Parameter(help="Number of anchors to find.")]
    size: Annotated[
        tuple[int, int] | None,
        Parameter(help="Height and width of the network's input. Default: 416 416.", show_default=False),
    ] = None
    resize: Annotated[
        Literal["letterbox", "warp", "keep"],
        Parameter(
            help="How images are resized to it: letterbox keeps the aspect ratio, warp does not, keep does not resize."
        ),
    ] = "letterbox"
    split: TrainSplit = None
    voc_zero_based: VocZeroBased = False
    distance: Annotated[
        Literal["iou", "euclid"],
        Parameter(help="Distance that k-means minimises: 1 - IoU, or Euclidean between the sides."),
    ] = "iou"
    update: Annotated[
        Literal["mean", "median"], Parameter(help="How the anchor of a cluster is computed from its boxes.")
    ] = "mean"
    restarts: Annotated[int, Parameter(help="Runs from different initial anchors. The best one is kept.")] = 10
    seed: Annotated[int, Parameter(help="Seed of the initial anchors.")] = 0


@dataclass(frozen=True, kw_only=True)
class AugmentRequest:
    """Options of ``boxwright data augment``."""

    recipe: Annotated[str, Parameter(help="The name of a recipe, or a TOML file with the key `base`.")]
    sets: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            help="Override a setting of the recipe, such as data.train.+=mixup. May be repeated.",
            show_default=False,
        ),
    ] = ()
    config: ConfigFile = None
    output: Annotated[Path, Parameter(help="The sheet to write, .png or .jpg.", group=OUTPUT)] = Path("augmented.png")
    count: Annotated[int, Parameter(help="Number of images.")] = 6
    versions: Annotated[int, Parameter(help="Number of random versions of each image.")] = 4
    seed: Annotated[int, Parameter(help="Seed of the choice of images and of the transforms.")] = 0
    split: TrainSplit = None
    voc_zero_based: VocZeroBased = False
