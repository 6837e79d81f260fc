"""The command line. Commands alone: what they do is in ``boxwright.app`` and below.

Exit codes: 0 all is well; 1 done, with something to report (defects found, a file that could not be read); 2 the input
was refused, and nothing was done; 130 stopped by Ctrl-C. With ``--json`` stdout holds one JSON value and nothing else;
progress and messages go to stderr. Heavy modules are imported inside the commands, so that ``--help`` is quick.
"""

from __future__ import annotations

import os
import sys
import traceback
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, CycloptsError, Parameter
from rich.console import Console

import boxwright
from boxwright.cli.data import OUTPUT, WHERE, Data, Device, Json, data_app, examples, print_json, say
from boxwright.cli.demo import demo
from boxwright.cli.pretrain import pretrain
from boxwright.cli.proposals import proposals
from boxwright.cli.weights import weights_app

EPILOGUE = """
Begin with `boxwright demo`. On your own data: `boxwright data check PATH`, then
`boxwright train faster-rcnn-detnet-small-fpn --data PATH`.

Exit codes: 0 all is well; 1 done, but with defects or unreadable files; 2 the input was refused; 130 stopped.
`--debug` or `BOXWRIGHT_DEBUG=1` shows where in the code an error comes from.
"""

app = App(
    name="boxwright",
    help="Train, evaluate and use object detectors on your own pictures.",
    version=boxwright.__version__,
    help_format="markdown",
    help_epilogue=EPILOGUE,
    default_parameter=Parameter(negative=()),
    suppress_keyboard_interrupt=False,
)
app.command(data_app)
app.command(weights_app)
app.command(
    pretrain,
    help_epilogue=examples(
        "boxwright pretrain detnet59 --data imagenet --device cuda",
        "boxwright pretrain detnet-small --preset small --data imagenette",
        "boxwright pretrain ssd300-voc --data imagenet",
        "boxwright pretrain --resume runs/detnet59-imagenet-1 --data imagenet",
    ),
)
app.command(
    proposals,
    help_epilogue=examples(
        "boxwright proposals --data voc --split train --output train.safetensors --workers 4",
        "boxwright proposals --data voc --split train --method runs/faster-rcnn-r50-fpn-1 --output train.safetensors",
    ),
)

app.command(demo, help_epilogue=examples("boxwright demo --output demo"))

CHECKPOINT = "A checkpoint file, a run's folder, or a name, as torchvision:ssd300_vgg16 (boxwright weights list)."
Precision = Annotated[
    Literal["fp32", "bf16", "fp16"], Parameter(help="Arithmetic; bf16 is faster where supported.", group=WHERE)
]


Augment = Annotated[
    Literal["flip", "multiscale", "refinedet-320", "refinedet-320-coco", "refinedet-512", "refinedet-512-coco"] | None,
    Parameter(help="Look at each image several times: mirrored, at more sizes, or as RefineDet is tested. Slower."),
]
Merge = Annotated[
    Literal["nms", "voting", "soft_voting", "soft_nms"] | None,
    Parameter(help="How the findings of --augment become one. Default: voting; the -coco ones soft_voting."),
]
TestSettings = Annotated[
    tuple[str, ...],
    Parameter(
        name="--set",
        help="Use another setting than the recipe's, as detector.rpn.post_nms=[2000,300]. May be repeated.",
        show_default=False,
    ),
]


@app.command(
    help_epilogue=examples(
        "boxwright models --kind detector",
        "boxwright models --json",
    )
)
def models(
    *,
    kind: Annotated[Literal["backbone", "detector"] | None, Parameter(help="Only one of the two.")] = None,
    json: Json = False,
) -> int:
    """List backbones and recipes with their parameters and multiply-adds.

    A backbone is counted as the classifier of 1000 classes at 224 pixels; a detector with 80 classes at the size that
    its recipe evaluates at. The names of detectors are the recipes that `boxwright train` takes.
    """
    from boxwright.app.models import model_rows

    rows = model_rows(kind)
    if json:
        return print_json(rows)
    from rich import box
    from rich.table import Table

    # Slim, because names must stand whole on a terminal of 80 columns: they are there to be copied.
    table = Table(box=box.SIMPLE_HEAD, collapse_padding=True, pad_edge=False)
    table.add_column("name", no_wrap=True)
    table.add_column("kind", no_wrap=True)
    for heading in ("parameters", "mult-adds", "input"):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        size = row["input"] if isinstance(row["input"], int) else "x".join(map(str, row["input"]))
        table.add_row(
            row["name"], row["kind"], f"{row['parameters']:,}", f"{row['multiply_adds'] / 1e9:.2f} G", str(size)
        )
    Console().print(table)
    return 0


