"""The command ``boxwright demo``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from rich.console import Console

from boxwright.app.requests.training import DemoRequest
from boxwright.cli.common import FLAT, Json, examples, print_json
from boxwright.io.text import printable

if TYPE_CHECKING:
    from boxwright.app.demo import DemoResult

EXAMPLES = examples("boxwright demo --output demo")


def demo(*, request: Annotated[DemoRequest, FLAT] = DemoRequest(), json: Json = False) -> int:
    """Draw scenes, train a detector from ImageNet weights and report: about ten minutes on two cores, offline."""
    from boxwright.app.demo import run_demo

    result = run_demo(request)
    if json:
        return print_json(result.to_dict())
    print_demo(result, Console(soft_wrap=True))
    return 0


def print_demo(result: DemoResult, console: Console) -> None:
    """Print the metrics, the path of the report and the commands for the user's own data."""
    from boxwright.report.page import duration, percent

    total = duration(sum(result.timings.values()))
    metrics = f"AP50 {percent(result.stats['AP50'])} %, AP {percent(result.stats['AP'])} %"
    console.print(f"{metrics} on the test scenes, after {total}.", highlight=False)
    console.print(printable(f"The report: {result.report}"), markup=False, highlight=False)
    console.print("\nNow on your own data, in COCO, VOC or YOLO format:")
    for purpose, command in result.commands.items():
        console.print(f"  {purpose}\n     {command}", markup=False, highlight=False)
