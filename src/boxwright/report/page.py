"""Parts of a self-contained HTML page: frame and style, cards, tables, tiles, images as data."""

from __future__ import annotations

import base64
import io
import math
from collections.abc import Sequence
from html import escape

from PIL import Image

STYLE = """
:root { color-scheme: light dark; --paper: #fbfbfa; --card: #ffffff; --ink: #1d2328; --soft: #5b6670; --grid: #dfe3e6;
  --accent: #0b6e7f; --heat: 11, 132, 110;
  --shadow: 0 1px 2px rgba(20, 30, 40, .07), 0 4px 18px rgba(20, 30, 40, .05); }
@media (prefers-color-scheme: dark) { :root { --paper: #14181b; --card: #1c2226; --ink: #e7ecef; --soft: #9aa7b0;
  --grid: #333c43; --accent: #58c4d3; --heat: 52, 190, 160; --shadow: none; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); line-height: 1.55;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", "Liberation Sans", sans-serif; }
main, header > div { max-width: 1120px; margin: 0 auto; padding: 0 24px; }
header { padding: 44px 0 8px; }
h1 { font-size: clamp(1.7rem, 3.4vw, 2.5rem); line-height: 1.15; letter-spacing: -.02em; margin: 0 0 10px; }
h2 { font-size: 1.35rem; letter-spacing: -.01em; margin: 0 0 10px; }
h3 { font-size: 1rem; margin: 22px 0 6px; }
p { margin: 6px 0 14px; max-width: 78ch; }
.lead { font-size: 1.08rem; color: var(--soft); }
.note, figcaption { color: var(--soft); font-size: .9rem; }
nav { display: flex; flex-wrap: wrap; gap: 4px 18px; font-size: .93rem; margin: 14px 0 0; }
a { color: var(--accent); text-decoration: none; } a:hover { text-decoration: underline; }
section { margin: 40px 0; scroll-margin-top: 12px; }
.card { background: var(--card); border: 1px solid var(--grid); border-radius: 12px; padding: 18px 20px;
  box-shadow: var(--shadow); }
.tiles { display: grid; gap: 14px; grid-template-columns: repeat(auto-fit, minmax(158px, 1fr)); margin: 26px 0 0; }
.tile b { display: block; font-size: 1.75rem; line-height: 1.15; letter-spacing: -.02em;
  font-variant-numeric: tabular-nums; }
.tile span { color: var(--soft); font-size: .87rem; line-height: 1.35; display: block; margin-top: 4px; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; font-size: .93rem; }
th, td { padding: 6px 10px; text-align: right; border-bottom: 1px solid var(--grid); white-space: nowrap; }
th { font-weight: 600; color: var(--soft); font-size: .84rem; }
thead th { border-bottom: 2px solid var(--grid); }
.text { text-align: left; } tbody tr:last-child td, tbody tr:last-child th { border-bottom: 0; }
tbody th { font-weight: 500; color: var(--ink); font-size: .93rem; }
.stack { display: grid; gap: 18px; }
.figure { width: 100%; height: auto; display: block; background: #fff; border-radius: 6px; }
.gallery { display: grid; gap: 18px; grid-template-columns: repeat(auto-fill, minmax(min(100%, 460px), 1fr)); }
.gallery figure { margin: 0; } .two { display: grid; grid-template-columns: 1fr 1fr; gap: 6px; }
.two > div { font-size: .8rem; color: var(--soft); }
.gallery img { width: 100%; height: auto; border-radius: 6px; display: block; }
figcaption { margin-top: 6px; }
pre { background: var(--card); border: 1px solid var(--grid); border-radius: 10px; padding: 14px 16px; overflow-x: auto;
  font: .9rem/1.6 ui-monospace, "SF Mono", Menlo, Consolas, "Liberation Mono", monospace; margin: 10px 0; }
.bar { height: 12px; border-radius: 3px; background: var(--accent); min-width: 2px; }
footer { color: var(--soft); font-size: .87rem; border-top: 1px solid var(--grid); margin-top: 56px;
  padding: 18px 0 44px; }
@media print { .card, pre { box-shadow: none; break-inside: avoid; } nav { display: none; } }
"""

