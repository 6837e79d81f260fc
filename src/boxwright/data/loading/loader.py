"""Batches for training, endless and resumable to the bit, and for evaluation, one pass in order.

Workers are whole-batch workers: each makes one batch after another from the data set, which all of them share. A batch
depends only on its number and the seed, so the stream is the same for any number of workers, including none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, Self

import torch
import torch.utils.data

from boxwright.data.loading.collate import Batch, BatchInfo, Padding, collate
from boxwright.data.loading.sampler import (
    Numbers,
    PassOrder,
    Pick,
    StreamOrder,
    aspect_groups,
    repeat_factors,
    sample_seed,
    stream_members,
)
from boxwright.data.loading.workers import StartMethod, Workers
from boxwright.data.proposals.files import ProposalsConfig, ProposalSet, proposals_of_split
from boxwright.data.transforms.configs import Transform, TransformConfig, build_transform
from boxwright.data.transforms.multi_scale import MultiScaleConfig, check_square, with_size
from boxwright.data.transforms.sample import Sample, SampleSource
from boxwright.structures import InputError

if TYPE_CHECKING:
    from boxwright.data.index import DetectionIndex

__all__ = ["Batch", "BatchInfo", "EvalLoader", "TrainStream"]


class _Trouble(str):
    """The message of an InputError on its way out of a worker, where raising would bury it in a traceback."""


class _Batches(torch.utils.data.Dataset[tuple[Batch, list[str]] | _Trouble]):
    """Batches by number, for torch's DataLoader."""

    def __init__(
        self,
        source: SampleSource,
        transform: Transform | Sequence[TransformConfig],
        picks: Callable[[int], list[Pick]],
        seed: int,
        padding: Padding,
        multi_scale: MultiScaleConfig | None = None,
    ) -> None:
        self.source = source
        self.transform = transform if callable(transform) else build_transform(transform, fetch=source)
        self.configs = () if callable(transform) else tuple(transform)
        self.multi_scale = multi_scale
        self.batches: int | None = None
        self.picks = picks
        self.seed = seed
        self.padding = padding

    def __getitem__(self, number: int) -> tuple[Batch, list[str]] | _Trouble:
        try:
            picks = self.picks(number)
            seeds = [sample_seed(self.seed, pick, "detector") for pick in picks]
            transform, padding = self._of_batch(number)
            return collate([self._sample(pick, transform) for pick in picks], seeds, padding)
        except InputError as error:
            return _Trouble(error)

    def _of_batch(self, number: int) -> tuple[Transform, Padding]:
        """How the images of a batch are made, and padded: at that batch's size."""
        if self.multi_scale is None:
            return self.transform, self.padding
        side = self.multi_scale.size_at(self.seed, number, self.batches)
        transform = build_transform(with_size(self.configs, (side, side)), fetch=self.source)
        padding = self.padding
        return transform, padding if padding.shapes is None else replace(padding, shapes=((side, side),))

    def _sample(self, pick: Pick, transform: Transform) -> Sample:
        generator = torch.Generator().manual_seed(sample_seed(self.seed, pick, "transform"))
        return transform(self.source(pick.image), generator)


class _RankSlice:
    """The part of each global batch that one rank makes."""

    def __init__(self, order: StreamOrder, rank: int, batch_size: int) -> None:
        self.order = order
        self.part = slice(rank * batch_size, (rank + 1) * batch_size)

    def __call__(self, number: int) -> list[Pick]:
        return self.order.batch(number)[self.part]


