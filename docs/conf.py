"""Configuration of Sphinx for these pages."""

from typing import Any

import boxwright

project = "Boxwright"
author = "the Boxwright authors"
version = release = boxwright.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.viewcode"]
myst_heading_anchors = 3
html_theme = "furo"
html_title = f"Boxwright {version}"
html_static_path = ["_static"]
html_css_files = ["boxwright.css"]
exclude_patterns = ["_build"]
smartquotes = False  # it would turn the dashes of an option into one

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
maximum_signature_line_length = 90


def setup(app: Any) -> None:
    """Leave out the generated lines on the fields of named tuples: the class's docstring says what they are."""

    def skip(_app: Any, _what: str, _name: str, obj: Any, skipped: bool, _options: Any) -> bool | None:
        return True if str(getattr(obj, "__doc__", "")).startswith("Alias for field number") else None

    app.connect("autodoc-skip-member", skip)
