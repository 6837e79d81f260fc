"""Communication between the processes of a run. ``torchrun`` starts them and sets their environment."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from boxwright.structures import InputError


@dataclass(frozen=True)
class Processes:
    """This process among ``world`` processes. One process alone communicates nothing."""

    rank: int
    world: int
    device: torch.device

    @property
    def main(self) -> bool:
        """True for the process that writes files and messages."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Sum ``tensor`` over the processes, in place, on the device and without waiting for it."""
        if self.world > 1:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, value: Any) -> list[Any]:
        """Return the ``value`` of every process (anything that can be pickled) in order of rank, at all of them."""
        if self.world == 1:
            return [value]
        values: list[Any] = [None] * self.world
        dist.all_gather_object(values, value)
        return values

    def broadcast(self, value: Any) -> Any:
        """Return the ``value`` of the main process at all of them."""
        if self.world == 1:
            return value
        values = [value]
        dist.broadcast_object_list(values, src=0, device=self.device if self.device.type == "cuda" else None)
        return values[0]

    @torch.no_grad()
    def align(self, model: nn.Module) -> None:
        """Copy parameters and buffers of the main process to all: running statistics of batch norms differ."""
        if self.world > 1:
            for tensor in model.state_dict().values():
                dist.broadcast(tensor, src=0)

    def wrap(self, model: nn.Module, some_unused: bool = False) -> nn.Module:
        """Wrap ``model`` so that gradients are averaged over processes after each backward pass.

        ``some_unused``: some parameters may get no gradient; finding them costs a walk over the graph at each step.
        """
        if self.world == 1:
            return model
        # A 1x1 kernel in channels-last has both layouts at once. DDP warns of it, and nothing follows from that.
        warnings.filterwarnings("ignore", message="Grad strides do not match bucket view strides")
        ids = [self.device.index] if self.device.type == "cuda" else None
        return DistributedDataParallel(
            model, device_ids=ids, gradient_as_bucket_view=True, find_unused_parameters=some_unused
        )


def choose_device(device: str, local_rank: int = 0) -> torch.device:
    """Return the device; ``auto`` is CUDA if available, else the CPU; ``gpu`` is ``cuda`` and ``1`` is ``cuda:1``.

    Raises InputError for a device that is unknown or absent, and for several.
    """
    name = device.strip().lower()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    name = name.replace("gpu", "cuda") if name == "gpu" or name.startswith("gpu:") else name
    name = f"cuda:{name}" if name.isdigit() else name
    if "," in name:
        count = len([part for part in name.split(",") if part.strip()])
        raise InputError(
            f"device {device!r}: one process uses one device; training on several is "
            f"`torchrun --nproc-per-node {count} -m boxwright train ...`"
        )
    try:
        chosen = torch.device(name)
    except RuntimeError:
        raise InputError(f"device {device!r} is unknown; use auto, cpu, cuda, cuda:0 or mps") from None
    if chosen.type == "mps" and not torch.backends.mps.is_available():
        raise InputError("device 'mps' is not available here; use cpu")
    if chosen.type != "cuda":
        return chosen
    if not torch.cuda.is_available():
        built = torch.version.cuda is not None or torch.version.hip is not None
        why = "PyTorch finds no GPU or driver" if built else "this PyTorch was built without CUDA"
        raise InputError(
            f"device {device!r} is a CUDA device, and {why}; use --device cpu, or see `boxwright env` and install a "
            "PyTorch and a driver that fit the GPU"
        )
    index = chosen.index if chosen.index is not None else local_rank
    if index >= torch.cuda.device_count():
        raise InputError(f"CUDA device {index} does not exist: this machine has {torch.cuda.device_count()}")
    return torch.device("cuda", index)


@contextmanager
def processes(device: str, environment: Mapping[str, str] = os.environ) -> Iterator[Processes]:
    """Join the processes that ``torchrun`` started (NCCL on CUDA, gloo on the CPU); without it there is one."""
    world = int(environment.get("WORLD_SIZE", "1"))
    rank = int(environment.get("RANK", "0"))
    chosen = choose_device(device, int(environment.get("LOCAL_RANK", "0")))
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    if world == 1:
        yield Processes(0, 1, chosen)
        return
    joined = dist.is_initialized()
    if not joined:
        backend = "nccl" if chosen.type == "cuda" else "gloo"
        dist.init_process_group(
            backend,
            rank=rank,
            world_size=world,
            timeout=timedelta(minutes=60),  # others wait while one process writes or scores
            device_id=chosen if chosen.type == "cuda" else None,
        )
    try:
        yield Processes(rank, world, chosen)
    finally:
        if not joined:
            dist.destroy_process_group()


def micro_batch_size(batch_size: int, world: int, accumulation: int, setting: str = "data.batch_size") -> int:
    """Return the images per process and forward pass.

    Raises InputError if the global batch, the value of ``setting``, cannot be divided.
    """
    if batch_size % (world * accumulation):
        parts = f"{world} processes" + (f" x accumulation {accumulation}" if accumulation > 1 else "")
        raise InputError(
            f"{setting} = {batch_size} is not a multiple of {parts}; use a multiple of {world * accumulation}"
        )
    return batch_size // (world * accumulation)


def synchronise_batch_norm(model: nn.Module, processes: Processes) -> nn.Module:
    """Let the batch norms of ``model`` compute their statistics over all processes, if there are several."""
    if processes.world == 1:
        return model
    if processes.device.type != "cuda":
        raise InputError("sync_batch_norm = true needs CUDA: PyTorch has it for no other device; set it to false")
    return nn.SyncBatchNorm.convert_sync_batchnorm(model)
