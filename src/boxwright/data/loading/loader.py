"""Loaders of detection batches: an endless, exactly resumable training stream, and one pass in order for evaluation.

Each worker makes whole batches from the data set that all workers share. A batch depends only on its number and the
seed, so the stream is the same for any number of workers, including none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import torch.utils.data

from boxwright.data.config import DataConfig
from boxwright.data.loading.collate import Batch, BatchInfo, Padding, collate
from boxwright.data.loading.sampler import (
    Numbers,
    PassOrder,
    Pick,
    StreamOrder,
    aspect_groups,
    sample_seed,
    stream_members,
)
from boxwright.data.loading.sampling import sampling_factors, sampling_note
from boxwright.data.loading.workers import SampleError, StartMethod, Workers
from boxwright.data.proposals.files import ProposalsConfig, ProposalSet, proposals_of_split
from boxwright.data.transforms.affine import AffineConfig
from boxwright.data.transforms.configs import Transform, TransformConfig, build_transform, without_mixing
from boxwright.data.transforms.mixing.copy_paste import CopyPasteConfig
from boxwright.data.transforms.multi_scale import MultiScaleConfig, check_square, with_size
from boxwright.data.transforms.sample import Sample, SampleSource
from boxwright.structures import InputError

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex

__all__ = ["Batch", "BatchInfo", "EvalLoader", "TrainStream"]


class _Failure(str):
    """Message of an InputError in a worker, passed on as a value so that it comes without the worker's traceback."""


class _Batches(torch.utils.data.Dataset[tuple[Batch, list[str]] | _Failure]):
    """Batches by number, for torch's DataLoader."""

    def __init__(
        self,
        source: SampleSource,
        transforms: Sequence[TransformConfig],
        picks: Callable[[int], list[Pick]],
        seed: int,
        padding: Padding,
        multi_scale: MultiScaleConfig | None = None,
        masks: bool = True,
    ) -> None:
        self.source = source
        self.masks = masks
        self.configs = tuple(transforms)
        self.transform = build_transform(self.configs, fetch=source)
        self.closing = 0  # global batches at the end of the run without transforms that combine images
        self.plain_configs = without_mixing(self.configs)
        self.plain = build_transform(self.plain_configs)
        self.multi_scale = multi_scale
        self.batches: int | None = None
        self.picks = picks
        self.seed = seed
        self.padding = padding

    def __getitem__(self, number: int) -> tuple[Batch, list[str]] | _Failure:
        try:
            picks = self.picks(number)
            seeds = [sample_seed(self.seed, pick, "detector") for pick in picks]
            transform, padding = self._of_batch(number)
            return collate([self._sample(pick, transform) for pick in picks], seeds, padding)
        except InputError as error:
            return _Failure(error)

    def _of_batch(self, number: int) -> tuple[Transform, Padding]:
        """Return the transform and padding of a batch, at that batch's size."""
        closed = self.batches is not None and number >= self.batches - self.closing
        if self.multi_scale is None:
            return self.plain if closed else self.transform, self.padding
        configs = self.plain_configs if closed else self.configs
        side = self.multi_scale.size_at(self.seed, number, self.batches)
        transform = build_transform(with_size(configs, (side, side)), fetch=self.source)
        padding = self.padding
        return transform, padding if padding.shapes is None else replace(padding, shapes=((side, side),))

    def _sample(self, pick: Pick, transform: Transform) -> Sample:
        generator = torch.Generator().manual_seed(sample_seed(self.seed, pick, "transform"))
        made = transform(self.source(pick.image), generator)
        classes = len(self.source.index.classes)
        if len(made) and int(made.labels.max()) >= classes:  # only a transform of the user's own knows no classes
            raise InputError(
                f"image id {made.image_id}: a custom transform gave an object the label {int(made.labels.max())}, and "
                f"the data set has {classes} classes, from 0 to {classes - 1}; correct the transform"
            )
        return made if self.masks else replace(made, masks=None)  # read for a transform alone


