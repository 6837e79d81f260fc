"""Write a data set of drawn scenes: images and annotations in one of the formats that can be read."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

from PIL import Image

from boxwright.data.formats.coco import writer as coco
from boxwright.data.formats.voc import writer as voc
from boxwright.data.formats.writing.output import new_folder
from boxwright.data.formats.yolo import writer as yolo
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.masks import masks
from boxwright.data.scenes.compose import draw_scene
from boxwright.data.scenes.config import SceneConfig
from boxwright.data.scenes.shapes import SCENE_CLASSES
from boxwright.io.files import atomic_folder
from boxwright.io.images import save_image
from boxwright.io.signals import interrupts_blocked
from boxwright.structures import InputError

SPLIT_STARTS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""Index of the first scene of each split. More training scenes do not change the scenes of the other splits."""
_FORMATS = {"coco": coco, "voc": voc, "yolo": yolo}


@dataclass(frozen=True, slots=True)
class _Task:
    """An image to be drawn and saved by a worker process."""

    path: Path
    image_id: int
    seed: int
    index: int
    config: SceneConfig


def write_scenes(
    folder: str | os.PathLike[str],
    counts: Mapping[str, int] | None = None,
    size: tuple[int, int] | None = None,
    seed: int = 0,
    format: Literal["coco", "voc", "yolo"] = "coco",
    *,
    config: SceneConfig | None = None,
    image_format: Literal["jpg", "png"] = "jpg",
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
) -> Path:
    """Draw a data set into ``folder``, which must be new or empty, and return it; `open_dataset` reads it.

    ``counts`` gives the number of images of each of train, val and test (200 for train and 50 for val if left out).
    ``size`` is (height, width) in pixels and overrides the configuration's 256 by 256. The images depend on ``seed``
    and the counts, and not on the number of ``workers`` (processes; 0 draws in this one). ``progress`` is called with
    the number of images done and the total. Masks are run lengths in COCO, polygons in YOLO, and absent from VOC.
    ``image_format`` "jpg" has quality 90; "png" is lossless. The data set appears whole or not at all.

    Worker processes import the main module, so a script that uses them needs the guard ``if __name__ == "__main__":``.

    Raises InputError for a folder with content, an unknown split, format or image format, and settings out of range.
    """
    counts = {"train": 200, "val": 50} if counts is None else dict(counts)
    config = config or SceneConfig()
    config = config if size is None else replace(config, size=size)
    _check(counts, seed, format, image_format, workers)
    target = new_folder(Path(folder))
    with atomic_folder(target) as partial:
        _fill(partial, counts, seed, format, config, image_format, progress, workers)
    return target


def _check(counts: Mapping[str, int], seed: int, format: str, image_format: str, workers: int) -> None:
    for split, count in counts.items():
        if split not in SPLIT_STARTS:
            raise InputError(f"split {split}: drawn sets have {', '.join(SPLIT_STARTS)}; choose among them")
        if not 0 <= count <= 1_000_000:
            raise InputError(f"{count} images of split {split}: give 0 to 1000000")
    if sum(counts.values()) == 0:
        raise InputError(f"counts {dict(counts)}: a drawn set needs at least one image")
    if format not in _FORMATS:
        raise InputError(f"format {format}: drawn sets are written as {', '.join(_FORMATS)}; choose one")
    if image_format not in ("jpg", "png"):
        raise InputError(f"image format {image_format}: give jpg or png")
    if seed < 0 or workers < 0:
        raise InputError(f"seed {seed}, workers {workers}: give numbers of 0 or more")


def _fill(
    folder: Path,
    counts: Mapping[str, int],
    seed: int,
    format: str,
    config: SceneConfig,
    image_format: str,
    progress: Callable[[int, int], None] | None,
    workers: int,
) -> None:
    """Draw the images into the folders of the format, and write the annotations."""
    tasks: dict[str, list[_Task]] = {}
    for split, count in counts.items():
        home = _FORMATS[format].image_folder(folder, split)
        home.mkdir(parents=True, exist_ok=True)
        tasks[split] = [
            _Task(home / f"{split}_{i:06d}.{image_format}", i + 1, seed, SPLIT_STARTS[split] + i, config)
            for i in range(count)
        ]
    all_tasks = [task for split in tasks.values() for task in split]
    records: list[ImageRecord] = []
    for record in _draw_all(all_tasks, workers):
        records.append(record)
        if progress is not None:
            progress(len(records), len(all_tasks))
    indexes: dict[str, DetectionIndex] = {}
    for split, own in tasks.items():
        part, records = records[: len(own)], records[len(own) :]
        indexes[split] = DetectionIndex.build(SCENE_CLASSES, part, root=folder, name=split)
    match format:
        case "voc":
            voc.write_voc(folder, indexes)
        case "yolo":
            yolo.write_yolo(folder, indexes)
        case _:
            coco.write_coco(folder, indexes)


def _draw_all(tasks: Sequence[_Task], workers: int) -> Iterator[ImageRecord]:
    """Yield the records in order, as the images are drawn."""
    if workers == 0:
        yield from map(_draw, tasks)
        return
    # Forking a process that has used torch's threads can hang the child, so workers are spawned.
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        try:
            with interrupts_blocked():
                drawn = pool.map(_draw, tasks, chunksize=max(1, min(16, len(tasks) // (4 * workers))))
            yield from drawn
        except BrokenProcessPool:
            raise InputError(
                f"one of the {workers} processes that draw scenes was killed or crashed, most probably because memory "
                "ran out; run the same command again when there is more"
            ) from None


def _draw(task: _Task) -> ImageRecord:
    """Draw and save one image."""
    scene = draw_scene(task.seed, task.index, config=task.config)
    save_image(Image.fromarray(scene.image), task.path, quality=90)
    return ImageRecord(
        path=task.path,
        image_id=task.image_id,
        height=task.config.size[0],
        width=task.config.size[1],
        boxes=scene.boxes,
        labels=scene.labels,
        difficult=scene.difficult,
        segmentations=[masks.encode(mask) for mask in scene.masks],
    )
