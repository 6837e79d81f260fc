"""Images for classifiers: random crops for training, the centre for evaluation, and the streams of both.

The randomness of a sample comes from the seed of its position in the stream, so batches do not depend on the number of
workers and a run resumes exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.utils.data
from torch import Generator, Tensor
from torchvision.transforms.v2 import functional as F

from boxwright.data.classification.folders import ClassFolders
from boxwright.data.loading.sampler import Numbers, PassOrder, Pick, StreamOrder, sample_seed
from boxwright.data.loading.workers import SampleError, Workers
from boxwright.data.transforms.field_types import Interval, ShareInterval
from boxwright.data.transforms.sample import chance, integer, uniform
from boxwright.fields import Count, Fraction, Share, config
from boxwright.structures import InputError


@config
class CropConfig:
    """Crop an image to a square: at random with jittered colours in training, the centre in evaluation."""

    size: Count = 224
    """Side of the square in pixels."""
    eval_size: Count = 256
    """Short side in pixels that an image is resized to before the centre is cropped in evaluation."""
    scale: ShareInterval = (0.08, 1.0)
    """Range of the area of a random crop, as a fraction of the image's (Szegedy et al. 2015)."""
    aspect: Interval = (3 / 4, 4 / 3)
    """Range of the aspect of a random crop, width divided by height."""
    flip: Share = 0.5
    """Probability of mirroring a training image left for right."""
    jitter: Fraction = 0.4
    """Brightness, contrast and saturation are multiplied, in random order, by factors in 1 - jitter .. 1 + jitter."""

    def __post_init__(self) -> None:
        if self.eval_size < self.size:
            raise InputError(f"eval_size = {self.eval_size}: should be at least size, {self.size}")


class ClassBatch(NamedTuple):
    """Batch of a classifier.

    ``pixels`` uint8 ``[B, 3, S, S]`` RGB, ``labels`` int64 ``[B]``, ``indexes`` int64 ``[B]`` into the data set.
    """

    pixels: Tensor
    labels: Tensor
    indexes: Tensor

    def to(self, device: torch.device) -> ClassBatch:
        """Copy the batch to another device, without waiting."""
        return ClassBatch(*(part.to(device, non_blocking=True) for part in self))


def random_crop(image: Tensor, config: CropConfig, generator: Generator) -> Tensor:
    """Return a training view, uint8 ``[3, size, size]``, of an image uint8 ``[3, H, W]``."""
    top, left, height, width = _window(image.shape[-2], image.shape[-1], config, generator)
    view = F.resized_crop(image, top, left, height, width, [config.size, config.size], antialias=True)
    if chance(generator, config.flip):
        view = view.flip(-1)
    if config.jitter == 0:
        return view
    changes = (F.adjust_brightness, F.adjust_contrast, F.adjust_saturation)
    for number in torch.randperm(3, generator=generator).tolist():
        view = changes[number](view, uniform(generator, 1 - config.jitter, 1 + config.jitter))
    return view


def _window(rows: int, columns: int, config: CropConfig, generator: Generator) -> tuple[int, int, int, int]:
    """Draw top, left, height and width of a crop; after ten failures the largest centred one of a valid aspect."""
    for _ in range(10):
        area = rows * columns * uniform(generator, *config.scale)
        aspect = math.exp(uniform(generator, *map(math.log, config.aspect)))
        width, height = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < width <= columns and 0 < height <= rows:
            return integer(generator, rows - height + 1), integer(generator, columns - width + 1), height, width
    aspect = min(max(columns / rows, config.aspect[0]), config.aspect[1])
    width, height = min(columns, round(rows * aspect)), min(rows, round(columns / aspect))
    return (rows - height) // 2, (columns - width) // 2, max(1, height), max(1, width)


def centre_crop(image: Tensor, config: CropConfig) -> Tensor:
    """Return the evaluation view, uint8 ``[3, size, size]``, of an image uint8 ``[3, H, W]``."""
    short = min(image.shape[-2:])
    sides = [max(config.size, round(side * config.eval_size / short)) for side in image.shape[-2:]]
    return F.center_crop(F.resize(image, sides, antialias=True), [config.size, config.size])


