"""Darknet's augmentation: position of the image, fill, dropped boxes, and colours."""

import colorsys

import numpy as np
import pytest
import torch

from boxwright.data.transforms.configs import DarknetJitterConfig, HSVJitterConfig, LetterboxConfig, build_transform
from boxwright.data.transforms.sample import chance, resized, uniform
from tests.support.tiny_index import generator, painted


def test_without_jitter_the_image_is_letterboxed_anywhere() -> None:
    """90 x 60 fits as 64 x 42, which has 23 positions."""
    before = painted([[0, 0, 90, 60]])
    transform = build_transform([DarknetJitterConfig(size=(64, 64), jitter=0.0)])
    centred = build_transform([LetterboxConfig(size=(64, 64))])(before, generator())
    tops = set()
    for seed in range(200):
        after = transform(before, generator(seed))
        assert after.boxes[:, [0, 2]].tolist() == [[0, 64]]
        top, bottom = after.boxes[0, [1, 3]].int().tolist()
        assert bottom - top == 42
        assert torch.equal(after.image[:, top:bottom], centred.image[:, 11:53])
        outside = torch.cat([after.image[:, :top], after.image[:, bottom:]], 1)
        assert bool((outside == 127).all())
        tops.add(top)
    assert tops == set(range(23))


@pytest.mark.parametrize(("width", "height"), [(90, 60), (60, 90), (70, 70)])
def test_the_new_aspect_comes_from_both_sides_and_one_side_is_full(width: int, height: int) -> None:
    transform = build_transform([DarknetJitterConfig(size=(200, 200))])
    aspects = []
    for seed in range(200):
        x1, y1, x2, y2 = transform(painted([[0, 0, width, height]], height, width), generator(seed)).boxes[0].tolist()
        assert max(x2 - x1, y2 - y1) == 200
        aspects.append((x2 - x1) / (y2 - y1) * height / width)
    assert 0.7 / 1.3 - 0.01 < min(aspects) < 0.68
    assert 1.6 < max(aspects) < 1.3 / 0.7 + 0.03
    assert sum(aspect > 1 for aspect in aspects) / 200 == pytest.approx(0.5, abs=0.1)


def test_the_crop_of_yolov1_moves_each_edge_and_repeats_the_picture_outside() -> None:
    config = DarknetJitterConfig(size=(48, 48), method="crop", jitter=0.2, interpolation="nearest")
    transform = build_transform([config])
    before = painted([[0, 0, 30, 20], [60, 30, 90, 60]])
    edges = []
    for seed in range(60):
        after = transform(before, generator(seed))
        sx, sy, ox, oy = after.to_original
        left, top = -ox / sx, -oy / sy
        width, height = 48 / sx, 48 / sy
        right, bottom = 90 - left - width, 60 - top - height
        edges.append([left, top, right, bottom])
        inner = [round(v) for v in (left, top, right, bottom)]
        assert [left, top, right, bottom] == pytest.approx(inner, abs=1e-4)  # whole pixels
        outward = [max(0, -v) for v in inner]
        pads = ((0, 0), (outward[1], outward[3]), (outward[0], outward[2]))
        wide = torch.from_numpy(np.pad(before.image.numpy(), pads, mode="edge"))
        cut = wide[:, max(0, inner[1]) :, max(0, inner[0]) :][:, : round(height), : round(width)]
        whole = painted([], round(height), round(width))
        whole.image.copy_(cut)
        assert torch.equal(after.image, resized(whole, 48, 48, "nearest").image)
    reach = torch.tensor(edges)
    assert reach.min(0).values.tolist() == pytest.approx([-18, -12, -18, -12], abs=2)
    assert reach.max(0).values.tolist() == pytest.approx([18, 12, 18, 12], abs=2)


