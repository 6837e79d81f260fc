"""Content of batches, and a stream that is the same for any number of workers, ranks and resumes."""

import errno
import io
import os
import signal
import subprocess
import time
import warnings
from pathlib import Path

import pytest
import torch

from boxwright.data.index import DetectionIndex
from boxwright.data.loading.workers import _print_unless_disconnected
from boxwright.data.transforms.configs import (
    ExpandConfig,
    FlipConfig,
    LetterboxConfig,
    MosaicConfig,
    PhotometricConfig,
    ResizeConfig,
    TransformConfig,
    WarpConfig,
)
from boxwright.structures import Classes, InputError
from tests.support.processes import start_python
from tests.support.streams import eval_loader, same_batches, take, train_stream
from tests.support.tiny_index import write_index

PLAIN: tuple[TransformConfig, ...] = (ResizeConfig(short=(40,), long=80),)
RANDOM: tuple[TransformConfig, ...] = (
    MosaicConfig(size=(64, 64), p=0.3),
    PhotometricConfig(),
    ExpandConfig(),
    FlipConfig(),
    ResizeConfig(short=(32, 40, 48), long=80),
)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    return write_index(tmp_path_factory.mktemp("images"))


def test_a_batch_holds_what_its_samples_hold(index: DetectionIndex) -> None:
    batch = next(train_stream(index, PLAIN, 4, masks=True, pad_multiple=16))
    pixels, sizes = batch.images.pixels, batch.images.sizes
    assert pixels.dtype == torch.uint8
    assert pixels.shape[0] == 4
    assert pixels.shape[2] % 16 == 0
    assert pixels.shape[3] % 16 == 0
    for b, number in enumerate(batch.info.indexes.tolist()):
        height, width = sizes[b].tolist()
        assert int(pixels[b, :, height:].sum()) == 0
        assert int(pixels[b, :, :, width:].sum()) == 0
        assert int(pixels[b, :, :height, :width].sum()) > 0
        rows = index.annotations(number)
        n = len(rows.boxes)
        assert batch.targets.valid[b].tolist() == [True] * n + [False] * (8 - n)
        assert batch.targets.labels[b, :n].tolist() == rows.labels.tolist()
        assert batch.targets.crowd[b, :n].tolist() == rows.crowd.tolist()
        assert not batch.targets.boxes[b, n:].any()
        assert batch.targets.masks is not None
        assert batch.targets.masks.shape == (4, 8, *pixels.shape[2:])
        assert batch.targets.masks[b].flatten(1).any(1).tolist() == batch.targets.valid[b].tolist()
        assert batch.info.image_ids[b] == index.image_id(number)
        assert tuple(batch.info.original_sizes[b].tolist()) == index.size(number)


def test_without_masks_there_are_none(index: DetectionIndex) -> None:
    assert next(train_stream(index, PLAIN, 2)).targets.masks is None


@pytest.mark.parametrize("workers", [1, 2])
def test_workers_do_not_change_the_stream(index: DetectionIndex, workers: int) -> None:
    alone = take(train_stream(index, RANDOM, 3, seed=5), 8)
    others = take(train_stream(index, RANDOM, 3, seed=5, workers=workers), 8)
    assert all(map(same_batches, alone, others))


def test_a_spawned_worker_gives_the_same_stream(index: DetectionIndex) -> None:
    alone = take(train_stream(index, RANDOM, 3, seed=5, masks=True), 2)
    spawned = take(train_stream(index, RANDOM, 3, seed=5, masks=True, workers=1, start_method="spawn"), 2)
    assert all(map(same_batches, alone, spawned))


def test_more_workers_than_cores_are_the_users_choice(index: DetectionIndex) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eval_loader(index, (), 1, workers=4 * (os.cpu_count() or 1)).close()


def test_a_worker_whose_parent_has_gone_on_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    for error, told in (
        (ConnectionResetError("reset by peer"), ""),
        (ValueError("a defect"), "ValueError: a defect\n"),
    ):
        _print_unless_disconnected(type(error), error, None)
        assert capsys.readouterr().err == told


def test_another_seed_is_another_stream(index: DetectionIndex) -> None:
    assert not same_batches(
        take(train_stream(index, RANDOM, 3, seed=5), 1)[0], take(train_stream(index, RANDOM, 3, seed=6), 1)[0]
    )


