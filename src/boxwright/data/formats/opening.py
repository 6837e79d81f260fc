"""Recognise the format of the data set at a path, and read it.

========= ============================================================================================================
COCO      a JSON file; or a folder with JSON files in it, in ``annotations/``, or in the folder of each split
YOLO      a ``data.yaml``; or a folder with one
VOC       a folder with ``Annotations/`` (or that folder itself), with XML files, or with a folder of XML files a split
========= ============================================================================================================

A folder that holds several is read as the first of this list that fits; name the ``data.yaml`` or ``Annotations`` to
have another. Splits are called ``train``, ``val``, ``test`` whatever their files are called (``valid``, ``train2017``);
a data set without splits has the one split ``all``.
"""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from boxwright.data.formats.coco import read_coco
from boxwright.data.formats.places import split_name, split_rank
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.voc import VocLayout, find_voc, read_voc
from boxwright.data.formats.yolo import YoloLayout, find_yolo, load_yolo, read_yolo
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError

DatasetFormat = Literal["coco", "voc", "yolo"]

_OTHER_COCO = ("captions_", "person_keypoints_", "panoptic_", "stuff_", "image_info_")  # COCO's other tasks


@dataclass(frozen=True)
class Source:
    """A data set found at a path and not read yet. ``layout``: JSON files by split, or what VOC and YOLO found."""

    format: DatasetFormat
    path: Path
    layout: dict[str, Path] | VocLayout | YoloLayout

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the splits, train first."""
        return tuple(self.layout if isinstance(self.layout, dict) else self.layout.splits)


def detect_format(path: Path | str) -> DatasetFormat:
    """Return the format of the data set at a path. Raises ``InputError`` where there is none."""
    return find_source(path).format


def open_dataset(path: Path | str, split: str | None = None, voc_one_based: bool = True) -> DetectionIndex:
    """Read one split of the data set at ``path``, in any of the formats.

    ``split`` may be left out where there is only one. ``voc_one_based=False`` reads VOC corners as 0-based, the way
    some tools write them. Harmless defects are put right and announced in one `DatasetWarning`. Raises ``InputError``
    for a split that does not exist, listing those that do, and for all that the readers cannot read with certainty.
    """
    source = find_source(path)
    if split is None:
        if len(source.splits) > 1:
            raise InputError(f"{path}: has the splits {', '.join(source.splits)}; say which one")
        split = next(iter(source.splits))
    elif split not in source.splits:
        wanted = split_name(split)
        if wanted not in source.splits:
            raise InputError(f"{path}: has no split `{split}`; it has {', '.join(source.splits)}")
        split = wanted
    log = ProblemLog()
    index = read_source(source, [split], log, voc_one_based)[split]
    log.announce()
    return index


def open_splits(path: Path | str, voc_one_based: bool = True) -> dict[str, DetectionIndex]:
    """Read all splits of the data set at ``path``, train first.

    VOC's ``trainval`` is left out where train and val are there, being the two of them. Splits must agree about the
    classes. Otherwise as `open_dataset`.
    """
    source = find_source(path)
    log = ProblemLog()
    splits = read_source(source, whole_splits(source), log, voc_one_based)
    same_classes(path, splits)
    log.announce()
    return splits


def same_classes(path: Path | str, splits: dict[str, DetectionIndex]) -> None:
    """Raise ``InputError`` that names the differing classes unless all splits have the same classes in one order."""
    first = next(iter(splits.values()))
    for name, index in splits.items():
        if index.classes != first.classes:
            differing = ", ".join(sorted(set(index.classes.names) ^ set(first.classes.names))) or "their ids or order"
            raise InputError(
                f"{path}: the splits {first.name} and {name} disagree about the classes ({differing}); "
                "give both the same categories"
            )


def whole_splits(source: Source) -> list[str]:
    """The splits without VOC's ``trainval``, where that is the union of two others."""
    return [s for s in source.splits if s != "trainval" or not {"train", "val"} <= set(source.splits)]


def read_source(
    source: Source, splits: Sequence[str], log: ProblemLog, voc_one_based: bool = True
) -> dict[str, DetectionIndex]:
    """Read the named splits of a source that `find_source` found; defects go to ``log``."""
    match source.layout:
        case VocLayout() as layout:
            indexes = read_voc(layout, splits, one_based=voc_one_based, log=log)
        case YoloLayout() as layout:
            indexes = read_yolo(layout, splits, log=log)
        case files:
            indexes = {split: read_coco(files[split], split, log) for split in splits}
    for split, index in indexes.items():
        if not len(index):
            log.refuse("no-images", source.path, f"split {split}", "has no images; add some or leave the split out")
        if not len(index.classes):
            log.refuse("no-classes", source.path, f"split {split}", "has no classes; annotate at least one object")
    return indexes


