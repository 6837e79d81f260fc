"""Check a pickle before it is loaded, in time and memory that are bounded by its length.

A pickle is a program for a stack machine, and a short one can ask for much: tuples that contain one another ten times
over at each of thirty depths, a memo of four thousand million places, one long text that is copied for each of a
hundred thousand names. The scan runs the program on sizes instead of values, and refuses what no checkpoint contains.

Of every value it keeps its depth, its ``weight`` and its bytes. The weight is the number of values that are visited
when it is hashed, which counts a shared part as often as it is reached. Lists and dicts cannot be hashed and weigh 1.
"""

from __future__ import annotations

import pickletools
from mmap import mmap
from typing import NamedTuple

MOST_OPERATIONS = 1_000_000
"""Of all pickles in a file. A checkpoint with the state of its optimiser has some ten thousand."""
MOST_DEPTH = 100
MOST_WEIGHT = 1_000_000
MOST_LINE = 4096
"""Bytes of a number or name that is written as text."""
MOST_INTEGER = 256
"""Bytes of an integer."""
MOST_LONG_INTEGERS = 1000
"""Integers of more than 8 bytes, whose hashes can be made equal."""
SPARE_BYTES = 2**26
"""Bytes that calls may copy besides four times those of the file."""
_MOST_TEXT = 200


class ExcessError(Exception):
    """Raised for a pickle that asks for more than a checkpoint needs. The text says of what."""


class DamagedError(Exception):
    """Raised for data that is no whole pickle."""


class _Value(NamedTuple):
    depth: int
    weight: int
    bytes: int
    text: str | None = None


_ATOM = _Value(0, 1, 0)
_LENGTHS = {
    pickletools.TAKEN_FROM_ARGUMENT1: (1, False),
    pickletools.TAKEN_FROM_ARGUMENT4: (4, True),
    pickletools.TAKEN_FROM_ARGUMENT4U: (4, False),
    pickletools.TAKEN_FROM_ARGUMENT8U: (8, False),
}
_CODES = {ord(code.code): code for code in pickletools.opcodes}
_TO_MARK = {"TUPLE", "LIST", "DICT", "FROZENSET", "INST", "OBJ"}
_POPS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "REDUCE": 2, "NEWOBJ": 2, "NEWOBJ_EX": 3, "BINPERSID": 1}
_CALLS = {"REDUCE", "NEWOBJ", "NEWOBJ_EX", "INST", "OBJ", "BUILD"}
_ADDS = {"APPEND": 1, "SETITEM": 2, "BUILD": 1, "APPENDS": None, "SETITEMS": None, "ADDITEMS": None}
_PUTS, _GETS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}, {"GET", "BINGET", "LONG_BINGET"}
_UNHASHABLE = {"LIST", "DICT"}
_NOTHING = {"PROTO", "FRAME", "READONLY_BUFFER"}
_REFUSED = {"EXT1", "EXT2", "EXT4", "NEXT_BUFFER"}


