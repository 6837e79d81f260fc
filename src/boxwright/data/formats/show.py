"""Draw images of a data set with their annotations on one page."""

from __future__ import annotations

import base64
import html
import io
import os
import warnings
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from boxwright.data.formats.checks.sizes import WrongSize
from boxwright.data.formats.opening import open_dataset, open_splits
from boxwright.data.formats.problems import DatasetWarning
from boxwright.data.images import image_size, read_image
from boxwright.data.index import DetectionIndex
from boxwright.drawing import class_colour, draw_boxes
from boxwright.io.files import write_atomically
from boxwright.io.images import save_image
from boxwright.io.text import printable, printable_lines
from boxwright.structures import InputError

_SIDE = 720  # long side of an image on the page, in pixels
_CELL = 480  # side of a cell of the PNG sheet, in pixels

_RED = (192, 57, 43)

_STYLE = """
:root{color-scheme:light dark;--ink:#1b1f24;--soft:#606a76;--line:#d9dee4;--paper:#f6f7f9;--card:#fff}
@media(prefers-color-scheme:dark){:root{--ink:#e8ebef;--soft:#9aa4b0;--line:#333a43;--paper:#14171b;--card:#1c2026}}
*{box-sizing:border-box}body{margin:0;padding:28px;background:var(--paper);color:var(--ink);
font:15px/1.5 system-ui,sans-serif}main{max-width:1500px;margin:auto}h1{font-size:24px;margin:0}
h2{font-size:18px;margin:34px 0 10px}p{margin:10px 0;color:var(--soft)}
.grid{display:grid;gap:16px;grid-template-columns:repeat(auto-fill,minmax(min(380px,100%),1fr))}
figure{margin:0;background:var(--card);border:1px solid var(--line);border-radius:10px;overflow:hidden;
display:flex;flex-direction:column}
figure img{width:100%;height:340px;object-fit:contain;background:#101214;display:block}
figcaption{padding:9px 12px;font-size:13px;overflow-wrap:anywhere}figcaption span{color:var(--soft)}
figcaption .wrong{color:#c0392b}
.bad{padding:24px 12px;color:#c0392b;min-height:120px}.classes{display:grid;gap:3px 18px;margin-top:10px;
grid-template-columns:repeat(auto-fill,minmax(min(250px,100%),1fr));font-size:13px}
.row{display:grid;grid-template-columns:12px 1fr auto;gap:8px;align-items:center}
.dot{width:12px;height:12px;border-radius:3px}.row b{font-weight:500;overflow-wrap:anywhere}.row i{font-style:normal;
color:var(--soft);font-variant-numeric:tabular-nums}
"""


def show_dataset(
    path: Path | str,
    output: Path | str,
    count: int = 24,
    seed: int = 0,
    split: str | None = None,
    voc_one_based: bool = True,
) -> Path:
    """Draw ``count`` images of each split, or of the named one, onto a page and return its path.

    ``seed`` chooses the images. A name ending in ``.html`` gives a self-contained page with class counts, one ending in
    ``.png`` a sheet of the images alone. Masks are drawn if there are any; crowd regions and difficult boxes are
    dashed. An image that cannot be read, or whose annotations state another size than it has, shows the error and is
    named in a `DatasetWarning`. Raises ``InputError`` as `open_dataset` does.
    """
    target = Path(os.path.expanduser(output))
    if target.suffix.lower() not in (".html", ".htm", ".png"):
        raise InputError(f"{output}: the page is written as .html or .png; give a name with one of these suffixes")
    if count < 1:
        raise InputError(f"count {count}: should be at least 1")
    splits = open_splits(path, voc_one_based) if split is None else {split: open_dataset(path, split, voc_one_based)}
    target.parent.mkdir(parents=True, exist_ok=True)
    _warn(splits, count, seed)
    if target.suffix.lower() == ".png":
        save_image(_sheet(splits, count, seed), target)
    else:
        write_atomically(target, printable_lines(_page(str(path), splits, count, seed)).encode(), durable=False)
    return target


def _warn(splits: dict[str, DetectionIndex], count: int, seed: int) -> None:
    """Warn of the chosen images that cannot be shown with their boxes in place."""
    found = [
        (index.path(i), defect)
        for index in splits.values()
        for i in _chosen(index, count, seed)
        if (defect := _defect(index, i)) is not None
    ]
    if found:
        path, defect = found[0]
        others = f" (and {len(found) - 1} more of the images shown)" if len(found) > 1 else ""
        message = f"{path}: {defect}{others}; `boxwright data check` lists all defects"
        warnings.warn(message, DatasetWarning, stacklevel=3)


def _defect(index: DetectionIndex, i: int) -> str | None:
    """Return why an image cannot be read, or that its boxes are not in place; None if neither."""
    path, stated = index.path(i), index.size(i)
    try:
        found = image_size(path)
    except InputError as error:
        return str(error).removeprefix(f"{path}: ")
    return str(WrongSize(path, stated, found)) if found != stated else None


