"""Rows of a run as JSON lines and CSV, and for TensorBoard on request.

Each row is on disk when the call returns. A resumed run first drops the rows after the step that it resumes from, and a
line that a kill cut short. No row is doubled and none is lost.
"""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any, Literal

from boxwright.config.bounds import check_bounds
from boxwright.config.reading import parse_json
from boxwright.io.files import appending, write_atomically
from boxwright.structures import InputError

Kind = Literal["train", "validation"]
Row = dict[str, Any]
JSONL = "metrics.jsonl"


class RunLog:
    """Appends rows to ``metrics.jsonl``, ``train.csv`` and ``validation.csv`` in ``folder``."""

    def __init__(
        self, folder: Path, resume_step: int = 0, tensorboard: bool = False, unvalidated: bool = False
    ) -> None:
        """Keep the rows up to ``resume_step``; 0 starts a new log.

        ``unvalidated``: the validation of that step is still to come. A row of it is dropped too: the session that
        wrote it died before it was saved.
        """
        self.folder = folder
        last = {"train": resume_step, "validation": resume_step - unvalidated}
        self.rows = [row for row in read_rows(folder) if row["step"] <= last[row["kind"]]]
        self._columns: dict[str, list[str]] = {}
        self._board = _open_board(folder / "tensorboard", resume_step) if tensorboard else None
        self._rewrite()

    def write(self, kind: Kind, row: Row) -> None:
        """Append a row, which needs a ``step``. Values are numbers, text or None."""
        row = {"kind": kind, **row}
        self.rows.append(row)
        self._append(self.folder / JSONL, json.dumps(row) + "\n")
        path = self.folder / f"{kind}.csv"
        if kind not in self._columns:
            self._columns[kind] = [key for key in row if key != "kind"]
            self._append(path, _csv_line(self._columns[kind]))
        elif set(row) - {"kind"} - set(self._columns[kind]):  # a later stage may have other losses
            self._rewrite()
            return self._to_board(kind, row)
        self._append(path, _csv_line([row.get(column) for column in self._columns[kind]]))
        return self._to_board(kind, row)

    def of(self, kind: Kind) -> list[Row]:
        """Return all rows of one kind so far, including those of earlier sessions."""
        return [row for row in self.rows if row["kind"] == kind]

    def close(self) -> None:
        """Flush TensorBoard's file."""
        if self._board is not None:
            self._board.close()

    def _rewrite(self) -> None:
        """Write all files again from ``rows``."""
        write_atomically(self.folder / JSONL, "".join(json.dumps(row) + "\n" for row in self.rows).encode())
        for kind in ("train", "validation"):
            rows = self.of(kind)
            path = self.folder / f"{kind}.csv"
            if not rows:
                path.unlink(missing_ok=True)
                continue
            self._columns[kind] = list(dict.fromkeys(key for row in rows for key in row if key != "kind"))
            lines = [self._columns[kind], *([row.get(c) for c in self._columns[kind]] for row in rows)]
            write_atomically(path, "".join(map(_csv_line, lines)).encode())

    def _append(self, path: Path, text: str) -> None:
        with appending(path) as file:
            file.write(text)

    def _to_board(self, kind: Kind, row: Row) -> None:
        if self._board is None:
            return
        for key, value in row.items():
            if isinstance(value, int | float) and key != "step":
                self._board.add_scalar(f"{kind}/{key}", value, row["step"])
        self._board.flush()


def read_rows(folder: Path) -> list[Row]:
    """Read the rows of the run in ``folder``, without a last line that was cut short."""
    path = folder / JSONL
    if not path.is_file():
        return []
    lines = path.read_bytes().split(b"\n")
    numbered = enumerate(lines[:-1], start=1)  # what follows the last newline is incomplete
    return [_read_row(line, f"{path}: line {number}") for number, line in numbered if line]


def _read_row(line: bytes, where: str) -> Row:
    """Read a row. Raises InputError that begins with ``where`` for anything else."""
    row = parse_json(line, where)
    check_bounds(row, lambda _: where)
    known = isinstance(row, dict) and row.get("kind") in ("train", "validation")
    if not known or not isinstance(row.get("step"), int) or isinstance(row["step"], bool):
        raise InputError(f"{where}: not a row of a run, with kind and step; correct or remove the line")
    wrong = [key for key, value in row.items() if not isinstance(value, str | int | float | None)]
    if wrong:
        raise InputError(f"{where}: values must be numbers, text or null; correct or remove the line")
    return row


def _csv_line(values: list[Any]) -> str:
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerow(["" if v is None else v for v in values])
    return buffer.getvalue()


def _open_board(folder: Path, resume_step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError("TensorBoard is not installed; pip install 'boxwright[tensorboard]'") from None
    return SummaryWriter(str(folder), purge_step=resume_step + 1)
