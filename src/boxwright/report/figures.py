"""Matplotlib figures as SVG inside an HTML page."""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib
from matplotlib.figure import Figure

from boxwright.report.page import card


def inline_svg(figure: Figure, label: str) -> str:
    """Return ``figure`` as an ``<svg>`` element that scales to the width of its container.

    ``label`` describes the figure to a screen reader. Text stays text, in a font of the page. The ids in the SVG start
    with a prefix made from ``label``, so that several figures on one page do not share ids.
    """
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": label, "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    text = text[text.index("<svg") :]  # without XML declaration and document type
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    prefix = re.sub(r"\W+", "-", label.lower())
    text = re.sub(r'\bid="', f'id="{prefix}-', text)
    text = re.sub(r'(href="#|url\(#)', rf"\g<1>{prefix}-", text)
    head, body = text.split(">", 1)
    box = re.search(r'viewBox="[^"]*"', head)
    assert box is not None
    return f'<svg class="figure" {box[0]} role="img" aria-label="{escape(label, quote=True)}">{body.strip()}'


def figure_card(figure: Figure, label: str) -> str:
    """Return a card that holds a figure."""
    return card(inline_svg(figure, label))
