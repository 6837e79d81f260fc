"""Convert all splits of a data set to another format, and list everything that the new format cannot hold."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from boxwright.data.formats.opening import DatasetFormat
from boxwright.data.formats.writing.output import new_folder
from boxwright.data.formats.writing.whole import CopyOptions, read_whole, write_whole


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

    The other arguments are those of `CopyOptions`. The folder appears whole or not at all.

    Raises ``InputError`` for an output that is not empty, an unknown format, an image that is missing, that is no
    image, that has another size than its annotations say or that lies outside the data set, and a full disk.
    """
    options = CopyOptions(
        format=to,
        images=images,
        masks=masks,
        skip_bad_masks=skip_bad_masks,
        voc_one_based=voc_one_based,
        voc_fractions=voc_fractions,
        cut=cut,
        outside_images=outside_images,
    )
    target = new_folder(output)
    read = read_whole(path, target, options)
    written = write_whole(target, to, options, read.splits)
    counts = {name: {"images": len(index), "boxes": written.boxes[name]} for name, index in read.splits.items()}
    return ConvertReport(str(target), read.source.format, to, counts, (*read.announcements, *written.announcements))
