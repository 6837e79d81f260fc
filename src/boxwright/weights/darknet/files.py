"""Read Darknet's two files: the cfg that describes a network, and the ``.weights`` with its parameters in the cfg's
order.

A ``.weights`` file has no names and no shapes, only a header and then little-endian float32, layer after layer. The cfg
alone tells which layer a number belongs to, so a file made for another cfg is detected only by its length: it must be
used up exactly, or, for pretrained backbones, end after a whole layer.

Symbols: C channels, H W rows and columns of a layer's map.
"""

from __future__ import annotations

import math
import struct
from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from boxwright.structures import InputError

Shape = tuple[int, int, int]
"""C, H, W."""

LARGEST = 1e9
"""Largest number in a cfg."""
MOST_BYTES = 2**22
"""Largest cfg. That of YOLOv3 has 8 kB."""
ALIASES = {"conv": "convolutional", "conn": "connected", "max": "maxpool", "avg": "avgpool", "network": "net"}
SILENT = ("dropout", "shortcut", "detection", "region", "yolo", "softmax", "cost")
"""Layers without parameters that keep the shape of their input."""


@dataclass(frozen=True, slots=True)
class Section:
    """A section of a cfg. ``index`` counts layers from 0 after ``[net]``, which is -1. ``place`` names it in errors."""

    kind: str
    index: int
    place: str
    options: Mapping[str, str]

    def integer(self, name: str, default: int | None = None) -> int:
        """Return an option as an integer. Raises InputError where it is not one, or is absent and has no default."""
        value = self.number(name, default)
        if value != int(value):
            raise InputError(f"{self.place}: [{self.kind}] has {name} = {value:g}; it must be a whole number")
        return int(value)

    def count(self, name: str, default: int | None = None) -> int:
        """Return an option as an integer above 0. Raises InputError as :meth:`integer` does."""
        value = self.integer(name, default)
        if value < 1:
            raise InputError(f"{self.place}: [{self.kind}] has {name} = {value}; it must be at least 1")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        """Return an option as a number. Raises InputError as :meth:`integer` does."""
        if name in self.options:
            if not (found := self.numbers(name)):
                raise InputError(f"{self.place}: [{self.kind}] has {name} without a number")
            return found[0]
        if default is None:
            raise InputError(f"{self.place}: [{self.kind}] lacks {name}")
        return default

    def numbers(self, name: str) -> list[float]:
        """Return the comma-separated numbers of an option; empty where it is absent.

        Raises InputError for other text, and for numbers above ``LARGEST`` or none.
        """
        parts = [part for part in self.options.get(name, "").split(",") if part]
        try:
            values = [float(part) for part in parts]
        except ValueError:
            values = [math.nan]
        if not all(abs(value) <= LARGEST for value in values):  # NaN neither
            text = self.options[name]
            raise InputError(
                f"{self.place}: [{self.kind}] has {name} = {text[:60]}{'...' if len(text) > 60 else ''}; give numbers, "
                "with commas between"
            )
        return values


class DarknetLayer(NamedTuple):
    """A layer with its parameters.

    ``arrays`` in the order of the file, empty where the layer has none: ``bias``, ``weight``, and with batch norm
    ``scale``, ``mean``, ``var``. Weights are ``[out, in / groups, k, k]`` (convolutional), ``[out, in]`` (connected),
    ``[H * W, out, in, k, k]`` (local, whose bias is ``[out, H, W]``).
    """

    section: Section
    inputs: Shape
    outputs: Shape
    arrays: dict[str, Tensor]


class DarknetNetwork(NamedTuple):
    """A cfg with its weights. ``seen``: number of training images. ``version``: that of the header, such as (0, 2)."""

    net: Section
    layers: tuple[DarknetLayer, ...]
    seen: int
    version: tuple[int, int]

    def of_kind(self, kind: str) -> list[DarknetLayer]:
        """Return the layers of one kind, in order."""
        return [layer for layer in self.layers if layer.section.kind == kind]


def parse_cfg(text: str, origin: str = "cfg") -> list[Section]:
    """Parse the sections of a cfg, ``[net]`` first. Errors name the line."""
    sections: list[Section] = []
    options: dict[str, str] = {}
    for number, raw in enumerate(text.splitlines(), start=1):
        line = "".join(raw.split("#")[0].split(";")[0].split())  # Darknet ignores all blanks
        if not line:
            continue
        place = f"{origin}, line {number}"
        if line.startswith("["):
            options = {}
            name = line.strip("[]").lower()
            sections.append(Section(ALIASES.get(name, name), len(sections) - 1, place, options))
        elif "=" not in line or not sections:
            raise InputError(f"{place}: {raw.strip()[:60]!r} is neither a [section] nor an option = value inside one")
        else:
            key, value = line.split("=", 1)
            options.setdefault(key, value)  # of an option given twice Darknet takes the first
    if not sections or sections[0].kind != "net":
        raise InputError(f"{origin}: is no Darknet cfg; it must begin with the section [net]")
    return sections


