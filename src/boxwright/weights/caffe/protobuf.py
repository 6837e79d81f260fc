"""Read Caffe's ``.caffemodel``: a protocol-buffer message with the layers of a network, their settings and parameters.

The wire format is a sequence of fields, each a key (field number and type), then a varint, 4 or 8 bytes, or a length
and so many bytes. Of a NetParameter only the layers are read: field 100, or field 2 in files from before 2015 ("V1"),
and in each its name, type and blobs. The file is mapped into memory and read once, from start to end. Gradients are
skipped.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from boxwright.structures import InputError

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
_V1_KINDS = {4: "Convolution", 14: "InnerProduct", 39: "Deconvolution", 15: "LRN", 17: "Pooling", 6: "Dropout"}


class CaffeLayer(NamedTuple):
    """A layer. ``blobs``: float32 in the shapes stated in the file (files from before 2015 state four dimensions, with
    leading ones). ``settings``: its other messages, undecoded, by field number; see :func:`fields_of`.
    """

    name: str
    kind: str
    blobs: tuple[Tensor, ...]
    settings: dict[int, bytes]


@dataclass(frozen=True)
class CaffeModel:
    """A network. ``layers``: by name, in the order of the file. ``origin``: the file, for errors."""

    name: str
    layers: dict[str, CaffeLayer]
    origin: str

    @property
    def weighted(self) -> list[str]:
        """Names of the layers that have parameters."""
        return [name for name, layer in self.layers.items() if layer.blobs]


class Field(NamedTuple):
    """A field of a message: its ``number``, its wire type ``kind``, and an integer (varint) or bytes. ``at``: the
    offset of its value in the file.
    """

    number: int
    kind: int
    value: int | memoryview
    at: int


def read_caffemodel(path: Path | str) -> CaffeModel:
    """Read the network of a ``.caffemodel``. Raises InputError where it is absent, truncated or of another format."""
    path = Path(path)
    try:
        with path.open("rb") as file:
            if path.stat().st_size == 0:
                raise InputError(f"{path}: is empty; copy or download it anew")
            # Not closed by hand: an error's traceback may still hold parts of it.
            view = memoryview(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ))
    except OSError as error:
        raise InputError(f"{path}: cannot be read: {error.strerror}") from None
    return _network(view, str(path))


def begins_as_caffemodel(start: bytes) -> bool:
    """Return True if ``start`` begins a NetParameter: with its name, or with a layer."""
    layers = (b"\xa2\x06", b"\x12")
    if start.startswith(layers):
        return True
    named = start[:1] == b"\x0a" and len(start) > 1 and start[1] < 128
    # After the name come inputs (3, 4, 8) or layers.
    return named and start[2 + start[1] :].startswith((*layers, b"\x1a", b"\x20", b"\x22", b"\x42"))


def fields_of(message: bytes | memoryview, origin: str = "message", start: int = 0) -> Iterator[Field]:
    """Iterate over the fields of a message. ``start`` is its offset in the file, for errors."""
    view, at = memoryview(message), 0
    while at < len(view):
        key, after = _varint(view, at, origin, start)
        number, kind = key >> 3, key & 7
        if number == 0 or kind not in (VARINT, FIXED64, BYTES, FIXED32):
            raise InputError(
                f"{origin}: is no .caffemodel: byte {start + at} is no field of a protocol-buffer message. A "
                "description of a network (.prototxt) holds no weights"
            )
        if kind == VARINT:
            value, end = _varint(view, after, origin, start)
            yield Field(number, kind, value, start + after)
        else:
            length = {FIXED64: 8, FIXED32: 4}.get(kind, 0)
            if kind == BYTES:
                length, after = _varint(view, after, origin, start)
            end = after + length
            if end > len(view):
                raise InputError(
                    f"{origin}: truncated, or no .caffemodel: field {number} at byte {start + at} needs {length:,} "
                    f"bytes and {len(view) - after:,} are left; copy or download it anew"
                )
            yield Field(number, kind, view[after:end], start + after)
        at = end


def _varint(view: memoryview, at: int, origin: str, start: int) -> tuple[int, int]:
    """Read a varint: groups of seven bits, lowest first. Returns the value and the offset after it."""
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(view):
            raise InputError(f"{origin}: truncated: it ends at byte {start + at}, within a number; copy it anew")
        byte = view[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
    raise InputError(f"{origin}: is no .caffemodel: the number before byte {start + at} is longer than 64 bits")


def _network(view: memoryview, origin: str) -> CaffeModel:
    name, layers = "", {}
    for field in fields_of(view, origin):
        if field.number == 1 and field.kind == BYTES:
            name = _text(field, origin)
        elif field.number in (100, 2) and field.kind == BYTES:
            layer = _layer(field, field.number == 2, origin)
            known = layers.get(layer.name)
            if known is not None and known.blobs and layer.blobs:
                raise InputError(f"{origin}: has two layers {layer.name!r} with weights; is it a file of one network?")
            if known is None or layer.blobs:
                layers[layer.name] = layer
    model = CaffeModel(name, layers, origin)
    if not model.weighted:
        raise InputError(
            f"{origin}: is no .caffemodel: it holds no layer with weights. A solver's state (.solverstate) and a mean "
            "image (.binaryproto) are other files"
        )
    return model


def _layer(field: Field, old: bool, origin: str) -> CaffeLayer:
    """Decode a layer. ``old``: in the format from before 2015, with other field numbers."""
    name_field, kind_field, blob_field = (4, 5, 6) if old else (1, 2, 7)
    name, kind, blobs, settings = "", "", [], {}
    assert isinstance(field.value, memoryview)
    for part in fields_of(field.value, origin, field.at):
        if part.number == name_field and part.kind == BYTES:
            name = _text(part, origin)
        elif part.number == kind_field:
            kind = (
                _V1_KINDS.get(part.value, f"type {part.value}") if isinstance(part.value, int) else _text(part, origin)
            )
        elif part.number == blob_field and part.kind == BYTES:
            blobs.append(_blob(part, name or "?", origin))
        elif part.kind == BYTES:
            if old and part.number == 1:
                raise InputError(
                    f"{origin}: was written by a Caffe from before 2014; run its tool upgrade_net_proto_binary on it"
                )
            assert isinstance(part.value, memoryview)
            settings[part.number] = bytes(part.value)
    return CaffeLayer(name, kind, tuple(blobs), settings)


def _blob(field: Field, layer: str, origin: str) -> Tensor:
    floats: list[np.ndarray] = []
    shape: list[int] = []
    legacy = dict.fromkeys((1, 2, 3, 4), 0)
    assert isinstance(field.value, memoryview)
    for part in fields_of(field.value, origin, field.at):
        if part.number in (5, 8) and isinstance(part.value, memoryview):
            width = 4 if part.number == 5 else 8
            if len(part.value) % width:
                raise InputError(
                    f"{origin}: layer {layer!r} has {len(part.value)} bytes of numbers, not a multiple of {width}"
                )
            floats.append(np.frombuffer(part.value, "<f4" if width == 4 else "<f8").astype(np.float32))
        elif part.number == 7 and isinstance(part.value, memoryview):
            for dim in fields_of(part.value, origin, part.at):
                shape += [dim.value] if isinstance(dim.value, int) else _packed(dim.value, origin, dim.at)
        elif part.number in legacy and isinstance(part.value, int):
            legacy[part.number] = part.value
    numbers = floats[0] if len(floats) == 1 else np.concatenate([np.zeros(0, np.float32), *floats])
    dims = shape or [legacy[axis] for axis in (1, 2, 3, 4)]
    if math.prod(dims) != len(numbers):
        raise InputError(
            f"{origin}: layer {layer!r} states a shape of {' x '.join(map(str, dims))} and holds {len(numbers):,} "
            "numbers; copy or download the file anew"
        )
    return torch.from_numpy(numbers.reshape(dims))


def _packed(view: memoryview, origin: str, start: int) -> list[int]:
    values, at = [], 0
    while at < len(view):
        value, at = _varint(view, at, origin, start)
        values.append(value)
    return values


def _text(field: Field, origin: str) -> str:
    assert isinstance(field.value, memoryview)
    try:
        return bytes(field.value).decode("utf-8")
    except UnicodeDecodeError:
        raise InputError(f"{origin}: is no .caffemodel: the name at byte {field.at} is no text") from None


def floats_of(message: bytes, number: int) -> list[float]:
    """Return all values of the float field ``number`` of a message, packed or not."""
    found: list[float] = []
    for field in fields_of(message):
        if field.number == number and isinstance(field.value, memoryview):
            if len(field.value) % 4:
                raise InputError(f"is damaged: {len(field.value)} bytes of numbers, not a multiple of 4")
            found += struct.unpack(f"<{len(field.value) // 4}f", field.value)
    return found


def messages_of(message: bytes, number: int) -> list[bytes]:
    """Return all values of the message field ``number``."""
    found = (field.value for field in fields_of(message) if field.number == number)
    return [bytes(value) for value in found if isinstance(value, memoryview)]


def integer_of(message: bytes, number: int, default: int) -> int:
    """Return the last value of the integer or boolean field ``number``."""
    return next((f.value for f in reversed([*fields_of(message)]) if f.number == number and isinstance(f.value, int)),
                default)  # fmt: skip
