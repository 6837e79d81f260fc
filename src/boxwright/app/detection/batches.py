"""How many images go through the model at once: as many as memory holds, fewer after it was not enough."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch

from boxwright.detections import Detections
from boxwright.structures import InputError

DetectFunction = Callable[[list[np.ndarray]], list[Detections]]
"""RGB images uint8 ``[H, W, 3]`` of any sizes in; the detections of each, in its own pixels, out."""

_CPU_BATCH = 2  # more does not make a CPU faster, and a batch is padded to its largest image
_MOST = 64
_USABLE = 0.7  # of the free memory: what a batch needs is estimated from one image


class BatchRunner:
    """Runs images through a model in batches.

    With ``batch_size`` None the first image on a CUDA device goes alone, and what it took in memory decides. Running
    out of memory halves the size, for good, and the batch is tried again.
    """

    def __init__(self, detect: DetectFunction, device: torch.device, batch_size: int | None = None) -> None:
        if batch_size is not None and batch_size < 1:
            raise InputError(f"batch size {batch_size}: give 1 or more, or leave it out to fit it to memory")
        self._detect, self._device = detect, device
        self._measured = batch_size is not None or device.type != "cuda"
        self.size = batch_size or _CPU_BATCH
        self.shrunk: list[int] = []
        """The sizes that were too large for memory."""

    def __call__(self, images: Sequence[np.ndarray]) -> list[Detections]:
        """The detections of each image, in order."""
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
                torch.cuda.empty_cache()  # out of the handler, where the error no longer holds the batch's tensors
        return found

    def _measure(self, image: np.ndarray) -> list[Detections]:
        """Detect on one image and choose the batch size from the memory that it took."""
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
    """Whether an error says that the device's or the machine's memory did not suffice."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    text = str(error).lower()
    return any(words in text for words in ("out of memory", "can't allocate memory", "not enough memory"))