@app.command(
    help_epilogue=examples(
        "boxwright train faster-rcnn-detnet-small-fpn --data my_data",
        "boxwright train faster-rcnn-r50-fpn --data coco --epochs 12 --set data.batch_size=8",
        "boxwright train faster-rcnn-r50-fpn --data my_data --weights torchvision:fasterrcnn_resnet50_fpn",
        "boxwright train --data my_data --resume runs/faster-rcnn-detnet-small-fpn-1",
        "torchrun --nproc-per-node 8 -m boxwright train faster-rcnn-detnet59-fpn --data coco",
    )
)
def train(
    recipe: Annotated[str | None, Parameter(help="A recipe's name, or a TOML file with a key `base`.")] = None,
    /,
    *,
    data: Data,
    output: Annotated[
        Path | None, Parameter(help="The run's folder, new. Default: runs/RECIPE-N.", group=OUTPUT)
    ] = None,
    set: Annotated[
        tuple[str, ...],
        Parameter(name="--set", help="Change a setting, as data.batch_size=8. May be repeated.", show_default=False),
    ] = (),
    config: Annotated[Path | None, Parameter(help="A TOML file with changes to the recipe.")] = None,
    epochs: Annotated[float | None, Parameter(help="Length of the training; its schedule is stretched to it.")] = None,
    weights: Annotated[
        str | None, Parameter(help="Start from this checkpoint's weights where they fit: a path or a name.")
    ] = None,
    backbone_weights: Annotated[
        str | None,
        Parameter(
            help="Start the backbone from an ImageNet network: a file of `boxwright pretrain`, of torchvision, Caffe, "
            "Darknet, Detectron or others, or a name."
        ),
    ] = None,
    carry_classes: Annotated[
        bool, Parameter(help="With --weights: keep what was learnt of classes that have the same name.")
    ] = True,
    resume: Annotated[Path | None, Parameter(help="Go on with the run in this folder.")] = None,
    seed: Annotated[int | None, Parameter(help="Seed of everything random.")] = None,
    train_split: Annotated[str | None, Parameter(help="Default: train, or the only one.")] = None,
    val_split: Annotated[str | None, Parameter(help="Default: val, else test, else none.")] = None,
    device: Device = "auto",
    workers: Annotated[int | None, Parameter(help="Processes that load images.", group=WHERE)] = None,
    tensorboard: Annotated[
        bool, Parameter(help="Write TensorBoard's log too.", group=OUTPUT, show_default=False)
    ] = False,
    json: Json = False,
) -> int:
    """Train a detector: boxwright train RECIPE --data PATH is enough.

    `boxwright models --kind detector` lists the recipes. Ctrl-C stops after the step under way and leaves a checkpoint;
    it prints the command that goes on from there. A run that is resumed keeps its recipe: give it no changes.
    """
    from boxwright.app.train import TrainRequest, next_commands, result_dict, start_training

    result = start_training(
        TrainRequest(
            recipe=recipe,
            data=data,
            output=output,
            resume=resume,
            sets=set,
            config=config,
            seed=seed,
            workers=workers,
            epochs=epochs,
            device=device,
            weights=weights,
            backbone_weights=backbone_weights,
            carry_classes=carry_classes,
            tensorboard=tensorboard,
            train_split=train_split,
            val_split=val_split,
        )
    )
    if os.environ.get("RANK", "0") != "0":
        return 0  # under torchrun one process talks
    if json:
        return print_json(result_dict(result, data))
    say(f"trained {result.steps} steps; the checkpoint to use is {result.checkpoint}")
    for what, command in next_commands(result, data):
        say(f"  {what}:\n    {command}")
    return 0


@app.command(
    help_epilogue=examples(
        "boxwright evaluate runs/faster-rcnn-detnet-small-fpn-1 --data my_data --plots plots",
        "boxwright evaluate --detections detections.json --data my_data --split test --metric voc12",
        "boxwright evaluate runs/faster-rcnn-detnet-small-fpn-1 --data my_data --augment flip --merge nms",
        "boxwright evaluate runs/faster-rcnn-vgg16-1 --data voc --set detector.rpn.post_nms=[2000,100]",
    )
)
def evaluate(
    checkpoint: Annotated[str | None, Parameter(help=CHECKPOINT)] = None,
    /,
    *,
    data: Data,
    split: Annotated[str | None, Parameter(help="Default: val, else test, else the only one.")] = None,
    detections: Annotated[
        Path | None, Parameter(help="Score this COCO results file instead of running a checkpoint.")
    ] = None,
    metric: Annotated[
        Literal["coco", "voc07", "voc12"], Parameter(help="COCO's numbers, or VOC's mean AP of 11 points or of area.")
    ] = "coco",
    proposals: Annotated[
        str | None,
        Parameter(help="For Fast R-CNN and R-CNN: a file, or selective-search. Default: the recipe's file."),
    ] = None,
    augment: Augment = None,
    merge: Merge = None,
    set: TestSettings = (),
    plots: Annotated[
        Path | None, Parameter(help="Write curves and confusion as PNG into this folder.", group=OUTPUT)
    ] = None,
    save: Annotated[Path | None, Parameter(help="Write all detections as a COCO results file.", group=OUTPUT)] = None,
    batch_size: Annotated[int | None, Parameter(help="Images at once. Default: the recipe's.", group=WHERE)] = None,
    workers: Annotated[int, Parameter(help="Processes that load images.", group=WHERE)] = 0,
    device: Device = "auto",
    precision: Precision = "fp32",
    json: Json = False,
) -> int:
    """Measure a detector on a data set: COCO's 12 numbers, every class, AP and AR by overlap and size."""
    from boxwright.app.evaluate import EvaluateRequest, evaluate_request
    from boxwright.app.terminal import print_scored

    index, scored = evaluate_request(
        EvaluateRequest(
            data=data,
            checkpoint=checkpoint,
            detections=detections,
            split=split,
            metric=metric,
            device=device,
            batch_size=batch_size,
            workers=workers,
            precision=precision,
            proposals=proposals,
            augment=augment,
            merge=merge,
            sets=set,
            save=save,
            plots=plots,
        )
    )
    if json:
        return print_json({"data": str(data), "split": index.name, **scored.to_dict()})
    print_scored(scored, Console())
    for target in (save, plots):
        if target is not None:
            say(f"wrote {target}")
    return 0


