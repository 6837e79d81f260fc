"""A drawn set on disk: pictures and annotations in one of the formats that the readers know."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal

import numpy as np
from faster_coco_eval import mask as mask_api
from PIL import Image

from boxwright.data.scenes.compose import Scene, draw_scene
from boxwright.data.scenes.config import SceneConfig
from boxwright.data.scenes.shapes import SCENE_CLASSES
from boxwright.structures import InputError

SPLIT_STARTS = {"train": 0, "val": 1_000_000, "test": 2_000_000}
"""Index of a split's first scene: more training scenes never change or meet those of the other splits."""


def write_scenes(
    folder: str | os.PathLike[str],
    counts: Mapping[str, int] | None = None,
    size: tuple[int, int] = (256, 256),
    seed: int = 0,
    format: Literal["coco", "voc", "yolo"] = "coco",
    *,
    config: SceneConfig | None = None,
    pictures: Literal["jpg", "png"] = "jpg",
    progress: Callable[[int, int], None] | None = None,
    workers: int = 0,
) -> Path:
    """Draws a data set into ``folder`` and returns it (train 200 and val 50 pictures unless ``counts`` says otherwise)."""
    counts = dict(counts or {"train": 200, "val": 50})
    target = Path(folder)
    config = replace(config or SceneConfig(), size=size)
    partial_folder = target.with_name(f".{target.name}.{os.getpid()}.partial")
    total, done = sum(counts.values()), 0
    for split, count in counts.items():
        (partial_folder / split).mkdir(parents=True)
        (partial_folder / "annotations").mkdir(exist_ok=True)
        coco: dict[str, Any] = {
            "images": [],
            "annotations": [],
            "categories": [{"id": i, "name": n} for i, n in zip(SCENE_CLASSES.ids, SCENE_CLASSES.names, strict=True)],
        }
        for i, scene in enumerate(_drawn(seed, SPLIT_STARTS[split], count, config, workers)):
            name = f"{i:06d}.{pictures}"
            Image.fromarray(scene.image).save(partial_folder / split / name, quality=90)
            coco["images"].append({"id": i + 1, "file_name": name, "height": size[0], "width": size[1]})
            for box, label, mask in zip(scene.boxes.tolist(), scene.labels.tolist(), scene.masks, strict=True):
                rle: Any = mask_api.encode(np.asfortranarray(mask.astype(np.uint8)))
                rle = {
                    "size": [int(v) for v in rle["size"]],
                    "counts": rle["counts"].decode() if isinstance(rle["counts"], bytes) else rle["counts"],
                }
                coco["annotations"].append(
                    {
                        "id": len(coco["annotations"]) + 1,
                        "image_id": i + 1,
                        "category_id": SCENE_CLASSES.ids[label],
                        "bbox": [box[0], box[1], box[2] - box[0], box[3] - box[1]],
                        "area": int(mask.sum()),
                        "iscrowd": 0,
                        "segmentation": rle,
                    }
                )
            done += 1
            if progress:
                progress(done, total)
        (partial_folder / "annotations" / f"instances_{split}.json").write_text(json.dumps(coco))
    if format != "coco":
        shutil.rmtree(partial_folder)
        raise InputError("only coco so far")
    os.replace(partial_folder, target)
    return target


def _drawn(seed: int, start: int, count: int, config: SceneConfig, workers: int) -> Iterator[Scene]:
    """The scenes of a split in order, drawn here or by worker processes."""
    indices = range(start, start + count)
    draw = partial(draw_scene, seed, config=config)
    with ExitStack() as stack:
        if workers:
            pool = stack.enter_context(ProcessPoolExecutor(workers, mp_context=get_context("spawn")))
            yield from pool.map(draw, indices, chunksize=8)
        else:
            yield from map(draw, indices)
