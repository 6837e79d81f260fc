"""Options that the benchmarks of training have in common."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from runner.rows import Rows

RESULTS = Path(__file__).resolve().parents[2] / "results"
"""Folder of the tables."""


def common_options(
    doc: str | None, output: str | None, seeds: Sequence[int] = (0,), data: str | None = None
) -> argparse.ArgumentParser:
    """Return a parser with the options of all benchmarks that train; ``output`` is the name of the table.

    ``data``: number of data folders, as for ``nargs``.
    """
    parser = argparse.ArgumentParser(description=doc, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, nargs=data)
    parser.add_argument("--seeds", type=int, nargs="+", default=list(seeds))
    parser.add_argument("--jobs", type=int, default=2, help="runs side by side, on a CPU one core each")
    parser.add_argument("--keep", type=Path, help="keep the folders of the runs here")
    parser.add_argument("--only", nargs="+", default=[], help="make only runs whose name contains one of these words")
    parser.add_argument("--note", action="append", default=[], help="a line for the head of the file")
    default = None if output is None else RESULTS / output
    parser.add_argument("--output", type=Path, default=default, required=output is None, help="the table to write")
    return parser


def training_options(
    doc: str | None,
    output: str | None,
    seeds: Sequence[int] = (0,),
    epochs: float | None = 12,
    data: str | None = None,
    choose_start: bool = True,
) -> argparse.ArgumentParser:
    """Return a parser with `common_options` and those of runs by recipes of ours.

    ``epochs`` None and ``choose_start`` False leave out the options for the length and the weights to start from.
    """
    parser = common_options(doc, output, seeds, data)
    if epochs is not None:
        parser.add_argument("--epochs", type=float, default=epochs)
    parser.add_argument("--set", action="append", default=[], help="a setting for all runs, as of boxwright train")
    if choose_start:
        parser.add_argument(
            "--backbone-weights",
            help="ImageNet weights that all runs start from: a name, a file, or none; default: those of each recipe",
        )
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--workers", type=int, default=0, help="processes that load images, of each run")
    return parser


def planned_options(
    parser: argparse.ArgumentParser, size: str | None = None, sizes: bool = False
) -> argparse.ArgumentParser:
    """Add the options of runs whose length may be given in minutes and whose networks are changed alike.

    Their length is fixed before they begin, so that results do not depend on the load of the machine. ``sizes`` gives
    each data set a size of its own.
    """
    parser.add_argument(
        "--minutes",
        type=float,
        help="as many epochs as end within so many minutes on one core, instead of --epochs; paces are kept in "
        "pace.jsonl beside the table, and one that is missing is measured by ten steps on a quiet core",
    )
    parser.add_argument("--calibrate", action="store_true", help="measure missing paces, print minutes, and end")
    if sizes:
        parser.add_argument("--sizes", nargs="+", help="size of the networks' input on each data set")
    else:
        parser.add_argument("--size", default=size, help="size of the networks' input, as of boxwright train")
    parser.add_argument("--freeze-at", type=int, help="stages of the backbone that are not trained; default: recipe's")
    return parser


def keep_folder(args: argparse.Namespace, prefix: str) -> Path:
    """Return the folder of the runs, which exists."""
    keep = args.keep or Path(tempfile.mkdtemp(prefix=f"{prefix}-"))
    keep.mkdir(parents=True, exist_ok=True)
    return keep.resolve()


def rows_beside(output: Path, packages: Sequence[str] = ("python", "torch", "torchvision")) -> Rows:
    """Return the rows that are kept beside a table."""
    return Rows(output.with_suffix(".jsonl"), packages)


@contextmanager
def written_at_end(write: Callable[[], None], output: Path) -> Iterator[None]:
    """Write the table when the block ends, also if some run failed or the program was stopped, and print it."""
    try:
        yield
    finally:
        write()
        print(output.read_text(encoding="utf-8"), flush=True)


def asked(name: str, only: Sequence[str]) -> bool:
    """Return True if a run is to be made."""
    return not only or any(word in name for word in only)


def given(args: argparse.Namespace, *names: str) -> str:
    """Return the options of these names as they stand on a command line, without those that are not given."""
    parts = []
    for name in names:
        value = getattr(args, name.replace("-", "_"))
        if value is None or value is False or value == []:
            continue
        if name == "set":
            parts += [f"--set '{setting}'" for setting in value]
        elif isinstance(value, list):
            parts.append(f"--{name} {' '.join(map(_shown, value))}")
        else:
            parts.append(f"--{name}" if value is True else f"--{name} {_shown(value)}")
    return " ".join(parts)


def _shown(value: object) -> str:
    """Return a value for the head of a file: a folder by its name, because paths differ between machines."""
    if isinstance(value, Path):
        return f"PATH/TO/{value.name}"
    return f"{value:g}" if isinstance(value, float) else str(value)
