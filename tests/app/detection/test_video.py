"""Detection in videos, and videos that cannot be read."""

import csv
import itertools
import re
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from boxwright.app.detection.video import VideoWriter, read_frames, video_facts
from boxwright.io.files import WriteError
from boxwright.structures import InputError
from tests.support.spots import run, spot_image


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames, 10 a second, in which the square moves 4 pixels a frame."""
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, Fraction(10)) as writer:
        for k in range(10):
            writer.write(spot_image(4 * k, 20))
    return path


def test_a_video_gives_rows_by_frame_and_a_drawn_video(clip: Path, tmp_path: Path):
    out = tmp_path / "out"
    summary = run([clip], out, every=3, batch_size=3)
    assert (summary.frames, summary.pictures, summary.failed) == (4, 4, [])
    rows = list(csv.DictReader((out / "detections.csv").open()))
    assert [row["frame"] for row in rows] == ["0", "3", "6", "9"]
    assert [row["time"] for row in rows] == ["0.000", "0.300", "0.600", "0.900"]
    assert [abs(float(row["x1"]) - 4 * int(row["frame"])) <= 1 for row in rows] == [True] * 4
    assert video_facts(out / "videos" / "clip.mp4").frames == 4
    drawn = next(read_frames(out / "videos" / "clip.mp4")).pixels
    assert np.abs(drawn.astype(int) - np.asarray(spot_image(0, 20)).astype(int)).max() > 60
    assert run([clip], out, every=3).skipped == 1


def test_frames_are_upright_and_numbered(clip: Path):
    frames = list(read_frames(clip, every=4))
    assert [(f.number, round(f.time, 3), f.pixels.shape) for f in frames] == [
        (0, 0.0, (48, 64, 3)),
        (4, 0.4, (48, 64, 3)),
        (8, 0.8, (48, 64, 3)),
    ]
    with pytest.raises(InputError, match="every 0 frames"):
        next(read_frames(clip, every=0))


def test_a_file_that_is_no_video_is_named_and_the_images_beside_it_done(tmp_path: Path):
    pytest.importorskip("av")
    spot_image(5, 6).save(tmp_path / "1.png")
    (tmp_path / "noise.mp4").write_bytes(b"not a video" * 50)
    summary = run([tmp_path], tmp_path / "out")
    assert summary.images == 1
    assert "noise.mp4" in summary.failed[0].message


def test_a_video_that_cannot_be_written_ends_the_run(clip: Path, tmp_path: Path):
    (tmp_path / "out" / "videos" / "clip.mp4").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"clip.mp4: cannot be written"):
        run([clip], tmp_path / "out")


def test_a_video_cut_short_leaves_no_half_video(tmp_path: Path):
    pytest.importorskip("av")

    def stop_after_one_frame() -> None:
        with VideoWriter(tmp_path / "x.mp4", Fraction(5)) as writer:
            writer.write(spot_image(1, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_after_one_frame()
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_frames_is_not_written(tmp_path: Path):
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "x.mp4", Fraction(5)):
        pass
    assert list(tmp_path.iterdir()) == []


def write_video(path: Path, times: list[int], options: dict[str, str] | None = None) -> Path:
    """Write the moving square with a frame at each of the times, in milliseconds."""
    av = pytest.importorskip("av")
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264", rate=1000, options={"g": "5"})
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k, moment in enumerate(times):
            frame = av.VideoFrame.from_ndarray(np.asarray(spot_image(k % 50, 20)), format="rgb24")
            frame.pts, frame.time_base = moment, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def test_frames_at_uneven_times_keep_their_times(tmp_path: Path):
    times = [0, 30, 230, 600, 1140, 1200]
    frames = list(read_frames(write_video(tmp_path / "a.mp4", times)))
    assert [round(1000 * frame.time) for frame in frames] == times
    summary = run([tmp_path / "a.mp4"], tmp_path / "out")
    assert (summary.frames, summary.failed, summary.notes) == (6, [], [])


def test_a_stream_without_times_is_timed_by_its_rate(tmp_path: Path):
    """A bare H.264 stream has no times."""
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.h264"), "w", format="h264") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for k in range(5):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.asarray(spot_image(k, 20)), format="rgb24")))
        container.mux(stream.encode())
    times = [frame.time for frame in read_frames(tmp_path / "a.h264")]
    assert len(times) == 5
    assert all(after > before for before, after in itertools.pairwise(times))


def test_a_video_that_ends_too_soon_is_named(tmp_path: Path):
    """The header counts all frames; the file was cut amid them, as by a full disk."""
    times = list(range(0, 20_000, 100))
    whole = write_video(tmp_path / "a.mp4", times, {"movflags": "faststart"})
    assert len(list(read_frames(whole))) == 200
    content = whole.read_bytes()
    start = content.index(b"mdat")
    (tmp_path / "cut.mp4").write_bytes(content[: (start + len(content)) // 2])
    summary = run([whole, tmp_path / "cut.mp4"], tmp_path / "out", pictures=False)
    assert summary.pictures == 200
    (failure,) = summary.failed
    # Whether the decoder refuses the frame that was cut or ends before it depends on its version and threads.
    ends, refused = (
        r"ends after \d+ of 200 frames; the file is incomplete",
        r"frame \d+ cannot .*; is the file complete",
    )
    assert re.search(rf"cut\.mp4: ({ends}|{refused})", failure.message)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "the file is empty; fetch or record it again"),
        (b"hello" * 99, r"not a readable video \(Invalid data .*\); fetch"),
        (None, "no frame of this video could be decoded|not a readable video|no video in this file"),
    ],
)
def test_each_kind_of_bad_video_has_its_words(tmp_path: Path, content: bytes | None, words: str):
    pytest.importorskip("av")
    path = tmp_path / "bad.mkv"
    if content is None:  # the header alone
        content = write_video(path, list(range(0, 2000, 100))).read_bytes()[:900]
    path.write_bytes(content)
    (failure,) = run([path], tmp_path / "out").failed
    assert re.search(f"bad\\.mkv: ({words})", failure.message)


def test_a_video_of_sound_alone_is_named(tmp_path: Path):
    av = pytest.importorskip("av")
    with av.open(str(tmp_path / "a.mp4"), "w") as container:
        stream = container.add_stream("aac", rate=44100)
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 4096), np.float32), format="fltp", layout="mono")
        frame.rate, frame.pts = 44100, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())
    (failure,) = run([tmp_path / "a.mp4"], tmp_path / "out").failed
    assert "a.mp4: no video in this file, only audio" in failure.message


def test_frames_beyond_the_pixel_limit_are_refused(clip: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("BOXWRIGHT_MAX_PIXELS", "3000")
    with pytest.raises(InputError, match=r"clip\.mp4: frames of 64x48 are more than the limit of 3,000 pixels"):
        next(read_frames(clip))


def test_without_pyav_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, clip: Path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"boxwright\[video\]"):
        video_facts(clip)
