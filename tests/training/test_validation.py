"""Validation: detections go back to the original pixels, losses are means over images, the model is left alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from boxwright.data.config import DataConfig
from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.data.transforms.configs import LetterboxConfig, ResizeConfig, TransformConfig, WarpConfig
from boxwright.detectors.contract.detect import sample_of
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.pixels import IMAGENET
from boxwright.geometry.paste import PasteConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets
from boxwright.training.distributed import Processes
from boxwright.training.validation import evaluate_detector, validate
from tests.support.toys import CLASSES, Toy, toy_index

ALONE = Processes(0, 1, torch.device("cpu"))


class Sharp(Detector):
    """Finds the rectangles of the toy pictures by thresholds alone."""

    def __init__(self) -> None:
        super().__init__(None, CLASSES, IMAGENET)
        self.unused = torch.nn.Parameter(torch.zeros(1))

    def class_rows(self) -> dict[str, Tensor]:
        return {}

    def outputs(self, pixels: Tensor) -> list[Tensor]:
        return []

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        boxes, labels = torch.zeros(len(images.pixels), 2, 4), torch.zeros(len(images.pixels), 2, dtype=torch.int64)
        for i, (height, width) in enumerate(images.sizes.tolist()):
            gray = images.pixels[i, :, :height, :width].float().mean(0)
            dark, light = gray < 60, gray > 190
            labels[i, 0] = int(light.sum() > dark.sum())
            rows, columns = torch.where(light if labels[i, 0] else dark)
            boxes[i, 0] = torch.stack([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1])
        valid = torch.tensor([True, False]).expand(len(boxes), 2)
        return DetectionBatch(boxes, valid.float() * 0.9, labels, valid)


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> DetectionIndex:
    return toy_index(tmp_path_factory.mktemp("toys"), 7)


@pytest.mark.parametrize(
    "transform",
    [
        ResizeConfig(short=(72,), long=200),
        ResizeConfig(short=(24,), long=1000),
        LetterboxConfig(size=(160, 100)),
        WarpConfig(size=(200, 60)),
    ],
)
@pytest.mark.parametrize("batch_size", [1, 3])
def test_boxes_return_to_the_original_pixels(
    transform: TransformConfig, batch_size: int, index: DetectionIndex
) -> None:
    """All but the pixel's width that resizing blurs: every object is found at an overlap of 0.75."""
    result = evaluate_detector(Sharp(), index, (transform,), batch_size=batch_size)
    assert result.images == 7
    assert result.stats["AP75"] == pytest.approx(1.0)


def test_a_perfect_detector_at_the_original_size_is_perfect(index: DetectionIndex) -> None:
    seen: list[tuple[int, int]] = []
    transform = (ResizeConfig(short=(24,), long=1000),)
    result = evaluate_detector(Sharp(), index, transform, batch_size=3, progress=lambda *done: seen.append(done))
    assert result.stats["AP"] == pytest.approx(1.0)
    assert seen == [(3, 7), (6, 7), (7, 7)]


class SharpMasks(Sharp):
    """Every object fills its box but for a corner, as ``with_polygons`` has it."""

    def __init__(self) -> None:
        super().__init__()
        self.paste = PasteConfig()

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        if targets is not None:
            assert targets.masks is not None
            return {"mask": targets.masks.flatten(1).any(1).float().mean()}
        found = super().forward(images)
        assert isinstance(found, DetectionBatch)
        row = torch.arange(28)
        corner = (row[:, None] + row < 27).float()
        return found._replace(masks=corner.expand(*found.boxes.shape[:2], 28, 28))


def with_polygons(index: DetectionIndex, also: Sequence[int] = range(7)) -> DetectionIndex:
    """The upper left triangle of each box as a mask, in the images of ``also``."""
    records = []
    for i in range(len(index)):
        (x1, y1, x2, y2), (label,) = index.annotations(i).boxes[0].tolist(), index.annotations(i).labels.tolist()
        height, width = index.size(i)
        records.append(
            ImageRecord(
                path=index.path(i), image_id=index.image_id(i), height=height, width=width,
                boxes=[[x1, y1, x2, y2]], labels=[label],
                segmentations=[[[x1, y1, x2, y1, x1, y2]] if i in also else None],
            )
        )  # fmt: skip
    return DetectionIndex.build(CLASSES, records, root=index.root)


class Beyond(Sharp):
    """Finds the same, and a box in the padding right of the image."""

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        found = super().forward(images, targets)
        assert isinstance(found, DetectionBatch)
        found.boxes[:, 1] = torch.tensor([1000.0, 5.0, 1010.0, 20.0])
        found.scores[:, 1] = 0.95
        return found._replace(valid=torch.ones_like(found.valid))


