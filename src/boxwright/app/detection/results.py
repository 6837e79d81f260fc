"""Output folder of ``boxwright detect``: a journal during the run, the result files at its end.

Every finished image or video is a line in ``journal.jsonl``, so that a stopped run continues where it was. At the end
the journal is written as ``detections.json`` (a list of COCO results), ``images.json`` (the images and categories of
its ids) and ``detections.csv`` (one row per detection). Each file is replaced atomically.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from boxwright.app.detection.sources import MediaFile
from boxwright.detections import Detections
from boxwright.io.files import appending, atomic_text
from boxwright.io.text import table_cell
from boxwright.structures import Classes, InputError

_ANEW = "start over with --overwrite, or name another --output"
CSV_COLUMNS = ("file", "image_id", "frame", "time", "width", "height", "class", "score", "x1", "y1", "x2", "y2")


@dataclass(frozen=True, slots=True)
class Record:
    """Detections of an image, or of frame ``frame`` of a video at ``time`` seconds.

    ``entries`` are COCO results, whose ``image_id`` is set at the end.
    """

    width: int
    height: int
    entries: list[dict[str, Any]]
    frame: int | None = None
    time: float | None = None

    @classmethod
    def of(cls, found: Detections, frame: int | None = None, time: float | None = None) -> Record:
        """Make the record of one image's detections."""
        return cls(found.size[1], found.size[0], found.to_coco(0), frame, time)


class ResultFolder:
    """Journal of a detection run and the files written from it."""

    def __init__(self, folder: Path, settings: dict[str, Any], overwrite: bool = False) -> None:
        """Open or continue ``folder``. ``settings``: everything besides the files that affects the results.

        Raises ``InputError`` when the folder holds the results of other settings, unless ``overwrite``.
        """
        self.folder = folder
        self._done: dict[str, dict[str, Any]] = {}
        folder.mkdir(parents=True, exist_ok=True)
        self._journal = folder / "journal.jsonl"
        settings = json.loads(json.dumps(settings))
        if overwrite:
            self._journal.unlink(missing_ok=True)
        lines = list(_json_lines(self._journal)) if self._journal.exists() else []
        if lines:
            before = lines[0].get("settings", {})
            changed = sorted(key for key in before.keys() | settings.keys() if before.get(key) != settings.get(key))
            if changed:
                detail = ", ".join(f"{key} was {before.get(key)!r}, is {settings.get(key)!r}" for key in changed)
                raise InputError(
                    f"{folder}: holds the results of other settings ({detail}); "
                    "choose another --output, or start over in this one with --overwrite"
                )
            self._done = {line["path"]: line for line in lines[1:] if "path" in line}
            # Rewritten to remove a line that the last run left unfinished.
            with atomic_text(self._journal) as file:
                for line in (lines[0], *self._done.values()):
                    file.write(json.dumps(line) + "\n")
        else:
            with atomic_text(self._journal) as file:
                file.write(json.dumps({"settings": settings}) + "\n")

    def is_done(self, source: MediaFile) -> bool:
        """Return True if the file was finished earlier under the same name and has not changed since."""
        line = self._done.get(str(source.path))
        return line is not None and line["name"] == source.name and line.get("stamp") == _stamp(source.path)

    def add(self, source: MediaFile, records: Sequence[Record]) -> None:
        """Append a finished file to the journal and flush it to disk."""
        line = {
            "path": str(source.path),
            "name": source.name,
            "stamp": _stamp(source.path),
            "records": [
                {"width": r.width, "height": r.height, "frame": r.frame, "time": r.time, "entries": r.entries}
                for r in records
            ],
        }
        self._done[line["path"]] = line
        with appending(self._journal) as file:
            file.write(json.dumps(line) + "\n")

    def assemble(self, sources: Iterable[MediaFile], classes: Classes) -> tuple[int, int]:
        """Write the result files for the finished sources. Return the number of images and of detections in them.

        Image ids are 1, 2, ... in the order of the sources and, within a video, of its frames.
        """
        images: list[dict[str, Any]] = []
        results: list[dict[str, Any]] = []
        for source in sources:
            line = self._done.get(str(source.path))
            for record in () if line is None else line["records"]:
                image: dict[str, Any] = {"id": len(images) + 1, "file_name": source.name, "path": str(source.path)}
                image |= {"width": record["width"], "height": record["height"]}
                if record["frame"] is not None:
                    image |= {"frame": record["frame"], "time": record["time"]}
                images.append(image)
                results.extend({**entry, "image_id": image["id"]} for entry in record["entries"])
        categories = [{"id": i, "name": n} for i, n in zip(classes.ids, classes.names, strict=True)]
        with atomic_text(self.folder / "detections.json") as file:
            json.dump(results, file)
        with atomic_text(self.folder / "images.json") as file:
            json.dump({"images": images, "categories": categories}, file, indent=1)
        with atomic_text(self.folder / "detections.csv") as file:
            _write_csv(file, images, results, classes)
        return len(images), len(results)


def _stamp(path: Path) -> list[int]:
    """Return size and modification time of a file. If they change, the file is processed again."""
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Read the lines of a journal. An unfinished last line is left out."""
    try:
        lines = path.read_bytes().decode("utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: not a journal ({error}); {_ANEW}") from error
    if lines[-1] == "":
        lines.pop()
    for number, line in enumerate(lines, start=1):
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                return
            raise InputError(f"{path}, line {number}: not a journal line ({error}); {_ANEW}") from error
        if not _is_journal_line(content, number == 1):
            raise InputError(f"{path}, line {number}: not a line that boxwright wrote; {_ANEW}")
        yield content


def _is_journal_line(content: Any, first: bool) -> bool:
    """Return True if a line has the parts that are read from it; the first one holds the settings."""
    if not isinstance(content, dict):
        return False
    if first:
        return isinstance(content.get("settings"), dict)
    records = content.get("records")
    if not isinstance(content.get("path"), str) or not isinstance(content.get("name"), str):
        return False
    keys = {"width", "height", "frame", "time", "entries"}
    return isinstance(records, list) and all(isinstance(r, dict) and keys <= r.keys() for r in records)


def _write_csv(file: IO[str], images: list[dict[str, Any]], results: list[dict[str, Any]], classes: Classes) -> None:
    names = dict(zip(classes.ids, classes.names, strict=True))
    of_id = {image["id"]: image for image in images}
    table = csv.writer(file)
    table.writerow(CSV_COLUMNS)
    for entry in results:
        image = of_id[entry["image_id"]]
        left, top, width, height = entry["bbox"]
        table.writerow(
            (
                table_cell(image["file_name"]),
                image["id"],
                image.get("frame", ""),
                "" if image.get("time") is None else f"{image['time']:.3f}",
                image["width"],
                image["height"],
                table_cell(names[entry["category_id"]]),
                entry["score"],
                left,
                top,
                round(left + width, 3),
                round(top + height, 3),
            )
        )
