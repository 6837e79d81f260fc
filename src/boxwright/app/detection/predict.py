"""Detect objects in files: read ahead, run in batches, draw, keep a journal, continue after a stop."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from boxwright.app.augment import named_test_time
from boxwright.app.detection.batches import BatchRunner
from boxwright.app.detection.results import Record, ResultFolder
from boxwright.app.detection.sources import MediaFile, find_sources
from boxwright.app.detection.video import VideoWriter, read_frames, video_facts
from boxwright.app.load import file_digest, for_inference, load
from boxwright.app.progress import ProgressBar
from boxwright.app.requests.inference import DetectRequest
from boxwright.data.images import frame_count, read_image
from boxwright.detections import Detections
from boxwright.detectors.contract.augmented import check_views, detect_augmented
from boxwright.io.files import WriteError
from boxwright.io.images import save_image
from boxwright.structures import Classes, InputError

_READERS = 2
_LONGEST_NAME = 255  # bytes
_PICTURE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff"})


@dataclass(frozen=True, slots=True)
class Failure:
    """A file that could not be read, and the reason."""

    path: str
    message: str


@dataclass(slots=True)
class PredictSummary:
    """Counts of a run: ``images`` and ``frames`` processed now, ``skipped`` files that were finished earlier.

    ``pictures`` and ``detections`` count the content of the final files, including earlier runs.
    """

    output: str
    images: int = 0
    frames: int = 0
    skipped: int = 0
    pictures: int = 0
    detections: int = 0
    seconds: float = 0.0
    batch_size: int = 0
    failed: list[Failure] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """Remarks on files that were read in part, such as animations."""

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON."""
        return asdict(self)


def detect_files(checkpoint: Path | str, sources: Sequence[str | Path], request: DetectRequest) -> PredictSummary:
    """Run a checkpoint on images, videos, folders and globs, and write the results to ``request.output``.

    Raises ``InputError`` for sources that do not exist, a checkpoint that cannot be used, and an ``output`` that holds
    the results of other settings. Sources that exist but cannot be read are in the summary's ``failed``.
    """
    if not 0 <= request.threshold <= 1:
        raise InputError(f"threshold {request.threshold:g}: scores lie between 0 and 1")
    if request.every < 1:
        raise InputError(f"every {request.every} frames: must be at least 1")
    if request.output.exists() and not request.output.is_dir():
        raise InputError(f"{request.output}: is a file; name a folder for the results with --output")
    augment = named_test_time(request.augment, request.merge)
    found = find_sources(sources, request.recursive)
    loaded = load(checkpoint, request.device, request.sets, request.size)
    model = for_inference(loaded.detector, loaded.device, request.precision)
    settings = {
        "checkpoint": file_digest(loaded.path),
        "threshold": request.threshold,
        "precision": request.precision,
        "pictures": request.pictures,
        "every": request.every,
        "augment": request.augment,
        "merge": request.merge,
        **({"set": list(request.sets)} if request.sets else {}),
        **({} if request.size is None else {"size": request.size}),
    }
    if augment is not None:
        check_views(model, augment)

    def detect(images: list[np.ndarray]) -> list[Detections]:
        if augment is not None:
            return detect_augmented(model, images, augment, threshold=request.threshold)
        return model.detect_arrays(images, threshold=request.threshold)

    runner = BatchRunner(detect, loaded.device, request.batch_size)
    folder = ResultFolder(request.output, settings, request.overwrite)
    return Prediction(runner, loaded.checkpoint.classes, folder, request.pictures, request.every).run(found)


