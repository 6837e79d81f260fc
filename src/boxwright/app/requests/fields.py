"""Types of options that several commands share, each with its help text and its group in the help."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter, Token

from boxwright.precision import Precision as PrecisionName

OUTPUT = Group("Output", sort_key=2)
WHERE = Group("Where it runs", sort_key=3)

AugmentName = Literal[
    "flip", "multiscale", "refinedet-320", "refinedet-320-coco", "refinedet-512", "refinedet-512-coco"
]
MergeName = Literal["nms", "voting", "soft_voting", "soft_nms"]

Checkpoint = Annotated[
    str,
    Parameter(
        help="A checkpoint file, a run folder, or a published name such as torchvision:ssd300_vgg16 (see `boxwright "
        "weights list`)."
    ),
]
AnyRecipe = Annotated[str, Parameter(help="The name of a recipe, a TOML file, the folder of a run, or a checkpoint.")]
Data = Annotated[
    Path, Parameter(help="The data set: a folder, a COCO .json or a YOLO data.yaml. The format is detected.")
]
VocZeroBased = Annotated[
    bool,
    Parameter(
        help="In VOC files: count pixels from 0, as some tools write them. `data convert --format voc` writes a copy "
        "that counts from 1.",
        show_default=False,
    ),
]
TrainSplit = Annotated[str | None, Parameter(help="Default: train, or the only split.")]
ValSplit = Annotated[
    str | None, Parameter(help="Default: val, else test, else a fifth of the training images is held back.")
]
Validated = Annotated[
    bool,
    Parameter(
        help="Validate, on training images that are held back if the data have no split for it (the default); --no-val "
        "trains on all images and validates nothing.",
        show_default=False,
    ),
]
Effort = Annotated[
    Literal["quick", "standard", "best"] | None,
    Parameter(
        help="Without a recipe: how many images the run sees, and how large. quick is for a first look, best for a "
        "detector to use. Default: standard.",
    ),
]
Budget = Annotated[
    str | None,
    Parameter(help="Without a recipe: the time that the training may take, such as 15m or 2h. The speed is measured."),
]
Latency = Annotated[
    str | None,
    Parameter(help="Without a recipe: the time that detection may take for an image, such as 50ms, on this machine."),
]
TestSplit = Annotated[str | None, Parameter(help="Default: val, else test, else the only split.")]
Device = Annotated[
    str,
    Parameter(help="auto, cpu, cuda (or gpu), cuda:1 (or 1) or mps. auto takes a GPU if there is one.", group=WHERE),
]
Precision = Annotated[
    PrecisionName, Parameter(help="Floating-point precision; bf16 is faster where supported.", group=WHERE)
]
LoaderWorkers = Annotated[int | None, Parameter(help="Processes that load images. Default: the recipe's.", group=WHERE)]
Seed = Annotated[int | None, Parameter(help="Seed of all random numbers. Default: the recipe's.")]
Epochs = Annotated[
    float | None, Parameter(help="Length of the training. The schedule is stretched to fit. Default: the recipe's.")
]


class MoreEpochs(float):
    """A number of epochs to add to a run, written with a plus sign: ``--epochs +10``."""


def _read_epochs(_: Any, tokens: Sequence[Token]) -> float:
    text = tokens[0].value.strip()
    try:
        return MoreEpochs(text) if text.startswith("+") else float(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a number, such as 12 or +10") from None


TrainEpochs = Annotated[
    float | None,
    Parameter(
        help="Length of the training. The schedule is stretched to fit. With --resume: extend a finished run by so "
        "many, as +10, or to so many in all, as 30. Default: the recipe's.",
        converter=_read_epochs,
    ),
]
InputSides = Annotated[
    str | None,
    Parameter(
        help="Size of the network's input in pixels: a side or short side, such as 320, or HEIGHTxWIDTH. The sizes of "
        "augmentation change in proportion. Default: the recipe's."
    ),
]
BatchSize = Annotated[int | None, Parameter(help="Images per step, over all processes. Default: the recipe's.")]
LearningRate = Annotated[
    float | None, Parameter(help="Learning rate, whatever the batch size. Default: the recipe's for the batch size.")
]
BestMetric = Annotated[
    str | None,
    Parameter(
        help="Metric that selects the best checkpoint and stops early: AP, AP50, AP75, AR, the same of masks (`mask "
        "AP`), or the name of a class for its AP. Default: the recipe's, which is AP."
    ),
]
Patience = Annotated[
    int | None, Parameter(help="Stop after as many validations without a better metric. Default: the recipe's.")
]
TrainPrecision = Annotated[
    PrecisionName | None,
    Parameter(help="Floating-point precision of training. Default: the recipe's.", group=WHERE),
]
ConfigFile = Annotated[Path | None, Parameter(help="A TOML file with changes to the recipe.")]
Resume = Annotated[Path | None, Parameter(help="Continue the run in this folder.")]
Augment = Annotated[
    AugmentName | None,
    Parameter(
        help="Test-time augmentation: run on several views of each image (mirrored, at several sizes, or as RefineDet "
        "is tested). Slower."
    ),
]
Merge = Annotated[
    MergeName | None,
    Parameter(
        help="How to merge the detections of the --augment views. Default: voting, or soft_voting for the -coco ones."
    ),
]
TestSettings = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="Override a setting of the recipe, such as detector.rpn.post_nms=[2000,300]. May be repeated.",
        show_default=False,
    ),
]

InputSize = Annotated[
    int | None,
    Parameter(
        help="Input size of another program's file whose weights fit several: 320 or 512 for RefineDet, 320 or 800 for "
        "torchvision's MobileNetV3, 600 or 800 for DetNet_pytorch."
    ),
]
