"""Sampling by class and by objects: factors by hand, what an epoch holds, and streams that resume and split exactly."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from boxwright.config.overlay import parse_set
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.loading.sampling import SamplingConfig, repeat_factors, sampling_factors, sampling_note
from boxwright.data.transforms.configs import ResizeConfig
from boxwright.recipes import resolve_recipe
from boxwright.structures import Classes, InputError
from tests.support.streams import same_batches, take, train_stream
from tests.support.tiny_index import write_index

PLAIN = (ResizeConfig(short=(16,), long=32),)


def data(tmp_path: Path, *labels: list[int], crowd: tuple[int, ...] = ()) -> DetectionIndex:
    """One image for each list of labels, with a box for each; those numbered in ``crowd`` have crowds alone."""
    records = []
    for i, own in enumerate(labels):
        Image.new("RGB", (20, 16), (i, 0, 0)).save(path := tmp_path / f"{i}.png")
        boxes = np.tile([2.0, 2, 9, 9], (len(own), 1))
        crowds = np.full(len(own), i in crowd)
        records.append(
            ImageRecord(path=path, image_id=i, height=16, width=20, boxes=boxes, labels=np.array(own), crowd=crowds)
        )
    return DetectionIndex.build(Classes.from_names(["a", "b", "c"]), records, root=tmp_path)


def factors(index: DetectionIndex, **options: object) -> list[float] | None:
    made = sampling_factors(index, np.arange(len(index)), SamplingConfig(**options))  # type: ignore[arg-type]
    return None if made is None else made.tolist()


def shown(index: DetectionIndex, epochs: int, **options: object) -> tuple[list[Counter[int]], int]:
    """Count the images of each epoch; also return the length of an epoch."""
    stream = train_stream(index, PLAIN, 1, sampling=SamplingConfig(**options), group_by_aspect=False)  # type: ignore[arg-type]
    drawn = [int(batch.info.indexes[0]) for batch in take(stream, epochs * stream.epoch_size)]
    size = stream.epoch_size
    return [Counter(drawn[k * size : (k + 1) * size]) for k in range(epochs)], size


def test_repeat_factors_are_those_of_lvis() -> None:
    """The class 0 is in all of 100 images, 1 in 4, 2 in 1; the threshold is 0.04."""
    present = [np.array([0, *([1] if i < 4 else []), *([2] if i == 0 else [])]) for i in range(100)]
    made = repeat_factors(present, 3, 0.04)
    assert made.tolist() == [2.0, *[1.0] * 99]  # sqrt(0.04 / 0.01) = 2; the class 1 just meets the threshold
    auto = repeat_factors(present, 3, "auto")
    assert auto.tolist() == [10.0, 5.0, 5.0, 5.0, *[1.0] * 96]  # sqrt(1 / 0.01), sqrt(1 / 0.04)


def test_every_image_once_is_the_default(tmp_path: Path) -> None:
    index = data(tmp_path, [0], [1], [], [0])
    assert factors(index) is None
    plain = take(train_stream(index, PLAIN, 2), 6)
    given = take(train_stream(index, PLAIN, 2, sampling=SamplingConfig()), 6)
    assert all(map(same_batches, plain, given))
    assert train_stream(index, PLAIN, 2).note is None


def test_rare_classes_come_more_often(tmp_path: Path) -> None:
    index = data(tmp_path, *[[0]] * 8, [0, 1], [0, 2, 2])  # b and c in one of ten images each
    assert factors(index, class_balance="auto") == pytest.approx([1.0] * 8 + [10**0.5] * 2)
    assert factors(index, class_balance=0.4) == pytest.approx([1.0] * 8 + [2.0] * 2)
    epochs, size = shown(index, 5, class_balance=0.4)
    assert size == 12
    assert all(epoch == Counter({**dict.fromkeys(range(8), 1), 8: 2, 9: 2}) for epoch in epochs)
    epochs, size = shown(index, 40, class_balance="auto")
    assert size == 14  # 8 + 2 * 3.16, rounded down
    rare = [epoch[image] for epoch in epochs for image in (8, 9)]
    assert set(rare) <= {2, 3, 4}
    assert np.mean(rare) == pytest.approx(10**0.5 * 14 / (8 + 2 * 10**0.5), abs=0.15)


@pytest.mark.parametrize(
    ("share", "size", "empty"),
    [(0.2, 10, 2), (0.5, 16, 8), (0.0, 8, 0)],  # of 8 images with objects and 4 without, one of these a crowd
)
def test_the_share_of_background_is_what_was_asked(tmp_path: Path, share: float, size: int, empty: int) -> None:
    index = data(tmp_path, *[[0]] * 8, [], [], [], [1], crowd=(11,))
    epochs, length = shown(index, 6, background=share)
    assert length == size
    for epoch in epochs:
        assert sum(epoch[i] for i in range(8, 12)) == empty
        assert all(epoch[i] == 1 for i in range(8))
    if share == 0.2:
        assert {i for epoch in epochs for i in epoch} == set(range(12))  # others in each epoch


def test_both_together(tmp_path: Path) -> None:
    index = data(tmp_path, *[[0]] * 8, [0, 1], [0, 2], [])
    made = factors(index, class_balance=4 / 11, background=0.25)
    assert made == pytest.approx([1.0] * 8 + [2.0, 2.0, 4.0])
    stream = train_stream(index, PLAIN, 2, sampling=SamplingConfig(class_balance=4 / 11, background=0.25))
    assert stream.epoch_size == 16
    assert stream.note == (
        "sampling: an epoch shows 16 images for the 11 of the training set, some up to 4.0 times; 25 % have no objects"
    )


def test_a_stream_resumes_in_mid_epoch_and_splits_over_ranks(tmp_path: Path) -> None:
    index = data(tmp_path, *[[0]] * 7, [1], [2], [], [])
    sampling = SamplingConfig(class_balance="auto", background=0.3)
    whole = take(train_stream(index, PLAIN, 2, seed=4, sampling=sampling), 20)  # more than an epoch of 18
    with train_stream(index, PLAIN, 2, seed=4, sampling=sampling, workers=1) as stream:
        for _ in range(5):
            next(stream)
        state = stream.state_dict()
    with train_stream(index, PLAIN, 2, seed=4, sampling=sampling) as fresh:
        fresh.load_state_dict(state)
        assert all(same_batches(next(fresh), batch) for batch in whole[5:])
    ranks = [take(train_stream(index, PLAIN, 1, seed=4, sampling=sampling, rank=r, world=2), 20) for r in (0, 1)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(batch.info.indexes, torch.cat([part.info.indexes for part in parts]))
    with pytest.raises(InputError, match="epoch_size"):
        train_stream(index, PLAIN, 2, seed=4).load_state_dict(state)


def test_what_cannot_be_met_is_named(tmp_path: Path) -> None:
    full = data(tmp_path, [0], [1])
    with pytest.raises(InputError, match=r"background = 0.1 asks for images without objects, .* has none"):
        train_stream(full, PLAIN, 1, sampling=SamplingConfig(background=0.1))
    assert factors(full, background=0.0) == [1.0, 1.0]
    with pytest.raises(InputError, match=r"no image has an object, so data.sampling.background cannot be met"):
        train_stream(data(tmp_path, [], []), PLAIN, 1, sampling=SamplingConfig(background=0.1))
    with pytest.raises(InputError, match=r"sampling.background = 0.1 .* drop_empty leaves them out"):
        train_stream(full, PLAIN, 1, sampling=SamplingConfig(background=0.1), drop_empty=True)
    for wrong, words in (
        ({"class_balance": 0.0}, r"class_balance: 0.0 should be a number in \(0, 1\], or 'auto'"),
        ({"class_balance": "balanced"}, "class_balance: 'balanced'"),
        ({"class_balance": True}, "class_balance: True"),
        ({"background": 1.0}, "background = 1.0: .* less than 1"),
    ):
        with pytest.raises(InputError, match=words):
            SamplingConfig(**wrong)  # type: ignore[arg-type]


def test_settings_on_the_command_line() -> None:
    name = "faster-rcnn-detnet-small-fpn"
    assert resolve_recipe(name).data.sampling == SamplingConfig()
    sets = ["data.sampling.class_balance=auto", "data.sampling.background=0.1"]
    assert resolve_recipe(name, sets=sets).data.sampling == SamplingConfig(class_balance="auto", background=0.1)
    assert resolve_recipe(name, sets=["data.repeat_threshold=0.1"]).data.sampling == SamplingConfig(class_balance=0.1)
    assert resolve_recipe(name, sets=["data.repeat_threshold=none"]).data.sampling == SamplingConfig()
    assert parse_set(sets[0]).tree == {"data": {"sampling": {"class_balance": "auto"}}}
    with pytest.raises(InputError, match=r"data.sampling.class_balance: 'atuo' should be a number"):
        resolve_recipe(name, sets=["data.sampling.class_balance=atuo"])


def test_masks_are_not_parsed_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    index = write_index(tmp_path)
    assert index.has_masks
    monkeypatch.setattr(DetectionIndex, "_segmentation", None)  # a call fails
    members, config = np.arange(len(index)), SamplingConfig(class_balance="auto", background=0.25)
    made = sampling_factors(index, members, config)
    assert made is not None
    assert "25 % have no objects" in sampling_note(index, members, made)