class Prediction:
    """One run over many files, with its results in one folder."""

    def __init__(
        self, runner: BatchRunner, classes: Classes, folder: ResultFolder, pictures: bool = True, every: int = 1
    ) -> None:
        """``pictures``: draw the detections. ``every``: process every n-th frame of a video."""
        if every < 1:
            raise InputError(f"every {every} frames: must be at least 1")
        self._runner, self._classes, self._folder = runner, classes, folder
        self._pictures, self._every = pictures, every
        self._summary = PredictSummary(output=str(folder.folder))

    def run(self, sources: Sequence[MediaFile]) -> PredictSummary:
        """Process all files that are not finished yet, then write the final files for all finished ones.

        A source that cannot be read is reported on stderr and in ``failed``; the others go on.
        """
        started = time.monotonic()
        root = self._folder.folder.resolve()
        sources = [source for source in sources if root not in source.path.parents]  # not our own drawings
        waiting = [source for source in sources if not self._folder.is_done(source)]
        self._summary.skipped = len(sources) - len(waiting)
        images = [source for source in waiting if source.kind == "image"]
        videos = [source for source in waiting if source.kind == "video"]
        total = len(images) + sum(self._frames_expected(video) for video in videos)
        with ProgressBar("detecting", total) as bar:
            if self._summary.skipped:
                bar.say(f"{self._summary.skipped} of {len(sources)} files were finished earlier: skipped")
            self._run_images(images, bar)
            for video in videos:
                self._run_video(video, bar)
        self._summary.pictures, self._summary.detections = self._folder.assemble(sources, self._classes)
        self._summary.seconds = round(time.monotonic() - started, 3)
        self._summary.batch_size = self._runner.size
        return self._summary

    def _fail(self, source: MediaFile, error: Exception, bar: ProgressBar) -> None:
        message = str(error)
        self._summary.failed.append(Failure(str(source.path), message))
        bar.say(f"skipped: {message if str(source.path.name) in message else f'{source.path}: {message}'}")

    def _note(self, text: str, bar: ProgressBar) -> None:
        self._summary.notes.append(text)
        bar.say(f"note: {text}")

    def _run_images(self, images: list[MediaFile], bar: ProgressBar) -> None:
        saving: deque[tuple[MediaFile, Record, Future[None] | None]] = deque()
        # Portrait and landscape images are batched apart, because a batch of both would be mostly padding.
        shelves: dict[bool, list[tuple[MediaFile, np.ndarray]]] = {True: [], False: []}
        with ThreadPoolExecutor(_READERS) as pool:
            try:
                for source, pixels in self._read_ahead(images, pool, bar):
                    shelf = shelves[pixels.shape[0] > pixels.shape[1]]
                    shelf.append((source, pixels))
                    if len(shelf) >= self._runner.size:
                        self._flush(shelf, pool, saving, bar)
                    self._journal(saving, keep=2 * self._runner.size)
                for shelf in shelves.values():
                    self._flush(shelf, pool, saving, bar)
            finally:  # on Ctrl-C too, so that finished images are not lost
                self._journal(saving, keep=0)

    def _read_ahead(
        self, images: list[MediaFile], pool: ThreadPoolExecutor, bar: ProgressBar
    ) -> Iterator[tuple[MediaFile, np.ndarray]]:
        reading: deque[tuple[MediaFile, Future[tuple[np.ndarray, int]]]] = deque()
        rest = iter(images)
        while True:
            while len(reading) < max(4, 2 * self._runner.size):
                source = next(rest, None)
                if source is None:
                    break
                reading.append((source, pool.submit(_read, source.path)))
            if not reading:
                return
            source, future = reading.popleft()
            try:
                pixels, frames = future.result()
                if frames > 1:
                    self._note(f"{source.path}: of its {frames} frames or pages, only the first is read", bar)
                yield source, pixels
            except (InputError, OSError) as error:
                self._fail(source, error, bar)
                bar.advance()

    def _flush(
        self,
        shelf: list[tuple[MediaFile, np.ndarray]],
        pool: ThreadPoolExecutor,
        saving: deque[tuple[MediaFile, Record, Future[None] | None]],
        bar: ProgressBar,
    ) -> None:
        results = self._runner([pixels for _, pixels in shelf])
        for (source, pixels), found in zip(shelf, results, strict=True):
            drawn = pool.submit(self._save_picture, source, pixels, found) if self._pictures else None
            saving.append((source, Record.of(found), drawn))
        self._summary.images += len(shelf)
        bar.advance(len(shelf))
        shelf.clear()

    def _journal(self, saving: deque[tuple[MediaFile, Record, Future[None] | None]], keep: int) -> None:
        """Record finished images, each only after its drawing is on disk."""
        while len(saving) > keep:
            source, record, drawn = saving.popleft()
            if drawn is not None:
                drawn.result()
            self._folder.add(source, [record])

    def _save_picture(self, source: MediaFile, pixels: np.ndarray, found: Detections) -> None:
        target = self._folder.folder / "pictures" / source.name
        if target.suffix.lower() not in _PICTURE_SUFFIXES:
            target = target.with_name(target.name + ".png")
        target = _with_short_name(target)
        target.parent.mkdir(parents=True, exist_ok=True)
        save_image(found.draw(Image.fromarray(pixels)), target, quality=92)

    def _frames_expected(self, video: MediaFile) -> int:
        try:
            return -(-video_facts(video.path).frames // self._every)
        except InputError:
            return 0  # reported when the video is processed

    def _run_video(self, video: MediaFile, bar: ProgressBar) -> None:
        try:
            records = self._detect_in_video(video, bar)
        except WriteError:
            raise  # the output cannot be written: other files would fail as well
        except InputError as error:
            self._fail(video, error, bar)
        else:
            self._folder.add(video, records)

    def _detect_in_video(self, video: MediaFile, bar: ProgressBar) -> list[Record]:
        rate = video_facts(video.path).rate / self._every
        name = video.name if video.path.suffix.lower() == ".mp4" else f"{video.name}.mp4"
        target = _with_short_name(self._folder.folder / "videos" / name)
        records: list[Record] = []
        damaged: list[int] = []
        frames = read_frames(video.path, self._every)
        with VideoWriter(target, rate) if self._pictures else contextlib.nullcontext() as writer:
            while batch := list(itertools.islice(frames, self._runner.size)):
                for frame, found in zip(batch, self._runner([f.pixels for f in batch]), strict=True):
                    records.append(Record.of(found, frame.number, frame.time))
                    if frame.damaged:
                        damaged.append(frame.number)
                    if writer is not None:
                        writer.write(found.draw(frame.pixels))
                self._summary.frames += len(batch)
                bar.advance(len(batch))
            if not records:
                raise InputError(f"{video.path}: no frame of this video could be decoded")
        if damaged:
            self._note(f"{video.path}: {len(damaged)} frames are damaged (the first: {damaged[0]})", bar)
        return records


def _with_short_name(path: Path) -> Path:
    """Shorten a name that is longer than file systems take; the end of a hash keeps it unique."""
    name = os.fsencode(path.name)
    if len(name) <= _LONGEST_NAME:
        return path
    start = name[: _LONGEST_NAME - 40].decode(errors="ignore")
    return path.with_name(f"{start}-{hashlib.sha256(name).hexdigest()[:8]}{path.suffix}")


def _read(path: Path) -> tuple[np.ndarray, int]:
    """Return the pixels of an image, and the number of frames or pages in its file."""
    return read_image(path), frame_count(path)