class _RankSlice:
    """Picks of one rank within each global batch."""

    def __init__(self, order: StreamOrder, rank: int, batch_size: int) -> None:
        self.order = order
        self.part = slice(rank * batch_size, (rank + 1) * batch_size)

    def __call__(self, number: int) -> list[Pick]:
        return self.order.batch(number)[self.part]


class TrainStream(Iterator[Batch]):
    """Endless iterator over training batches with an exact position.

    Each of ``world`` ranks takes its part of a global batch of ``data.batch_size`` images. Global batch k is the same
    for any number of ranks and workers. Every image is used once per epoch; `StreamOrder` describes the grouping by
    aspect ratio. `MultiScaleConfig` changes the size of the images of a global batch every few batches.

    An image that cannot be prepared raises SampleError at the batch it belongs to, and the position stays before that
    batch. Boxes left out by ``too_many="keep_largest"`` are announced as warnings.
    """

    def __init__(
        self,
        index: DetectionIndex,
        data: DataConfig,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        pin_memory: bool = False,
        prefetch: int = 2,
        start_method: StartMethod | None = None,
    ) -> None:
        """Raises InputError if the ranks cannot share the batch size, or if the data set has no image to use."""
        _check_counts(rank, world, prefetch)
        if data.batch_size % world:
            raise InputError(f"batch_size = {data.batch_size} is not a multiple of {world} processes")
        if data.multi_scale is not None:
            check_square(data.train)
            if data.close_mosaic:
                check_square(without_mixing(data.train))
        if not 0 <= seed < 2**63:
            raise InputError(f"seed = {seed} is out of range; it must be in 0..2^63-1")
        members = stream_members(index, data.drop_empty)
        repeats = sampling_factors(index, members, data.sampling)
        if repeats is not None:
            members, repeats = members[repeats > 0], repeats[repeats > 0]
        self.note = None if repeats is None else sampling_note(index, members, repeats)
        """Description of an epoch whose images do not come once each, for the log."""
        order = StreamOrder(
            members,
            data.batch_size,
            seed,
            groups=aspect_groups(index, members) if data.group_by_aspect else None,
            repeats=repeats,
        )
        given, padding = _proposals(data.proposals, "train", index, _padding(data, data.max_boxes))
        source = SampleSource(index, data.masks or transforms_use_masks(data.train, index), given)
        picks = _RankSlice(order, rank, data.batch_size // world)
        self._batches = _Batches(source, data.train, picks, seed, padding, data.multi_scale, data.masks)
        self._batches.closing = math.ceil(data.close_mosaic * len(index) / data.batch_size - 1e-9)
        self._workers = Workers(self._batches, data.workers, pin_memory, prefetch, start_method)
        self._iterator: Iterator[Any] | None = None
        self._identity = {
            "seed": seed,
            "global_batch": data.batch_size,
            "epoch_size": order.epoch_size,
            "group_by_aspect": data.group_by_aspect,
        }
        self._taken = 0

    @property
    def epoch_size(self) -> int:
        """Return the number of samples in an epoch, over all ranks."""
        return self._identity["epoch_size"]

    @property
    def epoch(self) -> float:
        """Return the epochs done so far, with fraction."""
        return self._taken * self._identity["global_batch"] / self.epoch_size

    def ends_after(self, batches: int) -> None:
        """Set the number of global batches in the run.

        `MultiScaleConfig.last` and `DataConfig.close_mosaic` count back from it.
        """
        self.close()  # running workers have a copy of the previous number
        self._batches.batches = batches

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._workers.start(Numbers(self._taken))
        try:
            batch = _opened(next(self._iterator))
        except BaseException:  # also Ctrl-C, which may lose prefetched batches: restart at the position
            self.close()
            raise
        self._taken += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """Return the number of batches returned, without prefetched ones, and the settings that must stay the same."""
        return {"batches": self._taken, **self._identity}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a saved position. Raises InputError for the state of another stream, which cannot resume exactly."""
        for name, mine in self._identity.items():
            if state.get(name) != mine:
                raise InputError(
                    f"the position in the data was saved with {name} = {state.get(name)} but this run has "
                    f"{name} = {mine}; resume with the same data, seed and global batch size, or start a new run"
                )
        self.close()
        self._taken = int(state["batches"])

    def close(self) -> None:
        """Stop the workers. The next batch starts them again at the same position."""
        self._iterator = None
        self._workers.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EvalLoader:
    """One pass over a data set in its order, which can be iterated again.

    Each of ``world`` ranks takes every world-th batch of ``data.eval_batch_size`` images. Boxes beyond
    ``data.max_boxes`` are kept, since the metrics need all. A transform that cannot be inverted (a flip, a
    rotation, one that combines images) raises InputError.
    """

    def __init__(
        self,
        index: DetectionIndex,
        data: DataConfig,
        *,
        rank: int = 0,
        world: int = 1,
        masks: bool = False,
        split: Literal["train", "val"] = "val",
        pin_memory: bool = False,
        prefetch: int = 2,
        start_method: StartMethod | None = None,
    ) -> None:
        """Load masks if ``masks``; ``split`` selects the file of ``data.proposals``."""
        _check_counts(rank, world, prefetch)
        self._order = PassOrder(len(index), data.eval_batch_size, rank, world)
        given, padding = _proposals(data.proposals, split, index, _padding(data, None))
        batches = _Batches(SampleSource(index, masks, given), data.eval, self._order.batch, 0, padding)
        self._workers = Workers(batches, data.workers, pin_memory, prefetch, start_method)

    def __len__(self) -> int:
        """Return the number of batches of this rank."""
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Batch]:
        """Iterate over the batches of this rank from number ``first`` on."""
        for made in self._workers.start(Numbers(first, len(self))):
            batch = _opened(made)
            if not bool((batch.info.to_original[:, :2] > 0).all()):
                raise InputError(
                    "a transform of the evaluation cannot be inverted; leave out flips, rotations, custom transforms "
                    "and those that combine images"
                )
            yield batch

    def close(self) -> None:
        """Stop the workers; a new pass starts new ones."""
        self._workers.stop()


def _opened(made: tuple[Batch, list[str]] | _Failure) -> Batch:
    if isinstance(made, _Failure):
        raise SampleError(str(made))
    batch, notes = made
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return batch


def _padding(data: DataConfig, max_boxes: int | None) -> Padding:
    shapes = (data.fixed_size,) if data.fixed_size is not None else data.shapes
    return Padding(multiple=data.pad_multiple, shapes=shapes, max_boxes=max_boxes, too_many=data.too_many)


def _proposals(
    config: ProposalsConfig | None, split: Literal["train", "val"], index: DetectionIndex, padding: Padding
) -> tuple[ProposalSet | None, Padding]:
    """Open the proposals of the images of ``index``, and adapt the padding to their number."""
    if config is None:
        return None, padding
    return proposals_of_split(config, split, index), replace(padding, proposals=config.most)


def transforms_use_masks(transforms: Sequence[TransformConfig], index: DetectionIndex) -> bool:
    """Return True if the transforms use the masks of ``index``, also for a detector that trains on boxes alone.

    Raises InputError if a transform needs masks and the data set has none.
    """
    for position, transform in enumerate(transforms):
        if isinstance(transform, CopyPasteConfig) and transform.needs_masks and not index.has_masks:
            place = f"data.train.{position}"
            raise InputError(
                f"{place} (copy_paste) cuts objects out by their masks, but {index.root} has boxes only; set "
                f"{place}.without_masks=boxes to paste whole boxes, or leave the transform out"
            )
    using = [t for t in transforms if isinstance(t, AffineConfig | CopyPasteConfig) and t.uses_masks]
    return index.has_masks and bool(using)


def _check_counts(rank: int, world: int, prefetch: int) -> None:
    if prefetch < 1:
        raise InputError(f"prefetch = {prefetch} is out of range; it must be at least 1")
    if not 0 <= rank < world:
        raise InputError(f"rank = {rank} is out of range; with world = {world} it must be in 0..{world - 1}")
