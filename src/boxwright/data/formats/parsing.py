"""Parse JSON, YAML and XML files safely. Raises ``InputError`` with file, line and column for invalid content."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.etree import ElementTree
from xml.parsers import expat

import yaml

from boxwright.structures import InputError


def parse_json(path: Path) -> Any:
    """Return the content of a JSON file. Raises ``InputError`` with line and column if it is invalid."""
    try:
        text = path.read_bytes().decode("utf-8-sig")
        return json.loads(text)
    except FileNotFoundError:
        raise InputError(f"{path}: there is no such file; correct the path") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}, column {error.colno}: not valid JSON ({error.msg}); "
            "create the file again, it may be truncated"
        ) from None
    except RecursionError:
        raise InputError(f"{path}: the JSON is nested too deeply for a COCO file; create it again") from None


def parse_yaml(file: Path) -> Any:
    """Return the content of a YAML file. Raises ``InputError`` with line and column if it is invalid."""
    try:
        return yaml.safe_load(file.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file; correct the path") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = getattr(error, "problem", None) or str(error)
        raise InputError(f"{file}{place}: not valid YAML ({reason}); correct it") from None


def parse_xml(file: Path) -> ElementTree.Element:
    """Return the tree, with the line of each element in its attribute ``__line``.

    Document types are refused: their entities can expand a few bytes to gigabytes, or read other files.
    """
    parser, builder = expat.ParserCreate(), ElementTree.TreeBuilder()

    def start(tag: str, attributes: dict[str, str]) -> None:
        builder.start(tag, {**attributes, "__line": str(parser.CurrentLineNumber)})

    def refuse(*_: object) -> None:
        raise InputError(
            f"{file}, line {parser.CurrentLineNumber}: declares a document type, which VOC files do not need and "
            "which is not read for safety; remove the <!DOCTYPE ...> part"
        )

    parser.StartElementHandler = start
    parser.EndElementHandler = lambda tag: builder.end(tag) and None
    parser.CharacterDataHandler = lambda text: builder.data(text)
    parser.StartDoctypeDeclHandler = refuse
    try:
        parser.Parse(file.read_bytes(), True)
    except expat.ExpatError as error:
        raise InputError(
            f"{file}, line {error.lineno}, column {error.offset + 1}: not valid XML "
            f"({expat.ErrorString(error.code)}); create the file again, it may be truncated"
        ) from None
    except FileNotFoundError:
        raise InputError(f"{file}: there is no such file; correct the path") from None
    return builder.close()
