"""Cut the large images of a data set into tiles, with their boxes and masks."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxwright.data.editing.backgrounds import check_empty_share, kept_backgrounds
from boxwright.data.editing.windows import ImageRows, TileRows, starts, windows_of
from boxwright.data.formats.opening import DatasetFormat
from boxwright.data.formats.splits import is_held_back
from boxwright.data.formats.writing.names import unique_names
from boxwright.data.formats.writing.output import new_folder, write_text_file
from boxwright.data.formats.writing.whole import CopyOptions, read_whole, write_whole
from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.data.masks.windows import Window
from boxwright.data.packing import CROWD, DIFFICULT, OCCLUDED, POSE_SHIFT, POSES, TRUNCATED, ImageRecord
from boxwright.io.files import copy_file
from boxwright.io.images import save_image
from boxwright.structures import InputError

TILES_FILE = "tiles.csv"
"""Name of the file that lists each tile with its origin."""

TILE_PATTERN = r"(.+)_x\d+_y\d+"
"""Names of tiles without their suffix: the name of the origin, then left and top edge in its pixels."""

_SMALLEST = 16
_MOST_TILES = 1_000_000


@dataclass(frozen=True, kw_only=True)
class TileRules:
    """Size and choice of the tiles.

    ``size``: the side of a tile in pixels; ``overlap``: the share of it that neighbours have in common at least.
    ``min_visible``: the share of an object's area that must be inside, so that it counts as an object of the tile.
    ``empty_share``: tiles without objects are kept, chosen by ``seed``, as far as they make up this share of the tiles
    of a split; splits held back for validation or testing keep all. ``quality``: that of JPEG files, None for PNG.

    Raises ``InputError`` for a value out of range.
    """

    size: int = 640
    overlap: float = 0.2
    min_visible: float = 0.3
    empty_share: float = 0.1
    quality: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.size < _SMALLEST:
            raise InputError(f"--size {self.size}: give the side of a tile, at least {_SMALLEST} pixels")
        if not 0 <= self.overlap < 1:
            pixels = f"; {self.overlap:g} pixels are {self.overlap / self.size:.3g}"
            raise InputError(
                f"--overlap {self.overlap:g}: give a share of the tile's side from 0 to below 1, such as 0.2"
                + (pixels if 1 < self.overlap < self.size else "")
            )
        if not 0 <= self.min_visible <= 1:
            raise InputError(f"--min-visible {self.min_visible}: give a share of the object's area from 0 to 1")
        check_empty_share(self.empty_share)
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise InputError(f"--quality {self.quality}: give a JPEG quality from 1 to 100")
        if self.seed < 0:
            raise InputError(f"--seed {self.seed}: give a whole number of 0 or more")


@dataclass
class TileCounts:
    """Numbers of a split: images read, those that were no larger than a tile, tiles and boxes written.

    ``cut`` counts the boxes that are not whole in their tile, ``ignored`` the parts that became crowd regions or, in
    YOLO, were left out, ``left_out`` the tiles without objects that were not kept. ``never_whole`` and
    ``never_learnt`` count the objects that are whole in no tile, and those of which no tile shows ``min_visible``.
    """

    images: int = 0
    passed: int = 0
    tiles: int = 0
    boxes_before: int = 0
    boxes: int = 0
    cut: int = 0
    ignored: int = 0
    left_out: int = 0
    never_whole: int = 0
    never_learnt: int = 0


@dataclass(frozen=True)
class TileReport:
    """Result of tiling. ``output`` is None for a dry run; ``pattern`` finds the origin in the name of a tile."""

    output: str | None
    source_format: DatasetFormat
    format: DatasetFormat
    splits: dict[str, TileCounts]
    pattern: str
    announcements: tuple[str, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the report as a dictionary for JSON."""
        return asdict(self)


@dataclass
class _Cut:
    """The tiles of one image that are kept; one of the size of the image is the image itself."""

    path: Path
    origin: str
    name: str
    size: tuple[int, int]
    tiles: list[tuple[Window, TileRows]] = field(default_factory=list)

    @property
    def passes(self) -> bool:
        """Return True if the image is no larger than a tile."""
        return [window for window, _ in self.tiles] == [(0, 0, *self.size[::-1])]