def plan_layers(sections: list[Section]) -> list[tuple[Section, Shape, Shape, dict[str, tuple[int, ...]]]]:
    """Return for each layer its section, its input and output shapes, and the shapes of its arrays in file order."""
    net = sections[0]
    shape: Shape = (net.count("channels", 3), net.count("height"), net.count("width"))
    outputs: list[Shape] = []
    plan = []
    for section in sections[1:]:
        inputs = shape
        shape, arrays = _layer(section, inputs, outputs)
        if min(shape) < 1:
            raise InputError(f"{section.place}: [{section.kind}] leaves nothing of {inputs[1]} x {inputs[2]}")
        outputs.append(shape)
        plan.append((section, inputs, shape, arrays))
    return plan


def _layer(section: Section, inputs: Shape, earlier: list[Shape]) -> tuple[Shape, dict[str, tuple[int, ...]]]:
    channels, height, width = inputs
    match section.kind:
        case "convolutional":
            out, side = section.count("filters", 1), section.count("size", 1)
            stride, groups = section.count("stride", 1), section.count("groups", 1)
            padding = side // 2 if section.integer("pad", 0) else section.integer("padding", 0)
            rows, columns = ((n + 2 * padding - side) // stride + 1 for n in (height, width))
            arrays: dict[str, tuple[int, ...]] = {"bias": (out,)}
            arrays |= _norm(section, out)
            return (out, rows, columns), arrays | {"weight": (out, channels // groups, side, side)}
        case "connected":
            out = section.count("output", 1)
            return (out, 1, 1), {"bias": (out,), "weight": (out, math.prod(inputs)), **_norm(section, out)}
        case "local":
            out, side, stride = section.count("filters", 1), section.count("size", 1), section.count("stride", 1)
            lost = 1 if section.integer("pad", 0) else side  # its padding is 1 whatever the size
            rows, columns = ((n - lost) // stride + 1 for n in (height, width))
            weight = (rows * columns, out, channels, side, side)
            return (out, rows, columns), {"bias": (out, rows, columns), "weight": weight}
        case "batchnorm":
            return inputs, {"scale": (channels,), "mean": (channels,), "var": (channels,)}
        case "maxpool":
            stride = section.count("stride", 1)
            side = section.count("size", stride)
            padding = section.integer("padding", side - 1)
            rows, columns = ((n + padding - side) // stride + 1 for n in (height, width))
            return (channels, rows, columns), {}
        case "avgpool":
            return (channels, 1, 1), {}
        case "crop":
            return (channels, section.integer("crop_height", 1), section.integer("crop_width", 1)), {}
        case "upsample":
            stride = section.count("stride", 2)
            return (channels, height * stride, width * stride), {}
        case "reorg":
            stride = section.count("stride", 1)
            return (channels * stride * stride, height // stride, width // stride), {}
        case "route":
            return _route(section, earlier), {}
        case kind if kind in SILENT:
            return inputs, {}
        case _:
            raise InputError(f"{section.place}: layers of the kind [{section.kind[:60]}] cannot be read")


def _norm(section: Section, channels: int) -> dict[str, tuple[int, ...]]:
    if not section.integer("batch_normalize", 0):
        return {}
    return {"scale": (channels,), "mean": (channels,), "var": (channels,)}


def _route(section: Section, earlier: list[Shape]) -> Shape:
    if "groups" in section.options:
        raise InputError(f"{section.place}: [route] with groups cannot be read")
    here = len(earlier)
    sources = [int(n) if n >= 0 else here + int(n) for n in section.numbers("layers")]
    if not sources or min(sources) < 0 or max(sources) >= here:
        raise InputError(f"{section.place}: [route] must name layers before it, 0 to {here - 1} or -{here} to -1")
    _, height, width = earlier[sources[0]]
    return sum(earlier[n][0] for n in sources), height, width


def read_darknet(cfg: Path | str, weights: Path | str, prefix: bool = False) -> DarknetNetwork:
    """Read the network of the file ``cfg`` with the parameters in the file ``weights``.

    ``prefix``: the weights may end after any whole layer, as pretrained backbones do (``darknet19_448.conv.23``). Later
    layers are then left out. Raises InputError where the file does not fit the cfg.
    """
    return read_sections(read_cfg(cfg), weights, prefix, str(cfg))


def read_cfg(cfg: Path | str) -> list[Section]:
    """Read the sections of the file ``cfg``. Raises InputError where it cannot be read or is not a cfg."""
    try:
        with Path(cfg).open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise InputError(f"{cfg}: cannot be read: {error.strerror}") from None
    if len(data) > MOST_BYTES:
        raise InputError(f"{cfg}: is no Darknet cfg: it has more than {MOST_BYTES:,} bytes")
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{cfg}: is text in UTF-16; save it as UTF-8")
    return parse_cfg(data.decode("utf-8", errors="replace").removeprefix("\ufeff"), str(cfg))


def read_sections(
    sections: list[Section], weights: Path | str, prefix: bool = False, origin: str = "the network"
) -> DarknetNetwork:
    """Read the network that ``sections`` describe, like :func:`read_darknet`. ``origin`` names it in errors."""
    weights = Path(weights)
    version, seen, transposed, header, found = _opened(weights)
    plan = plan_layers(sections)
    taken = _fitting(plan, found, header, weights, origin, prefix)
    numbers = np.memmap(weights, "<f4", mode="r", offset=header) if found else np.zeros(0, "<f4")
    layers, at = [], 0
    for section, inputs, outputs, shapes in plan[:taken]:
        arrays = {}
        for name, shape in shapes.items():
            count = math.prod(shape)
            values = torch.from_numpy(np.array(numbers[at : at + count], dtype=np.float32))
            at += count
            if transposed and section.kind == "connected" and name == "weight":
                arrays[name] = values.reshape(shape[1], shape[0]).T.contiguous()
            else:
                arrays[name] = values.reshape(shape)
        layers.append(DarknetLayer(section, inputs, outputs, arrays))
    return DarknetNetwork(sections[0], tuple(layers), seen, version)


def count_floats(weights: Path | str) -> float:
    """Return how many floats follow the header of ``weights``; not an integer where the file is truncated."""
    return _opened(Path(weights))[-1]


def begins_as_darknet(start: bytes) -> bool:
    """Return True if ``start``, 12 bytes or more, is a header of Darknet 0.1 or 0.2."""
    return len(start) >= 12 and start[:4] == bytes(4) and struct.unpack("<i", start[4:8])[0] in (1, 2)


def _opened(weights: Path) -> tuple[tuple[int, int], int, bool, int, float]:
    """Return the header, see :func:`_read_header`, and the number of floats."""
    try:
        with weights.open("rb") as file:
            start = file.read(20)
        size = weights.stat().st_size
    except OSError as error:
        raise InputError(f"{weights}: cannot be read: {error.strerror}") from None
    version, seen, transposed, header = _read_header(start, weights)
    return version, seen, transposed, header, (size - header) / 4


def _read_header(start: bytes, origin: Path) -> tuple[tuple[int, int], int, bool, int]:
    """Return version, images seen, whether matrices of connected layers are transposed, and the size of the header in
    bytes.

    Files before version 0.2 count images in 32 bits, later ones in 64. The oldest begin with three floats (learning
    rate, momentum, decay), which are huge when read as integers. Their connected layers are stored as (inputs,
    outputs).
    """
    if len(start) < 16:
        raise InputError(f"{origin}: has {len(start)} bytes, too few for the header of a Darknet weights file")
    major, minor, _, seen = struct.unpack("<4i", start[:16])
    transposed = major > 1000 or minor > 1000
    if major * 10 + minor < 2 or transposed:
        return (major, minor), seen, transposed, 16
    if len(start) < 20:
        raise InputError(f"{origin}: has {len(start)} bytes, too few for the header of version {major}.{minor}")
    return (major, minor), struct.unpack("<q", start[12:20])[0], transposed, 20


def _fitting(
    plan: list[tuple[Section, Shape, Shape, dict[str, tuple[int, ...]]]],
    found: float,
    header: int,
    weights: Path,
    cfg: str,
    prefix: bool,
) -> int:
    """Return how many layers the file holds. Raises InputError unless its floats are exactly those of the layers."""
    ends = [*accumulate(sum(math.prod(shape) for shape in arrays.values()) for *_, arrays in plan)]
    total = ends[-1] if plan else 0
    if found == total:
        return len(plan)
    whole = bisect_right(ends, found)  # layers that the file holds completely
    if prefix and found < total and whole and ends[whole - 1] == found:
        return whole
    stop = "" if found > total or whole >= len(plan) else f"; it ends within layer {whole} ([{plan[whole][0].kind}])"
    raise InputError(
        f"{weights}: holds {found:,.10g} floats after a header of {header} bytes, but {cfg} describes "
        f"{total:,.10g}{stop}. The cfg must be the one that the weights were trained with"
    )
