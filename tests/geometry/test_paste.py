"""Masks in images, pixel for pixel as torchvision and detectron2 put them there, and their run-length codes."""

import numpy as np
import pytest
import torch
from hotcoco import mask as mask_api
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import paste_masks_in_image

from boxwright.geometry.paste import InstanceMasks, PasteConfig, paste_masks
from boxwright.structures import InputError

HEIGHT, WIDTH = 90, 143


def examples(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """Smooth random masks ``[n, 28, 28]`` and boxes within the image: some tiny, one over all of it, one solid."""
    rng = np.random.default_rng(0)
    coarse = torch.rand(count, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    masks = F.interpolate(coarse, (28, 28), mode="bicubic").clamp(0, 1).numpy()[:, 0]
    masks[1] = 1
    low = rng.random((count, 2)) * [WIDTH, HEIGHT] * 0.9
    side = rng.random((count, 2)) * [WIDTH, HEIGHT] * 0.7 + 0.5
    boxes = np.concatenate([low, low + side], 1).clip(0, [WIDTH, HEIGHT, WIDTH, HEIGHT]).astype(np.float32)
    boxes[:2] = [0, 0, WIDTH, HEIGHT]
    boxes[2] = [3.2, 4.4, 3.3, 4.5]
    return masks, boxes


def test_expand_equals_torchvision_in_every_pixel() -> None:
    masks, boxes = examples()
    soft = paste_masks_in_image(torch.from_numpy(masks)[:, None], torch.from_numpy(boxes), (HEIGHT, WIDTH))
    expected = (soft[:, 0] > 0.5).numpy()
    assert expected.sum() > 10_000
    assert np.array_equal(np.asarray(paste_masks(masks, boxes, (HEIGHT, WIDTH))), expected)


def test_centres_equals_sampling_the_mask_at_each_pixel() -> None:
    """detectron2's way: grid_sample over the whole image, coordinates relative to the box."""
    masks, boxes = examples()
    corner = torch.from_numpy(boxes)
    axes = []
    for axis, length in ((0, WIDTH), (1, HEIGHT)):
        low, high = corner[:, axis : axis + 1], corner[:, axis + 2 : axis + 3]
        axes.append((torch.arange(length) + 0.5 - low) / (high - low) * 2 - 1)
    grid = torch.stack([axes[0][:, None].expand(-1, HEIGHT, -1), axes[1][:, :, None].expand(-1, -1, WIDTH)], 3)
    soft = F.grid_sample(torch.from_numpy(masks)[:, None], grid, align_corners=False)[:, 0].numpy()
    found = np.asarray(paste_masks(masks, boxes, (HEIGHT, WIDTH), PasteConfig(method="centres")))
    apart = np.abs(soft - 0.5) > 1e-4  # rounding may decide otherwise where it is this close
    assert (soft >= 0.5)[apart].sum() > 10_000
    assert np.array_equal(found[apart], (soft >= 0.5)[apart])


@pytest.mark.parametrize("method", ["expand", "centres"])
def test_boxes_at_and_beyond_the_edge(method: str) -> None:
    boxes = np.array([[-20, -10, 30, 40], [100, 60, 200, 120], [300, 300, 310, 310], [5, 5, 5, 5]], dtype=np.float32)
    found = paste_masks(np.ones((4, 14, 14), np.float32), boxes, (HEIGHT, WIDTH), PasteConfig(method=method))  # type: ignore[arg-type]
    dense = np.asarray(found)
    assert dense.shape == (4, HEIGHT, WIDTH)
    assert dense[0, :39, :29].all()
    assert dense[1, 61:, 101:].all()
    assert not dense[2].any(), "beside the image"
    assert dense[3].sum() <= 1
    assert found.areas().tolist() == dense.sum((1, 2)).tolist()


def test_threshold_and_the_size_of_masks_are_free() -> None:
    ramp = np.broadcast_to(np.linspace(0, 1, 20, dtype=np.float32), (1, 20, 20))
    box = np.array([[0, 0, 100, 80]], dtype=np.float32)
    low, high = (paste_masks(ramp, box, (HEIGHT, WIDTH), PasteConfig(threshold=t)).areas()[0] for t in (0.25, 0.75))
    assert low == pytest.approx(0.75 * 8000, rel=0.1)
    assert high == pytest.approx(0.25 * 8000, rel=0.1)
    with pytest.raises(InputError, match=r"PasteConfig\.threshold = 1: should be less than 1"):
        PasteConfig(threshold=1)


def odd_masks() -> np.ndarray:
    """Cases that are hard to code: nothing, everything, first and last pixel, full columns, holes, noise."""
    masks = np.zeros((9, 11, 7), dtype=bool)
    masks[1] = True
    masks[2, 0, 0] = True
    masks[3, -1, -1] = True
    masks[4, :, 2:5] = True  # columns that join into one run
    masks[5, :, 2:5] = True
    masks[5, 0, 3] = False
    masks[6, 3:8, 1:6] = True
    masks[6, 5, 3] = False
    masks[7] = np.random.default_rng(1).random((11, 7)) < 0.5
    masks[8, -1, 3] = masks[8, 0, 4] = True  # the end of a column and the start of the next
    return masks


def test_run_lengths_are_those_of_coco() -> None:
    dense = odd_masks()
    for mask, code in zip(dense, InstanceMasks.from_dense(dense).run_lengths(), strict=True):
        expected = mask_api.encode(np.asfortranarray(mask, dtype=np.uint8))
        counts = expected["counts"]
        assert code == {
            "size": [11, 7],
            "counts": counts.decode() if isinstance(counts, bytes) else counts,
        }
        assert np.array_equal(mask_api.decode(code), mask)


def test_run_lengths_of_windows_that_are_larger_than_their_objects() -> None:
    masks, boxes = examples(10)
    found = paste_masks(masks, boxes, (HEIGHT, WIDTH))
    for mask, code in zip(found, found.run_lengths(), strict=True):
        assert np.array_equal(mask_api.decode(code), mask)


def test_instance_masks_are_a_sequence() -> None:
    dense = odd_masks()
    kept = InstanceMasks.from_dense(dense)
    assert kept.shape == dense.shape
    assert np.array_equal(kept[5], dense[5])
    assert np.array_equal(kept[-1], dense[-1])
    assert all(np.array_equal(a, b) for a, b in zip(kept, dense, strict=True))
    assert np.array_equal(np.asarray(kept[[4, 1]]), dense[[4, 1]])
    assert np.array_equal(np.asarray(kept[dense.sum((1, 2)) > 3]), dense[dense.sum((1, 2)) > 3])
    assert np.asarray(kept[2:4], dtype=np.uint8).dtype == np.uint8
    assert len(kept[:0]) == 0
    assert kept[:0].run_lengths() == []
