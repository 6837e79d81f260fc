"""Files of proposals: content, errors, transforms of proposals, and recall."""

import pickle
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import save_file

from boxwright.data.index import DetectionIndex
from boxwright.data.proposals.files import ProposalsConfig, ProposalSet, proposals_for, read_proposals
from boxwright.data.transforms.configs import FlipConfig, ResizeConfig
from boxwright.data.transforms.mixing.mosaic import MosaicConfig, mosaic
from boxwright.data.transforms.sample import Sample, flipped, placed, resized, turned
from boxwright.evaluation.proposals import recall_report
from boxwright.structures import InputError
from tests.support.streams import eval_loader, train_stream
from tests.support.tiny_index import generator, painted, write_index


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    return write_index(tmp_path_factory.mktemp("images"))


def drawn(index: DetectionIndex, count: int = 6) -> ProposalSet:
    rng = np.random.default_rng(0)
    boxes, scores = [], []
    for i in range(len(index)):
        height, width = index.size(i)
        low = rng.uniform(0, 0.5, (count + i % 3, 2)) * [width, height]
        boxes.append(np.concatenate([low, low + rng.uniform(0.1, 0.5, low.shape) * [width, height]], 1))
        scores.append(rng.uniform(0, 1, len(low)))
    return ProposalSet.build(index, boxes, scores, "drawn")


def test_a_file_holds_what_was_written(index: DetectionIndex, tmp_path: Path) -> None:
    made = drawn(index)
    again = read_proposals(made.save(tmp_path / "proposals.safetensors"))
    assert [p.name for p in tmp_path.iterdir()] == ["proposals.safetensors"]
    for name in ("boxes", "scores", "offsets", "names", "image_ids", "sizes", "marks"):
        assert np.array_equal(getattr(again, name), getattr(made, name)), name
    assert (again.method, again.fingerprint) == ("drawn", index.fingerprint())
    for i in range(len(index)):
        scores = again.scores[again.offsets[i] : again.offsets[i + 1]]
        assert (np.diff(scores) <= 0).all(), "best first"
    assert np.array_equal(pickle.loads(pickle.dumps(again)).boxes, made.boxes)


def test_another_order_and_fewer_images(index: DetectionIndex) -> None:
    made, rows = drawn(index), [4, 0, 7]
    part = made.aligned(index.subset(rows), most=3)
    assert part.offsets.tolist() == [0, 3, 6, 9]
    for i, row in enumerate(rows):
        assert np.array_equal(part.of(i), made.of(row)[:3])


