"""The command ``boxwright models``."""

from __future__ import annotations

import shutil
import textwrap
from itertools import groupby
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from boxwright.cli.common import Json, examples, print_json, say

EXAMPLES = examples(
    "boxwright models",
    "boxwright models --family retinanet --ablations",
    "boxwright models --kind backbone",
    "boxwright models faster-rcnn-r50-fpn my_recipe.toml",
    "boxwright models --json",
)

TITLES = {
    None: "Backbones, counted as classifiers of 1000 classes at 224 pixels",
    "rcnn": "R-CNN (arXiv 1311.2524): a network on each given region, then SVMs",
    "fast-rcnn": "Fast R-CNN (arXiv 1504.08083): one pass, then a head on given regions",
    "faster-rcnn": "Faster R-CNN (arXiv 1506.01497): proposes its own regions",
    "mask-rcnn": "Mask R-CNN (arXiv 1703.06870): Faster R-CNN with masks; published AP of masks",
    "rfcn": "R-FCN (arXiv 1605.06409): position-sensitive score maps, no head per region",
    "retinanet": "RetinaNet (arXiv 1708.02002): one stage, focal loss",
    "refinedet": "RefineDet (arXiv 1711.06897): one stage that refines its anchors first",
    "ssd": "SSD (arXiv 1512.02325): one stage, default boxes on several maps",
    "yolov1": "YOLOv1 (arXiv 1506.02640): one grid, no anchors",
    "yolov2": "YOLOv2 (arXiv 1612.08242): one grid, anchors by k-means",
    "yolov3": "YOLOv3 (arXiv 1804.02767): three grids, anchors by k-means",
}
"""A line on each family of detectors; None: backbones."""


def models(
    *recipes: Annotated[str, Parameter(help="Show only these: names, or TOML files of your own.")],
    kind: Annotated[
        Literal["backbone", "detector"] | None, Parameter(help="List all backbones, or all detectors but ablations.")
    ] = None,
    family: Annotated[
        str | None, Parameter(help="List all recipes of a family, such as ssd or faster-rcnn, but ablations.")
    ] = None,
    ablations: Annotated[
        bool, Parameter(help="List the ablations of the papers as well.", show_default=False, negative=())
    ] = False,
    all: Annotated[bool, Parameter(help="List every recipe and backbone.", show_default=False, negative=())] = False,
    json: Json = False,
) -> int:
    """List recipes of detectors, and backbones, with their cost and the published AP.

    Without options: one recipe for each network of the papers. The names are those that `boxwright train` takes. A
    detector is counted with 80 classes at the size at which its recipe evaluates. Published AP in per cent is that of
    the paper: COCO's AP, or VOC 2007's AP50. With `--json` every recipe and backbone is listed, unless an option
    selects some.
    """
    from boxwright.app.models.table import model_rows, of_family, one_of_each_network

    every = model_rows()
    if recipes:
        stored = {row["name"]: row for row in every}
        rows = [stored.get(name) or _counted(name) for name in recipes]
        rows = [row for row in rows if kind in (None, row["kind"])]
        rows = of_family(rows, family) if family is not None else rows
        return print_json(rows) if json else _show(rows)
    pool = every if kind is None else model_rows(kind)
    pool = rows = pool if family is None else of_family(pool, family)
    if not all and not (json and kind is None and family is None):
        rows = [row for row in rows if ablations or row["role"] != "ablation"]
        if kind is None and family is None:
            extra = [row for row in rows if row["role"] == "ablation"]
            rows = [*one_of_each_network(rows), *extra]
    if json:
        return print_json(rows)
    _show(rows)
    return say(_hidden(pool, rows))


def _counted(recipe: str) -> dict[str, Any]:
    from boxwright.app.models.counting import recipe_row

    return recipe_row(recipe)


def _show(rows: list[dict[str, Any]]) -> int:
    """Print the rows by family, as plain lines, so that names can be copied from a terminal of 80 columns."""
    order = list(TITLES)
    for family, group in groupby(sorted(rows, key=lambda r: order.index(r["family"])), lambda row: row["family"]):
        say(TITLES[family])
        say("\n".join(f"  {line}" for line in _lines(list(group))) + "\n")
    return 0


def _lines(rows: list[dict[str, Any]]) -> list[str]:
    """Format the rows of a family: name, parameters, multiply-adds, published AP, network and size of its input."""
    cells = [
        (row["name"], f"{row['parameters'] / 1e6:.1f} M", f"{row['multiply_adds'] / 1e9:.1f} G", _published(row))
        for row in rows
    ]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    room = shutil.get_terminal_size().columns - 2
    lines = []
    for row, (name, parameters, cost, published) in zip(rows, cells, strict=True):
        start = f"{name:{widths[0]}}  {parameters:>{widths[1]}}  {cost:>{widths[2]}}"
        start += f"  {published:{widths[3]}}" if widths[3] else ""
        line = f"{start}  {_description(row)}"
        lines += [line] if len(line) <= room else [start.rstrip(), f"    {_description(row)}"]
    return lines


def _published(row: dict[str, Any]) -> str:
    """Return the published AP in per cent with its data set, such as ``37.9 COCO``."""
    metrics, place = row["published"] or {}, row["measured_on"] or ""
    for key, mark in (("AP", ""), ("mask_AP", ""), ("AP50", "" if place == "VOC07" else "AP50 ")):
        if key in metrics:
            return f"{mark}{100 * metrics[key]:.1f} {place}".strip()
    return ""


def _description(row: dict[str, Any]) -> str:
    size = row["input"]
    return row["description"] if isinstance(size, int) else f"{row['description']} {'x'.join(map(str, size))}"


def _hidden(pool: list[dict[str, Any]], shown: list[dict[str, Any]]) -> str:
    """Say what the list leaves out, and the option that shows it."""
    names = {row["name"] for row in shown}
    counts = dict.fromkeys(("paper", "modern", "small", "ablation", None), 0)
    for row in pool:
        counts[row["role"]] += row["name"] not in names
    parts = [
        (counts["paper"], "for the same networks on other data or at other sizes"),
        (counts["modern"], "with modern training (NAME-modern)"),
        (counts["small"], "small ones for a CPU, such as faster-rcnn-detnet-small-fpn"),
        (counts["ablation"], "ablations (--ablations)"),
        (counts[None], "backbones (--kind backbone)"),
    ]
    left = ", ".join(f"{count} {what}" for count, what in parts if count)
    more = " `--family NAME` lists all of a family, `--all` everything." if counts["paper"] else ""
    text = f"Not shown: {left}.{more}" if left else ""
    columns = "Columns: name, parameters, multiply-adds, published AP in % (VOC07: AP50), backbone, size of the input."
    return "\n".join(textwrap.fill(line, 80, break_on_hyphens=False) for line in (columns, text) if line)
