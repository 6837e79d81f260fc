"""Compare the default run with its twin from random weights and with detectors of other projects in the same minutes.

    python -m venv ULTRALYTICS; ULTRALYTICS/bin/pip install ultralytics
    python benchmarks/peers.py PATH/TO/bccd --minutes 10 --seeds 0 1 2 --only default
    python benchmarks/peers.py PATH/TO/bccd --minutes 10 --ultralytics-python ULTRALYTICS/bin/python

``default``
    ``boxwright train --data DATA``, or with ``--recipe`` a recipe by name.
``scratch``
    The same with ``--backbone-weights none``, for as many epochs.
``ssdlite320``
    torchvision's ssdlite320_mobilenet_v3_large from random weights by torchvision's reference recipe.
``yolo11n``, ``yolo11n@SIZE``
    Ultralytics' YOLO11n from random weights by Ultralytics' trainer with its own hyper-parameters, at its default 640
    pixels or another size. It runs in an environment of its own, by the Python of ``--ultralytics-python``; without
    that option it is left out. To use the torch that is installed already, install ``ultralytics`` there with
    ``--no-deps``, what it misses, and a file ``torch.pth`` in its ``site-packages`` with the path of the folder that
    holds torch. Nothing is downloaded or sent while it runs.

Every run has one core and one thread. A short run on the same core tells how many epochs end within ``--minutes`` with
validation, and the run is that long, so that its schedule is complete; the minutes that it took are in the table. The
checkpoints are those that each trainer recommends: of ours and of Ultralytics the best on the validation split, of
torchvision the last. Their detections are scored by one evaluator, on the validation split and on ``test`` where there
is one. Each finished run is kept as a line of results/peers.jsonl and is not repeated, so the table can be made in
parts, one data set after another. Writes results/peers.md.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

from boxwright.recipes import get_recipe
from boxwright.structures import InputError
from contestants.runs import Contest, Entry
from machine import describe
from runner.options import asked, common_options, given, keep_folder, rows_beside, written_at_end
from runner.pool import run_all
from runner.rows import Rows, Values
from runner.tables import FIGURES, markdown, mean, write_lines

CONTESTANTS = ("default", "scratch", "ssdlite320", "yolo11n")
NAMES = {
    "default": "Boxwright, default",
    "scratch": "the same from random weights",
    "ssdlite320": "torchvision, ssdlite320_mobilenet_v3_large",
    "yolo11n": "Ultralytics, YOLO11n",
}
NOTES = (
    "torchvision and Ultralytics publish weights from COCO, which a user with a network connection would start from; "
    "they cannot be had here, so both start from random weights",
    "ours starts from the ImageNet weights of its backbone, which are installed with it",
)


def table(rows: Rows) -> list[str]:
    """Return a table for each data set, a row per contestant with its mean over the seeds."""
    found: dict[tuple[str, float], dict[str, list[tuple[dict[str, Any], Values]]]] = {}
    for key, values in rows.all():
        if "contestant" in key:
            own = found.setdefault((key["data"], key["minutes"]), {})
            own.setdefault(key["contestant"], []).append((key, values))
    lines = []
    for (data, minutes), entries in sorted(found.items()):
        test = any("test" in values for own in entries.values() for _, values in own)
        heads = ["detector", "seeds", "epochs", *FIGURES, *(["AP, test", "AP50, test"] if test else []), "minutes"]
        cells = []
        for name in sorted(entries, key=lambda name: (order(name), name)):
            own = [values for _, values in entries[name]]
            row = [title(name, own[0]), f"{len(own)}", mean((v["epochs"] for v in own), 0, spread=False)]
            row += [mean(v["val"][figure] for v in own) for figure in FIGURES]
            if test:
                row += [mean(v.get("test", {}).get(figure) for v in own) for figure in ("AP", "AP50")]
            cells.append([*row, mean((v["minutes"] for v in own), 1, spread=False)])
        lines += ["", f"## {data}, {minutes:g} minutes", "", *markdown(heads, cells)]
    return lines


def order(name: str) -> int:
    """Return the place of a contestant in the table."""
    return CONTESTANTS.index(name.partition("@")[0])


def title(name: str, values: Values) -> str:
    """Return the words for a contestant: detector, recipe or input size, and start."""
    base = name.partition("@")[0]
    own = {"default": f" (`{values.get('recipe')}`), ImageNet weights of its backbone", "scratch": ""}
    size = f", {values['size']} pixels" if "size" in values else ""
    return f"{NAMES[base]}{own.get(base, f'{size}, random weights')}"


def main() -> None:
    parser = common_options(__doc__, "peers.md")
    parser.add_argument("--minutes", type=float, required=True, help="for each run, with validation")
    parser.add_argument("--contestants", nargs="+", default=list(CONTESTANTS), help="also yolo11n@320 and so on")
    parser.add_argument("--recipe", help="of the default run; default: none, which lets boxwright train choose")
    parser.add_argument("--ours", default="", help="more arguments of boxwright train for the default and its twin")
    parser.add_argument("--own-length", action="store_true", help="leave the epochs of the default run to itself")
    parser.add_argument("--ultralytics-python", type=Path, help="the Python of an environment with ultralytics")
    args = parser.parse_args()
    unknown = [name for name in args.contestants if name.partition("@")[0] not in CONTESTANTS]
    if unknown:
        raise InputError(f"--contestants {' '.join(unknown)}: choose among {', '.join(CONTESTANTS)}")
    if args.recipe is not None:
        get_recipe(args.recipe)
    rows = rows_beside(args.output)
    contest = Contest(
        data=args.data,
        minutes=args.minutes,
        keep=keep_folder(args, "peers"),
        rows=rows,
        recipe=args.recipe,
        ours=tuple(shlex.split(args.ours)),
        own_length=args.own_length,
        ultralytics=args.ultralytics_python,
    )
    names = [name for name in args.contestants if not name.startswith("yolo") or args.ultralytics_python]
    entries = [Entry(contest, name, seed) for seed in args.seeds for name in names if asked(name, args.only)]

    def write() -> None:
        lines = [
            "# The default run and detectors of other projects in the same minutes",
            "",
            "- command: `python benchmarks/peers.py PATH/TO/DATA --minutes MINUTES --seeds SEEDS "
            f"{given(args, 'recipe', 'own-length')}`, once for each data set",
            *describe(threads=1),
            f"- runs of {rows.dates()}, each on one core, {args.jobs} at a time; a short run before tells how many "
            "epochs end within the minutes with validation",
            "- best checkpoint on val of ours and of Ultralytics, last of torchvision; all scored by one evaluator",
            *(f"- {note}" for note in [*NOTES, *args.note]),
            *table(rows),
        ]
        write_lines(args.output, lines)

    with written_at_end(write, args.output):
        run_all(entries, rows, args.jobs, then=write)


if __name__ == "__main__":
    main()
