"""The command ``boxwright detect``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter
from rich.console import Console

from boxwright.app.requests.fields import Checkpoint
from boxwright.app.requests.inference import DetectRequest
from boxwright.cli.common import FLAT, Json, examples, print_json
from boxwright.io.text import printable

if TYPE_CHECKING:
    from boxwright.app.detection.predict import PredictSummary

EXAMPLES = examples(
    "boxwright detect run photos/ --output found",
    "boxwright detect torchvision:ssd300_vgg16 photos/",
    "boxwright detect run/best.safetensors 'cam*/*.jpg' clip.mp4 --every 5 --threshold 0.3",
)


def detect(
    checkpoint: Checkpoint,
    /,
    *sources: Annotated[
        str, Parameter(help="Images, videos, folders, globs such as 'photos/*.jpg', or .txt lists of files.")
    ],
    request: Annotated[DetectRequest, FLAT] = DetectRequest(),
    json: Json = False,
) -> int:
    """Detect objects in images, folders, globs, lists of files and videos.

    Writes pictures/, videos/, detections.json (COCO results), images.json (the images behind its ids) and
    detections.csv. A run that was stopped continues where it was. The exit code is 1 when a file could not be read;
    the other files are still processed.
    """
    from boxwright.app.detection.predict import detect_files

    summary = detect_files(checkpoint, sources, request)
    if json:
        print_json(summary.to_dict())
    else:
        print_predicted(summary, Console(soft_wrap=True))
    return 1 if summary.failed else 0


def print_predicted(summary: PredictSummary, console: Console) -> None:
    """Print the counts of a run and the files that could not be read."""
    from boxwright.report.page import duration

    counts = [f"{n} {what}" for n, what in ((summary.images, "images"), (summary.frames, "frames")) if n]
    done = " and ".join(counts) or "no new files"
    console.print(f"processed {done} in {duration(summary.seconds)}", highlight=False)
    written = f"{summary.output}: {summary.detections} detections in {summary.pictures} images"
    console.print(printable(written), markup=False, highlight=False)
    if summary.failed:
        console.print(f"{len(summary.failed)} could not be read:", style="red")
        for failure in summary.failed:
            console.print(printable(f"  {failure.message}"), markup=False, highlight=False)
