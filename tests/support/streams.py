"""Loaders with the settings that a test names, and comparison of their batches."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from boxwright.data.config import DataConfig
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import Batch, EvalLoader, TrainStream
from boxwright.data.transforms.configs import TransformConfig

LOADER_OPTIONS = ("seed", "rank", "world", "pin_memory", "prefetch", "start_method", "split")


def train_stream(
    index: DetectionIndex, transforms: Sequence[TransformConfig], batch_size: int, **options: Any
) -> TrainStream:
    """Open a stream of ``batch_size`` images per rank; ``options`` are those of the loader and of `DataConfig`."""
    loader, data = _parted({"workers": 0, **options})
    total = batch_size * loader.get("world", 1)
    return TrainStream(index, DataConfig(train=tuple(transforms), eval=(), batch_size=total, **data), **loader)


def eval_loader(
    index: DetectionIndex, transforms: Sequence[TransformConfig], batch_size: int, **options: Any
) -> EvalLoader:
    """Open a pass of ``batch_size`` images per batch; ``options`` are those of the loader and of `DataConfig`."""
    loader, data = _parted({"workers": 0, **options})
    return EvalLoader(index, DataConfig(train=(), eval=tuple(transforms), eval_batch_size=batch_size, **data), **loader)


def _parted(options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    loader = {name: value for name, value in options.items() if name in LOADER_OPTIONS}
    return loader, {name: value for name, value in options.items() if name not in LOADER_OPTIONS}


def batch_tensors(batch: Batch) -> list[Tensor]:
    return [tensor for part in batch for tensor in part if tensor is not None]


def same_batches(one: Batch, other: Batch) -> bool:
    pairs = zip(batch_tensors(one), batch_tensors(other), strict=True)
    return all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in pairs)


def take(stream: TrainStream, count: int) -> list[Batch]:
    with stream:
        return [next(stream) for _ in range(count)]
