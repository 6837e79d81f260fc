"""Requests of the commands that train: ``train``, ``pretrain`` and ``demo``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from boxwright.app.requests.fields import (
    OUTPUT,
    BatchSize,
    BestMetric,
    Budget,
    ConfigFile,
    Data,
    Device,
    Effort,
    Epochs,
    InputSides,
    Latency,
    LearningRate,
    LoaderWorkers,
    Patience,
    Resume,
    Seed,
    TrainEpochs,
    TrainPrecision,
    TrainSplit,
    Validated,
    ValSplit,
    VocZeroBased,
)


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """Options of ``boxwright train``.

    ``size``, ``batch_size``, ``epochs``, ``lr``, ``precision``, ``metric``, ``patience``, ``seed`` and ``workers`` are
    short for settings of the recipe. ``effort``, ``budget`` and
    ``latency`` limit the choice of one.
    """

    data: Data
    output: Annotated[
        Path | None, Parameter(help="A new folder for the run. Default: runs/RECIPE-N.", group=OUTPUT)
    ] = None
    sets: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            help="Override a setting of the recipe, such as data.batch_size=8. May be repeated.",
            show_default=False,
        ),
    ] = ()
    config: ConfigFile = None
    size: InputSides = None
    batch_size: BatchSize = None
    epochs: TrainEpochs = None
    lr: LearningRate = None
    metric: BestMetric = None
    patience: Patience = None
    weights: Annotated[
        str | None,
        Parameter(help="Fine-tune from this checkpoint, a path or a name. Tensors that do not fit are skipped."),
    ] = None
    backbone_weights: Annotated[
        str | None,
        Parameter(
            help="Initialise the backbone from an ImageNet network: a name, a file written by `boxwright pretrain`, or "
            "one of torchvision, Caffe, Darknet, Detectron and others. efficientnet-lite0 is installed. Default: the "
            "recipe's; none starts from random weights, with all stages and batch norms of the backbone trained."
        ),
    ] = None
    effort: Effort = None
    budget: Budget = None
    latency: Latency = None
    carry_classes: Annotated[
        bool,
        Parameter(
            help="With --weights: keep the weights of classes that have the same name (the default).",
            show_default=False,
        ),
    ] = True
    resume: Resume = None
    seed: Seed = None
    train_split: TrainSplit = None
    val_split: ValSplit = None
    val: Validated = True
    voc_zero_based: VocZeroBased = False
    dry_run: Annotated[
        bool,
        Parameter(
            help="Check everything and print what would be done, with the whole recipe; train and write nothing.",
            show_default=False,
            negative=(),
        ),
    ] = False
    device: Device = "auto"
    precision: TrainPrecision = None
    workers: LoaderWorkers = None
    tensorboard: Annotated[
        bool, Parameter(help="Write a TensorBoard log as well.", group=OUTPUT, show_default=False)
    ] = False


@dataclass(frozen=True, kw_only=True)
class RecommendRequest:
    """Options of ``boxwright recommend``: those of ``boxwright train`` on which the choice depends."""

    data: Data
    effort: Effort = None
    budget: Budget = None
    latency: Latency = None
    size: InputSides = None
    batch_size: BatchSize = None
    epochs: Epochs = None
    count: Annotated[int, Parameter(help="Largest number of candidates to show, the recommended one first.")] = 4
    train_split: TrainSplit = None
    val_split: ValSplit = None
    val: Validated = True
    voc_zero_based: VocZeroBased = False
    device: Device = "auto"


@dataclass(frozen=True, kw_only=True)
class PretrainRequest:
    """Options of ``boxwright pretrain``. ``preset`` None means ``imagenet``."""

    data: Annotated[Path, Parameter(help="A folder with train/CLASS/ and, for validation, val/CLASS/ below it.")]
    preset: Annotated[
        Literal["imagenet", "small"] | None,
        Parameter(help="The recipe: imagenet (the default) for ImageNet, small for a few thousand small images."),
    ] = None
    output: Annotated[
        Path | None, Parameter(help="A new folder for the run. Default: runs/BACKBONE-PRESET-N.", group=OUTPUT)
    ] = None
    sets: Annotated[
        tuple[str, ...],
        Parameter(
            name="--set",
            help="Override a setting of the recipe, such as crops.size=160. May be repeated.",
            show_default=False,
        ),
    ] = ()
    config: ConfigFile = None
    epochs: Epochs = None
    resume: Resume = None
    seed: Seed = None
    licence: Annotated[
        str,
        Parameter(
            name=("--licence", "--license"), help="Licence of the images, for the card in the file.", show_default=False
        ),
    ] = ""
    device: Device = "auto"
    workers: LoaderWorkers = None


@dataclass(frozen=True, kw_only=True)
class DemoRequest:
    """Options of ``boxwright demo``. Scenes are squares of ``size`` pixels, inputs the next multiple of 32."""

    output: Annotated[Path, Parameter(help="Folder of scenes, run and report.")] = Path("demo")
    images: Annotated[int, Parameter(help="Number of training scenes.")] = 1600
    val_images: Annotated[int, Parameter(help="Number of validation scenes, which select the best checkpoint.")] = 40
    test_images: Annotated[int, Parameter(help="Number of test scenes, used for the reported metrics only.")] = 80
    size: Annotated[int, Parameter(help="Side of a scene in pixels.")] = 256
    steps: Annotated[int | None, Parameter(help="Number of training steps. Default: three epochs.")] = None
    seed: Annotated[int, Parameter(help="Seed of scenes and training.")] = 0
    sets: Annotated[
        tuple[str, ...], Parameter(name="--set", help="Override a setting of the recipe.", show_default=False)
    ] = ()
    device: Device = "auto"
