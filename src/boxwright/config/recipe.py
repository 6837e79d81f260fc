"""A recipe: everything that decides what a training run does, as one frozen value.

Recipes are literals (see ``boxwright.recipes``). They change through :mod:`boxwright.config.overlay`, go into every
checkpoint as JSON and come back equal (:mod:`boxwright.config.reading`).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal, TypeAlias

from pydantic import Field

from boxwright.data.config import DataConfig
from boxwright.detectors.build import DetectorConfig
from boxwright.detectors.contract.fitting import FitConfig
from boxwright.precision import Precision
from boxwright.structures import InputError

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
CountOrZero = Annotated[int, Field(ge=0)]
Unit = Literal["steps", "epochs"]


@dataclass(frozen=True, kw_only=True)
class GroupConfig:
    """Another learning rate for the parameters whose names begin with ``prefix``, such as ``backbone.layer1``.

    ``lr`` and ``weight_decay`` multiply the optimiser's. Where several prefixes fit a name, the longest counts.
    """

    prefix: str
    lr: NotNegative = 1.0
    weight_decay: NotNegative = 1.0


@dataclass(frozen=True, kw_only=True)
class LayerDecayConfig:
    """Learning rates that fall with depth (BEiT, ViTDet): the parts of the module ``prefix``, in the order in which it
    registers them, get ``rate`` to the power of their distance from its output; the last part gets ``rate`` itself.
    Multiplies what :class:`GroupConfig` says."""

    prefix: str = "backbone"
    rate: Annotated[float, Field(gt=0, le=1)] = 0.8


@dataclass(frozen=True, kw_only=True)
class SGDConfig:
    """Stochastic gradient descent with momentum; torch's form, the learning rate outside the momentum buffer.

    ``base_batch``: the global batch that ``lr`` is meant for; other batch sizes scale it in proportion (linear scaling
    rule, Goyal et al. 2017). None takes ``lr`` as it is. ``decay_norms`` and ``decay_biases``: whether weight decay
    acts on parameters of normalisation layers and on biases. ``bias_lr`` multiplies the learning rate of biases, those
    of normalisation layers excepted: 2 in Caffe's prototxts (SSD, RefineDet, R-FCN).
    """

    kind: Literal["sgd"] = "sgd"
    lr: Positive = 0.02
    base_batch: Count | None = None
    momentum: Fraction = 0.9
    nesterov: bool = False
    weight_decay: NotNegative = 1e-4
    decay_norms: bool = False
    decay_biases: bool = True
    bias_lr: NotNegative = 1.0
    groups: tuple[GroupConfig, ...] = ()
    layer_decay: LayerDecayConfig | None = None

    def __post_init__(self) -> None:
        if self.nesterov and self.momentum == 0:
            raise InputError("nesterov = true needs a momentum above 0")


@dataclass(frozen=True, kw_only=True)
class AdamWConfig:
    """AdamW (Loshchilov and Hutter 2019). Fields shared with :class:`SGDConfig` mean the same."""

    kind: Literal["adamw"] = "adamw"
    lr: Positive = 1e-4
    base_batch: Count | None = None
    betas: tuple[Fraction, Fraction] = (0.9, 0.999)
    eps: Positive = 1e-8
    weight_decay: NotNegative = 0.05
    decay_norms: bool = False
    decay_biases: bool = False
    bias_lr: NotNegative = 1.0
    groups: tuple[GroupConfig, ...] = ()
    layer_decay: LayerDecayConfig | None = None


OptimiserConfig: TypeAlias = SGDConfig | AdamWConfig


@dataclass(frozen=True, kw_only=True)
class WarmupConfig:
    """The learning rate rises from ``factor`` of its value to all of it over the first ``steps`` steps.

    The rise is the share of those steps to the ``power``: 1 is a straight line, 4 Darknet's burn-in. A short stage
    gives no more than a third of its steps to it.
    """

    steps: CountOrZero = 500
    factor: Annotated[float, Field(ge=0, le=1)] = 0.001
    power: Positive = 1.0


@dataclass(frozen=True, kw_only=True)
class MultiStepConfig:
    """The learning rate is multiplied by ``gamma`` at each milestone, given in the stage's unit."""

    kind: Literal["multistep"] = "multistep"
    milestones: tuple[Positive, ...] = ()
    gamma: Annotated[float, Field(gt=0, le=1)] = 0.1
    warmup: WarmupConfig | None = None

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise InputError(f"milestones = {list(self.milestones)}: must rise")


@dataclass(frozen=True, kw_only=True)
class CosineConfig:
    """The learning rate falls along half a cosine to ``final`` of its value at the end of the stage.

    ``flat``: share of the stage for which the rate first stays at its full value.
    """

    kind: Literal["cosine"] = "cosine"
    final: Annotated[float, Field(ge=0, le=1)] = 0.0
    flat: Fraction = 0.0
    warmup: WarmupConfig | None = None


ScheduleConfig: TypeAlias = MultiStepConfig | CosineConfig


