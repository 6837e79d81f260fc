"""Write ``.caffemodel`` files, and compute their networks by Caffe's rules.

Nothing here uses the library: the wire format is written field by field, and layers follow Caffe's definitions.
"""

import math
import struct
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Blobs = dict[str, tuple[Tensor, ...]]


def varint(value: int) -> bytes:
    out = bytearray()
    while value >= 128:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def field(number: int, value: int | bytes) -> bytes:
    """Encode a varint, or bytes after their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def floats(number: int, *values: float) -> bytes:
    """Encode floats one by one, as Caffe writes repeated fields that are not packed."""
    return b"".join(varint(number << 3 | 5) + struct.pack("<f", value) for value in values)


def blob(tensor: Tensor, legacy: bool = False, double: bool = False) -> bytes:
    dims = list(tensor.shape)
    numbers = np.ascontiguousarray(tensor.numpy()).astype("<f8" if double else "<f4").tobytes()
    data = field(8 if double else 5, numbers)
    if legacy:
        return b"".join(field(i + 1, dim) for i, dim in enumerate([1] * (4 - len(dims)) + dims)) + data
    return field(7, field(1, b"".join(map(varint, dims)))) + data


def layer(name: str, kind: str, tensors: tuple[Tensor, ...] = (), settings: bytes = b"", double: bool = False) -> bytes:
    body = field(1, name.encode()) + field(2, kind.encode()) + field(3, b"bottom") + field(4, b"top")
    body += b"".join(field(7, blob(t, double=double)) for t in tensors)
    return field(100, body + settings)


def old_layer(name: str, kind: int, tensors: tuple[Tensor, ...] = ()) -> bytes:
    body = field(2, b"bottom") + field(3, b"top") + field(4, name.encode()) + field(5, kind)
    return field(2, body + b"".join(field(6, blob(t, legacy=True)) for t in tensors))


def write(path: Path, blobs: Blobs, extra: bytes = b"") -> Path:
    """Write a file with these layers, in order. ``extra``: further layers, written before them."""
    path.write_bytes(field(1, b"net") + extra + b"".join(layer(n, "Convolution", t) for n, t in blobs.items()))
    return path


class Random:
    """Random blobs of layers, scaled so that activations neither grow nor vanish."""

    def __init__(self, seed: int = 0) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self.blobs: Blobs = {}

    def draw(self, *shape: int, scale: float = 1.0) -> Tensor:
        return torch.randn(shape, generator=self.generator) * scale

    def conv(self, name: str, out: int, inputs: int, kernel: int = 3, bias: bool = True, gain: float = 1.0) -> None:
        weight = self.draw(out, inputs, kernel, kernel, scale=gain * math.sqrt(2 / (inputs * kernel**2)))
        self.blobs[name] = (weight, self.draw(out, scale=0.1)) if bias else (weight,)

    def matrix(self, name: str, out: int, inputs: int, gain: float = 1.0) -> None:
        self.blobs[name] = (self.draw(out, inputs, scale=gain * math.sqrt(2 / inputs)), self.draw(out, scale=0.1))

    def norm(self, bn: str, scale: str, channels: int, count: float = 2.5, gain: float = 1.0) -> None:
        """Run a batch norm whose stored statistics are multiplied by ``count``."""
        mean, var = self.draw(channels, scale=0.1), 0.5 + torch.rand(channels, generator=self.generator)
        self.blobs[bn] = (mean * count, var * count, torch.tensor([count]))
        self.blobs[scale] = (gain + self.draw(channels, scale=0.1), self.draw(channels, scale=0.1))

    def vgg(self, width: int, reduced: bool) -> None:
        inputs = 3
        for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
            out = width * min(2 ** (stage - 1), 8)
            for place in range(1, count + 1):
                self.conv(f"conv{stage}_{place}", out, inputs)
                inputs = out
        if reduced:
            self.conv("fc6", 16 * width, inputs)
            self.conv("fc7", 16 * width, 16 * width, 1)

    def bottleneck(self, block: str, mid: int, out: int, inputs: int, projects: bool) -> None:
        shapes = {"branch2a": (mid, inputs, 1), "branch2b": (mid, mid, 3), "branch2c": (out, mid, 1)}
        if projects:
            shapes["branch1"] = (out, inputs, 1)
        for branch, (filters, channels, kernel) in shapes.items():
            self.conv(f"res{block}_{branch}", filters, channels, kernel, bias=False, gain=0.7)
            gain = 0.3 if branch == "branch2c" else 1.0  # 33 blocks add up
            self.norm(f"bn{block}_{branch}", f"scale{block}_{branch}", filters, gain=gain)

    def resnet(self, width: int, stages: dict[int, list[str]], stem_bias: bool) -> None:
        self.conv("conv1", width, 3, 7, bias=stem_bias)
        self.norm("bn_conv1", "scale_conv1", width)
        inputs = width
        for stage, blocks in stages.items():
            mid = width * 2 ** (stage - 2)
            for number, block in enumerate(blocks):
                self.bottleneck(f"{stage}{block}", mid, 4 * mid, inputs, number == 0)
                inputs = 4 * mid


class Net:
    """Caffe's layers, computed with the blobs of a file."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs

    def conv(self, x: Tensor, name: str, stride: int = 1, pad: int = 0, dilation: int = 1) -> Tensor:
        weight, bias = (*self.blobs[name], None)[:2]
        return F.conv2d(x, weight, bias, stride, pad, dilation)

    def relu_conv(self, x: Tensor, name: str, stride: int = 1, pad: int = 0, dilation: int = 1) -> Tensor:
        return self.conv(x, name, stride, pad, dilation).relu()

    def norm(self, x: Tensor, bn: str, scale: str) -> Tensor:
        mean, var, count = self.blobs[bn]
        gamma, beta = self.blobs[scale]
        mean, var = (t / count for t in (mean, var))
        x = (x - mean[:, None, None]) / (var + 1e-5).sqrt()[:, None, None]
        return x * gamma[:, None, None] + beta[:, None, None]

    @staticmethod
    def pool(x: Tensor, kernel: int = 2, stride: int = 2, pad: int = 0) -> Tensor:
        """Run max pooling with the output size rounded by ``ceil``; the last window must begin within the input or its
        padding.
        """
        sides = []
        for length in x.shape[2:]:
            count = math.ceil((length + 2 * pad - kernel) / stride) + 1
            if pad and (count - 1) * stride >= length + pad:
                count -= 1
            sides.append(count)
        rows = []
        for i in range(sides[0]):
            top = i * stride - pad
            row = []
            for j in range(sides[1]):
                left = j * stride - pad
                window = x[:, :, max(top, 0) : top + kernel, max(left, 0) : left + kernel]
                row.append(window.amax((2, 3)))
            rows.append(torch.stack(row, -1))
        return torch.stack(rows, -2)

    def vgg(self, x: Tensor, last_pool: bool = False) -> dict[str, Tensor]:
        """Return conv4_3 and conv5_3 after their ReLU."""
        found = {}
        for stage, count in enumerate((2, 2, 3, 3, 3), start=1):
            for place in range(1, count + 1):
                x = self.relu_conv(x, f"conv{stage}_{place}", pad=1)
            found[f"conv{stage}_{count}"] = x
            if stage < 5:
                x = self.pool(x)
        return found

    def normalise(self, x: Tensor, name: str) -> Tensor:
        (scale,) = self.blobs[name]
        return x / (x.square().sum(1, keepdim=True) + 1e-10).sqrt() * scale[:, None, None]

    def bottleneck(self, x: Tensor, block: str, stride: int = 1, dilation: int = 1) -> Tensor:
        def unit(x: Tensor, branch: str, stride: int = 1, pad: int = 0, dilation: int = 1) -> Tensor:
            out = self.conv(x, f"res{block}_{branch}", stride, pad, dilation)
            return self.norm(out, f"bn{block}_{branch}", f"scale{block}_{branch}")

        out = unit(x, "branch2a", stride).relu()
        out = unit(unit(out, "branch2b", 1, dilation, dilation).relu(), "branch2c")
        shortcut = unit(x, "branch1", stride) if f"res{block}_branch1" in self.blobs else x
        return (out + shortcut).relu()

    def resnet(self, x: Tensor, stages: dict[int, list[str]], dilated: bool) -> dict[int, Tensor]:
        """Return the output of each stage."""
        x = self.norm(self.conv(x, "conv1", 2, 3), "bn_conv1", "scale_conv1").relu()
        x = self.pool(x, 3, 2)
        found = {}
        for stage, blocks in stages.items():
            wide = dilated and stage == 5
            for number, block in enumerate(blocks):
                stride = 2 if number == 0 and stage > 2 and not wide else 1
                x = self.bottleneck(x, f"{stage}{block}", stride, 2 if wide else 1)
            found[stage] = x
        return found


