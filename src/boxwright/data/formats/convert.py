"""Convert all splits of a data set to another format, and list everything that the new format cannot hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.formats.opening import DatasetFormat, find_source, read_source, same_classes, whole_splits
from boxwright.data.formats.problems import ProblemLog
from boxwright.data.formats.voc.writer import write_voc
from boxwright.data.formats.writing.output import ImageTransfer
from boxwright.data.formats.yolo.writer import write_yolo
from boxwright.io.files import DiskFullError, atomic_folder
from boxwright.structures import InputError


@dataclass(frozen=True)
class ConvertReport:
    """Result of a conversion.

    ``splits`` has the number of images and boxes of each split. ``announcements`` has one sentence for each kind of
    content that was lost, changed or left out.
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
    images: ImageTransfer = "copy",
    masks: bool = True,
    skip_bad_masks: bool = False,
    voc_one_based: bool = True,
) -> ConvertReport:
    """Write the data set at ``path`` to the folder ``output`` in the format ``to``.

    ``images``: "copy", or "link" for hard links where the file system has them. ``masks=False`` writes YOLO boxes
    instead of polygons; COCO keeps masks, VOC never does. ``skip_bad_masks`` leaves out invalid polygons and run
    lengths of COCO files and announces each; the objects keep their boxes. The folder appears whole or not at all.

    Raises ``InputError`` for an output that is not empty, an unknown format, a missing image, and a full disk.
    """
    if to not in ("coco", "voc", "yolo"):
        raise InputError(f"format {to!r}: data sets are written as coco, voc or yolo")
    if images not in ("copy", "link"):
        raise InputError(f"images={images!r}: they can be copied or linked (`copy`, `link`)")
    target = Path(output).expanduser().absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise InputError(f"{output}: exists and is not empty; name a new folder")
    log = ProblemLog(skip_masks=skip_bad_masks)
    source = find_source(path, log)
    for name in ("train", "val"):
        if name in source.absent:
            raise InputError(source.absent[name])
    splits = read_source(source, whole_splits(source), log, voc_one_based)
    same_classes(path, splits)
    announcements = [str(p) for p in log.problems if p.kind != "id-zero"]
    try:
        with atomic_folder(target) as partial:
            match to:
                case "coco":
                    announcements += write_coco(partial, splits, images)
                case "voc":
                    announcements += write_voc(partial, splits, images)
                case "yolo":
                    announcements += write_yolo(partial, splits, images, masks)
    except DiskFullError as error:
        if images == "link":
            raise
        raise InputError(f"{error}, or use `link` for the images") from error
    counts = {name: {"images": len(index), "boxes": index.num_boxes} for name, index in splits.items()}
    return ConvertReport(str(target), source.format, to, counts, tuple(announcements))