@dataclass(frozen=True, kw_only=True)
class Stage:
    """One stretch of training with an optimiser of its own; ordinary detectors have one.

    ``length`` in ``unit``: an epoch is as many images as the training set has. ``frozen``: prefixes of parameter names
    that do not learn in this stage; batch norms below them keep their running statistics too. ``losses``: the terms
    that are minimised; None takes all that the detector returns.

    Faster R-CNN's 4-step training needs two more. ``reset``: prefixes of parameter names that begin the stage as they
    began the run, with the buffers beside them. ``proposals``: the second stage's regions are proposed by the network
    itself as it learns ("own"), or by a copy of it as it was before this stage ("before").
    """

    USUAL: ClassVar[bool] = True  # recipes written before there were other kinds do not say theirs

    kind: Literal["steps"] = "steps"
    name: str = "train"
    length: Positive
    unit: Unit = "epochs"
    optimiser: OptimiserConfig
    schedule: ScheduleConfig
    frozen: tuple[str, ...] = ()
    losses: tuple[str, ...] | None = None
    reset: tuple[str, ...] = ()
    proposals: Literal["own", "before"] = "own"

    def __post_init__(self) -> None:
        if self.unit == "steps" and self.length != int(self.length):
            raise InputError(f"length = {self.length} steps: must be a whole number")
        if isinstance(self.schedule, MultiStepConfig) and any(m >= self.length for m in self.schedule.milestones):
            milestones = list(self.schedule.milestones)
            raise InputError(
                f"schedule.milestones = {milestones} do not lie within length = {self.length:g} {self.unit}; "
                "change both, for example to milestones at 2/3 and 8/9 of the length"
            )
        if self.losses == ():
            raise InputError("losses is empty; leave it out to minimise all terms")


@dataclass(frozen=True, kw_only=True)
class FitStage:
    """A stage without gradients, in which a part of the detector is fitted to what the network makes of the training
    set: R-CNN's SVMs and its box regression. An image is a step; they come in the order of the data set, prepared as
    for evaluation, with the proposals of training. Under ``torchrun`` every process does the whole work.
    """

    kind: Literal["fit"] = "fit"
    name: str = "fit"
    fit: FitConfig


@dataclass(frozen=True, kw_only=True)
class EMAConfig:
    """Exponential moving average of the weights, which is what gets evaluated and shipped.

    The decay after ``n`` updates is ``decay * (1 - exp(-n / ramp))``, so that an early average forgets its start.
    """

    decay: Fraction = 0.9998
    ramp: Positive = 2000.0


@dataclass(frozen=True, kw_only=True)
class ValidationConfig:
    """Validation every ``every`` steps or epochs, and after the last step.

    ``patience``: validations without a better AP after which training stops; None never stops early. ``loss``: compute
    the losses on the validation set too.
    """

    every: Positive = 1.0
    unit: Unit = "epochs"
    patience: Count | None = None
    loss: bool = True


@dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When ``last`` is written: every ``every`` steps or epochs, after each validation, at the end and on Ctrl-C.

    ``keep``: how many earlier ones stay as ``step_N.safetensors`` beside ``best`` and ``last``.
    """

    every: Positive = 1.0
    unit: Unit = "epochs"
    keep: CountOrZero = 0


@dataclass(frozen=True, kw_only=True)
class Source:
    """Where a recipe's numbers come from, and what they gave there: AP in 0..1, as in ``{"AP": 0.379}``."""

    paper: str = ""
    section: str = ""
    note: str = ""
    expected: dict[str, float] | None = None


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Detector, data, stages, and how the steps are carried out.

    ``precision``: bf16 and fp16 run under autocast with weights in fp32. ``accumulation``: micro-batches per optimiser
    step in each process. ``clip_norm``: the gradient's largest norm over all parameters. ``compile``: the detector as
    one graph. ``sync_batch_norm``: batch statistics over all processes (CUDA). ``log_every``: steps between log rows.
    """

    name: str
    detector: DetectorConfig
    data: DataConfig
    stages: Annotated[tuple[Stage | FitStage, ...], Field(min_length=1)]
    ema: EMAConfig | None = None
    validation: ValidationConfig = ValidationConfig()
    checkpoint: CheckpointConfig = CheckpointConfig()
    precision: Precision = "fp32"
    accumulation: Count = 1
    clip_norm: Positive | None = None
    sync_batch_norm: bool = False
    compile: bool = False
    channels_last: bool = False
    log_every: Count = 20
    seed: CountOrZero = 0
    source: Source = Source()

    def __post_init__(self) -> None:
        if not self.stages:
            raise InputError("stages is empty; a recipe needs at least one")
        if isinstance(self.stages[0], Stage) and self.stages[0].proposals == "before":
            raise InputError("stages.0.proposals = 'before': no stage has learnt to propose yet; set it to 'own'")
        if self.validation.patience is not None and any(isinstance(stage, FitStage) for stage in self.stages):
            raise InputError(
                f"validation.patience = {self.validation.patience} would end the run before its last stage, which must "
                "still be fitted; set it to none"
            )
        if self.data.batch_size % self.accumulation:
            raise InputError(
                f"data.batch_size = {self.data.batch_size} is not a multiple of accumulation = {self.accumulation}"
            )


def scaled_lr(config: OptimiserConfig, batch_size: int) -> float:
    """The learning rate at the global ``batch_size`` by the linear scaling rule, where ``config`` asks for it."""
    return config.lr if config.base_batch is None else config.lr * batch_size / config.base_batch


def steps_of(length: float, unit: Unit, images: int, batch_size: int) -> int:
    """``length`` in optimiser steps, at least 1, for a training set of ``images``."""
    return max(1, round(length) if unit == "steps" else math.ceil(length * images / batch_size - 1e-9))
