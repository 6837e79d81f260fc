"""Recognise the format of the data set at a path, and read it.

========= ============================================================================================================
COCO      a JSON file; or a folder with JSON files in it, in ``annotations/``, or in the folder of each split
YOLO      a ``data.yaml``, Darknet's ``obj.data``, or a folder with one; or images, labels and a ``classes.txt``
VOC       a folder with ``Annotations/``, that folder itself, or a folder with XML files or a folder of them per split
========= ============================================================================================================

A folder that holds several formats is read as the first that matches, and the others are named; give the path of the
``data.yaml`` or ``Annotations`` for another. A data set further down in the folder is read if there is one only. Splits
are called ``train``, ``val`` and ``test``, also if their files have other names (``valid``, ``train2017``). A data set
without splits has the single split ``all``.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from boxwright.data.formats.coco.layout import CocoFiles, coco_split, coco_splits, find_coco, looks_like_coco
from boxwright.data.formats.coco.reader import read_coco
from boxwright.data.formats.entries.links import note_dead_links
from boxwright.data.formats.hints import hint
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.splits import KNOWN_SPLITS, is_held_back, several, split_name
from boxwright.data.formats.voc.layout import VocLayout, find_voc, voc_folders
from boxwright.data.formats.voc.reader import read_voc
from boxwright.data.formats.yolo.bare import bare_files, find_bare, load_bare
from boxwright.data.formats.yolo.layout import YoloLayout, find_yolo, load_yolo, names_classes
from boxwright.data.formats.yolo.reader import read_yolo
from boxwright.data.images import is_hidden, unreadable_reason, walk_files, walk_images
from boxwright.data.index import DetectionIndex
from boxwright.structures import InputError

DatasetFormat = Literal["coco", "voc", "yolo"]


@dataclass(frozen=True)
class Source:
    """A data set that was found but not read. ``layout``: the JSON files by split, or the layout of VOC or YOLO.

    ``absent``: why a split that seems to be meant cannot be read, by split.
    """

    format: DatasetFormat
    path: Path
    layout: dict[str, Path] | VocLayout | YoloLayout
    absent: Mapping[str, str] = field(default_factory=dict)

    @property
    def splits(self) -> tuple[str, ...]:
        """Return the names of the splits, train first."""
        return tuple(self.layout if isinstance(self.layout, dict) else self.layout.splits)


def detect_format(path: Path | str) -> DatasetFormat:
    """Return the format of the data set at a path. Raises ``InputError`` if there is none."""
    return find_source(path).format


def open_dataset(path: Path | str, split: str | None = None, voc_one_based: bool = True) -> DetectionIndex:
    """Read one split of the data set at ``path``, in any of the formats.

    ``split`` may be left out if there is only one. ``voc_one_based=False`` reads VOC corners as 0-based, as some tools
    write them. Harmless defects are corrected and announced in one `DatasetWarning`. Raises ``InputError`` for a split
    that does not exist, listing the others, and for every defect that cannot be corrected safely.
    """
    log = ProblemLog()
    source = find_source(path, log)
    if split is None:
        if len(source.splits) > 1:
            raise InputError(f"{path}: has the splits {', '.join(source.splits)}; choose one")
        split = next(iter(source.splits))
    elif split not in source.splits:
        wanted = split_name(split)
        if wanted in source.absent:
            raise InputError(source.absent[wanted])
        if wanted not in source.splits:
            raise InputError(f"{path}: has no split `{split}`; it has {', '.join(source.splits)}")
        split = wanted
    index = read_source(source, [split], log, voc_one_based)[split]
    log.announce()
    return index


def open_splits(path: Path | str, voc_one_based: bool = True) -> dict[str, DetectionIndex]:
    """Read all splits of the data set at ``path``, train first.

    VOC's ``trainval`` is left out if train and val exist, since it is their union. All splits must have the same
    classes. A split for testing whose images are absent is left out and announced. Otherwise as `open_dataset`.
    """
    log = ProblemLog()
    source = find_source(path, log)
    for name in ("train", "val"):
        if name in source.absent:
            raise InputError(source.absent[name])
    splits = read_source(source, whole_splits(source), log, voc_one_based)
    same_classes(path, splits)
    log.announce()
    return splits


def same_classes(path: Path | str, splits: Mapping[str, DetectionIndex]) -> None:
    """Raise ``InputError``, naming the differences, unless all splits have the same classes in the same order."""
    first = next(iter(splits.values()))
    for name, index in splits.items():
        if index.classes != first.classes:
            differing = ", ".join(sorted(set(index.classes.names) ^ set(first.classes.names))) or "their ids or order"
            raise InputError(
                f"{path}: the splits {first.name} and {name} have different classes ({differing}); "
                "give both the same categories"
            )


def whole_splits(source: Source) -> list[str]:
    """Return the splits, without VOC's ``trainval`` if it is the union of two others."""
    return [s for s in source.splits if s != "trainval" or not {"train", "val"} <= set(source.splits)]