Cell = str | float | int


def page(title: str, lead: str, tiles: str, sections: Sequence[tuple[str, str, str]], footer: str) -> str:
    """Return the whole document. ``sections`` are (anchor, heading, HTML); empty ones are left out."""
    shown = [section for section in sections if section[2]]
    links = "".join(f'<a href="#{anchor}">{escape(heading)}</a>' for anchor, heading, _ in shown)
    body = "".join(f'<section id="{anchor}"><h2>{escape(head)}</h2>{html}</section>' for anchor, head, html in shown)
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<link rel="icon" href="data:,">'
        f"<title>{escape(title)}</title><style>{STYLE}</style></head><body>"
        f'<header><div><h1>{escape(title)}</h1><p class="lead">{escape(lead)}</p>'
        f"<nav>{links}</nav>{tiles}</div></header><main>{body}<footer>{escape(footer)}</footer></main></body></html>\n"
    )


def card(html: str, scroll: bool = False) -> str:
    """Return a framed box around ``html``, which may ``scroll`` sideways if it is wider than the page."""
    return f'<div class="card{" scroll" if scroll else ""}">{html}</div>'


def tile_row(tiles: Sequence[tuple[str, str]]) -> str:
    """Return a row of key figures, each a (value, meaning)."""
    cells = "".join(f'<div class="card tile"><b>{escape(v)}</b><span>{escape(w)}</span></div>' for v, w in tiles)
    return f'<div class="tiles">{cells}</div>'


def table(
    columns: Sequence[str],
    rows: Sequence[Sequence[Cell]],
    text_columns: int = 1,
    heat: bool = False,
    colours: Sequence[str] | None = None,
) -> str:
    """Return a table in a card. The first ``text_columns`` hold text.

    Floats are fractions and shown in percent, NaN as a dash. ``heat`` tints floats by value. ``colours`` puts a square
    of the given colour before the first cell of each row.
    """
    head = "".join(
        f'<th{" class=text" if position < text_columns else ""} scope="col">{escape(column)}</th>'
        for position, column in enumerate(columns)
    )
    lines = []
    for number, row in enumerate(rows):
        cells = []
        for position, value in enumerate(row):
            if position < text_columns:
                dot = f'<span style="color:{colours[number]}">&#9632;</span> ' if colours and position == 0 else ""
                tag = "th scope=row" if position == 0 else "td"
                cells.append(f"<{tag} class=text>{dot}{escape(str(value))}</{tag.split()[0]}>")
            else:
                cells.append(_number_cell(value, heat))
        lines.append(f"<tr>{''.join(cells)}</tr>")
    body = "".join(lines)
    return card(f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>", scroll=True)


def percent(value: float | None) -> str:
    """Format a fraction as percent with one decimal, undefined values as a dash."""
    return "–" if value is None or not math.isfinite(value) else f"{100 * value:.1f}"


def duration(seconds: float) -> str:
    """Format seconds for reading: ``8.4 s``, ``3 min 20 s``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def inline_image(image: Image.Image, alt: str, longest: int = 640) -> str:
    """Return an ``<img>`` element with the image as JPEG data, no side longer than ``longest`` pixels."""
    shown = image.convert("RGB")
    shown.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    buffer = io.BytesIO()
    shown.save(buffer, "JPEG", quality=86, optimize=True)
    data = base64.b64encode(buffer.getvalue()).decode()
    size = f'width="{shown.width}" height="{shown.height}"'
    return f'<img src="data:image/jpeg;base64,{data}" alt="{escape(alt, quote=True)}" {size} loading="lazy">'


def hex_colour(rgb: tuple[int, int, int]) -> str:
    """Format a colour as ``#rrggbb``."""
    return "#{:02x}{:02x}{:02x}".format(*rgb)


def _number_cell(value: Cell, heat: bool) -> str:
    if not isinstance(value, float):
        return f"<td>{escape(str(value))}</td>"
    shade = f' style="background:rgba(var(--heat),{0.45 * value:.3f})"' if heat and math.isfinite(value) else ""
    return f"<td{shade}>{percent(value)}</td>"
