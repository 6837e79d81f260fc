"""The commands under ``boxwright data``, and what all commands share."""

from __future__ import annotations

import json
import textwrap
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import App, Group, Parameter
from rich.console import Console

data_app = App(name="data", help="Check, look at, convert, measure and draw data sets.", help_epilogue="")


def examples(*lines: str) -> str:
    """The end of a command's help. Long lines are broken as a shell has it, so that a reader sees where one goes on."""
    wrapped = (
        textwrap.wrap(line, 74, subsequent_indent="  ", break_long_words=False, break_on_hyphens=False)
        for line in lines
    )
    return "Examples:\n\n" + "\n".join("    " + " \\\n    ".join(parts) for parts in wrapped)


WHERE = Group("Where it runs", sort_key=3)
OUTPUT = Group("Output", sort_key=2)

Data = Annotated[
    Path, Parameter(help="The data set: a folder, a COCO .json or a YOLO data.yaml. Its format is recognised.")
]
Device = Annotated[str, Parameter(help="auto, cpu, cuda, cuda:1, mps. Auto takes a GPU if there is one.", group=WHERE)]
Json = Annotated[bool, Parameter(help="Print the result as JSON on stdout.", group=OUTPUT, show_default=False)]


def print_json(value: Any) -> int:
    """One line of JSON on stdout; the exit code 0."""
    print(json.dumps(value, ensure_ascii=False, allow_nan=False))
    return 0


def say(text: str) -> int:
    """Text on stdout; the exit code 0."""
    print(text)
    return 0


@data_app.command(help_epilogue=examples("boxwright data check my_data"))
def check(path: Data, /, *, json: Json = False) -> int:
    """Report every defect of a data set with file and place.

    Reads all annotations and decodes all images. Exit code 1 when there are errors.
    """
    from boxwright.app.terminal import print_check
    from boxwright.data.formats.check import check_dataset

    report = check_dataset(path)
    if json:
        print_json(report.to_dict())
    else:
        print_check(report, Console(soft_wrap=True))
    return 0 if report.ok else 1


@data_app.command(help_epilogue=examples("boxwright data show my_data --output samples.html --count 12"))
def show(
    path: Data,
    /,
    *,
    output: Annotated[Path, Parameter(help="The page to write, .html or .png.")] = Path("samples.html"),
    count: Annotated[int, Parameter(help="Images of each split.")] = 24,
    seed: Annotated[int, Parameter(help="Which images are chosen.")] = 0,
    split: Annotated[str | None, Parameter(help="Only this split.")] = None,
    json: Json = False,
) -> int:
    """Draw samples of a data set with their boxes and masks onto one page."""
    from boxwright.data.formats.show import show_dataset

    page = show_dataset(path, output, count, seed, split)
    return print_json({"output": str(page)}) if json else say(f"wrote {page}")


@data_app.command(help_epilogue=examples("boxwright data convert my_data my_coco --to coco"))
def convert(
    path: Data,
    output: Annotated[Path, Parameter(help="A new folder.")],
    /,
    *,
    to: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="The format to write.")],
    images: Annotated[Literal["copy", "link"], Parameter(help="Copy images, or hard-link them.")] = "copy",
    masks: Annotated[
        bool,
        Parameter(
            help="Keep masks where the format has them (the default).", negative="--no-masks", show_default=False
        ),
    ] = True,
    skip_bad_masks: Annotated[
        bool,
        Parameter(
            help="Of COCO files: leave out polygons and run lengths that are no masks instead of stopping; their "
            "objects keep their boxes. Each is said.",
            negative="",
            show_default=False,
        ),
    ] = False,
    json: Json = False,
) -> int:
    """Write a data set in another format. Whatever is lost on the way is said."""
    from boxwright.data.formats.convert import convert_dataset

    report = convert_dataset(path, output, to, images=images, masks=masks, skip_bad_masks=skip_bad_masks)
    if json:
        return print_json(report.to_dict())
    for announcement in report.announcements:
        say(f"note: {announcement}")
    for split, counts in report.splits.items():
        say(f"{split}: {counts['images']} images, {counts['boxes']} boxes")
    return say(f"wrote {report.output} as {report.format} (it was {report.source_format})")


@data_app.command(
    help_epilogue=examples(
        "boxwright data anchors my_data --count 9 --size 416 416",
        "boxwright data anchors my_data --count 5 --size 416 416 --resize warp --json",
    )
)
def anchors(
    path: Data,
    /,
    *,
    count: Annotated[int, Parameter(help="Anchors to find.")],
    size: Annotated[
        tuple[int, int] | None,
        Parameter(help="Height and width of the network's input. Default: 416 416.", show_default=False),
    ] = None,
    resize: Annotated[
        Literal["letterbox", "warp", "keep"],
        Parameter(help="How pictures get there: fitted, stretched, or not at all."),
    ] = "letterbox",
    split: Annotated[str | None, Parameter(help="Default: train, or the only one.")] = None,
    distance: Annotated[
        Literal["iou", "euclid"], Parameter(help="What k-means brings down: 1 - IoU, or sides.")
    ] = "iou",
    update: Annotated[Literal["mean", "median"], Parameter(help="The anchor of a cluster.")] = "mean",
    restarts: Annotated[int, Parameter(help="Runs from other first anchors; the best counts.")] = 10,
    seed: Annotated[int, Parameter(help="The same seed finds the same anchors.")] = 0,
    json: Json = False,
) -> int:
    """Find anchor shapes for a data set by k-means, in the pixels that the network sees.

    Reports how well they fit (mean IoU of each box with its best anchor) and the `--set` for `boxwright train`.
    Crowd regions and boxes smaller than a pixel are left out.
    """
    from boxwright.app.anchors import AnchorRequest, find_anchors

    report = find_anchors(
        AnchorRequest(
            data=path,
            count=count,
            size=size,
            resize=resize,
            split=split,
            distance=distance,
            update=update,
            restarts=restarts,
            seed=seed,
        )
    )
    return print_json(report.to_dict()) if json else say("\n".join(report.lines()))


@data_app.command(help_epilogue=examples("boxwright data scenes scenes --train 500 --val 100 --seed 1"))
def scenes(
    output: Annotated[Path, Parameter(help="A new folder.")],
    /,
    *,
    train: Annotated[int, Parameter(help="Scenes to train on.")] = 200,
    val: Annotated[int, Parameter(help="Scenes to validate on.")] = 50,
    test: Annotated[int, Parameter(help="Scenes to test on.")] = 0,
    size: Annotated[tuple[int, int], Parameter(help="Height and width in pixels, as 256 256.", show_default=False)] = (
        256,
        256,
    ),
    seed: Annotated[int, Parameter(help="The same seed draws the same scenes.")] = 0,
    format: Annotated[Literal["coco", "voc", "yolo"], Parameter(help="The format of the annotations.")] = "coco",
    workers: Annotated[int, Parameter(help="Processes that draw; 0 draws in this one.", group=WHERE)] = 0,
    json: Json = False,
) -> int:
    """Draw a data set of scenes with objects, masks, clutter and occlusion."""
    from boxwright.data.scenes import write_scenes

    counts = {name: n for name, n in (("train", train), ("val", val), ("test", test)) if n}
    folder = write_scenes(output, counts, size, seed, format, workers=workers)
    return print_json({"output": str(folder), "images": counts}) if json else say(f"wrote {folder}")