@app.command(
    help_epilogue=examples(
        "boxwright detect run photos/ --output found",
        "boxwright detect torchvision:ssd300_vgg16 photos/",
        "boxwright detect run/best.safetensors 'cam*/*.jpg' clip.mp4 --every 5 --threshold 0.3",
    )
)
def detect(
    checkpoint: Annotated[str, Parameter(help=CHECKPOINT)],
    /,
    *sources: Annotated[str, Parameter(help="Images, videos, folders, globs such as 'photos/*.jpg'.")],
    output: Annotated[Path, Parameter(help="Folder of the results; run again to go on.", group=OUTPUT)] = Path(
        "detections"
    ),
    threshold: Annotated[float, Parameter(help="Least score of a detection, 0 to 1.")] = 0.5,
    recursive: Annotated[bool, Parameter(help="Look into folders within folders.", show_default=False)] = False,
    every: Annotated[int, Parameter(help="Look at each N-th frame of a video.")] = 1,
    augment: Augment = None,
    merge: Merge = None,
    set: TestSettings = (),
    pictures: Annotated[
        bool,
        Parameter(
            help="Draw pictures and videos (the default).", negative="--no-pictures", group=OUTPUT, show_default=False
        ),
    ] = True,
    overwrite: Annotated[
        bool, Parameter(help="Start over in a folder with other results.", group=OUTPUT, show_default=False)
    ] = False,
    batch_size: Annotated[int | None, Parameter(help="Images at once. Default: fitted to memory.", group=WHERE)] = None,
    device: Device = "auto",
    precision: Precision = "fp32",
    json: Json = False,
) -> int:
    """Find objects in images, folders, globs and videos.

    Writes pictures/, videos/, detections.json (COCO results), images.json (what its ids mean) and detections.csv.
    A run that was stopped goes on where it was. Exit code 1 when a file could not be read; the others are done.
    """
    from boxwright.app.detection.predict import PredictOptions, detect_files
    from boxwright.app.terminal import print_predicted

    options = PredictOptions(
        threshold=threshold,
        recursive=recursive,
        batch_size=batch_size,
        device=device,
        precision=precision,
        pictures=pictures,
        every=every,
        overwrite=overwrite,
        augment=augment,
        merge=merge,
        sets=set,
    )
    summary = detect_files(checkpoint, sources, output, options)
    if json:
        print_json(summary.to_dict())
    else:
        print_predicted(summary, Console(soft_wrap=True))
    return 1 if summary.failed else 0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line (default: this process's) and return its exit code."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in words or os.environ.get("BOXWRIGHT_DEBUG", "") not in ("", "0")
    words = [word for word in words if word != "--debug"]
    try:
        with warnings.catch_warnings():
            warnings.showwarning = _show_warning
            result = app(words, exit_on_error=False, print_error=False, result_action="return_value")
        return result if isinstance(result, int) else 0
    except CycloptsError as error:
        return _fail(f"{error}".strip(), debug)
    except KeyboardInterrupt as stopped:
        if not str(stopped):  # an interrupted training has said more itself
            print("\nstopped", file=sys.stderr)
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        from boxwright.app.terminal import message_of

        message = message_of(error)
        if message is None:
            raise  # a fault of ours: it has to be seen
        return _fail(message, debug)


def _fail(message: str, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    print(f"error: {message}", file=sys.stderr)
    return 2


def _show_warning(message: Warning | str, category: type[Warning], filename: str, *_: Any) -> None:
    """Warnings for the person at the terminal: what, not where in the code."""
    if issubclass(category, UserWarning):
        print(f"warning: {message}", file=sys.stderr)