class _Crops(torch.utils.data.Dataset[Any]):
    """Batches by number, or the message of an InputError if a file cannot be read."""

    def __init__(
        self, folders: ClassFolders, config: CropConfig, picks: Callable[[int], list[Pick]], seed: int | None
    ) -> None:
        self.folders, self.config, self.picks, self.seed = folders, config, picks, seed

    def __getitem__(self, number: int) -> ClassBatch | str:
        picks = self.picks(number)
        try:
            pixels = torch.stack([self._view(pick) for pick in picks])
        except InputError as error:
            return str(error)
        chosen = np.array([pick.image for pick in picks], dtype=np.int64)
        return ClassBatch(pixels, torch.from_numpy(self.folders.labels[chosen]), torch.from_numpy(chosen))

    def _view(self, pick: Pick) -> Tensor:
        image = torch.from_numpy(self.folders.read(pick.image)).permute(2, 0, 1)
        if self.seed is None:
            return centre_crop(image, self.config)
        generator = Generator().manual_seed(sample_seed(self.seed, pick, "transform"))
        return random_crop(image, self.config, generator)


class CropStream(Iterator[ClassBatch]):
    """Endless iterator over batches of random crops, each image once per epoch, with an exact position.

    The position is the number of batches ``taken``. Raises SampleError if a file of a batch cannot be read.
    """

    def __init__(
        self,
        folders: ClassFolders,
        config: CropConfig,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        """Take ``batch_size`` images per batch for this one of ``world`` ranks."""
        order = StreamOrder(np.arange(len(folders), dtype=np.int64), batch_size * world, seed)
        part = slice(rank * batch_size, (rank + 1) * batch_size)
        self.taken = 0
        self._epoch_size = len(folders)
        self._workers = Workers(
            _Crops(folders, config, _Part(order, part), seed), workers, pin_memory, prefetch=2, start_method=None
        )
        self._iterator: Iterator[Any] | None = None

    def __next__(self) -> ClassBatch:
        if self._iterator is None:
            self._iterator = self._workers.start(Numbers(self.taken))
        batch = _opened(next(self._iterator))
        self.taken += 1
        return batch

    @property
    def epoch_size(self) -> int:
        """Return the number of images in an epoch, over all ranks."""
        return self._epoch_size

    def ends_after(self, batches: int) -> None:
        """Ignore the number of batches in the run: no batch depends on it."""

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches taken."""
        return {"batches": self.taken}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position."""
        self.close()
        self.taken = state["batches"]

    def close(self) -> None:
        """Stop the workers."""
        self._iterator = None
        self._workers.stop()


class CropPass:
    """One pass of centre crops over this rank's part of the images, in order; can be iterated again.

    Raises SampleError if a file of a batch cannot be read.
    """

    def __init__(
        self,
        folders: ClassFolders,
        config: CropConfig,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pin_memory: bool = False,
    ) -> None:
        self._order = PassOrder(len(folders), batch_size, rank, world)
        crops = _Crops(folders, config, self._order.batch, None)
        self._workers = Workers(crops, workers, pin_memory, prefetch=2, start_method=None)

    def __iter__(self) -> Iterator[ClassBatch]:
        for made in self._workers.start(Numbers(0, len(self._order))):
            yield _opened(made)

    def close(self) -> None:
        """Stop the workers."""
        self._workers.stop()


class _Part:
    """Picks of one rank within each global batch, as a picklable function."""

    def __init__(self, order: StreamOrder, part: slice) -> None:
        self.order, self.part = order, part

    def __call__(self, number: int) -> list[Pick]:
        return self.order.batch(number)[self.part]


def _opened(made: ClassBatch | str) -> ClassBatch:
    if isinstance(made, str):
        raise SampleError(made)
    return made
