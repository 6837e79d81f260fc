"""Options of the commands ``boxwright weights`` that read a checkpoint file."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from boxwright.app.requests.fields import InputSize

CheckpointSource = Annotated[
    str,
    Parameter(
        help="A name that `boxwright weights list` shows, hf:owner/name, or a path: a Boxwright file or run folder, or "
        "another program's .pth, .pkl, .caffemodel, or .weights with its .cfg beside it."
    ),
]


@dataclass(frozen=True, kw_only=True)
class ImportOptions:
    """Facts about another program's checkpoint that its file does not hold or that need correction."""

    classes: Annotated[
        Path | None,
        Parameter(
            help="A text file with one class name per line, in label order, for a file trained on other classes than "
            "usual."
        ),
    ] = None
    publisher: Annotated[
        str | None, Parameter(help="The program that wrote the file. Default: recognised by its tensor names.")
    ] = None
    size: InputSize = None
