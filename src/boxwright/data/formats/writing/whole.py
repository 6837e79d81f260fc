"""Read a whole data set to write it anew, and write one so that it appears whole, read back, or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from boxwright.data.formats.checks.lines import gathered
from boxwright.data.formats.checks.outside import refuse_outside
from boxwright.data.formats.checks.sizes import image_sizes, refuse_wrong_sizes
from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import (
    DatasetFormat,
    Source,
    find_source,
    read_source,
    same_classes,
    whole_splits,
)
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.strays import find_strays
from boxwright.data.formats.voc.writer import write_voc
from boxwright.data.formats.writing.output import ImageTransfer, Written
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.data.index import DetectionIndex
from boxwright.io.files import DiskFullError, atomic_folder
from boxwright.structures import InputError


@dataclass(frozen=True, kw_only=True)
class CopyOptions:
    """Options of every command that reads a data set and writes another.

    ``format``: that of the new data set, None for the one that is read. ``images``: "copy", or "link" for hard links
    where the file system has them. ``masks=False`` writes YOLO boxes instead of polygons; COCO keeps masks, VOC never
    does. ``skip_bad_masks`` leaves out invalid polygons and run lengths of COCO files and announces each; the objects
    keep their boxes. ``voc_one_based=False`` reads VOC corners that count from 0, ``voc_fractions`` writes them with
    fractions instead of whole pixels. ``cut=False`` keeps YOLO and VOC boxes that reach over the edge of their image;
    COCO keeps them always. ``outside_images`` takes images outside the data set's folder too.

    Raises ``InputError`` for an unknown format or treatment of images.
    """

    format: DatasetFormat | None = None
    images: Literal["copy", "link"] = "copy"
    masks: bool = True
    skip_bad_masks: bool = False
    voc_one_based: bool = True
    voc_fractions: bool = False
    cut: bool = True
    outside_images: bool = False

    def __post_init__(self) -> None:
        if self.format not in ("coco", "voc", "yolo", None):
            raise InputError(f"format {self.format!r}: data sets are written as coco, voc or yolo")
        if self.images not in ("copy", "link"):
            raise InputError(f"images={self.images!r}: they can be copied or linked (`copy`, `link`)")


@dataclass(frozen=True)
class WholeDataset:
    """All splits of a data set, ``format`` the one to write, and a sentence for each kind of defect of the source."""

    source: Source
    splits: dict[str, DetectionIndex]
    format: DatasetFormat
    announcements: tuple[str, ...]


def read_whole(path: Path | str, target: Path, options: CopyOptions) -> WholeDataset:
    """Read all splits of the data set at ``path``, to write them to the folder ``target``.

    Raises ``InputError`` for defects that stop training, splits of different classes, a folder of labels that is empty,
    an image that is missing, that is no image, that has another size than its annotations say or that lies outside the
    data set, and for a target among the images of a YOLO set.
    """
    log = ProblemLog(skip_masks=options.skip_bad_masks)
    source = find_source(path, log)
    for name in ("train", "val"):
        if name in source.absent:
            raise InputError(source.absent[name])
    splits = read_source(source, whole_splits(source), log, options.voc_one_based)
    same_classes(path, splits)
    if not options.outside_images:
        refuse_outside(source, splits, ", or take it as it is with `boxwright data convert --outside-images`")
    refuse_wrong_sizes(splits, image_sizes(splits))
    _refuse_output_among_images(target, source, splits)
    find_strays(source, splits, log)
    for problem in log.problems:
        if problem.kind == "no-labels" and problem.place != "split test":  # test images are often published unlabelled
            raise InputError(f"{problem}; correct the folders, so that objects are not lost")
    to = options.format or source.format
    unsaid = {"id-zero", "over-edge"} if options.cut and to != "coco" else {"id-zero"}  # the writers say what they cut
    said = gathered([problem for problem in log.problems if problem.kind not in unsaid], kinds=True)
    return WholeDataset(source, splits, to, tuple(f"{problem}{more}" for problem, more in said))


def write_whole(
    target: Path,
    to: DatasetFormat,
    options: CopyOptions,
    splits: Mapping[str, DetectionIndex] | Callable[[Path], Mapping[str, DetectionIndex]],
    names: Mapping[Path, str] | None = None,
    beside: Callable[[Path, Mapping[str, DetectionIndex]], None] | None = None,
    keys: Mapping[Path, Mapping[str, Any]] | None = None,
) -> Written:
    """Write ``splits`` to the folder ``target`` in the format ``to`` and read it back before it appears.

    ``splits`` may be a function that makes the images, in the empty folder that it is given and that is removed
    afterwards. ``names``: names of image files to write instead of their own, by path.
    ``beside`` writes further files, given the folder and the splits. ``keys``: further keys of image entries in COCO,
    by path.

    Raises ``InputError`` for a full disk, and where what was written is read back with other splits or numbers of
    images or boxes.
    """
    try:
        with atomic_folder(target) as partial:
            transfer: ImageTransfer = options.images
            made = partial / ".made"  # hidden: no reader would take it for data
            if callable(splits):
                made.mkdir()
                splits, transfer = splits(made), "link"
            match to:
                case "coco":
                    written = write_coco(partial, splits, transfer, names=names, keys=keys)
                case "voc":
                    fractions, cut = options.voc_fractions, options.cut
                    written = write_voc(partial, splits, transfer, fractions=fractions, cut=cut, names=names)
                case "yolo":
                    written = write_yolo(partial, splits, transfer, options.masks, cut=options.cut, names=names)
            if beside is not None:
                beside(partial, splits)
            shutil.rmtree(made, ignore_errors=True)
            _check_written(partial, target, splits, written)
            return written
    except DiskFullError as error:
        if options.images == "link":
            raise
        raise InputError(f"{error}, or use `link` for the images") from error


def _refuse_output_among_images(target: Path, source: Source, splits: Mapping[str, DetectionIndex]) -> None:
    """Raise InputError if the output lies below an image folder of a YOLO set, whose images are all read."""
    if source.format != "yolo":
        return
    homes = {index.path(i).parent for index in splits.values() for i in range(len(index))}
    if home := next((home for home in homes if target.is_relative_to(home)), None):
        raise InputError(f"{target}: lies in {home}, so its images would be read with those; name another folder")


def _check_written(partial: Path, target: Path, splits: Mapping[str, DetectionIndex], written: Written) -> None:
    """Read what was written. Raises InputError if its splits, images, classes or numbers of boxes are others."""
    log = ProblemLog(lenient=True)
    try:
        source = find_source(partial, log)
        found = read_source(source, source.splits, log)
    except InputError as error:
        raise InputError(f"{target}: was not kept, since it cannot be read again: {error}") from error
    for name, index in splits.items():
        again = found.get(name)
        expected = (len(index), written.boxes[name])
        read = None if again is None else (len(again), again.num_boxes)
        if read != expected:
            got = "is not found" if read is None else f"has {read[0]} images and {read[1]} boxes"
            errors = [str(p).replace(str(partial), str(target)) for p in log.problems if p.severity == "error"]
            reason = errors[0] if errors else "another split may have the same name; convert each on its own"
            raise InputError(
                f"{target}: was not kept: split {name} {got} when it is read again, instead of {expected[0]} images "
                f"and {expected[1]} boxes; {reason}"
            )