class TrainStream(Iterator[Batch]):
    """An endless iterator of `Batch` with an exact position.

    ``transform`` is a function of a sample and its generator, or a sequence of configurations. Each of ``world`` ranks
    takes its ``batch_size`` samples of one global batch of ``batch_size * world``; global batch k is the same for any
    split into ranks. Every image comes once an epoch (see `StreamOrder` for grouping). ``fixed_size`` pads to one
    (height, width), ``shapes`` to a few, else to the largest of the batch rounded up to ``pad_multiple``; see
    `Padding` for ``max_boxes`` and ``too_many``. ``drop_empty`` leaves out images without an object;
    ``repeat_threshold`` repeats images of classes that are in a smaller fraction of the images than this.
    ``multi_scale`` gives the images of a global batch another size every few batches, in place of the size of every
    transform and of ``fixed_size``. ``proposals`` names the files that `Images.proposals` come from.

    A file that cannot be read raises InputError naming it, at the batch it belongs to. Boxes left out by
    "keep_largest" are announced as warnings.
    """

    def __init__(
        self,
        index: DetectionIndex,
        transform: Transform | Sequence[TransformConfig],
        batch_size: int,
        *,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        group_by_aspect: bool = True,
        pad_multiple: int = 32,
        fixed_size: tuple[int, int] | None = None,
        shapes: Sequence[tuple[int, int]] | None = None,
        max_boxes: int | None = None,
        too_many: Literal["error", "keep_largest"] = "error",
        masks: bool = False,
        drop_empty: bool = False,
        repeat_threshold: float | None = None,
        multi_scale: MultiScaleConfig | None = None,
        proposals: ProposalsConfig | None = None,
        pin_memory: bool = False,
        prefetch: int = 2,
        start_method: StartMethod | None = None,
    ) -> None:
        _check_counts(batch_size, rank, world, workers, prefetch)
        padding = _padding(pad_multiple, fixed_size, shapes, max_boxes, too_many)
        if multi_scale is not None:
            if shapes is not None:
                raise InputError(
                    "shapes and multi_scale are both given; multi_scale decides the sizes, leave shapes out"
                )
            if callable(transform):
                raise InputError("multi_scale changes the sizes of configurations; give these and not a function")
            check_square(transform)
        if not 0 <= seed < 2**63:
            raise InputError(f"seed = {seed} is out of range; it must be in 0..2^63-1")
        members = stream_members(index, drop_empty)
        if repeat_threshold is not None and not 0 < repeat_threshold <= 1:
            raise InputError(f"repeat_threshold = {repeat_threshold} is out of range; it must be in 0..1 and not 0")
        order = StreamOrder(
            members,
            batch_size * world,
            seed,
            groups=aspect_groups(index, members) if group_by_aspect else None,
            repeats=None if repeat_threshold is None else repeat_factors(index, members, repeat_threshold),
        )
        given, padding = _proposals(proposals, "train", index, padding)
        source = SampleSource(index, masks, given)
        self._batches = _Batches(source, transform, _RankSlice(order, rank, batch_size), seed, padding, multi_scale)
        self._workers = Workers(self._batches, workers, pin_memory, prefetch, start_method)
        self._iterator: Iterator[Any] | None = None
        self._identity = {
            "seed": seed,
            "global_batch": order.batch_size,
            "epoch_size": order.epoch_size,
            "group_by_aspect": group_by_aspect,
        }
        self._taken = 0

    @property
    def epoch_size(self) -> int:
        """Samples in an epoch, over all ranks."""
        return self._identity["epoch_size"]

    @property
    def batches_per_epoch(self) -> int:
        """Global batches that make up an epoch, rounded up; the last may reach into the next epoch."""
        return math.ceil(self.epoch_size / self._identity["global_batch"])

    @property
    def epoch(self) -> float:
        """Epochs taken so far, with fraction."""
        return self._taken * self._identity["global_batch"] / self.epoch_size

    def ends_after(self, batches: int) -> None:
        """Say how many global batches the run takes in all, which `MultiScaleConfig.last` counts back from."""
        self.close()  # workers under way know another end
        self._batches.batches = batches

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> Batch:
        if self._iterator is None:
            self._iterator = self._workers.start(Numbers(self._taken))
        try:
            batch = _opened(next(self._iterator))
        except BaseException:  # Ctrl-C among them: batches may be lost on their way, so start anew from the position
            self.close()
            raise
        self._taken += 1
        return batch

    def state_dict(self) -> dict[str, int]:
        """The position: batches handed out, not batches made ahead, and what the stream must agree on to resume."""
        return {"batches": self._taken, **self._identity}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go to a position. InputError where the state is of another stream, which could not resume exactly."""
        for name, mine in self._identity.items():
            if state.get(name) != mine:
                raise InputError(
                    f"the position in the data was saved with {name} = {state.get(name)} but this run has "
                    f"{name} = {mine}; resume with the same data, seed and global batch size, or start a new run"
                )
        self.close()
        self._taken = int(state["batches"])

    def close(self) -> None:
        """Stop the workers. The stream goes on from its position if it is asked for another batch."""
        self._iterator = None
        self._workers.stop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class EvalLoader:
    """One pass in the order of the data set, every image once; can be iterated again.

    Arguments as for `TrainStream`; each of ``world`` ranks takes every world-th batch. The transform must leave a way
    back to the original picture: a flip, a quarter turn or a mosaic raises InputError. ``split``: which of the files of
    ``proposals`` is the one of this data.
    """

    def __init__(
        self,
        index: DetectionIndex,
        transform: Transform | Sequence[TransformConfig],
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        pad_multiple: int = 32,
        fixed_size: tuple[int, int] | None = None,
        shapes: Sequence[tuple[int, int]] | None = None,
        max_boxes: int | None = None,
        masks: bool = False,
        proposals: ProposalsConfig | None = None,
        split: Literal["train", "val"] = "val",
        pin_memory: bool = False,
        prefetch: int = 2,
        start_method: StartMethod | None = None,
    ) -> None:
        _check_counts(batch_size, rank, world, workers, prefetch)
        padding = _padding(pad_multiple, fixed_size, shapes, max_boxes, "error")
        self._order = PassOrder(len(index), batch_size, rank, world)
        given, padding = _proposals(proposals, split, index, padding)
        batches = _Batches(SampleSource(index, masks, given), transform, self._order.batch, 0, padding)
        self._workers = Workers(batches, workers, pin_memory, prefetch, start_method)

    def __len__(self) -> int:
        """Batches of this rank."""
        return len(self._order)

    def __iter__(self) -> Iterator[Batch]:
        return self.from_batch(0)

    def from_batch(self, first: int) -> Iterator[Batch]:
        """The pass from its batch number ``first`` on."""
        for made in self._workers.start(Numbers(first, len(self))):
            batch = _opened(made)
            if not bool((batch.info.to_original[:, :2] > 0).all()):
                raise InputError(
                    "the transform of an evaluation has no way back to the original picture; "
                    "leave out flips, quarter turns and mosaics"
                )
            yield batch

    def close(self) -> None:
        """Stop the workers; a new pass starts new ones."""
        self._workers.stop()


def _opened(made: tuple[Batch, list[str]] | _Trouble) -> Batch:
    if isinstance(made, _Trouble):
        raise InputError(str(made))
    batch, notes = made
    for note in notes:
        warnings.warn(note, stacklevel=3)
    return batch


def _padding(
    multiple: int,
    fixed_size: tuple[int, int] | None,
    shapes: Sequence[tuple[int, int]] | None,
    max_boxes: int | None,
    too_many: Literal["error", "keep_largest"],
) -> Padding:
    if fixed_size is not None and shapes is not None:
        raise InputError("fixed_size and shapes are both given; give one of them")
    sizes = (fixed_size,) if fixed_size is not None else None if shapes is None else tuple(shapes)
    return Padding(multiple=multiple, shapes=sizes, max_boxes=max_boxes, too_many=too_many)


def _proposals(
    config: ProposalsConfig | None, split: Literal["train", "val"], index: DetectionIndex, padding: Padding
) -> tuple[ProposalSet | None, Padding]:
    """The proposals of the images of ``index``, and the padding that they want."""
    if config is None:
        return None, padding
    return proposals_of_split(config, split, index), replace(padding, proposals=config.most)


def _check_counts(batch_size: int, rank: int, world: int, workers: int, prefetch: int) -> None:
    for name, value, least in (("batch_size", batch_size, 1), ("workers", workers, 0), ("prefetch", prefetch, 1)):
        if value < least:
            raise InputError(f"{name} = {value} is out of range; it must be at least {least}")
    if not 0 <= rank < world:
        raise InputError(f"rank = {rank} is out of range; with world = {world} it must be in 0..{world - 1}")
