"""Batches taken from a stream, and compared."""

import torch
from torch import Tensor

from boxwright.data.loading.loader import Batch, TrainStream


def batch_tensors(batch: Batch) -> list[Tensor]:
    return [tensor for part in batch for tensor in part if tensor is not None]


def same_batches(one: Batch, other: Batch) -> bool:
    pairs = zip(batch_tensors(one), batch_tensors(other), strict=True)
    return all(torch.equal(a.nan_to_num(-1), b.nan_to_num(-1)) for a, b in pairs)


def take(stream: TrainStream, count: int) -> list[Batch]:
    with stream:
        return [next(stream) for _ in range(count)]
