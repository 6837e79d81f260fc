"""Metric of a detector that decides which weights are best, and when early stopping stops."""

from __future__ import annotations

from typing import NamedTuple

from boxwright.data.index import DetectionIndex
from boxwright.data.masks.mask_gaps import mask_gap
from boxwright.fields import nearest
from boxwright.structures import InputError

COCO = {"AP": "AP", "AP50": "AP50", "AP75": "AP75", "AR": "AR100"}
"""Metrics of boxes by name, with their keys among COCO's; AR is at 100 detections an image."""


class Metric(NamedTuple):
    """A metric. ``key``: its entry in the row of a validation; ``name``: as people write it.

    ``of_class``: the class whose AP it is; ``of_masks``: True for a metric of masks.
    """

    key: str
    name: str
    of_class: str | None = None
    of_masks: bool = False


METRICS = {name: Metric(key, name) for name, key in COCO.items()}
METRICS |= {f"mask {name}": Metric(f"mask_{key}", f"mask {name}", of_masks=True) for name, key in COCO.items()}
"""All metrics but those of classes."""


def chosen_metric(name: str, index: DetectionIndex, validation: DetectionIndex | None) -> Metric:
    """Return the metric called ``name``: one of `METRICS`, or a class of ``index`` for its AP.

    A metric comes before a class of the same name; ``mask_AP`` and ``ap50`` are read as well. Raises InputError for
    another name, and for a metric that is undefined on the set ``validation``, if there is one.
    """
    metric = _metric_of(name, index.classes.names)
    if validation is None:
        return metric
    scored = validation.labels[~validation.crowd]
    if metric.of_class is not None and not (scored == index.classes.names.index(metric.of_class)).any():
        raise InputError(
            f"validation.metric = {name!r}: no object of the validation set {validation.root} is a {metric.of_class}, "
            "so that its AP is undefined; choose another metric, or another set with --val-split"
        )
    return metric


def _metric_of(name: str, classes: tuple[str, ...]) -> Metric:
    if name in METRICS:
        return METRICS[name]
    if name in classes:
        return Metric(f"AP of {name}", f"AP of {name}", of_class=name)
    spelled = {known.casefold(): metric for known, metric in METRICS.items()}
    if (metric := spelled.get(name.replace("_", " ").casefold())) is not None:
        return metric
    near = nearest(name, [*METRICS, *classes]) or f"; give one of {', '.join(METRICS)}, or a class for its AP"
    raise InputError(f"validation.metric = {name!r}: neither a metric nor a class of the data{near}")


def check_masks(metric: Metric, gives_masks: bool, validation: DetectionIndex | None) -> None:
    """Raise InputError for a metric of masks if there are none to score: of the detector, or in the data."""
    if not metric.of_masks or validation is None:
        return
    if not gives_masks:
        why = "the detector gives no masks; train one that does, such as mask-rcnn-detnet-small-fpn"
    elif not validation.has_masks:
        why = f"the validation set {validation.root} has no masks"
    elif (gap := mask_gap(validation)) is not None:
        why = gap
    else:
        return
    remedy = "" if not gives_masks else f"; choose {metric.name.removeprefix('mask ')}, or add the masks"
    raise InputError(f"validation.metric = {metric.name!r}: {why}{remedy}")
