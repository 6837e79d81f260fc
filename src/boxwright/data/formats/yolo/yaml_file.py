"""Read a small YAML file with every value as the text that is written, in bounded time and memory.

YAML turns ``no``, ``2.10``, ``010`` and ``12:30`` into other values, but a class may have such a name.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn, TypeAlias

import yaml

from boxwright.data.formats.parsing import shown
from boxwright.data.formats.texts import decode_text, read_bytes
from boxwright.structures import InputError

_LARGEST = 8_000_000  # bytes
_MOST = 300_000  # values, those of aliases counted each time
_DEEPEST = 20
_PLAIN_TAGS = tuple(f"tag:yaml.org,2002:{kind}" for kind in ("str", "int", "float", "bool", "null", "seq", "map"))


class Text(str):
    """Text of a scalar; ``line`` is where it is, ``plain`` is true without quotes."""

    line: int = 0
    plain: bool = True

    @property
    def empty(self) -> bool:
        """Return True if YAML takes the text for no value."""
        return self == "" or (self.plain and self in ("~", "null", "Null", "NULL"))


class Items(list["Value"]):
    """A sequence, which starts in ``line``."""

    line: int = 0


class Entries(dict[Text, "Value"]):
    """A mapping, which starts in ``line``."""

    line: int = 0


Value: TypeAlias = "Text | Items | Entries"


def parse_yaml(file: Path) -> Value:
    """Return the content of a YAML file, its scalars as `Text`.

    Raises ``InputError`` with the line for invalid YAML, a key that stands twice, a tag, an alias without an anchor,
    and a file that is too large, too deep or whose aliases expand too far.
    """
    content = read_bytes(file)
    if len(content) > _LARGEST:
        raise InputError(
            f"{file}: {len(content):,} bytes are too many for a data.yaml; give the file that names classes"
        )
    text = decode_text(content, file).removeprefix("\ufeff")
    try:
        return _Reader(file, text).document()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        place = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        reason = error.problem or error.context or "it cannot be parsed"
        tabs = "\t" in text.splitlines()[mark.line] if mark and mark.line < len(text.splitlines()) else False
        remedy = "indent it with spaces instead of tabs" if tabs else "correct it"
        raise InputError(f"{file}{place}: not valid YAML ({reason}); {remedy}") from None
    except yaml.YAMLError as error:
        reason = " ".join(str(getattr(error, "reason", error)).split())
        raise InputError(f"{file}: not valid YAML ({reason}); save it as UTF-8 text") from None


class _Reader:
    """Builds the values from the events of the parser, so that nothing is built beyond the limits."""

    def __init__(self, file: Path, text: str) -> None:
        self.file = file
        self.events: Iterator[yaml.Event] = yaml.parse(text, Loader=getattr(yaml, "CBaseLoader", yaml.BaseLoader))
        self.anchors: dict[str, tuple[Value, int]] = {}  # with the number of values
        self.count = 0

    def document(self) -> Value:
        """Return the one document of the file; an empty file gives empty text."""
        value: Value = Text()
        documents = 0
        for event in self.events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    self._refuse(event, "a second document begins (`---`)", "keep one")
            elif isinstance(event, yaml.NodeEvent):
                value = self._value(event, 0)
        return value

    def _value(self, event: yaml.Event, depth: int) -> Value:
        before = self.count
        self._counted(event, 1)
        if depth > _DEEPEST:
            self._refuse(event, f"more than {_DEEPEST} values in one another", "write the file anew")
        if isinstance(event, yaml.AliasEvent):
            if event.anchor not in self.anchors:
                self._refuse(event, f"the alias {shown(event.anchor)} has no anchor above it", "write the value itself")
            value, size = self.anchors[event.anchor]
            self._counted(event, size)
            return value
        tag = getattr(event, "tag", None)
        if tag not in (None, "", "!", *_PLAIN_TAGS):
            short = str(tag).replace("tag:yaml.org,2002:", "!!")[:60]
            self._refuse(event, f"the tag {short} is not read, for safety", "remove it")
        if isinstance(event, yaml.ScalarEvent):
            value = Text(event.value)
            value.plain = event.style in (None, "")
        elif isinstance(event, yaml.SequenceStartEvent):
            value = Items(self._value(inner, depth + 1) for inner in self._until(yaml.SequenceEndEvent))
        else:
            value = self._mapping(depth)
        value.line = event.start_mark.line + 1
        if getattr(event, "anchor", None):
            self.anchors[event.anchor] = value, self.count - before  # type: ignore[attr-defined]
        return value

    def _mapping(self, depth: int) -> Entries:
        entries = Entries()
        merged: list[Value] = []
        for event in self._until(yaml.MappingEndEvent):
            key = self._value(event, depth + 1)
            value = self._value(next(self.events), depth + 1)
            if not isinstance(key, Text):
                self._refuse(event, "a list or mapping is used as a key", "write the key as text")
            if key == "<<" and key.plain:
                merged += value if isinstance(value, Items) else [value]
                continue
            if key in entries:
                first = next(other for other in entries if other == key)
                message = f"the key {shown(key)} stands twice, first in line {first.line}"
                self._refuse(event, message, "remove one of them")
            entries[key] = value
        for other in merged:
            for key, value in other.items() if isinstance(other, Entries) else ():
                entries.setdefault(key, value)
        return entries

    def _until(self, end: type[yaml.Event]) -> Iterator[yaml.Event]:
        while not isinstance(event := next(self.events), end):
            yield event

    def _counted(self, event: yaml.Event, more: int) -> None:
        self.count += more
        if self.count > _MOST:
            self._refuse(event, f"more than {_MOST:,} values, those of aliases included", "write the file anew")

    def _refuse(self, event: Any, message: str, remedy: str) -> NoReturn:
        raise InputError(f"{self.file}, line {event.start_mark.line + 1}: {message}; {remedy}")