def draw_sample(index: DetectionIndex, i: int, side: int = _SIDE) -> Image.Image:
    """Draw image ``i`` with its annotations, its long side at most ``side`` pixels.

    The image is shrunk before it is drawn on, so that lines and labels stay legible. Raises ``InputError`` if it
    cannot be read.
    """
    pixels = read_image(index.path(i))
    height, width = pixels.shape[:2]
    scale = min(1.0, side / max(height, width))
    small = max(1, round(width * scale)), max(1, round(height * scale))
    drawn = Image.fromarray(pixels).resize(small, Image.Resampling.LANCZOS) if scale < 1 else Image.fromarray(pixels)
    rows = index.annotations(i)
    masks = None
    if index.has_masks and (height, width) == index.size(i) and len(rows.labels):
        # Only boxes with a mask are tinted; without one the whole box would be.
        present = [s is not None for s in rows.segmentations or []]
        masks = np.stack([
            np.asarray(Image.fromarray(mask & kept).resize(small, Image.Resampling.NEAREST))
            for mask, kept in zip(index.masks(i), present, strict=True)
        ])  # fmt: skip
    factors = np.array([small[0] / width, small[1] / height] * 2)
    names = index.classes.names
    boxes = np.clip(rows.boxes * factors, -1e6, 1e6)  # a side may be infinite in float32
    return draw_boxes(drawn, boxes, rows.labels, names, masks=masks, crowd=rows.crowd, difficult=rows.difficult)


def _chosen(index: DetectionIndex, count: int, seed: int) -> list[int]:
    """Choose the images to show, by position in the index."""
    generator = np.random.default_rng(seed)
    return sorted(generator.choice(len(index), size=min(count, len(index)), replace=False).tolist())


def _page(path: str, splits: dict[str, DetectionIndex], count: int, seed: int) -> str:
    """Render the HTML page."""
    title = html.escape(f"Samples of {path}")
    sections = "".join(_section(name, index, count, seed) for name, index in splits.items())
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body><main><h1>{title}</h1><p>Images chosen at random with seed {seed}. Dashed: crowd regions and difficult "
        f"objects.</p>{sections}</main></body></html>\n"
    )


def _section(name: str, index: DetectionIndex, count: int, seed: int) -> str:
    """Render one split: its counts, its classes and its images."""
    counts = np.bincount(index.labels, minlength=len(index.classes)).tolist()
    ranked = sorted(enumerate(counts), key=lambda item: -item[1])
    rows = "".join(
        f'<div class="row"><span class="dot" style="background:rgb{class_colour(label)}"></span>'
        f"<b>{html.escape(index.classes.names[label])}</b><i>{number:,}</i></div>"
        for label, number in ranked
    )
    chosen = _chosen(index, count, seed)
    figures = "".join(_figure(index, i) for i in chosen)
    what = f"{len(index):,} images, {index.num_boxes:,} boxes" + (", with masks" if index.has_masks else "")
    return (
        f"<h2>{html.escape(name)}: {what}</h2><div class=classes>{rows}</div>"
        f"<p>{len(chosen)} of {len(index):,} images</p><div class=grid>{figures}</div>"
    )


def _figure(index: DetectionIndex, i: int) -> str:
    """Render one image with its caption."""
    rows = index.annotations(i)
    height, width = index.size(i)
    numbers = np.bincount(rows.labels, minlength=len(index.classes))
    inside = ", ".join(f"{numbers[k]} {index.classes.names[k]}" for k in np.flatnonzero(numbers).tolist())
    caption = (
        f"{html.escape(index.relative_path(i))}<br><span>id {index.image_id(i)}, {width}x{height}, "
        f"{html.escape(inside) or 'no objects'}</span>"
    )
    try:
        buffer = io.BytesIO()
        draw_sample(index, i).save(buffer, format="JPEG", quality=88)
    except InputError as error:
        return f'<figure><div class="bad">{html.escape(str(error))}</div><figcaption>{caption}</figcaption></figure>'
    if defect := _defect(index, i):
        caption += f'<br><span class="wrong">{html.escape(defect)}</span>'
    data = base64.b64encode(buffer.getvalue()).decode()
    return f'<figure><img alt="" src="data:image/jpeg;base64,{data}"><figcaption>{caption}</figcaption></figure>'


def _sheet(splits: dict[str, DetectionIndex], count: int, seed: int) -> Image.Image:
    """Draw all images in a grid, each under its split and name."""
    chosen = [(name, index, i) for name, index in splits.items() for i in _chosen(index, count, seed)]
    columns = max(1, min(4, round(len(chosen) ** 0.5)))
    gap, line = 12, 26
    cell_width, cell_height = _CELL + gap, _CELL + line + gap
    rows = -(-len(chosen) // columns)
    sheet = Image.new("RGB", (columns * cell_width + gap, rows * cell_height + gap), (246, 247, 249))
    draw = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(15)
    for position, (name, index, i) in enumerate(chosen):
        left, top = gap + position % columns * cell_width, gap + position // columns * cell_height
        caption = printable(f"{name}: {Path(index.relative_path(i)).name}"[:_CELL])
        while len(caption) > 8 and draw.textlength(caption, font=font) > _CELL:
            caption = caption[:-2] + "…" if not caption.endswith("…") else caption[:-3] + "…"
        draw.text((left, top + 4), caption, fill=(27, 31, 36), font=font)
        try:
            drawn = draw_sample(index, i, _CELL)
            if _defect(index, i):
                marked = ImageDraw.Draw(drawn)
                marked.text((6, 6), "wrong size", (255, 255, 255), font, stroke_width=3, stroke_fill=_RED)
            sheet.paste(drawn, (left + (_CELL - drawn.width) // 2, top + line))
        except InputError:
            draw.rectangle((left, top + line, left + _CELL, top + line + 40), fill=_RED)
            draw.text((left + 10, top + line + 10), "cannot be read", fill=(255, 255, 255), font=font)
    return sheet