@pytest.mark.parametrize(
    ("min_share", "kept", "why"),
    [
        (0.0, [0, 1, 2, 3], "all"),
        (0.02, [0, 1, 2], "2 of 100 pixels is enough, 1 is not"),
        (0.03, [0], "the width and the height each count"),
    ],
)
def test_boxes_below_a_share_of_the_input_go(min_share: float, kept: list[int], why: str) -> None:
    boxes = [[10, 10, 13, 13], [20, 20, 50, 22], [40, 30, 42, 60], [70, 70, 71, 90]]
    transform = build_transform([DarknetJitterConfig(size=(100, 100), jitter=0.0, min_share=min_share)])
    assert transform(painted(boxes, 100, 100), generator()).labels.tolist() == kept, why


def test_a_cut_box_is_measured_after_the_cut() -> None:
    """Fewer of the outermost ten pixels are left as the edge moves inwards."""
    transform = build_transform([DarknetJitterConfig(size=(100, 100), method="crop", jitter=0.2, min_share=0.05)])
    left_over = []
    for seed in range(100):
        after = transform(painted([[0, 20, 10, 80]], 100, 100), generator(seed))
        assert bool((after.boxes[:, 2] - after.boxes[:, 0] >= 5).all())
        left_over.append(len(after))
    assert 0.5 < sum(left_over) / 100 < 0.9


@pytest.mark.parametrize("seed", range(6))
def test_colours_leave_the_range_as_in_darknet_and_are_cut_at_the_end(seed: int) -> None:
    pixels = torch.randint(0, 256, (3, 6, 7), generator=generator(9), dtype=torch.uint8)
    sample = painted([], 6, 7)
    sample.image.copy_(pixels)
    config = HSVJitterConfig(hue=0.1, saturation=1.5, value=1.5, clip="rgb")
    got = build_transform([config])(sample, generator(seed)).image

    draws = generator(seed)
    chance(draws, 1.0)
    factors = []
    for _ in range(2):
        factor = uniform(draws, 1.0, 1.5)
        factors.append(factor if chance(draws, 0.5) else 1 / factor)
    turn = uniform(draws, -0.1, 0.1)
    for before, after in zip(pixels.reshape(3, -1).T.tolist(), got.reshape(3, -1).T.tolist(), strict=True):
        h, s, v = colorsys.rgb_to_hsv(*(c / 255 for c in before))
        rgb = colorsys.hsv_to_rgb((h + turn) % 1, s * factors[0], v * factors[1])
        assert after == pytest.approx([min(max(255 * c, 0), 255) for c in rgb], abs=0.6)


def test_the_two_ways_to_clip_differ_only_where_something_is_clipped() -> None:
    dull, bright = painted([], 4, 4), painted([], 4, 4)
    dull.image.fill_(90)
    dull.image[0] += 20
    bright.image[0] = 250
    bright.image[1] = 30
    differs = set()
    for seed in range(8):
        for sample, alike in ((dull, True), (bright, False)):
            hsv, rgb = (
                build_transform([HSVJitterConfig(clip=clip)])(sample, generator(seed)).image for clip in ("hsv", "rgb")
            )
            differs.add((alike, bool(((hsv.int() - rgb.int()).abs() > 1).any())))
    assert differs == {(True, False), (False, True), (False, False)}
    grown = build_transform([HSVJitterConfig(hue=0.0, saturation=1.0, value=1.5, clip="rgb")])
    kept = build_transform([HSVJitterConfig(hue=0.0, saturation=1.0, value=1.5, clip="hsv")])
    seed = next(s for s in range(20) if int(grown(dull, generator(s)).image.max()) > 110)
    assert (
        grown(bright, generator(seed)).image[1, 0, 0] > 30
    )  # the second channel still grows although the first is saturated
    assert kept(bright, generator(seed)).image[1, 0, 0] <= 31


def test_corners_stay_where_they_are() -> None:
    row = painted([], 1, 2)
    row.image[:, :, 1] = 30
    assert resized(row, 1, 4, "corners").image[0, 0].tolist() == [0, 10, 20, 30]
    letterboxed = build_transform([LetterboxConfig(size=(4, 4), interpolation="corners")])(row, generator())
    assert letterboxed.image[0].tolist() == [[127] * 4, [0, 10, 20, 30], [0, 10, 20, 30], [127] * 4]