def greedy_nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, most: int = 10_000) -> list[int]:
    """Run the NMS of py-faster-rcnn: sides include the last pixel, overlaps above ``threshold`` are suppressed."""
    area = (boxes[:, 2] - boxes[:, 0] + 1) * (boxes[:, 3] - boxes[:, 1] + 1)
    order, keep = list(np.argsort(-scores, kind="stable")), []
    while order and len(keep) < most:
        best = order.pop(0)
        keep.append(best)
        rest = []
        for other in order:
            width = min(boxes[best, 2], boxes[other, 2]) - max(boxes[best, 0], boxes[other, 0]) + 1
            height = min(boxes[best, 3], boxes[other, 3]) - max(boxes[best, 1], boxes[other, 1]) + 1
            shared = max(width, 0) * max(height, 0)
            if shared / (area[best] + area[other] - shared) <= threshold:
                rest.append(other)
        order = rest
    return keep


def transformed(boxes: np.ndarray, deltas: np.ndarray, offset: float) -> np.ndarray:
    """Decode ``[n, 4]`` offsets as py-faster-rcnn does: widths include the last pixel, results subtract nothing."""
    width, height = boxes[:, 2] - boxes[:, 0] + offset, boxes[:, 3] - boxes[:, 1] + offset
    x, y = boxes[:, 0] + 0.5 * width + deltas[:, 0] * width, boxes[:, 1] + 0.5 * height + deltas[:, 1] * height
    width, height = width * np.exp(deltas[:, 2]), height * np.exp(deltas[:, 3])
    return np.stack([x - 0.5 * width, y - 0.5 * height, x + 0.5 * width, y + 0.5 * height], 1)


