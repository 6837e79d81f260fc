"""Data sets without image files, and machines, for the tests of the choice of a recipe."""

from pathlib import Path

import numpy as np

from boxwright.app.choice.candidate import Task, Wishes
from boxwright.app.choice.costs import Measured
from boxwright.app.choice.facts import MachineFacts, data_facts
from boxwright.config.recipe import Recipe
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.structures import Classes

CPU = MachineFacts(device="cpu", name="1 core of the processor", memory=16 * 2**30, cores=1, bf16=False)
GPU = MachineFacts(device="cuda:0", name="a GPU", memory=64 * 2**30, cores=8, bf16=True)


def boxes_index(
    images: int = 200,
    size: tuple[int, int] = (480, 640),
    side: float = 100.0,
    classes: int = 3,
    masks: bool = False,
    boxes: int = 2,
) -> DetectionIndex:
    """Return an index of images of ``size`` (height, width), each with square boxes of ``side`` pixels."""
    records = []
    for number in range(images):
        corners = np.array([[0.0, 0.0, side, side]] * boxes).reshape(-1, 4)
        outline = [0.0, 0.0, side, 0.0, side, side, 0.0, side]
        records.append(
            ImageRecord(
                path=Path(f"/absent/{number}.jpg"),
                image_id=number + 1,
                height=size[0],
                width=size[1],
                boxes=corners,
                labels=np.arange(number * boxes, (number + 1) * boxes) % classes,
                crowd=np.zeros(boxes, dtype=bool),
                segmentations=[[outline]] * boxes if masks else None,
            )
        )
    names = Classes.from_names([f"class {k}" for k in range(classes)])
    return DetectionIndex.build(names, records, root=Path("/absent"))


def task_of(index: DetectionIndex, machine: MachineFacts = CPU) -> Task:
    """Return the task of training on ``index``, validated on 20 images."""
    return Task(index=index, val_images=20, data=data_facts(index), machine=machine)


def by_pixels(recipe: Recipe) -> Measured:
    """Return times in proportion to the pixels of the input: a tenth of a second for an image of 192 x 256."""
    height, width = recipe.data.eval[-1].size  # type: ignore[union-attr]
    second = height * width / (192 * 256)
    return Measured(train=0.1 * second, evaluate=0.05 * second, detect=0.04 * second)


def never(recipe: Recipe) -> Measured:
    """Fail: nothing is to be measured."""
    raise AssertionError(f"{recipe.name} was measured")


WISHES = Wishes()