def read_source(
    source: Source, splits: Sequence[str], log: ProblemLog, voc_one_based: bool = True
) -> dict[str, DetectionIndex]:
    """Read the named splits of a source; defects go to ``log``."""
    match source.layout:
        case VocLayout() as layout:
            indexes = read_voc(layout, splits, one_based=voc_one_based, log=log)
        case YoloLayout() as layout:
            indexes = read_yolo(layout, splits, log=log)
        case files:
            indexes = {split: read_coco(files[split], split, log, source.path) for split in splits}
    for split, index in indexes.items():
        if not len(index):
            log.refuse("no-images", source.path, f"split {split}", "has no images; add some or leave the split out")
        if not len(index.classes):
            log.refuse("no-classes", source.path, f"split {split}", "has no classes; annotate at least one object")
        _refuse_unread(index, split, log)
    return indexes


def _refuse_unread(index: DetectionIndex, split: str, log: ProblemLog) -> None:
    """Refuse annotated images of formats that are not read, before training comes to the first of them."""
    unread = [path for path in map(index.path, range(len(index))) if unreadable_reason(path) is not None]
    unread = [path for path in unread if os.path.exists(path)]  # a missing image is reported as missing
    if unread and not log.lenient:  # the check decodes every image and names each
        more = f" (and {len(unread) - 1} more images of the split)" if len(unread) > 1 else ""
        log.refuse("unread-image", unread[0], f"split {split}", f"{unreadable_reason(unread[0])}{more}")


def find_source(path: Path | str, log: ProblemLog | None = None) -> Source:
    """Recognise the data set at a path. Raises ``InputError`` that lists what was searched and what was found.

    ``log`` receives the files that seem to belong to a data set but are not read, and defects of a data.yaml.
    """
    log = log or ProblemLog()
    target = Path(os.path.expanduser(path)).absolute()
    if not os.path.exists(target):
        raise InputError(f"{path}: there is no such file or folder; correct the path")
    if target.is_file():
        return _file_source(target, log)
    everything = walk_files(target)
    dead = note_dead_links(everything, target, log)
    files = [file for file in everything if file.suffix.lower() in (".json", ".yaml", ".yml", ".xml")]
    files = [file for file in files if file not in dead]
    coco = find_coco(target, files)
    source = _near_source(target, coco, files, log) or _far_source(
        target, coco, [file for file in everything if file not in dead], log
    )
    if source is not None:
        _name_unused(source, target, coco, files, log)
        return source
    found = sorted(p.name + ("/" if p.is_dir() else "") for p in target.iterdir() if not is_hidden(p.name))
    listing = ", ".join(found[:8]) + (f" and {len(found) - 8} more" if len(found) > 8 else "") if found else "nothing"
    advice = next((f"{file.relative_to(target)}: {text}" for file, text in dead.items()), None)
    if advice is None and coco.other_tasks:
        name = coco.other_tasks[0].relative_to(target).as_posix()
        advice = f"{name} is COCO without boxes: for another task, or without `annotations`"
    advice = advice or hint(target)
    raise InputError(
        f"{path}: no data set found. Looked for COCO JSON files (here, in annotations/, in train/ valid/ test/), "
        f"a YOLO data.yaml, and VOC XML files (in Annotations/, here, in train/ val/). Found {listing}"
        + (f". {advice}" if advice else "")
    )


def _near_source(target: Path, coco: CocoFiles, files: list[Path], log: ProblemLog) -> Source | None:
    """Return the data set whose files are where a data set has them."""
    splits = coco_splits(target, coco.near)
    found = Source("coco", target, splits, _unannotated(target, splits)) if splits else None
    if found is not None and not all(is_held_back(split) for split in splits):
        return found  # else the training data may be in another format
    yamls = [file for file in files if file.parent == target and file.suffix.lower() != ".json"]
    if (file := find_yolo(target, [f for f in yamls if f.suffix.lower() != ".xml"], log)) is not None:
        return _yolo_source(target, load_yolo(file, log))
    if (layout := find_voc(target, log)) is not None:
        return Source("voc", target, layout, _unannotated(target, layout.splits))
    if (file := find_bare(target)) is not None:
        return _yolo_source(target, load_bare(file, log))
    return found