def test_a_box_of_which_the_edges_leave_nothing_is_no_detection(index: DetectionIndex) -> None:
    transforms = (ResizeConfig(short=(72,), long=200),)
    stats, plain = (evaluate_detector(one, index, transforms).stats for one in (Beyond(), Sharp()))
    assert stats == pytest.approx(plain, nan_ok=True)

    sample = sample_of(read_image(index.path(0)))
    (found,), (same,) = (one.detect_samples([sample]) for one in (Beyond(), Sharp()))
    assert torch.equal(found.boxes, same.boxes)
    assert len(found.boxes) == len(found.scores) == len(found.labels) == 1


def test_masks_return_to_the_original_pixels(index: DetectionIndex) -> None:
    plain = replace(data(), eval=(ResizeConfig(short=(72,), long=200),), masks=True)
    found = validate(SharpMasks(), with_polygons(index), plain, ALONE, losses=True)
    assert found.masks is not None
    assert found.losses == {"mask": 1.0}
    stats = found.stats()
    assert stats["AP50"] == pytest.approx(1.0)
    assert stats["mask_AP50"] == pytest.approx(1.0)
    assert stats["mask_AP"] > 0.5  # pictures of 24 x 32 pixels: one along the slope is much
    full = validate(Filled(), with_polygons(index), plain, ALONE)
    assert full.masks is not None
    assert full.masks.compute().stats["AP50"] < 0.5, "the triangle is half of its box"


class Filled(SharpMasks):
    """Masks that are their boxes."""

    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        found = super().forward(images)
        assert isinstance(found, DetectionBatch)
        assert found.masks is not None
        return found._replace(masks=torch.ones_like(found.masks))


def test_masks_are_scored_where_every_object_has_one(index: DetectionIndex) -> None:
    assert validate(SharpMasks(), index, data(), ALONE).masks is None
    assert validate(SharpMasks(), with_polygons(index, also=range(6)), data(), ALONE).masks is None
    assert validate(Sharp(), with_polygons(index), data(), ALONE).masks is None
    assert not any("mask" in name for name in validate(Sharp(), index, data(), ALONE).stats())


def data(batch_size: int = 3) -> DataConfig:
    return DataConfig(train=(), eval=(WarpConfig(size=(32, 32)),), eval_batch_size=batch_size, workers=0)


def toy() -> Toy:
    torch.manual_seed(0)
    return Toy(None, CLASSES, drop=0.5)


def test_losses_are_means_over_images_whatever_the_batches(index: DetectionIndex) -> None:
    one, three = (validate(toy(), index, data(b), ALONE, losses=True) for b in (1, 3))
    assert set(one.losses) == {"box", "label"}
    assert one.losses == pytest.approx(three.losses, rel=1e-5)
    assert one.loss == pytest.approx(sum(one.losses.values()))
    assert validate(toy(), index, data(), ALONE).loss is None


def test_the_model_and_the_random_state_are_left_alone(index: DetectionIndex) -> None:
    class Drawing(Toy):
        def forward(self, images: Images, targets: Targets | None = None) -> Any:
            torch.rand(3)
            return super().forward(images, targets)

    model = Drawing(None, CLASSES).train()
    model.backbone.bn.eval()
    before, state = torch.get_rng_state(), {k: v.clone() for k, v in model.state_dict().items()}
    validate(model, index, data(), ALONE, losses=True)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(v, state[k]) for k, v in model.state_dict().items())
    assert model.training
    assert not model.backbone.bn.training
    assert all(p.grad is None for p in model.parameters())


def test_bad_input(index: DetectionIndex) -> None:
    with pytest.raises(InputError, match="the data set has no image to evaluate"):
        validate(toy(), index.subset([]), data(), ALONE)
    other = Toy(None, Classes.from_names(["dark", "grey"]))
    with pytest.raises(InputError, match=r"the data lacks 'grey'; the detector lacks 'light'"):
        evaluate_detector(other, index, data().eval)


def test_sharing_among_processes_covers_every_image_once(index: DetectionIndex) -> None:
    """Evaluate the shares of two processes, one after the other."""
    parts = []

    class Half(Processes):
        def gather(self, value: Any) -> list[Any]:
            parts.append(value)
            return [value]

    for rank in (0, 1):
        validate(toy(), index, data(2), Half(rank, 2, torch.device("cpu")))
    shares = [sorted(seen) for part in parts if isinstance(part, tuple) for seen in part[1:]]
    assert sorted(shares[0] + shares[1]) == [index.image_id(i) for i in range(7)]


def test_path_of_the_folder_is_named(tmp_path: Path) -> None:
    empty = DetectionIndex.build(CLASSES, [], root=tmp_path)
    with pytest.raises(InputError, match=str(tmp_path)):
        validate(toy(), empty, data(), ALONE)
