"""Read and write videos frame by frame with PyAV (the optional extra ``video``)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any

import numpy as np
from PIL import Image

from boxwright.data.images import pixel_limit
from boxwright.io.files import atomic_path
from boxwright.structures import InputError


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame: its number in the video from 0, its time in seconds, its RGB pixels uint8 ``[H, W, 3]``.

    ``damaged``: the decoder had to fill in parts of it.
    """

    number: int
    time: float
    pixels: np.ndarray
    damaged: bool = False


@dataclass(frozen=True, slots=True)
class VideoFacts:
    """Frames per second, and number of frames, estimated from the duration if the file does not state it, else 0."""

    rate: Fraction
    frames: int


def video_facts(path: Path) -> VideoFacts:
    """Read frame rate and length of a video from its header. Raises InputError if it is no readable video."""
    with _opened(path) as container:
        stream = container.streams.video[0]
        rate = Fraction(stream.average_rate or stream.guessed_rate or 25)
        frames = stream.frames
        if not frames and container.duration:
            frames = round(container.duration / 1_000_000 * rate)
        return VideoFacts(rate, int(frames))


def read_frames(path: Path, every: int = 1) -> Iterator[Frame]:
    """Yield every ``every``-th frame from the first, rotated upright as the file specifies.

    A frame without a time in the file gets that of its number at the video's rate. Raises ``InputError`` naming the
    file, and the frame at which decoding failed or after which the file ends too soon.
    """
    if every < 1:
        raise InputError(f"every {every} frames: must be at least 1")
    av = _pyav()
    with _opened(path) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        rate = float(stream.average_rate or stream.guessed_rate or 25)
        number, first, last = 0, 0.0, 0.0
        try:
            for frame in container.decode(stream):
                last = number / rate if frame.time is None else float(frame.time)
                first = first if number else last
                if number % every == 0:
                    pixels = frame.to_ndarray(format="rgb24")
                    turns = round((frame.rotation or 0) / 90) % 4  # counter-clockwise, as numpy turns
                    upright = np.ascontiguousarray(np.rot90(pixels, turns))
                    yield Frame(number, last, upright, frame.is_corrupt)
                number += 1
        except av.error.FFmpegError as error:
            raise InputError(
                f"{path}: frame {number} cannot be decoded ({error.strerror}); is the file complete?"
            ) from error
        # A header can count frames that an edit of the video has left out, but then their time is left out as well.
        seconds = float(stream.duration * stream.time_base) if stream.duration else 0.0
        missing = seconds - (last - first + 1 / rate)
        if number and number < 0.98 * stream.frames and missing > max(0.5, 0.02 * seconds):
            raise InputError(f"{path}: ends after {number} of {stream.frames} frames; the file is incomplete")


class VideoWriter:
    """Write frames to an H.264 file, which appears under its name when the writer closes without error.

    Without a frame no file is written.
    """

    def __init__(self, path: Path, rate: Fraction) -> None:
        self._av = _pyav()
        self._path = path
        self._rate = rate.limit_denominator(60_000)
        self._container: Any = None
        self._stream: Any = None
        self._exit = contextlib.ExitStack()

    def __enter__(self) -> VideoWriter:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        return self

    def write(self, image: Image.Image) -> None:
        """Add a frame. All frames take the size of the first, rounded down to even numbers as the codec requires."""
        if self._stream is None:
            temporary = self._exit.enter_context(atomic_path(self._path))
            self._container = self._exit.enter_context(self._av.open(str(temporary), mode="w"))
            self._exit.push(self._finish)
            codec = "libx264" if "libx264" in self._av.codecs_available else "mpeg4"
            self._stream = self._container.add_stream(codec, rate=self._rate)
            self._stream.width = max(2, image.width // 2 * 2)
            self._stream.height = max(2, image.height // 2 * 2)
            self._stream.pix_fmt = "yuv420p"
            self._stream.options = {"crf": "20", "preset": "veryfast"} if codec == "libx264" else {"qscale": "3"}
        wanted = (self._stream.width, self._stream.height)
        if image.size != wanted:
            odd = 0 <= image.width - wanted[0] <= 1 and 0 <= image.height - wanted[1] <= 1
            image = image.crop((0, 0, *wanted)) if odd else image.resize(wanted)
        frame = self._av.VideoFrame.from_ndarray(np.asarray(image.convert("RGB")), format="rgb24")
        for packet in self._stream.encode(frame):
            self._container.mux(packet)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._exit.__exit__(kind, error, trace)

    def _finish(self, kind: type[BaseException] | None, *_: object) -> None:
        """Write the frames that the encoder still holds, before the file is closed."""
        if kind is not None:
            return
        for packet in self._stream.encode():
            self._container.mux(packet)


def _pyav() -> ModuleType:
    try:
        import av
    except ImportError as error:
        raise InputError("reading video needs PyAV; install it with: pip install 'boxwright[video]'") from error
    return av


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    av = _pyav()
    try:
        container = av.open(str(path))
    except (av.error.FFmpegError, OSError) as error:
        empty = path.is_file() and path.stat().st_size == 0
        reason = "the file is empty" if empty else f"not a readable video ({error.strerror or error})"
        raise InputError(f"{path}: {reason}; fetch or record it again") from error
    with container:
        if not container.streams.video:
            kinds = ", ".join(dict.fromkeys(s.type for s in container.streams)) or "nothing that can be read"
            raise InputError(f"{path}: no video in this file, only {kinds}")
        width, height = container.streams.video[0].width, container.streams.video[0].height
        if width * height > pixel_limit():
            raise InputError(f"{path}: frames of {width}x{height} are more than the limit of {pixel_limit():,} pixels")
        yield container
