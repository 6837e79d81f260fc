"""Requests of ``boxwright data filter`` and ``data tile``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import Parameter

if TYPE_CHECKING:
    from boxwright.data.editing.filter import FilterRules
    from boxwright.data.editing.tile import TileRules

EmptyShare = Annotated[
    float | None,
    Parameter(
        help="Share of images without objects in each split but val and test, such as 0.1. More are left out at "
        "random.",
        show_default=False,
    ),
]
ChoiceSeed = Annotated[int, Parameter(help="Seed of the choice of images without objects.")]


@dataclass(frozen=True, kw_only=True)
class FilterRequest:
    """Options of ``boxwright data filter``."""

    rename: Annotated[
        tuple[str, ...],
        Parameter(
            help="Rename a class, as OLD=NEW. May be repeated. Classes that get one name, or that of a class that "
            "exists, are merged.",
            show_default=False,
        ),
    ] = ()
    drop: Annotated[
        tuple[str, ...],
        Parameter(
            help="Leave out this class, named as after --rename. May be repeated. Its objects become background.",
            show_default=False,
        ),
    ] = ()
    keep: Annotated[
        tuple[str, ...],
        Parameter(
            help="Keep this class, named as after --rename, and leave out all that are not named. May be repeated.",
            show_default=False,
        ),
    ] = ()
    min_size: Annotated[
        float, Parameter(help="Boxes with a side shorter than this are tiny, in pixels of the original image.")
    ] = 0
    min_area: Annotated[float, Parameter(help="Boxes of less than this area are tiny, in square pixels.")] = 0
    min_share: Annotated[
        float, Parameter(help="Boxes of less than this share of the image's area are tiny, such as 0.0001.")
    ] = 0
    tiny: Annotated[
        Literal["drop", "ignore"],
        Parameter(
            help="Leave tiny boxes out, so that their objects become background, or mark them to be ignored: as crowd "
            "regions in COCO, as difficult in VOC."
        ),
    ] = "drop"
    match: Annotated[
        tuple[str, ...],
        Parameter(
            help="Keep images whose name or path matches this pattern, such as 'night_*'. May be repeated.",
            show_default=False,
        ),
    ] = ()
    without_empty: Annotated[
        bool,
        Parameter(
            help="Leave out all images without objects. By default they stay, as background.", show_default=False
        ),
    ] = False
    empty_share: EmptyShare = None
    seed: ChoiceSeed = 0

    def rules(self) -> FilterRules:
        """Return the rules of the library."""
        from boxwright.data.editing.filter import FilterRules

        return FilterRules(
            rename=self.rename,
            drop=self.drop,
            keep=self.keep,
            min_size=self.min_size,
            min_area=self.min_area,
            min_share=self.min_share,
            tiny=self.tiny,
            match=self.match,
            without_empty=self.without_empty,
            empty_share=self.empty_share,
            seed=self.seed,
        )


@dataclass(frozen=True, kw_only=True)
class TileRequest:
    """Options of ``boxwright data tile``."""

    size: Annotated[int, Parameter(help="Side of a tile in pixels. Images that are no larger stay as they are.")] = 640
    overlap: Annotated[
        float,
        Parameter(
            help="Share of its side that a tile has in common with the next, at least. An object no larger than "
            "this is whole in one of them."
        ),
    ] = 0.2
    min_visible: Annotated[
        float,
        Parameter(
            help="Share of an object's area that must be inside a tile. Smaller parts are marked to be ignored: as "
            "crowd regions in COCO, as difficult in VOC. YOLO has no mark, they are left out."
        ),
    ] = 0.3
    empty_share: Annotated[
        float,
        Parameter(
            help="Share of tiles without objects in each split but val and test, which keep all. More are left out at "
            "random; 1 keeps all."
        ),
    ] = 0.1
    seed: ChoiceSeed = 0
    quality: Annotated[
        int | None,
        Parameter(help="JPEG quality of the tiles, 1 to 100. Default: PNG, without loss.", show_default=False),
    ] = None

    def rules(self) -> TileRules:
        """Return the rules of the library."""
        from boxwright.data.editing.tile import TileRules

        return TileRules(
            size=self.size,
            overlap=self.overlap,
            min_visible=self.min_visible,
            empty_share=self.empty_share,
            quality=self.quality,
            seed=self.seed,
        )