def clipped(boxes: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.stack([boxes[:, i].clip(0, (width, height)[i % 2] - 1) for i in range(4)], 1)


def base_anchors(sizes: tuple[int, ...], base: int = 16) -> np.ndarray:
    """Return the base anchors of py-faster-rcnn: ratios are rounded at the base and then enlarged; inclusive corners
    about (7.5, 7.5).
    """
    rows = []
    for ratio in (0.5, 1.0, 2.0):
        width = np.round(np.sqrt(base * base / ratio))
        height = np.round(width * ratio)
        for size in sizes:
            w, h = width * size / base, height * size / base
            rows.append([7.5 - (w - 1) / 2, 7.5 - (h - 1) / 2, 7.5 + (w - 1) / 2, 7.5 + (h - 1) / 2])
    return np.array(rows)


def proposals(
    scores: Tensor, deltas: Tensor, sizes: tuple[int, ...], image: tuple[int, int], before: int, after: int
) -> np.ndarray:
    """Run the proposal layer of py-faster-rcnn on raw outputs ``[1, 2 a, h, w]`` and ``[1, 4 a, h, w]``, at scale 1."""
    base = base_anchors(sizes)
    count, (height, width) = len(base), scores.shape[2:]
    pairs = scores[0].reshape(2, count, height, width)
    foreground = torch.softmax(pairs, 0)[1].permute(1, 2, 0).reshape(-1).numpy()
    offsets = deltas[0].permute(1, 2, 0).reshape(-1, 4).numpy()
    y, x = np.meshgrid(np.arange(height) * 16, np.arange(width) * 16, indexing="ij")
    shifts = np.stack([x.ravel(), y.ravel(), x.ravel(), y.ravel()], 1)
    anchors = (shifts[:, None] + base).reshape(-1, 4)
    boxes = clipped(transformed(anchors, offsets, 1.0), *image)
    large = np.flatnonzero(((boxes[:, 2:] - boxes[:, :2] + 1) >= 16).all(1))
    boxes, foreground = boxes[large], foreground[large]
    order = np.argsort(-foreground, kind="stable")[:before]
    boxes, foreground = boxes[order], foreground[order]
    return boxes[greedy_nms(boxes, foreground, 0.7, after)]


def away(x: float) -> int:
    """Round to the nearest integer, halves away from zero, as C's round."""
    return int(math.floor(abs(x) + 0.5) * (1 if x >= 0 else -1))


def roi_pool(fmap: Tensor, boxes: np.ndarray, cells: int) -> Tensor:
    """Run Caffe's ROIPooling at a scale of 1/16: ``[n, C, cells, cells]``."""
    _, channels, height, width = fmap.shape
    out = torch.zeros(len(boxes), channels, cells, cells)
    for number, box in enumerate(boxes):
        x1, y1, x2, y2 = (away(float(v) / 16) for v in box)
        step_y, step_x = max(y2 - y1 + 1, 1) / cells, max(x2 - x1 + 1, 1) / cells
        for i in range(cells):
            top, bottom = (min(max(v + y1, 0), height) for v in (math.floor(i * step_y), math.ceil((i + 1) * step_y)))
            for j in range(cells):
                left, right = (
                    min(max(v + x1, 0), width) for v in (math.floor(j * step_x), math.ceil((j + 1) * step_x))
                )
                if bottom > top and right > left:
                    out[number, :, i, j] = fmap[0, :, top:bottom, left:right].amax((1, 2))
    return out


def psroi_pool(fmap: Tensor, boxes: np.ndarray, cells: int) -> Tensor:
    """Run R-FCN's PSROIPooling at a scale of 1/16 and average its bins: ``[n, C]``."""
    _, channels, height, width = fmap.shape
    out = torch.zeros(len(boxes), channels // cells**2)
    for number, box in enumerate(boxes):
        x1, y1 = away(float(box[0])) / 16, away(float(box[1])) / 16
        x2, y2 = (away(float(box[2])) + 1) / 16, (away(float(box[3])) + 1) / 16
        step_y, step_x = max(y2 - y1, 0.1) / cells, max(x2 - x1, 0.1) / cells
        for i in range(cells):
            top = min(max(math.floor(i * step_y + y1), 0), height)
            bottom = min(max(math.ceil((i + 1) * step_y + y1), 0), height)
            for j in range(cells):
                left = min(max(math.floor(j * step_x + x1), 0), width)
                right = min(max(math.ceil((j + 1) * step_x + x1), 0), width)
                if bottom > top and right > left:
                    maps = fmap[0, i * cells + j :: cells**2, top:bottom, left:right]
                    out[number] += maps.mean((1, 2)) / cells**2
    return out


def detections(
    boxes: np.ndarray, scores: np.ndarray, image: tuple[int, int], threshold: float, most: int
) -> np.ndarray:
    """Return rows of class (from 0), score, box: NMS at 0.3 per class, then the best. ``boxes``: ``[n, K + 1, 4]``."""
    rows = []
    for k in range(1, scores.shape[1]):
        chosen = scores[:, k] > threshold
        own, score = clipped(boxes[chosen, k], *image), scores[chosen, k]
        rows += [[k - 1, score[i], *own[i]] for i in greedy_nms(own, score, 0.3)]
    found = np.array(rows).reshape(-1, 6)
    return found[np.argsort(-found[:, 1], kind="stable")][:most]
