"""Recognise near-formats that are not read, and say how to get from them to one that is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from boxwright.data.images import is_image_name, walk_files

ARCHIVES = (".zip", ".tar", ".gz", ".tgz", ".7z", ".rar", ".bz2", ".xz")
"""Lower-case suffixes of archives and compressed files."""
_HEAD = 20_000  # bytes that are looked at
_MOST = 2_000  # files that are looked at

# How a text file with boxes begins; then what it is, and the way in.
_TEXTS = (
    (
        r"[A-Za-z_]+ [\d.-]+ -?\d ([\d.-]+ ){11}[\d.-]+( [\d.-]+)?\s",
        "KITTI labels; convert them to COCO, for example with FiftyOne",
    ),
    (
        r"(imagesource:.*\n|gsd:.*\n)*([\d.-]+ ){8}\S+ [0-2]\s",
        "DOTA labels, rotated boxes; convert them to upright ones in COCO JSON",
    ),
    (r"\d+,-?\d+(,-?[\d.]+){7,8}\s", "boxes of MOT Challenge; convert them to COCO JSON"),
    (r"\S+\.(jpe?g|png)\s*\n\d+\s*\n\d+ \d+ \d+ \d+", "WIDER FACE boxes; convert them to COCO JSON"),
)

# Words that a JSON file has near its start, the first row that fits; then what it is, and the way in.
_JSON = (
    (("imagePath", "shapes"), "LabelMe JSON, one file an image; convert it to COCO with labelme2coco"),
    (("_via_",), "a VIA project; in VIA choose Annotation > Export Annotations (COCO format)"),
    (("regions", "shape_attributes"), "VIA JSON; in VIA choose Annotation > Export Annotations (COCO format)"),
    (("coordinates", "annotations"), "CreateML JSON; export the data as COCO from the tool that wrote it"),
    (("rectanglelabels",), "Label Studio's own JSON; export again from Label Studio as COCO or YOLO with images"),
    (("polygonlabels",), "Label Studio's own JSON; export again from Label Studio as COCO or YOLO with images"),
    (("completed_by",), "Label Studio's own JSON; export again from Label Studio as COCO or YOLO with images"),
    (("classTitle",), "Supervisely JSON; export it from Supervisely with the app Export to COCO or Export to YOLO"),
    (("geometryType",), "Supervisely JSON; export it from Supervisely with the app Export to COCO or Export to YOLO"),
    (("items", "categories"), "Datumaro JSON; convert it with: datum convert -f coco_instances --save-media"),
    (("\"score\"", "category_id"), "COCO results, that is detections; score them with boxwright evaluate --detections"),
    (("segments_info",), "COCO panoptic annotations; give the file instances_*.json of the same images"),
    (("caption",), "COCO captions, which have no boxes; give the file instances_*.json of the same images"),
    (("file_name", "objects"), "JSON Lines; convert it to one COCO JSON file"),
)  # fmt: skip


def hint(place: Path) -> str:
    """Return what a file or the files of a folder seem to be and how to use them, in one sentence; else empty."""
    if place.is_file():
        return _of_file(place)
    files = walk_files(place)[:_MOST]
    for file in files:
        if file.name.lower() not in ("notes.json", "package.json") and (text := _of_file(file)):
            return f"{file.relative_to(place).as_posix()} looks like {_article(text)}"
    return _of_names(files)


def _article(text: str) -> str:
    return text[0].lower() + text[1:] if text.startswith(("An ", "A ")) else text


def _of_file(file: Path) -> str:
    suffix = file.suffix.lower()
    if suffix in ARCHIVES:
        return "an archive; unpack it and give the folder"
    if suffix in (".tfrecord", ".tfrecords", ".record") or ".tfrecord-" in file.name:
        return "TFRecord; export the data as COCO, VOC or YOLO from the tool that wrote it"
    if suffix in (".json", ".jsonl", ".ndjson"):
        return _of_json(_start(file))
    if suffix == ".txt":
        start = _start(file)
        return next((text for pattern, text in _TEXTS if re.match(pattern, start)), "")
    if suffix == ".xml":
        return _of_xml(_start(file))
    if suffix in (".csv", ".tsv"):
        return _of_csv(_start(file))
    if suffix in (".mat", ".parquet", ".arrow", ".lmdb", ".h5", ".hdf5"):
        return f"a {suffix} file; export the data as COCO, VOC or YOLO"
    return ""


def _of_json(start: str) -> str:
    found = (text for words, text in _JSON if all(word in start for word in words))
    return next(found, "")


def _of_xml(start: str) -> str:
    root = re.search(r"<([A-Za-z_][\w.-]*)", re.sub(r"<[?!][^>]*>", "", start))
    if (
        root is not None
        and root.group(1) == "annotations"
        and ("<meta>" in start or "<image " in start or "<version>" in start)
    ):
        return "CVAT XML; export the task from CVAT as COCO 1.0, Pascal VOC 1.1 or Ultralytics YOLO Detection 1.0"
    if root is not None and root.group(1) == "dataset" and "<images" in start:
        return "dlib's XML; convert it to VOC or COCO"
    return ""


def _of_csv(start: str) -> str:
    first = start.splitlines()[0].lower() if start.strip() else ""
    columns = {column.strip().strip("\"'") for column in re.split(r"[,;\t]", first)}
    if {"imageid", "xmin", "xmax"} <= columns:
        return "Open Images CSV; convert it to COCO, for example with FiftyOne"
    if "region_shape_attributes" in columns:
        return "VIA CSV; in VIA choose Annotation > Export Annotations (COCO format)"
    if {"xmin", "ymin"} <= columns or {"x1", "y1"} <= columns or {"bbox"} <= columns:
        return "a table of boxes; convert it to COCO JSON or to VOC XML"
    fields = re.split(r"[,;\t]", first)
    if len(fields) == 6 and is_image_name(fields[0].strip("\"'")):
        return "a table of boxes, as keras-retinanet reads it; convert it to COCO JSON or to VOC XML"
    return ""


def _of_names(files: list[Path]) -> str:
    """Return a hint from the names of the files alone."""
    images = [file for file in files if is_image_name(file)]
    if not images:
        return ""
    stems = {file.stem for file in images}
    texts = [file for file in files if file.suffix.lower() == ".txt" and file.stem in stems]
    if any(_has_labels(file) for file in texts[:20]):
        return "The .txt files look like YOLO labels; add a data.yaml with `train:` and `val:` (folders) and `names:`"
    return "There are images but no annotations; annotate them, and export COCO, VOC or YOLO"


def _has_labels(file: Path) -> bool:
    return bool(re.match(r"\s*\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*$", next(_lines(file), "")))


def _lines(file: Path) -> Iterator[str]:
    yield from (line for line in _start(file).splitlines() if line.strip())


def _start(file: Path) -> str:
    try:
        with file.open("rb") as stream:
            return stream.read(_HEAD).replace(b"\0", b"").decode("utf-8", "replace")
    except OSError:
        return ""
