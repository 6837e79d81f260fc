"""Run images through a model in batches that fit into memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from boxwright.detections import Detections
from boxwright.structures import InputError

DetectFunction = Callable[[list[np.ndarray]], list[Detections]]
"""Maps RGB images uint8 ``[H, W, 3]`` of any sizes to the detections of each, in pixels of that image."""

_CPU_BATCH = 2  # larger batches are no faster on a CPU, and a batch is padded to its largest image
_MOST = 64
_USABLE = 0.7  # fraction of the free memory to use, because the need of a batch is estimated from one image


class BatchRunner:
    """Runs images through a model in batches.

    With ``batch_size`` None on a CUDA device, the first image runs alone, and its memory use sets the batch size. When
    memory runs out, the batch size is halved for the rest of the run and the batch is repeated.
    """

    def __init__(self, detect: DetectFunction, device: torch.device, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size {batch_size}: must be at least 1; omit it to fit it to memory")
        self._detect, self._device = detect, device
        self._measured = batch_size is not None or device.type != "cuda"
        self.size = batch_size or _CPU_BATCH
        self.shrunk: list[int] = []
        """Batch sizes that were too large for memory."""

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """Return the detections of each image, in order."""
        found: list[Detections] = []
        while len(found) < len(images):
            if not self._measured:
                found += self._measure(images[0])
                continue
            batch = list(images[len(found) : len(found) + self.size])
            try:
                found += self._detect(batch)
                continue
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error):
                    raise
                if len(batch) == 1:
                    raise InputError(
                        f"not enough memory on {self._device} for one image at a time; free some, "
                        "use --device cpu, or use a model with a smaller input"
                    ) from error
                self.shrunk.append(len(batch))
                self.size = (len(batch) + 1) // 2
            if self._device.type == "cuda":
                torch.cuda.empty_cache()  # outside the handler, because the error holds the tensors of the batch
        return found

    def _measure(self, image: np.ndarray) -> list[Detections]:
        """Run one image and set the batch size from its memory use."""
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        found = self._detect([image])
        each = max(1, torch.cuda.max_memory_allocated(self._device) - before)
        free, _ = torch.cuda.mem_get_info(self._device)
        kept = torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)
        self.size = int(min(_MOST, max(1, _USABLE * (free + kept) // each)))
        self._measured = True
        return found


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if an error reports that memory of the device or the machine ran out."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
