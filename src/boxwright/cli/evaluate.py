"""The command ``boxwright evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from boxwright.app.requests.fields import Checkpoint
from boxwright.app.requests.inference import EvaluateRequest
from boxwright.cli.common import FLAT, Json, examples, print_json, say

if TYPE_CHECKING:
    from boxwright.app.evaluate import Scored

EXAMPLES = examples(
    "boxwright evaluate runs/faster-rcnn-detnet-small-fpn-1 --data my_data --report report.html",
    "boxwright evaluate --detections detections.json --data my_data --split test --metric voc12",
    "boxwright evaluate runs/faster-rcnn-detnet-small-fpn-1 --data my_data --augment flip --merge nms",
    "boxwright evaluate runs/faster-rcnn-vgg16-1 --data voc --set detector.rpn.post_nms=[2000,100]",
)


def evaluate(
    checkpoint: Checkpoint | None = None,
    /,
    *,
    request: Annotated[EvaluateRequest, FLAT],
    json: Json = False,
) -> int:
    """Evaluate a detector on a data set: the 12 COCO metrics, results per class, AP and AR by IoU and object size."""
    from boxwright.app.evaluate import evaluate_request

    done = evaluate_request(checkpoint, request)
    if json:
        noted = {} if done.note is None else {"note": done.note}
        saved = {} if done.image_ids is None else {"saved": str(request.save), "image_ids": done.image_ids}
        return print_json(
            {"data": str(request.data), "split": done.index.name, **noted, **done.scored.to_dict(), **saved}
        )
    print_scored(done.scored, Console())
    if done.note is not None:
        say(done.note)
    if done.image_ids is not None:
        say(f"wrote {request.save}; {done.image_ids}")
    for target in (request.plots, request.report):
        if target is not None:
            say(f"wrote {target}")
    return 0


def print_scored(scored: Scored, console: Console) -> None:
    """Print the tables of the metric and the recommended score threshold."""
    console.print(scored.result.table())
    if scored.masks is not None:
        console.print(scored.masks.table())
    if scored.unscored is not None:
        console.print(f"Masks are not evaluated: {scored.unscored}.", markup=False, highlight=False)
    best = scored.curves.overall.best_f1()
    if best is None:
        console.print("No detection is correct, so no threshold is recommended.")
        return
    console.print(
        f"Keep detections with a score of {best.threshold:.2f} or more for the best F1 ({best.f1:.3f}): "
        f"precision {best.precision:.3f}, recall {best.recall:.3f} at IoU {scored.curves.iou:g}."
    )