class PickleScan:
    """A scan of the pickles that follow one another in ``data``.

    ``names`` collects every ``module.name`` in them, and ``at`` is the offset of what follows the last one.
    """

    def __init__(self, data: bytes | mmap, at: int = 0) -> None:
        self.names: set[str] = set()
        self.at = at
        self._data, self._size = data, len(data)
        self._operations = self._long_integers = self._copied = 0

    def run(self, pickles: int = 1) -> None:
        """Scan the next ``pickles`` of them. Raises ExcessError, or DamagedError where one is not whole."""
        for _ in range(pickles):
            try:
                self._one()
            except (IndexError, KeyError, ValueError) as error:
                raise DamagedError(f"no whole pickle at byte {self.at} ({type(error).__name__})") from None

    def _one(self) -> None:
        stack: list[_Value | None] = []  # None is a mark
        memo: dict[int, _Value] = {}
        while True:
            if self.at >= self._size:
                raise DamagedError(f"a pickle ends at byte {self._size} without an end")
            code = _CODES[self._data[self.at]]
            name = code.name
            self._operations += 1
            if self._operations > MOST_OPERATIONS:
                raise ExcessError(f"more than {MOST_OPERATIONS:,} operations")
            argument = self._argument(code)
            if name == "STOP":
                return
            if name in _PUTS:
                place = len(memo) if name == "MEMOIZE" else _number(argument)
                if not 0 <= place <= self._operations + 1:  # written one after another
                    raise ExcessError(f"the place {place} in a memo of {len(memo)}")
                memo[place] = _value(stack[-1])
            elif name in _GETS:
                stack.append(memo[_number(argument)])
            elif name == "MARK":
                stack.append(None)
            elif name in _NOTHING:
                continue
            elif name == "POP":
                stack.pop()
            elif name == "POP_MARK":
                _to_mark(stack)
            elif name == "DUP":
                stack.append(stack[-1])
            elif name in _ADDS:
                count = _ADDS[name]
                parts = _to_mark(stack) if count is None else [_value(stack.pop()) for _ in range(count)]
                stack.append(self._joined(name, parts, _value(stack.pop())))
            elif name in _TO_MARK:
                stack.append(self._joined(name, _to_mark(stack)))
            elif name in _POPS:
                stack.append(self._joined(name, [_value(stack.pop()) for _ in range(_POPS[name])]))
            elif name == "STACK_GLOBAL":
                last, first = _value(stack.pop()), _value(stack.pop())
                if first.text is None or last.text is None:
                    raise ExcessError("a name that is no text")
                self.names.add(f"{first.text}.{last.text}")
                stack.append(_ATOM)
            elif name in _REFUSED:
                raise ExcessError("an object from outside the file")
            else:  # a number, text, a name or an empty container
                stack.append(argument if isinstance(argument, _Value) else _ATOM)

    def _joined(self, name: str, parts: list[_Value], whole: _Value | None = None) -> _Value:
        """Return the value that ``parts`` become, or ``whole`` with them added to it."""
        depth = 1 + max([0, *(part.depth for part in parts)])
        weight = 1 if whole is not None or name in _UNHASHABLE else 1 + sum(part.weight for part in parts)
        size = sum(part.bytes for part in parts)
        if whole is not None:
            depth = max(depth, whole.depth)
        if depth > MOST_DEPTH:
            raise ExcessError(f"values within values to a depth of more than {MOST_DEPTH}")
        if weight > MOST_WEIGHT:
            raise ExcessError(f"a tuple of more than {MOST_WEIGHT:,} values, counting those within it")
        if name in _CALLS:
            self._copied += size
            if self._copied > 4 * self._size + SPARE_BYTES:
                raise ExcessError("copies of the same bytes")
        holds = name not in _UNHASHABLE and (
            whole is None or name == "BUILD"
        )  # others are never copied with their parts
        return _Value(depth, weight, size if holds else 0)

    def _argument(self, code: pickletools.OpcodeInfo) -> _Value | int:
        """Move behind the operation and return its argument: text and bytes as a value, else a number."""
        data, start = self._data, self.at + 1
        kind = code.arg
        self.at = start
        if kind is None:
            return 0
        if kind.n == pickletools.UP_TO_NEWLINE:
            return self._line(code.name)
        if kind.n >= 0:
            self.at = start + kind.n
            raw = data[start : self.at]
            if len(raw) < kind.n:
                raise DamagedError(f"a pickle ends at byte {self._size} within a number")
            return int.from_bytes(raw, "little")
        width, signed = _LENGTHS[kind.n]
        length = int.from_bytes(data[start : start + width], "little", signed=signed)
        first = start + width
        self.at = first + length
        if length < 0 or self.at > self._size:
            raise DamagedError(f"a pickle ends at byte {self._size} within {length:,} bytes of text or numbers")
        if code.name in ("LONG1", "LONG4"):
            self._integer(length)
            return 0
        text = bytes(data[first : self.at]).decode("utf-8", "replace") if length <= _MOST_TEXT else None
        return _Value(0, 1, length, text)

    def _line(self, name: str) -> _Value | int:
        """Return the argument of an operation that ends with the line, or with two lines for a name."""
        lines = []
        for _ in range(2 if name in ("GLOBAL", "INST") else 1):
            end = self._data.find(b"\n", self.at)
            if end < 0:
                raise DamagedError(f"a pickle ends at byte {self._size} within a line")
            lines.append((self.at, end))
            self.at = end + 1
        size = sum(end - first for first, end in lines)
        if name in ("STRING", "UNICODE"):
            return _Value(0, 1, size)
        if size > MOST_LINE:
            raise ExcessError(f"a number or name of {size:,} letters")
        texts = [bytes(self._data[first:end]) for first, end in lines]
        if len(texts) == 2:
            self.names.add(".".join(text.decode("utf-8", "replace").strip() for text in texts))
            return _ATOM
        if name in ("INT", "LONG"):
            self._integer(size // 2)
        return int(texts[0]) if name in ("PUT", "GET") else 0

    def _integer(self, size: int) -> None:
        if size > MOST_INTEGER:
            raise ExcessError(f"an integer of {size:,} bytes")
        self._long_integers += size > 8
        if self._long_integers > MOST_LONG_INTEGERS:
            raise ExcessError(f"more than {MOST_LONG_INTEGERS:,} integers of more than 8 bytes")


def _value(entry: _Value | None) -> _Value:
    if entry is None:
        raise ValueError("a mark where a value is needed")
    return entry


def _number(argument: _Value | int) -> int:
    assert isinstance(argument, int), "the operations that use it have a number"
    return argument


def _to_mark(stack: list[_Value | None]) -> list[_Value]:
    """Remove and return the values above the last mark, and the mark."""
    values: list[_Value] = []
    while (entry := stack.pop()) is not None:
        values.append(entry)
    return values
