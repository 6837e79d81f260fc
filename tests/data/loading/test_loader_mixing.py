"""Streams with transforms that combine images: exact resuming, ranks and workers, and masks that only they need."""

from pathlib import Path

import pytest
import torch

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.transforms.configs import (
    AffineConfig,
    CopyPasteConfig,
    LetterboxConfig,
    MixupConfig,
    TransformConfig,
)
from boxwright.structures import Classes, InputError
from tests.support.streams import same_batches, take, train_stream
from tests.support.tiny_index import write_index

MIXED: tuple[TransformConfig, ...] = (
    LetterboxConfig(size=(64, 64)),
    AffineConfig(),
    CopyPasteConfig(p=0.8),
    MixupConfig(p=0.5),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    return write_index(tmp_path_factory.mktemp("images"))


def without_masks(index: DetectionIndex) -> DetectionIndex:
    records = [
        ImageRecord(
            path=Path(index.path(i)),
            image_id=i,
            height=index.size(i)[0],
            width=index.size(i)[1],
            boxes=index.annotations(i).boxes,
            labels=index.annotations(i).labels,
        )
        for i in range(len(index))
    ]
    return DetectionIndex.build(Classes.from_names(["red", "green", "blue"]), records, root=index.root)


@pytest.mark.parametrize("masks", [False, True])
def test_resumed_shared_and_split_streams_are_the_same(index: DetectionIndex, masks: bool) -> None:
    whole = take(train_stream(index, MIXED, 2, seed=1, masks=masks), 8)
    assert all((batch.targets.masks is not None) == masks for batch in whole)
    with train_stream(index, MIXED, 2, seed=1, masks=masks, workers=2) as stream:
        assert all(same_batches(next(stream), batch) for batch in whole[:3])
        state = stream.state_dict()
    with train_stream(index, MIXED, 2, seed=1, masks=masks) as fresh:
        fresh.load_state_dict(state)
        assert all(same_batches(next(fresh), batch) for batch in whole[3:])
    ranks = [take(train_stream(index, MIXED, 1, seed=1, masks=masks, rank=rank, world=2), 8) for rank in (0, 1)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(batch.images.pixels, torch.cat([part.images.pixels for part in parts]))
        boxes = torch.cat([part.targets.boxes[part.targets.valid] for part in parts])
        assert torch.equal(batch.targets.boxes[batch.targets.valid], boxes)


def test_copy_paste_reads_masks_that_the_detector_does_not_need(index: DetectionIndex) -> None:
    """Boxes are the same as with masks in the batch, so the objects were cut out by their masks."""
    alone, kept = (take(train_stream(index, MIXED, 2, seed=3, masks=masks), 4) for masks in (False, True))
    for one, other in zip(alone, kept, strict=True):
        assert one.targets.masks is None
        assert torch.equal(one.images.pixels, other.images.pixels)
        assert torch.equal(one.targets.boxes, other.targets.boxes)


def test_copy_paste_refuses_data_without_masks_unless_boxes_may_be_pasted(index: DetectionIndex) -> None:
    bare = without_masks(index)
    with pytest.raises(
        InputError, match=r"data.train.2 \(copy_paste\) .* has boxes only; set data.train.2.without_masks"
    ):
        train_stream(bare, MIXED, 2)
    boxes = (*MIXED[:2], CopyPasteConfig(p=1.0, without_masks="boxes"))
    counts = [len(index.annotations(i).boxes) for i in range(13)]
    batches = take(train_stream(bare, boxes, 1, seed=2, drop_empty=True), 10)
    assert any(int(batch.targets.valid.sum()) > counts[int(batch.info.indexes[0])] for batch in batches)
    take(train_stream(bare, MIXED[:2], 2), 1)  # the others do without masks
