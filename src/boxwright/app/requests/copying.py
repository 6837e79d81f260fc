"""Options of the commands that read a data set and write another."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

from boxwright.app.requests.fields import VocZeroBased

if TYPE_CHECKING:
    from boxwright.data.formats.writing.whole import CopyOptions

FormatName = Literal["coco", "voc", "yolo"]


@dataclass(frozen=True, kw_only=True)
class CopyRequest:
    """Options of reading and writing that ``boxwright data convert`` and its like share."""

    images: Annotated[Literal["copy", "link"], Parameter(help="Copy the images, or hard-link them.")] = "copy"
    masks: Annotated[
        bool,
        Parameter(help="Keep masks if the format has them (the default).", show_default=False),
    ] = True
    skip_bad_masks: Annotated[
        bool,
        Parameter(
            help="In COCO files: drop invalid polygons and run lengths instead of stopping. The objects keep their "
            "boxes, and every dropped mask is reported.",
            show_default=False,
        ),
    ] = False
    cut: Annotated[
        bool,
        Parameter(help="Cut boxes to their image in YOLO and VOC (the default).", show_default=False),
    ] = True
    voc_zero_based: VocZeroBased = False
    voc_fractions: Annotated[
        bool,
        Parameter(
            help="Keep fractions of pixels in VOC files, where many programs expect whole numbers.",
            show_default=False,
        ),
    ] = False
    outside_images: Annotated[
        bool,
        Parameter(help="Also take images outside the data set's folder.", show_default=False),
    ] = False

    def options(self, format: FormatName | None) -> CopyOptions:
        """Return the options of the library, with the format to write; None is that of the data set that is read."""
        from boxwright.data.formats.writing.whole import CopyOptions

        return CopyOptions(
            format=format,
            images=self.images,
            masks=self.masks,
            skip_bad_masks=self.skip_bad_masks,
            voc_one_based=not self.voc_zero_based,
            voc_fractions=self.voc_fractions,
            cut=self.cut,
            outside_images=self.outside_images,
        )


PLAIN_COPY = CopyRequest()
"""The request without an option."""