def tile_dataset(
    path: Path | str, output: Path | str, rules: TileRules, options: CopyOptions | None = None, *, dry_run: bool = False
) -> TileReport:
    """Write the data set at ``path`` with its large images cut into tiles; with ``dry_run`` only count.

    Images that are no larger than a tile are copied or linked as they are. The others are read upright, as RGB with 8
    bits, one at a time. A tile is called as its origin with the place of its left upper corner, ``a_x512_y0.png``.
    The file ``tiles.csv`` lists split, name, origin (its path below the data set), and x y width height of the tile in
    pixels of the origin, so that what is found in a tile can be moved to the origin. In COCO the image entries have
    them too, as ``origin`` and ``window``.

    Raises ``InputError`` as `boxwright.data.formats.convert.convert_dataset`, for an image that cannot be decoded, and
    for more than a million tiles.
    """
    options = options or CopyOptions()
    target = new_folder(output)
    read = read_whole(path, target, options)
    _check_number(read.splits, rules)
    origins, said = unique_names(read.splits, one_folder=read.format == "voc")
    plans: dict[str, list[_Cut]] = {}
    counts: dict[str, TileCounts] = {}
    for split, index in read.splits.items():
        plans[split], counts[split] = _plan(index, origins[split], rules, read.format)
        said += [f"{split}: {text}" for text in _sentences(counts[split], rules, read.format)]
        if not any(cut.tiles for cut in plans[split]):
            raise InputError(f"split {split}: no tile has an object; keep those without with --empty-share 1")
    if all(count.passed == count.images for count in counts.values()):
        said.append(f"no image is larger than a tile of {rules.size} pixels, so none is cut; give a smaller --size")
    if not dry_run:
        names: dict[Path, str] = {}
        places: dict[Path, dict[str, Any]] = {}
        origins_of: dict[str, list[tuple[str, Window]]] = {
            split: [(cut.origin, window) for cut in plan for window, _ in cut.tiles] for split, plan in plans.items()
        }

        def list_tiles(folder: Path, splits: Mapping[str, DetectionIndex]) -> None:
            written, _ = unique_names(splits, one_folder=read.format == "voc", own=names)
            write_text_file(folder / TILES_FILE, _table(written, origins_of))

        def fill(folder: Path) -> dict[str, DetectionIndex]:
            linked, made = options.images == "link", dict[str, DetectionIndex]()
            for split, plan in plans.items():
                records = _write_tiles(folder, plan, names, rules, linked)
                made[split] = DetectionIndex.build(read.splits[split].classes, records, root=folder, name=split)
                for record, (origin, window) in zip(records, origins_of[split], strict=True):
                    places[record.path] = {"origin": _told(origin), "window": list(window)}
            return made

        said += write_whole(target, read.format, options, fill, names, list_tiles, places).announcements
    place = None if dry_run else str(target)
    return TileReport(place, read.source.format, read.format, counts, TILE_PATTERN, (*read.announcements, *said))


