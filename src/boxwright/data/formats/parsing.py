"""Parse JSON and XML files safely. Raises ``InputError`` with file, line and column for invalid content."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

from boxwright.data.formats.texts import decode_text, decode_xml, read_bytes
from boxwright.structures import InputError

_DEEPEST_XML = 100


def parse_json(path: Path) -> Any:
    """Return the content of a JSON file in UTF-8, UTF-16 or UTF-32.

    Raises ``InputError`` with line and column if it is invalid, and for an object that holds a key twice.
    """
    text = decode_text(read_bytes(path), path)

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        entry = dict(pairs)
        if len(entry) < len(pairs):
            keys = [key for key, _ in pairs]
            key = next(key for key in keys if keys.count(key) > 1)
            raise InputError(f"{path}: the key {shown(key)} stands twice in {shown(entry)}; remove one")
        return entry

    try:
        return json.loads(text, object_pairs_hook=unique)
    except json.JSONDecodeError as error:
        place = f"{path}, line {error.lineno}, column {error.colno}"
        raise InputError(_json_defect(path, text, place, error)) from None
    except RecursionError:
        raise InputError(f"{path}: the JSON is nested too deeply for a data set; create it again") from None
    except InputError:
        raise
    except ValueError:  # Python reads no whole number of more digits than it has a limit for
        match = re.search(r"\d{4301,}", text)
        line = text.count("\n", 0, match.start()) + 1 if match else 1
        raise InputError(f"{path}, line {line}: a number of more than 4300 digits; correct it") from None


def _json_defect(path: Path, text: str, place: str, error: json.JSONDecodeError) -> str:
    """Describe the defect of a text that is not JSON, with its remedy."""
    if not text.strip():
        return f"{path}: the file is empty; create it again"
    if error.msg == "Extra data" and text[error.pos : error.pos + 1] in "{[":
        return f"{place}: a second JSON value begins (JSON Lines?); one file holds one object or list"
    if error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        return f"{place}: not valid JSON ({error.msg}); the file ends too early, it may be truncated: create it again"
    return f"{place}: not valid JSON ({error.msg}); create the file again, it may be truncated"


def shown(value: Any, limit: int = 60) -> str:
    """Return a value from a file as JSON on one line, shortened, for a message."""
    try:
        text = json.dumps(value, ensure_ascii=False)
    except (TypeError, ValueError, RecursionError):
        text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


def parse_xml(file: Path) -> ElementTree.Element:
    """Return the tree, with the line of each element in its attribute ``__line``.

    The text may have any encoding that it declares. Document types are refused: their entities can expand a few bytes
    to gigabytes, or read other files.
    """
    text = decode_xml(read_bytes(file), file)
    parser, builder = expat.ParserCreate(), ElementTree.TreeBuilder()
    depth = 0

    def start(tag: str, attributes: dict[str, str]) -> None:
        nonlocal depth
        depth += 1
        if depth > _DEEPEST_XML:
            raise InputError(
                f"{file}, line {parser.CurrentLineNumber}: more than {_DEEPEST_XML} elements in one another, which no "
                "VOC file has; create it again"
            )
        builder.start(tag, {**attributes, "__line": str(parser.CurrentLineNumber)})

    def end(tag: str) -> None:
        nonlocal depth
        depth -= 1
        builder.end(tag)

    def refuse(*_: object) -> None:
        raise InputError(
            f"{file}, line {parser.CurrentLineNumber}: declares a document type, which VOC files do not need and "
            "which is not read for safety; remove the <!DOCTYPE ...> part"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = end
    parser.CharacterDataHandler = lambda text: builder.data(text)
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(text, True)
    except expat.ExpatError as error:
        raise InputError(
            f"{file}, line {error.lineno}, column {error.offset + 1}: not valid XML "
            f"({expat.ErrorString(error.code)}); create the file again, it may be truncated"
        ) from None
    return builder.close()