def test_an_image_differs_from_epoch_to_epoch(index: DetectionIndex) -> None:
    one = index.subset([1])
    first, second = take(train_stream(one, PLAIN, 1, seed=5), 2)
    assert first.images.seeds != second.images.seeds  # random draws of the detector
    first, second = take(train_stream(one, RANDOM, 1, seed=5), 2)
    assert not torch.equal(first.images.pixels, second.images.pixels)


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_stream_goes_on_to_the_bit(index: DetectionIndex, workers: int) -> None:
    whole = take(train_stream(index, RANDOM, 2, seed=1), 10)
    with train_stream(index, RANDOM, 2, seed=1, workers=workers) as stream:
        for _ in range(4):
            next(stream)
        state = stream.state_dict()  # prefetched batches do not count
        next(stream)
        assert state["batches"] == 4
        stream.load_state_dict(state)  # backwards in the same stream
        assert same_batches(next(stream), whole[4])
    with train_stream(index, RANDOM, 2, seed=1, workers=2 - workers) as fresh:
        fresh.load_state_dict(state)
        assert all(same_batches(next(fresh), batch) for batch in whole[4:])
        assert fresh.epoch == pytest.approx(10 * 2 / 13)


def test_the_global_batch_does_not_depend_on_the_ranks(index: DetectionIndex) -> None:
    whole = take(train_stream(index, RANDOM, 4, seed=2), 6)
    ranks = [take(train_stream(index, RANDOM, 2, seed=2, rank=rank, world=2), 6) for rank in (0, 1)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert batch.info.indexes.tolist() == [i for part in parts for i in part.info.indexes.tolist()]
        assert torch.equal(batch.images.seeds, torch.cat([part.images.seeds for part in parts]))
        boxes = torch.cat([part.targets.boxes[part.targets.valid] for part in parts])
        assert torch.equal(batch.targets.boxes[batch.targets.valid], boxes)
        for b in range(4):
            part, row = parts[b // 2], b % 2
            height, width = batch.images.sizes[b].tolist()
            assert torch.equal(batch.images.pixels[b, :, :height, :width], part.images.pixels[row, :, :height, :width])


def test_a_position_of_another_stream_is_refused(index: DetectionIndex) -> None:
    state = train_stream(index, PLAIN, 2, seed=1).state_dict()
    with pytest.raises(InputError, match="seed = 1 but this run has seed = 2"):
        train_stream(index, PLAIN, 2, seed=2).load_state_dict(state)
    with pytest.raises(InputError, match=r"global_batch = 2 .* global_batch = 6"):
        train_stream(index, PLAIN, 3, seed=1, world=2).load_state_dict(state)
    train_stream(index, PLAIN, 1, seed=1, world=2, rank=1).load_state_dict(state)


@pytest.mark.parametrize("workers", [0, 1])
def test_loading_leaves_the_global_random_state_alone(index: DetectionIndex, workers: int) -> None:
    before = torch.get_rng_state()
    take(train_stream(index, RANDOM, 2, workers=workers), 2)
    loader = eval_loader(index, PLAIN, 8, workers=workers)
    list(loader)
    loader.close()
    assert torch.equal(torch.get_rng_state(), before)


def test_grouped_batches_are_of_one_orientation(index: DetectionIndex) -> None:
    batches = take(train_stream(index, PLAIN, 2, group_by_aspect=True), 60)
    mixed = sum(len(set((batch.images.sizes[:, 0] < batch.images.sizes[:, 1]).tolist())) > 1 for batch in batches)
    assert mixed <= 10  # one in each window of 6 batches
    loose = take(train_stream(index, PLAIN, 2, group_by_aspect=False), 60)
    assert sum(len(set((batch.images.sizes[:, 0] < batch.images.sizes[:, 1]).tolist())) > 1 for batch in loose) > 15


def test_images_without_objects_stay_or_go(index: DetectionIndex) -> None:
    empty = {i for i in range(len(index)) if len(index.annotations(i).boxes) == 0}
    assert empty
    seen = {i for batch in take(train_stream(index, PLAIN, 1), 13) for i in batch.info.indexes.tolist()}
    assert seen == set(range(13))
    stream = train_stream(index, PLAIN, 1, drop_empty=True, group_by_aspect=False)
    assert stream.epoch_size == 13 - len(empty)
    assert {i for batch in take(stream, stream.epoch_size) for i in batch.info.indexes.tolist()} == seen - empty


def test_shapes_limit_the_padded_sizes(index: DetectionIndex) -> None:
    shapes = ((48, 64), (64, 48), (64, 64))
    batches = take(train_stream(index, PLAIN, 2, shapes=shapes), 13)
    assert {tuple(batch.images.pixels.shape[2:]) for batch in batches} <= set(shapes)
    assert len({tuple(batch.images.pixels.shape[2:]) for batch in batches}) > 1
    assert next(train_stream(index, PLAIN, 2, fixed_size=(70, 90))).images.pixels.shape == (2, 3, 70, 90)
    with pytest.raises(InputError, match=r"fits in none of the padded sizes 50 x 50"):
        next(train_stream(index, PLAIN, 2, fixed_size=(50, 50)))


def test_more_boxes_than_rows_is_an_error_or_said_aloud(index: DetectionIndex) -> None:
    three = index.subset([3])  # three boxes
    assert next(train_stream(three, PLAIN, 1, max_boxes=5)).targets.valid.tolist() == [[True] * 3 + [False] * 2]
    with pytest.raises(InputError, match=r"image 103 .* has 3 boxes but max_boxes = 2"):
        next(train_stream(three, PLAIN, 1, max_boxes=2))
    with pytest.warns(UserWarning, match="image 103: kept the 2 largest of 3 boxes"):
        batch = next(train_stream(three, PLAIN, 1, max_boxes=2, too_many="keep_largest"))
    kept = sorted(((batch.targets.boxes[0, :, 2:] - batch.targets.boxes[0, :, :2]).prod(1)).tolist())
    boxes = three.annotations(0).boxes
    areas = sorted(((boxes[:, 2:] - boxes[:, :2]).prod(1)).tolist())
    assert kept == pytest.approx(areas[1:])


@pytest.mark.parametrize("workers", [0, 2])
def test_a_broken_image_is_named_where_it_comes(tmp_path: Path, workers: int) -> None:
    index = write_index(tmp_path, count=6)
    stream = train_stream(index, PLAIN, 1, workers=workers)
    order = [batch.info.indexes.item() for batch in take(train_stream(index, PLAIN, 1), 6)]
    broken = index.path(int(order[2]))
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with stream:
        assert next(stream).info.indexes.item() == order[0]
        next(stream)
        for _ in range(2):  # again, since the position has not changed
            with pytest.raises(InputError) as caught:
                next(stream)
            assert broken.name in str(caught.value)
            assert "Traceback" not in str(caught.value)
        broken.write_bytes(content)
        assert next(stream).info.indexes.item() == order[2]


def test_an_image_of_another_size_than_annotated_is_named(tmp_path: Path) -> None:
    index = write_index(tmp_path, count=2)
    index.path(1).write_bytes(index.path(0).read_bytes())
    with pytest.raises(InputError, match=r"picture 1.png: is 60x40 pixels .* say 40x60, width and height swapped"):
        take(train_stream(index, PLAIN, 1), 2)


@pytest.mark.parametrize(
    "transform",
    [
        (ResizeConfig(short=(30,), long=41),),
        (LetterboxConfig(size=(64, 50)),),
        (WarpConfig(size=(48, 48)),),
        (),
    ],
    ids=["resize", "letterbox", "warp", "nothing"],
)
@pytest.mark.parametrize("workers", [0, 1])
def test_evaluation_takes_all_once_in_order_and_knows_the_way_back(
    index: DetectionIndex, transform: tuple[TransformConfig, ...], workers: int
) -> None:
    loader = eval_loader(index, transform, 5, workers=workers)
    assert len(loader) == 3
    for _ in range(2):
        batches = list(loader)
        assert [i for batch in batches for i in batch.info.indexes.tolist()] == list(range(13))
        for batch in batches:
            scale, offset = batch.info.to_original[:, None, [0, 1, 0, 1]], batch.info.to_original[:, None, [2, 3, 2, 3]]
            original = (batch.targets.boxes - offset) / scale
            for b, number in enumerate(batch.info.indexes.tolist()):
                expected = torch.from_numpy(index.annotations(number).boxes)
                torch.testing.assert_close(original[b][batch.targets.valid[b]], expected, atol=1e-3, rtol=0)
    loader.close()


def test_a_pass_left_early_starts_anew(index: DetectionIndex) -> None:
    loader = eval_loader(index, PLAIN, 2, workers=1)
    next(iter(loader))
    assert [i for batch in loader for i in batch.info.indexes.tolist()] == list(range(13))
    loader.close()


def test_evaluation_is_shared_by_ranks(index: DetectionIndex) -> None:
    seen = [
        i for rank in (0, 1) for batch in eval_loader(index, PLAIN, 3, rank=rank, world=2) for i in batch.info.indexes
    ]
    assert sorted(map(int, seen)) == list(range(13))


@pytest.mark.parametrize("config", [FlipConfig(p=1.0), MosaicConfig(size=(64, 64))], ids=["flip", "mosaic"])
def test_evaluation_refuses_transforms_that_cannot_be_inverted(index: DetectionIndex, config: TransformConfig) -> None:
    with pytest.raises(InputError, match="cannot be inverted"):
        list(eval_loader(index, (config,), 2))


def test_bad_arguments_are_named(index: DetectionIndex) -> None:
    for options, message in (
        ({"batch_size": 0}, "batch_size = 0"),
        ({"workers": -1}, "workers = -1"),
        ({"rank": 2, "world": 2}, r"rank = 2 .* 0..1"),
        ({"pad_multiple": 0}, "pad_multiple = 0"),
        ({"fixed_size": (8, 8), "shapes": ((8, 8),)}, "fixed_size and shapes"),
        ({"shapes": ()}, "shapes is empty"),
        ({"seed": -1}, "seed = -1"),
        ({"max_boxes": 0}, "max_boxes = 0"),
        ({"too_many": "cut"}, "too_many = 'cut'"),
        ({"start_method": "thread"}, "start_method = 'thread'"),
    ):
        with pytest.raises(InputError, match=message):
            train_stream(index, PLAIN, **{"batch_size": 2, **options})  # type: ignore[arg-type]


def test_nothing_to_train_on_is_an_error(index: DetectionIndex) -> None:
    with pytest.raises(InputError, match="no image"):
        train_stream(DetectionIndex.build(Classes.from_names(["a"]), []), PLAIN, 1)
    with pytest.raises(InputError, match="no image has an object"):
        train_stream(index.subset([0, 4]), PLAIN, 1, drop_empty=True)
    with pytest.raises(InputError, match="masks are needed"):
        train_stream(index.subset([0, 4]), PLAIN, 1, masks=True)


INTERRUPTED = """
import gc, os, signal, sys
from pathlib import Path
from boxwright.data.loading.loader import TrainStream
from boxwright.data.transforms import sample
from boxwright.data.transforms.configs import ResizeConfig
from tests.support.streams import train_stream
from tests.support.tiny_index import write_index

def interrupt(_, frame):
    below = frame.f_back
    while below is not None and below.f_code is not TrainStream.__next__.__code__:
        below = below.f_back
    if below is None:  # the signal came before the wait for the batch
        signal.setitimer(signal.ITIMER_REAL, 0.01)
        return
    print("interrupted", flush=True)
    raise KeyboardInterrupt

gc.disable()  # Python drops an exception in a finaliser
index, transforms = write_index(Path({folder!r})), [ResizeConfig(short=(40,), long=80)]
with train_stream(index, transforms, 2) as alone:
    next(alone)
    slow = index.path(int(next(alone).info.indexes[0]))
pipe, read = Path({pipe!r}), sample.read_image
os.mkfifo(pipe)

def wait_and_read(path):
    if path == slow and pipe.exists():
        pipe.read_bytes()  # the worker that makes the second batch waits here for a writer
    return read(path)

sample.read_image = wait_and_read
signal.signal(signal.SIGINT, interrupt)
signal.signal(signal.SIGALRM, interrupt)
stream = train_stream(index, transforms, 2, workers=2)
try:
    next(stream)
    print(pipe, flush=True)
    next(stream)
except KeyboardInterrupt:
    before = stream.state_dict()["batches"]
    sys.stdin.readline()  # until the pipe is gone
    next(stream)
    print(before, stream.state_dict()["batches"], flush=True)
stream.close()
"""


@pytest.mark.skipif(os.name != "posix", reason="sends an interrupt to a process group")
def test_an_interrupt_ends_cleanly_and_leaves_the_position(tmp_path: Path) -> None:
    """Ctrl-C arrives while the second batch is awaited. A FIFO and lines of output fix the order of events."""
    (tmp_path / "images").mkdir()
    code = INTERRUPTED.format(folder=str(tmp_path / "images"), pipe=str(tmp_path / "pipe"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = start_python("-c", code, text=True, start_new_session=True, **pipes)
    assert process.stdout is not None
    try:
        path = Path(process.stdout.readline().strip())
        assert path.name == "pipe", process.communicate()
        with open_for_reader(path, process):
            os.killpg(process.pid, signal.SIGINT)  # to the workers too, as a terminal does
            assert process.stdout.readline() == "interrupted\n"
            path.unlink()
        out, err = process.communicate("go on\n")
    finally:
        if process.poll() is None:  # it or a worker did not end: kill the whole group
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
    assert out == "1 2\n", err
    assert err == ""
    assert process.returncode == 0


def open_for_reader(path: Path, process: subprocess.Popen[str]) -> io.FileIO:
    """Open the FIFO ``path`` for writing as soon as a process of ``process`` reads from it."""
    while True:
        try:
            return io.FileIO(os.open(path, os.O_WRONLY | os.O_NONBLOCK), "w")
        except OSError as error:
            if error.errno != errno.ENXIO or process.poll() is not None:
                raise
        time.sleep(0.01)
