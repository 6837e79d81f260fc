"""A recipe: everything that decides what a training run does, as one frozen value.

Recipes are literals (see ``boxwright.recipes``). They change through :mod:`boxwright.config.overlay`, go into every
checkpoint as JSON and come back equal (:mod:`boxwright.config.reading`).
"""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from boxwright.data.config import DataConfig
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.contract.fitting import FitConfig
from boxwright.fields import Count, CountOrZero, Fraction, Length, NotNegative, Positive, PositiveShare, Share, config
from boxwright.precision import Precision
from boxwright.structures import InputError

Unit = Literal["steps", "epochs"]
ClassWeighting: TypeAlias = Literal["balanced", "sqrt"] | dict[str, Positive]
"""Weights of classes by the number of their objects, or by name."""


@config
class GroupConfig:
    """Another learning rate and weight decay for some parameters. The longest prefix that fits a name counts."""

    prefix: str
    """Beginning of the parameters' names, such as ``backbone.layer1``."""
    lr: NotNegative = 1.0
    """Factor on the optimiser's learning rate."""
    weight_decay: NotNegative = 1.0
    """Factor on the optimiser's weight decay."""


@config
class SGDConfig:
    """Stochastic gradient descent with momentum, in torch's form: the learning rate is outside the momentum buffer."""

    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.02
    """Learning rate."""
    base_batch: Count | None = None
    """Global batch size that ``lr`` is for.

    Other batch sizes scale it in proportion (linear scaling rule, Goyal et al. 2017). None takes ``lr`` as it is.
    """
    momentum: Fraction = 0.9
    """Momentum."""
    nesterov: bool = False
    """Use Nesterov momentum."""
    weight_decay: NotNegative = 1e-4
    """Weight decay."""
    decay_norms: bool = False
    """Apply weight decay to the parameters of normalisation layers."""
    decay_biases: bool = True
    """Apply weight decay to biases."""
    bias_lr: NotNegative = 1.0
    """Factor on the learning rate of biases, except those of norms; 2 in Caffe's prototxts (SSD, RefineDet, R-FCN)."""
    groups: tuple[GroupConfig, ...] = ()
    """Other rates for parameters by prefix."""

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise InputError("nesterov = true needs a momentum above 0")


@config
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019)."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive = 1e-4
    """Learning rate."""
    base_batch: Count | None = None
    """Global batch size that ``lr`` is for, as in :class:`SGDConfig`."""
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    """Decay of the running means of the gradient and of its square."""
    eps: Positive = 1e-8
    """Constant that is added to the denominator."""
    weight_decay: NotNegative = 0.05
    """Weight decay."""
    decay_norms: bool = False
    """Apply weight decay to the parameters of normalisation layers."""
    decay_biases: bool = False
    """Apply weight decay to biases."""
    bias_lr: NotNegative = 1.0
    """Factor on the learning rate of biases, except those of norms."""
    groups: tuple[GroupConfig, ...] = ()
    """Other rates for parameters by prefix."""


OptimiserConfig: TypeAlias = SGDConfig | AdamWConfig


@config
class WarmupConfig:
    """A rise of the learning rate at the start of a stage, over a third of the stage at most."""

    steps: CountOrZero = 500
    """Length in steps."""
    factor: Share = 0.001
    """Factor on the learning rate at the first step."""
    power: Positive = 1.0
    """The rise is the share of the steps to this power: 1 is a straight line, 4 Darknet's burn-in."""


@config
class MultiStepConfig:
    """A learning rate that drops at milestones."""

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[Length, ...] = ()
    """Ends of the constant parts, rising, in the unit of the stage."""
    gamma: PositiveShare = 0.1
    """Factor at each milestone."""
    warmup: WarmupConfig | None = None
    """Warm-up at the start; None starts at the full rate."""

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise InputError(f"milestones = {list(self.milestones)}: must rise")


@config
class CosineConfig:
    """A learning rate that falls along half a cosine."""

    kind: Literal["cosine"] = "cosine"
    final: Share = 0.0
    """Factor on the learning rate at the end of the stage."""
    warmup: WarmupConfig | None = None
    """Warm-up at the start; None starts at the full rate."""


ScheduleConfig: TypeAlias = MultiStepConfig | CosineConfig


@config
class Stage:
    """A part of training with an optimiser and a schedule of its own; most recipes have one."""

    USUAL: ClassVar[bool] = True  # recipes written before there were other kinds do not say theirs

    kind: Literal["steps"] = "steps"
    name: str = "train"
    """Name in logs."""
    length: Length
    """Length in ``unit``."""
    unit: Unit = "epochs"
    """Unit of ``length`` and of milestones. An epoch has as many images as the training set."""
    optimiser: OptimiserConfig
    """Optimiser."""
    schedule: ScheduleConfig
    """Course of the learning rate."""
    frozen: tuple[str, ...] = ()
    """Prefixes of the parameters that are not trained; batch norms below them keep their running statistics too."""
    losses: tuple[str, ...] | None = None
    """Loss terms that are minimised; None takes all."""
    reset: tuple[str, ...] = ()
    """Prefixes of parameters and buffers that start the stage as they started the run (4-step training)."""
    proposals: Literal["own", "before"] = "own"
    """Network that proposes regions: the trained one, or a copy from before the stage (4-step training)."""
    cut: Count | None = None
    """Steps after which the stage ends before its length; the schedule stays that of the whole length.

    Extending a run that patience has ended sets it.
    """

    def __post_init__(self) -> None:
        if self.unit == "steps" and self.length != int(self.length):
            raise InputError(f"length = {self.length} steps: must be a whole number")
        if isinstance(self.schedule, MultiStepConfig) and any(m >= self.length for m in self.schedule.milestones):
            milestones = [int(m) if m == int(m) else m for m in self.schedule.milestones]
            raise InputError(
                f"schedule.milestones = {milestones} do not lie within length = {self.length:g} {self.unit}; "
                "change both, for example to milestones at 2/3 and 8/9 of the length"
            )
        if self.losses == ():
            raise InputError("losses is empty; leave it out to minimise all terms")