def _far_source(target: Path, coco: CocoFiles, files: list[Path], log: ProblemLog) -> Source | None:
    """Return the one data set further down in a folder. Raises ``InputError`` if there are several."""
    if coco.far:
        return Source("coco", target, coco_splits(target, coco.far))
    yamls = [file for file in files if file.suffix.lower() in (".yaml", ".yml") and names_classes(file)]
    if len(yamls) > 1:
        raise InputError(f"{target}: {several(target, yamls)}; name the one you mean")
    if yamls:
        return _yolo_source(target, load_yolo(yamls[0], log))
    roots = list(voc_folders(file for file in files if file.suffix.lower() == ".xml"))
    if len(roots) > 1:
        names = ", ".join(root.relative_to(target).as_posix() for root in roots)
        raise InputError(f"{target}: holds {names}; give the path of one of them")
    if roots and (layout := find_voc(roots[0], log)) is not None:
        return Source("voc", roots[0], layout)
    bare = bare_files(files)
    return _yolo_source(target, load_bare(bare[0], log)) if len(bare) == 1 else None


def _file_source(file: Path, log: ProblemLog) -> Source:
    suffix = file.suffix.lower()
    if suffix == ".json":
        if not looks_like_coco(file) and (advice := hint(file)):
            raise InputError(f"{file}: {advice}")
        return Source("coco", file, {coco_split(file, file.parent, [file]): file})
    if suffix in (".yaml", ".yml"):
        return _yolo_source(file, load_yolo(file, log))
    if suffix == ".data":
        return _yolo_source(file, load_bare(file, log))
    advice = hint(file)
    if not advice and suffix == ".xml":
        advice = "give the folder that holds the XML files"
    raise InputError(
        f"{file}: not a data set in a known format; {advice or 'give a .json file, a .yaml file or a folder'}"
    )


def _yolo_source(path: Path, layout: YoloLayout) -> Source:
    return Source("yolo", path, layout, {split: str(problem) for split, problem in layout.absent.items()})


def _unannotated(target: Path, splits: Mapping[str, object]) -> dict[str, str]:
    """Return the splits that have a folder with images but no annotations."""
    absent: dict[str, str] = {}
    if not {split_name(split) for split in splits} <= set(KNOWN_SPLITS):
        return absent  # the images of a split may be in the folder of another name
    for folder in sorted(p for p in target.iterdir() if p.is_dir() and not is_hidden(p.name)):
        name = split_name(folder.name)
        if name in KNOWN_SPLITS and name not in map(split_name, splits) and (images := walk_images(folder)):
            message = f"{folder.name}/ holds {len(images)} images but no annotation file; add it, or remove the folder"
            absent[name] = f"{target}: {message}"
    return absent


def _name_unused(source: Source, target: Path, coco: CocoFiles, files: list[Path], log: ProblemLog) -> None:
    """Note what looks like annotations and is not read, so that nothing is lost silently."""
    used = set(source.layout.values()) if isinstance(source.layout, dict) else set[Path]()
    unused = [f"COCO in {_below(f, target)}" for f in (*coco.near, *coco.far) if f not in used]
    if source.format != "yolo":
        yamls = [file for file in files if file.suffix.lower() in (".yaml", ".yml")]
        unused += [f"YOLO in {_below(f, target)}" for f in yamls[:50] if names_classes(f)]
    if source.format != "voc":
        folders = voc_folders(file for file in files if file.suffix.lower() == ".xml").values()
        unused += [f"VOC in {_below(f, target)}" for f in folders]
    if unused:
        shown = ", ".join(unused[:4]) + (f" and {len(unused) - 4} more" if len(unused) > 4 else "")
        log.correct(
            "unused-file",
            "info",
            target,
            "",
            f"read as {source.format.upper()}; not read: {shown}; give its path to read it",
        )
    if coco.other_tasks:
        names = ", ".join(file.name for file in coco.other_tasks[:4])
        log.note(
            "unused-file",
            "info",
            target,
            "",
            f"not read, since they are for other tasks or have no annotations: {names}",
        )
    for split, message in source.absent.items() if source.format != "yolo" else ():
        text = message.removeprefix(f"{target}: ")
        if split == "test":  # as COCO's own
            log.note("no-annotations", "info", target, "", text)
        else:
            log.correct("no-annotations", "warning", target, "", text)


def _below(file: Path, target: Path) -> str:
    return file.relative_to(target).as_posix() + ("/" if file.is_dir() else "")
