"""Convert all splits of a data set to another format, and list everything that the new format cannot hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
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
from boxwright.data.formats.writing.output import Written, new_folder
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.data.index import DetectionIndex
from boxwright.io.files import DiskFullError, atomic_folder
from boxwright.structures import InputError


@dataclass(frozen=True)
class ConvertReport:
    """Result of a conversion.

    ``splits`` has the number of images and boxes that were written of each split. ``announcements`` has one sentence
    for each kind of content that was lost, changed or left out.
    """

    output: str
    source_format: DatasetFormat
    format: DatasetFormat
    splits: dict[str, dict[str, int]]
    announcements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)


def convert_dataset(
    path: Path | str,
    output: Path | str,
    to: DatasetFormat,
    *,
    images: Literal["copy", "link"] = "copy",
    masks: bool = True,
    skip_bad_masks: bool = False,
    voc_one_based: bool = True,
    voc_fractions: bool = False,
    cut: bool = True,
    outside_images: bool = False,
) -> ConvertReport:
    """Write the data set at ``path`` to the folder ``output`` in the format ``to``.

    ``images``: "copy", or "link" for hard links where the file system has them. ``masks=False`` writes YOLO boxes
    instead of polygons; COCO keeps masks, VOC never does. ``skip_bad_masks`` leaves out invalid polygons and run
    lengths of COCO files and announces each; the objects keep their boxes. ``voc_fractions`` writes VOC corners with
    fractions instead of whole pixels. ``cut=False`` keeps YOLO and VOC boxes that reach over the edge of their image;
    COCO keeps them always. ``outside_images`` takes images outside the data set's folder too. The folder appears whole
    or not at all.

    Raises ``InputError`` for an output that is not empty, an unknown format, an image that is missing, that is no
    image, that has another size than its annotations say or that lies outside the data set, and a full disk.
    """
    if to not in ("coco", "voc", "yolo"):
        raise InputError(f"format {to!r}: data sets are written as coco, voc or yolo")
    if images not in ("copy", "link"):
        raise InputError(f"images={images!r}: they can be copied or linked (`copy`, `link`)")
    target = new_folder(output)
    log = ProblemLog(skip_masks=skip_bad_masks)
    source = find_source(path, log)
    for name in ("train", "val"):
        if name in source.absent:
            raise InputError(source.absent[name])
    splits = read_source(source, whole_splits(source), log, voc_one_based)
    same_classes(path, splits)
    if not outside_images:
        refuse_outside(source, splits, ", or take it as it is with `boxwright data convert --outside-images`")
    refuse_wrong_sizes(splits, image_sizes(splits))
    _refuse_output_among_images(target, source, splits)
    find_strays(source, splits, log)
    for problem in log.problems:
        if problem.kind == "no-labels" and problem.place != "split test":  # test images are often published unlabelled
            raise InputError(f"{problem}; correct the folders, so that objects are not lost")
    unsaid = {"id-zero", "over-edge"} if cut and to != "coco" else {"id-zero"}  # the writers say what they cut
    said = gathered([problem for problem in log.problems if problem.kind not in unsaid], kinds=True)
    announcements = [f"{problem}{more}" for problem, more in said]
    try:
        with atomic_folder(target) as partial:
            match to:
                case "coco":
                    written = write_coco(partial, splits, images)
                case "voc":
                    written = write_voc(partial, splits, images, fractions=voc_fractions, cut=cut)
                case "yolo":
                    written = write_yolo(partial, splits, images, masks, cut=cut)
            _check_written(partial, target, splits, written)
    except DiskFullError as error:
        if images == "link":
            raise
        raise InputError(f"{error}, or use `link` for the images") from error
    counts = {name: {"images": len(index), "boxes": written.boxes[name]} for name, index in splits.items()}
    return ConvertReport(str(target), source.format, to, counts, (*announcements, *written.announcements))


def _refuse_output_among_images(target: Path, source: Source, splits: dict[str, DetectionIndex]) -> None:
    """Raise InputError if the output lies below an image folder of a YOLO set, whose images are all read."""
    if source.format != "yolo":
        return
    homes = {index.path(i).parent for index in splits.values() for i in range(len(index))}
    if home := next((home for home in homes if target.is_relative_to(home)), None):
        raise InputError(f"{target}: lies in {home}, so its images would be read with those; name another folder")


def _check_written(partial: Path, target: Path, splits: dict[str, DetectionIndex], written: Written) -> None:
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