@config
class FitStage:
    """A stage without gradients: a part of the detector is fitted to features of the training set (R-CNN).

    An image is a step. Images come in the order of the data set, prepared as for evaluation, with the proposals of
    training. Under ``torchrun`` every process does the whole work.
    """

    kind: Literal["fit"] = "fit"
    name: str = "fit"
    """Name in logs."""
    fit: FitConfig
    """Part that is fitted, and how."""


@config
class EMAConfig:
    """Exponential moving average (EMA) of the weights, which is what is evaluated and exported."""

    decay: Fraction = 0.9998
    """Decay per update in the long run."""
    ramp: Length = 2000
    """The decay after ``n`` updates is ``decay * (1 - exp(-n / ramp))``, so that the initial weights are forgotten."""


@config
class ValidationConfig:
    """Validation during training and after the last step."""

    every: Length = 1.0
    """Interval in ``unit``."""
    unit: Unit = "epochs"
    """Unit of ``every``."""
    metric: str = "AP"
    """Metric that decides which weights are best, and early stopping.

    ``AP``, ``AP50``, ``AP75``, ``AR`` (at 100 detections an image), the same of masks (``mask AP``), or the name of a
    class for its AP.
    """
    patience: Count | None = None
    """Validations without a better ``metric`` after which training stops; None never stops early."""
    loss: bool = True
    """Compute the losses on the validation set too."""


@config
class CheckpointConfig:
    """Checkpoints ``last``: at an interval, after each validation, at the end and on Ctrl-C."""

    every: Length = 1.0
    """Interval in ``unit``."""
    unit: Unit = "epochs"
    """Unit of ``every``."""
    keep: CountOrZero = 0
    """Number of earlier checkpoints that stay as ``step_N.safetensors`` beside ``best`` and ``last``."""


@config
class Source:
    """Publication that a recipe follows, and its result."""

    paper: str = ""
    """Title or reference."""
    section: str = ""
    """Sections and tables."""
    note: str = ""
    """Data set, and departures."""
    expected: dict[str, float] | None = None
    """Published metrics in 0..1, such as ``{"AP": 0.379}``."""


@config
class Recipe:
    """Detector, data, stages, and how the steps are carried out."""

    name: str
    """Name of the recipe."""
    detector: DetectorConfig
    """Detector."""
    data: DataConfig
    """Preparation and batching of images."""
    stages: Annotated[tuple[Stage | FitStage, ...], Field(min_length=1)]
    """Parts of training, in order."""
    backbone_weights: str | None = None
    """ImageNet network that the backbone starts from: a name or a file; None starts from random weights.

    ``--backbone-weights`` takes its place (``none``: random weights), and so does a checkpoint given as ``--weights``.
    """
    class_weights: ClassWeighting | None = None
    """Weights of the classes in the classification loss; None weights all alike.

    By name, such as ``{platelet = 2.0}``, where classes that are not named have 1. Or from the objects of the training
    set: "balanced" is in inverse proportion to the number of a class, "sqrt" to its root, with a mean of 1 over all
    objects.
    """
    ema: EMAConfig | None = None
    """Exponential moving average of the weights; None evaluates the weights themselves."""
    validation: ValidationConfig = ValidationConfig()
    """Validation."""
    checkpoint: CheckpointConfig = CheckpointConfig()
    """Checkpoints."""
    precision: Precision = "fp32"
    """Precision of training; bf16 and fp16 run under autocast with weights in fp32."""
    accumulation: Count = 1
    """Micro-batches per optimiser step in each process."""
    clip_norm: Positive | None = None
    """Largest norm of the gradient over all parameters."""
    sync_batch_norm: bool = False
    """Compute batch statistics over all processes (CUDA)."""
    compile: bool = False
    """Compile the detector as one graph."""
    channels_last: bool = False
    """Use the channels-last memory layout."""
    log_every: Count = 20
    """Steps between log rows."""
    seed: CountOrZero = 0
    """Seed of all random numbers."""
    source: Source = Source()
    """Publication that the recipe follows."""

    def __post_init__(self) -> None:
        if isinstance(self.stages[0], Stage) and self.stages[0].proposals == "before":
            raise InputError("stages.0.proposals = 'before': no stage is trained to propose yet; set it to 'own'")
        if self.validation.patience is not None and any(isinstance(stage, FitStage) for stage in self.stages):
            raise InputError(
                f"validation.patience = {self.validation.patience} would end the run before its last stage, which must "
                "still be fitted; set it to none"
            )
        if self.data.batch_size % self.accumulation:
            raise InputError(
                f"data.batch_size = {self.data.batch_size} is not a multiple of accumulation = {self.accumulation}"
            )

    @property
    def batch_size(self) -> int:
        """Images per optimiser step, over all processes and micro-batches."""
        return self.data.batch_size


def scaled_lr(config: OptimiserConfig, batch_size: int) -> float:
    """The learning rate at the global ``batch_size`` by the linear scaling rule, where ``config`` asks for it."""
    return config.lr if config.base_batch is None else config.lr * batch_size / config.base_batch


def steps_of(length: float, unit: Unit, images: int, batch_size: int) -> int:
    """``length`` in optimiser steps, at least 1, for a training set of ``images``."""
    return max(1, round(length) if unit == "steps" else math.ceil(length * images / batch_size - 1e-9))