def _table(written: Mapping[str, Sequence[str]], origins: Mapping[str, Sequence[tuple[str, Window]]]) -> str:
    """Return the list of tiles as comma-separated values: names as ``written``, origin and window of each."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("split", "tile", "origin", "x", "y", "width", "height"))
    for split, names in written.items():
        for name, (origin, window) in zip(names, origins[split], strict=True):
            writer.writerow((split, name, _told(origin), *window))
    return text.getvalue()


def _told(origin: str) -> str:
    """Return a path with escapes for bytes that are not UTF-8."""
    return origin.encode(errors="backslashreplace").decode()


def _check_number(splits: dict[str, DetectionIndex], rules: TileRules) -> None:
    number = sum(
        len(starts(height, rules.size, rules.overlap)) * len(starts(width, rules.size, rules.overlap))
        for index in splits.values()
        for height, width in index.sizes.tolist()
    )
    if number > _MOST_TILES:
        raise InputError(f"{number:,} tiles: that is more than {_MOST_TILES:,}; give a larger --size or less --overlap")


def _plan(
    index: DetectionIndex, names: Sequence[str], rules: TileRules, format: DatasetFormat
) -> tuple[list[_Cut], TileCounts]:
    """Cut the annotations of a split, and choose among the tiles without objects."""
    cuts: list[_Cut] = []
    counts = TileCounts(images=len(index), boxes_before=index.num_boxes)
    for i in range(len(index)):
        cut, rows = _Cut(index.path(i), index.relative_path(i), names[i], index.size(i)), ImageRows(index, i, format)
        windows = windows_of(*cut.size, rules.size, rules.overlap)
        cut.tiles = [(window, rows.inside(window, rules.min_visible)) for window in windows]
        cuts.append(cut)
        counts.passed += cut.passes
        counts.never_whole += int((~rows.whole).sum())
        counts.never_learnt += int((~rows.learnt).sum())
    if not is_held_back(index.name):
        empty = np.array([not cut.passes and not rows.has_objects for cut in cuts for _, rows in cut.tiles], dtype=bool)
        kept = iter(kept_backgrounds(empty, rules.empty_share, rules.seed).tolist())
        for cut in cuts:
            cut.tiles = [tile for tile in cut.tiles if next(kept)]
        counts.left_out = len(empty) - sum(len(cut.tiles) for cut in cuts)
    for _, rows in (tile for cut in cuts for tile in cut.tiles):
        counts.tiles += 1
        counts.boxes += len(rows.boxes)
        counts.cut += rows.cut
        counts.ignored += rows.ignored
    return cuts, counts


def _sentences(counts: TileCounts, rules: TileRules, format: DatasetFormat) -> list[str]:
    """Return a sentence for each thing that became of the objects and tiles of a split."""
    least = f"{rules.min_visible:.0%}"
    ignoring = {
        "coco": "there they are crowd regions, which training and evaluation ignore",
        "voc": "there they are difficult, which evaluation ignores and most recipes train on; COCO can ignore both",
        "yolo": "there they are left out and count as background; --format coco keeps them as regions to ignore",
    }[format]
    overlap = min(math.ceil(rules.size * rules.overlap), rules.size - 1)
    found = (
        (counts.ignored, f"{counts.ignored} parts of objects are less than {least} of the object; {ignoring}"),
        (
            counts.never_whole,
            f"{counts.never_whole} objects are whole in no tile: tiles of {rules.size} pixels overlap by {overlap}",
        ),
        (
            counts.never_learnt,
            f"{counts.never_learnt} objects are too large for a tile to show {least} of them, so they are not learnt; "
            "give a larger --size",
        ),
        (
            counts.left_out,
            f"{counts.left_out} tiles without objects are left out; --empty-share {rules.empty_share:g} sets how many "
            "stay",
        ),
    )
    return [text for number, text in found if number]


def _write_tiles(
    folder: Path, cuts: Sequence[_Cut], names: dict[Path, str], rules: TileRules, linked: bool
) -> list[ImageRecord]:
    """Write the tiles of a split to ``folder`` and their names to ``names``; return a record for each image."""
    records: list[ImageRecord] = []
    for cut in cuts:
        paths = _pass(folder, cut, names, linked) if cut.passes else _write_image(folder, cut, names, rules)
        for path, (window, rows) in zip(paths, cut.tiles, strict=True):
            records.append(_record(path, len(records) + 1, window[3], window[2], rows))
    return records


def _pass(folder: Path, cut: _Cut, names: dict[Path, str], linked: bool) -> list[Path]:
    """Return the path of an image that is no larger than a tile, or of its copy."""
    path = cut.path if linked else folder / f"{len(names)}{Path(cut.name).suffix}"
    names[path] = cut.name
    if not linked:
        copy_file(cut.path, path)
    return [path]


def _write_image(folder: Path, cut: _Cut, names: dict[Path, str], rules: TileRules) -> list[Path]:
    """Write the tiles of one image, which is read only if any is kept."""
    if not cut.tiles:
        return []
    pixels, paths = read_image(cut.path), list[Path]()
    for (x, y, width, height), _ in cut.tiles:
        path = folder / f"{len(names)}{'.png' if rules.quality is None else '.jpg'}"
        names[path] = f"{Path(cut.name).stem}_x{x}_y{y}{path.suffix}"
        tile = Image.fromarray(pixels[y : y + height, x : x + width])
        save_image(tile, path, **({} if rules.quality is None else {"quality": rules.quality}))
        paths.append(path)
    return paths


def _record(path: Path, number: int, height: int, width: int, rows: TileRows) -> ImageRecord:
    flags = np.array(rows.flags, dtype=np.uint8)
    return ImageRecord(
        path=path,
        image_id=number,
        height=height,
        width=width,
        boxes=rows.boxes,
        labels=rows.labels,
        crowd=(flags & CROWD) > 0,
        difficult=(flags & DIFFICULT) > 0,
        truncated=(flags & TRUNCATED) > 0,
        occluded=(flags & OCCLUDED) > 0,
        poses=[POSES[code] for code in (flags >> POSE_SHIFT).tolist()],
        areas=rows.areas,
        segmentations=rows.segmentations,
        box_format="xywh",
    )