def find_source(path: Path | str, log: ProblemLog | None = None) -> Source:
    """Recognise the data set at a path. Raises ``InputError`` that lists what was expected and what is there.

    ``log``: a lenient one takes the defects of a data.yaml that can be read past.
    """
    log = log or ProblemLog()
    place = Path(path).expanduser().absolute()
    if not place.exists():
        raise InputError(f"{path}: there is no such file or folder; correct the path")
    if place.is_file():
        return _file_source(place, log)
    if files := _coco_files(place):
        return Source("coco", place, files)
    if (file := find_yolo(place)) is not None:
        return Source("yolo", place, load_yolo(file, log))
    if (layout := find_voc(place)) is not None:
        return Source("voc", place, layout)
    if inner := _inner_voc(place):
        if len(inner) > 1:
            raise InputError(f"{path}: holds {', '.join(p.name for p in inner)}; name the one you mean")
        layout = find_voc(inner[0])
        assert layout is not None
        return Source("voc", inner[0], layout)
    found = sorted(p.name + ("/" if p.is_dir() else "") for p in place.iterdir())
    listing = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "") if found else "nothing"
    raise InputError(
        f"{path}: no data set found. Looked for COCO JSON files (here, in annotations/, in train/ valid/ test/), "
        f"a YOLO data.yaml, and VOC XML files (in Annotations/, here, in train/ val/). Found {listing}"
    )


def _file_source(file: Path, log: ProblemLog) -> Source:
    suffix = file.suffix.lower()
    if suffix == ".json":
        return Source(
            "coco", file, {split_name(file.stem if file.stem != "_annotations.coco" else file.parent.name): file}
        )
    if suffix in (".yaml", ".yml"):
        return Source("yolo", file, load_yolo(file, log))
    hint = "name the folder that holds the XML files" if suffix == ".xml" else "a .json, a .yaml or a folder is needed"
    raise InputError(f"{file}: no data set of a format that is read; {hint}")


def _coco_files(folder: Path) -> dict[str, Path]:
    """The COCO files of a folder by split: in it, in ``annotations/``, or one in each split's folder."""
    for place in (folder, folder / "annotations"):
        files = [p for p in sorted(place.glob("*.json")) if not p.name.startswith(_OTHER_COCO) and _is_coco(p)]
        instances = [p for p in files if p.name.startswith("instances_")]
        if named := _by_split(instances or files):
            return named
    inner: dict[str, Path] = {}
    for place in sorted(p for p in folder.iterdir() if p.is_dir()):
        files = [p for p in sorted(place.glob("*.json")) if _is_coco(p)]
        if len(files) == 1:
            inner[split_name(place.name)] = files[0]
    return dict(sorted(inner.items(), key=lambda item: split_rank(item[0])))


def _by_split(files: list[Path]) -> dict[str, Path]:
    """Files under their splits' names; two that would share one (train2014, train2017) keep their own."""
    names = [split_name(p.stem if p.stem != "_annotations.coco" else p.parent.name) for p in files]
    plain = [p.stem.removeprefix("instances_") for p in files]
    named = {n if names.count(n) == 1 else own: p for n, own, p in zip(names, plain, files, strict=True)}
    return dict(sorted(named.items(), key=lambda item: split_rank(item[0])))


def _is_coco(file: Path) -> bool:
    """Return True if a JSON file looks like COCO detections, without parsing it: it may be large or damaged."""
    if file.stat().st_size == 0:
        return False
    with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
        keys = (b'"images"', b'"annotations"', b'"categories"')
        return content[:64].lstrip(b"\xef\xbb\xbf \t\r\n")[:1] == b"{" and sum(content.find(k) >= 0 for k in keys) >= 2


def _inner_voc(folder: Path) -> list[Path]:
    """VOC roots one or two levels down: ``VOCdevkit/VOC2012``."""
    found: list[Path] = []
    for level in ("*/Annotations", "*/*/Annotations"):
        found += [p.parent for p in sorted(folder.glob(level)) if p.is_dir() and any(p.glob("*.xml"))]
    return found