def test_proposals_of_other_images_are_refused(index: DetectionIndex, tmp_path: Path) -> None:
    (tmp_path / "more").mkdir()
    more = write_index(tmp_path / "more", count=15)
    with pytest.raises(InputError, match=r"2 of the 15 images .* such as picture 13\.png"):
        drawn(index).aligned(more, 10)
    (tmp_path / "other").mkdir()
    other = write_index(tmp_path / "other", sizes=((40, 60), (60, 50)))
    with pytest.raises(InputError, match=r"picture 1\.png of 40 x 60 pixels, but .* 50 x 60: it belongs to another"):
        drawn(index).aligned(other, 10)
    (tmp_path / "twin").mkdir()
    twin = write_index(tmp_path / "twin")
    drawn(index).aligned(twin, 10)  # a copy elsewhere
    Image.fromarray(np.full((40, 60, 3), 7, np.uint8)).save(tmp_path / "twin" / "picture 4.png")
    with pytest.raises(InputError, match=r"another image picture 4\.png than that of .*twin, like 0 others"):
        drawn(index).aligned(twin, 10)
    replace(drawn(index), marks=np.zeros(len(index), np.int64)).aligned(twin, 10)  # a file without marks
    with pytest.warns(UserWarning, match="annotations were others"):
        replace(drawn(index), fingerprint="another").aligned(index, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        drawn(index).aligned(index, 10)


@pytest.mark.parametrize(
    ("box", "why"),
    [
        ((10, 10, 70, 20), "lies outside the image"),
        ((-1, 10, 7, 20), "lies outside the image"),
        ((10, 10, 10, 20), "has no area"),
        ((10, 10, float("nan"), 20), "has no area"),
    ],
)
def test_impossible_boxes_are_refused(box: tuple[float, ...], why: str, index: DetectionIndex, tmp_path: Path) -> None:
    good = np.array([[1.0, 1, 5, 5]])
    boxes = [good if i != 2 else np.array([good[0], box]) for i in range(len(index))]
    with pytest.raises(InputError, match=rf"proposal 1 of picture 2\.png \(60 x 40 pixels\).* {why}"):
        ProposalSet.build(index, boxes, [-np.arange(len(b)) for b in boxes], "wrong")
    made = drawn(index)
    made.boxes[int(made.offsets[2]) + 1] = box
    path = made.save(tmp_path / "wrong.safetensors")
    with pytest.raises(InputError, match=rf"wrong\.safetensors: proposal 1 of picture 2\.png.* {why}"):
        read_proposals(path)


def test_other_files_are_refused(index: DetectionIndex, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such file; create it with `boxwright proposals`"):
        read_proposals(tmp_path / "absent.safetensors")
    whole = drawn(index).save(tmp_path / "whole.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(whole[:-100])
    with pytest.raises(InputError, match=r"cut\.safetensors: damaged, or not a file of proposals"):
        read_proposals(tmp_path / "cut.safetensors")
    save_file({"weight": np.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(InputError, match="not a file of proposals"):
        read_proposals(tmp_path / "weights.safetensors")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("boxes", np.zeros((3, 5), np.float32), "boxes has shape [3, 5], not [3, 4]"),
        ("scores", np.zeros(2, np.float32), "scores has shape [2], not ["),
        ("sizes", np.zeros(13, np.int32), "sizes has shape [13], not [13, 2]"),
        ("offsets", np.zeros(3, np.int64), "offsets has shape [3], not [14]"),
        ("image_ids", np.zeros(2, np.int64), "image_ids has shape [2], not [13]"),
    ],
)
def test_columns_that_do_not_fit(
    column: str, values: np.ndarray, said: str, index: DetectionIndex, tmp_path: Path
) -> None:
    path = replace(drawn(index), **{column: values}).save(tmp_path / "odd.safetensors")
    with pytest.raises(InputError, match=r"odd\.safetensors: damaged") as caught:
        read_proposals(path)
    assert said in str(caught.value)


def test_as_many_scores_as_boxes(index: DetectionIndex) -> None:
    boxes = [np.array([[1.0, 1, 5, 5], [1, 1, 6, 6]])] * len(index)
    for count in (1, 3):
        with pytest.raises(InputError, match=rf"picture 0\.png: boxes of shape \[2, 4\] with {count} scores"):
            ProposalSet.build(index, boxes, [np.ones(count)] * len(index), "odd")
    with pytest.raises(InputError, match=r"boxes of shape \[2, 5\]"):
        ProposalSet.build(index, [np.ones((2, 5))] * len(index), [np.ones(2)] * len(index), "odd")
    nothing = ProposalSet.build(index, [np.zeros(0)] * len(index), [np.zeros(0)] * len(index), "none")
    assert len(nothing.boxes) == 0


def with_proposals() -> Sample:
    sample = painted([[10, 10, 30, 20], [40, 15, 70, 50], [0, 30, 9, 60]])
    # Without masks, since with them a cut box shrinks to the rest of its mask.
    return replace(sample, proposals=sample.boxes.clone(), masks=None)


MOVES: dict[str, Callable[[Sample], Sample]] = {
    "resized": lambda s: resized(s, 30, 60),
    "padded": lambda s: placed(s, top=5, left=7, height=80, width=120),
    "cropped": lambda s: placed(s, top=-12, left=-35, height=40, width=50),
    "mirrored": flipped,
    "upside down": lambda s: flipped(s, vertical=True),
    "turned": lambda s: turned(s, 3),
    "mosaic": lambda s: mosaic(s, MosaicConfig(size=(64, 64), min_visible=0, min_size=0), generator(), FOUR),
}


class _Four:
    def __len__(self) -> int:
        return 4

    def __call__(self, index: int, /) -> Sample:
        return with_proposals()


FOUR = _Four()


@pytest.mark.parametrize("name", MOVES)
def test_proposals_go_where_boxes_go(name: str) -> None:
    moved = MOVES[name](with_proposals())
    assert moved.proposals is not None
    assert len(moved) > 0
    assert torch.equal(moved.proposals, moved.boxes)


def test_batches_carry_them(index: DetectionIndex, tmp_path: Path) -> None:
    made = drawn(index)
    path = str(made.save(tmp_path / "p.safetensors"))
    config = ProposalsConfig(train=path, val=path, most=7)
    double = (ResizeConfig(short=(80,), long=1000),)
    batch = next(iter(eval_loader(index, double, 4, proposals=config)))
    assert batch.images.proposals is not None
    assert batch.images.proposals.shape == (4, 7, 4)
    for b in range(4):
        kept = torch.from_numpy(made.of(b)[:7]) * 2
        torch.testing.assert_close(batch.images.proposals[b, : len(kept)], kept)
        assert not batch.images.proposals[b, len(kept) :].any()
    with train_stream(index, (*double, FlipConfig(p=1.0)), 4, proposals=config, group_by_aspect=False) as stream:
        batch = next(stream)
    assert batch.images.proposals is not None
    first = int(batch.info.indexes[0])
    width = int(batch.images.sizes[0, 1])
    x1, y1, x2, y2 = (torch.from_numpy(made.of(first)[0]) * 2).tolist()
    torch.testing.assert_close(batch.images.proposals[0, 0], torch.tensor([width - x2, y1, width - x1, y2]))
    assert next(iter(eval_loader(index, double, 4))).images.proposals is None


def test_a_file_not_named_is_missed(index: DetectionIndex) -> None:
    with pytest.raises(InputError, match=r"data\.proposals\.train is not set"):
        train_stream(index, (), 2, proposals=ProposalsConfig())
    with pytest.raises(InputError, match=r"ProposalsConfig\.most = 0"):
        ProposalsConfig(most=0)


def test_recall(index: DetectionIndex, tmp_path: Path) -> None:
    boxes = [index.annotations(i).boxes.astype(np.float64) for i in range(len(index))]
    perfect = ProposalSet.build(index, boxes, [np.zeros(len(b)) for b in boxes], "truth")
    (row,) = recall_report(perfect, index, [10])
    assert (row.recall_50, row.recall_70, row.average) == (1, 1, 1)
    # Half the width: IoU .5 with every object, which only the lowest threshold accepts.
    half = [np.stack([b[:, 0], b[:, 1], (b[:, 0] + b[:, 2]) / 2, b[:, 3]], 1) for b in boxes]
    (row,) = recall_report(ProposalSet.build(index, half, [np.zeros(len(b)) for b in half], "half"), index, [10])
    assert (row.recall_50, row.recall_70) == (1, 0)
    assert row.average == pytest.approx(0.1)
    # One proposal per image finds one object; images have 0, 1, 2 or 3 objects, of which the third is a crowd.
    (row,) = recall_report(perfect, index, [1])
    usable = [min(len(b), 2) for b in boxes]
    assert row.recall_50 == pytest.approx(sum(n > 0 for n in usable) / sum(usable))
    assert len(proposals_for(perfect.save(tmp_path / "p.safetensors"), index, 1).boxes) == sum(n > 0 for n in usable)
