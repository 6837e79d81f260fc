"""Laws of the geometric transforms: pixels, boxes, masks and flags agree, and ``to_original`` is correct."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from boxwright.data.transforms.augment import FREE
from boxwright.data.transforms.configs import (
    AffineConfig,
    DarknetJitterConfig,
    ExpandConfig,
    FlipConfig,
    LargeScaleJitterConfig,
    LetterboxConfig,
    MosaicConfig,
    PhotometricConfig,
    ResizeConfig,
    Sample,
    TransformConfig,
    WarpConfig,
    build_transform,
)
from boxwright.data.transforms.sample import flipped, mask_bounds, placed, resized, select, turned
from tests.support.tiny_index import COLOURS, generator, painted
from tests.support.transform_cases import GEOMETRIC, MIXING, OBJECTS, Others, crop_by, named


def colour_mask(sample: Sample, label: int) -> Tensor:
    """Return the pixels that are nearest to a label's colour, compared with black and the other colours, [H, W]."""
    palette = torch.cat([COLOURS, torch.zeros((1, 3), dtype=torch.uint8)]).float()
    distance = (sample.image.float()[None] - palette[:, :, None, None]).square().sum(1)
    return distance.argmin(0) == label


@pytest.mark.parametrize("config", GEOMETRIC, ids=named)
@pytest.mark.parametrize("seed", range(6))
def test_boxes_masks_labels_and_pixels_move_together(config: TransformConfig, seed: int) -> None:
    before = painted(OBJECTS)
    after = build_transform([config], fetch=Others())(before, generator(seed))
    height, width = after.size
    assert after.masks is not None
    assert after.image.dtype == torch.uint8
    assert after.masks.shape == (len(after), height, width)
    if len(after):
        torch.testing.assert_close(mask_bounds(after.masks), after.boxes, atol=1.01, rtol=0)
    assert torch.equal(after.crowd, after.labels % 2 == 1)
    assert torch.equal(after.difficult, after.labels >= 2)
    assert bool((after.boxes >= 0).all())
    assert bool((after.boxes <= torch.tensor([width, height, width, height])).all())
    if isinstance(config, MIXING):
        return
    for box, label in zip(after.boxes, after.labels.tolist(), strict=True):
        seen = mask_bounds(colour_mask(after, label)[None])[0]
        torch.testing.assert_close(seen, box, atol=2.01, rtol=0)


@pytest.mark.parametrize("config", [*GEOMETRIC, PhotometricConfig(p=1.0)], ids=named)
def test_an_image_without_objects_passes(config: TransformConfig) -> None:
    after = build_transform([config], fetch=Others())(painted([]), generator(3))
    assert after.boxes.shape[1:] == (4,)
    assert after.boxes.dtype == torch.float32
    assert after.masks is not None
    assert after.masks.shape == (len(after), *after.size)
    if not isinstance(config, MIXING):
        assert len(after) == 0


@pytest.mark.parametrize("config", GEOMETRIC, ids=named)
def test_masks_are_optional_and_boxes_hardly_differ_without(config: TransformConfig) -> None:
    transform = build_transform([config], fetch=Others())
    with_masks = transform(painted(OBJECTS), generator(1))
    if isinstance(config, MIXING):
        return  # the other images have masks; a source gives masks to all images or to none
    if isinstance(config, AffineConfig) and config.uses_masks:
        return  # a rotated mask that is cut leaves a smaller box than its rotated corners
    without = transform(replace(painted(OBJECTS), masks=None), generator(1))
    assert without.masks is None
    torch.testing.assert_close(without.boxes, with_masks.boxes, atol=1.01, rtol=0)


@pytest.mark.parametrize("vertical", [False, True])
def test_flip_twice_is_nothing(vertical: bool) -> None:
    before = painted(OBJECTS)
    after = flipped(flipped(before, vertical), vertical)
    assert torch.equal(after.image, before.image)
    assert torch.equal(after.boxes, before.boxes)
    assert torch.equal(after.masks, before.masks)  # pyright: ignore[reportArgumentType]
    assert after.to_original == before.to_original


def test_flip_of_a_box_is_exclusive_at_the_right() -> None:
    assert flipped(painted([[0, 0, 1, 60]])).boxes.tolist() == [[89, 0, 90, 60]]


def test_four_quarter_turns_are_nothing_and_one_is_anticlockwise() -> None:
    before = painted(OBJECTS)
    after = turned(turned(before, 3), 1)
    assert torch.equal(after.image, before.image)
    assert torch.equal(after.boxes, before.boxes)
    # The top right corner goes to the top left.
    assert turned(painted([[80, 0, 90, 5]]), 1).boxes.tolist() == [[0, 0, 5, 10]]


@pytest.mark.parametrize(
    ("size", "short", "long", "expected", "why"),
    [
        ((480, 640), 800, 1333, (800, 1067), "the short side decides"),
        ((640, 480), 800, 1333, (1067, 800), "and likewise in portrait"),
        ((300, 900), 800, 1333, (444, 1333), "the long side is full first"),
        ((600, 600), 300, 300, (300, 300), "a square meets both"),
        ((1, 5000), 100, 500, (1, 500), "no side vanishes"),
    ],
)
def test_resize_sizes(size: tuple[int, int], short: int, long: int, expected: tuple[int, int], why: str) -> None:
    after = build_transform([ResizeConfig(short=(short,), long=long)])(painted([], *size), generator())
    assert after.size == expected, why


def test_resize_keeps_boxes_in_proportion() -> None:
    before = painted(OBJECTS)
    after = build_transform([ResizeConfig(short=(137,), long=1000)])(before, generator())
    (h, w), (to_h, to_w) = before.size, after.size
    relative = before.boxes / torch.tensor([w, h, w, h])
    torch.testing.assert_close(after.boxes / torch.tensor([to_w, to_h, to_w, to_h]), relative)


def test_resize_interpolates_as_it_is_told() -> None:
    """Shrinking stripes of one pixel: antialiasing makes them grey, OpenCV's linear method skips pixels."""
    stripes = painted([], 64, 64)
    stripes.image[:] = torch.tensor([0, 255], dtype=torch.uint8).repeat(32)
    plain, aliased = (
        build_transform([ResizeConfig(short=(16,), long=16, interpolation=how)])(stripes, generator()).image
        for how in ("bilinear", "aliased")
    )
    assert plain[:, 4:-4, 4:-4].float().std() < 10
    assert (aliased.unique().numel(), plain.shape) == (1, aliased.shape)  # between a white and a black one, always


def test_resize_draws_every_short_side() -> None:
    transform = build_transform([ResizeConfig(short=(40, 50, 60), long=200)])
    assert {min(transform(painted([]), generator(seed)).size) for seed in range(30)} == {40, 50, 60}


@pytest.mark.parametrize(
    ("width", "height", "side", "inner", "left", "top"),
    [  # darknet's integers
        (768, 576, 416, (416, 312), 0, 52),
        (640, 424, 416, (416, 275), 0, 70),
        (333, 500, 608, (404, 608), 102, 0),
    ],
)
def test_letterbox_is_darknets(width: int, height: int, side: int, inner: tuple[int, int], left: int, top: int) -> None:
    before = painted([[0, 0, width, height]], height, width)
    after = build_transform([LetterboxConfig(size=(side, side))])(before, generator())
    assert after.size == (side, side)
    assert after.boxes.tolist() == [[left, top, left + inner[0], top + inner[1]]]
    assert after.image[:, 0, 0].tolist() == ([127] * 3 if left or top else [255, 0, 0])


@pytest.mark.parametrize(
    "configs",
    [
        (LetterboxConfig(size=(101, 80)),),
        (WarpConfig(size=(77, 61)),),
        (ResizeConfig(short=(41,), long=70), LetterboxConfig(size=(64, 96))),
        (ExpandConfig(p=1.0), WarpConfig(size=(99, 99))),
        (FlipConfig(p=1.0, vertical_p=1.0), LetterboxConfig(size=(50, 50))),
        (DarknetJitterConfig(size=(64, 64)),),
        (FlipConfig(p=1.0), DarknetJitterConfig(size=(64, 64), method="crop", jitter=0.05)),
    ],
    ids=lambda configs: "+".join(config.kind for config in configs),
)
def test_the_way_back_to_the_original(configs: tuple[TransformConfig, ...]) -> None:
    before = painted(OBJECTS)
    after = build_transform(configs)(before, generator(2))
    kx, ky, ox, oy = after.to_original
    back = (after.boxes - torch.tensor([ox, oy, ox, oy])) / torch.tensor([kx, ky, kx, ky])
    corners = torch.cat([torch.minimum(back[:, :2], back[:, 2:]), torch.maximum(back[:, :2], back[:, 2:])], 1)
    torch.testing.assert_close(corners, before.boxes, atol=1e-3, rtol=0)


def test_large_scale_jitter_reaches_both_ends_and_keeps_its_size() -> None:
    transform = build_transform([LargeScaleJitterConfig(size=(60, 90), scale=(0.1, 2.0), fill=(9, 9, 9))])
    samples = [transform(painted([[0, 0, 90, 60]]), generator(seed)) for seed in range(40)]
    assert {sample.size for sample in samples} == {(60, 90)}
    scales = [sample.to_original[0] for sample in samples]
    assert min(scales) < 0.4
    assert max(scales) > 1.7
    small = samples[scales.index(min(scales))]
    assert small.image[:, -1, -1].tolist() == [9, 9, 9]
    assert small.to_original[2:] == (0.0, 0.0)  # a small image stays in the corner
    large = samples[scales.index(max(scales))]
    assert min(large.to_original[2:]) < 0


def test_expand_fills_and_places_at_random() -> None:
    transform = build_transform([ExpandConfig(p=1.0, ratio=(2.0, 2.0), fill=(1, 2, 3))])
    samples = [transform(painted([[0, 0, 90, 60]]), generator(seed)) for seed in range(8)]
    assert {sample.size for sample in samples} == {(120, 180)}
    assert len({sample.to_original[2:] for sample in samples}) > 4
    inside = mask_bounds(
        (samples[0].image.as_subclass(Tensor).permute(1, 2, 0) != torch.tensor([1, 2, 3])).any(2)[None]
    )
    assert torch.equal(inside, samples[0].boxes)


@pytest.mark.parametrize("bound", [0.3, 0.7])
def test_min_iou_crop_overlaps_an_object_enough(bound: float) -> None:
    transform = crop_by(bound)
    cropped = 0
    for seed in range(30):
        before = painted([[0, 0, 70, 50]])
        after = transform(before, generator(seed))
        if after.size == before.size:
            continue
        cropped += 1
        left, top = -after.to_original[2], -after.to_original[3]
        height, width = after.size
        common = (min(70, left + width) - left) * (min(50, top + height) - top)
        assert common / (70 * 50 + height * width - common) >= bound - 1e-6
    assert cropped > 20


def test_min_iou_crop_keeps_by_the_centre() -> None:
    transform = crop_by(FREE)
    counts = set()
    for seed in range(30):
        after = transform(painted(OBJECTS), generator(seed))
        left, top = -after.to_original[2], -after.to_original[3]
        centres = [((x1 + x2) / 2 - left, (y1 + y2) / 2 - top) for x1, y1, x2, y2 in OBJECTS]
        inside = [k for k, (x, y) in enumerate(centres) if 0 <= x < after.size[1] and 0 <= y < after.size[0]]
        assert after.labels.tolist() == inside
        counts.add(len(inside))
    assert len(counts) > 1


def test_min_iou_crop_does_not_count_crowds_as_objects() -> None:
    before = painted([[0, 0, 70, 50]], labels=[1])
    transform = crop_by(0.1)
    assert all(transform(before, generator(seed)).size == before.size for seed in range(5))


@pytest.mark.parametrize(
    ("min_visible", "min_size", "kept", "why"),
    [
        (0.0, 0.0, [0, 1, 2], "the one outside goes in any case"),
        (0.3, 0.0, [1, 2], "a fifth of box 0 is left; the crowd 1 is spared"),
        (0.3, 6.0, [2], "a side of 5 pixels is too short, for a crowd too"),
    ],
)
def test_what_a_cut_leaves(min_visible: float, min_size: float, kept: list[int], why: str) -> None:
    before = painted([[0, 0, 25, 10], [0, 20, 25, 30], [22, 40, 60, 50], [0, 50, 20, 60]])
    after = placed(before, top=0, left=-20, height=60, width=70, min_visible=min_visible, min_size=min_size)
    assert after.labels.tolist() == kept, why


def test_a_cut_box_shrinks_to_what_its_mask_shows_and_an_uncut_one_does_not() -> None:
    before = painted([[0, 0, 40, 40], [50, 0, 80, 20]])
    assert before.masks is not None
    before.masks[0, 10:, 10:] = False  # an L: a bar at the top and one at the left
    before.masks[1, :, 60:] = False  # its box is larger than its mask, as annotated
    after = placed(before, top=-20, left=0, height=40, width=90)
    assert after.boxes.tolist() == [[0, 0, 10, 20]]
    assert placed(before, top=0, left=0, height=50, width=85).boxes.tolist() == before.boxes.tolist()


def test_select_filters_everything_alike() -> None:
    before = painted(OBJECTS)
    after = select(before, torch.tensor([False, True, True]))
    assert after.labels.tolist() == [1, 2]
    assert after.boxes.tolist() == OBJECTS[1:]
    assert after.crowd.tolist() == [True, False]
    assert after.difficult.tolist() == [False, True]
    assert mask_bounds(after.masks).tolist() == OBJECTS[1:]  # pyright: ignore[reportArgumentType]


def test_shrinking_averages_and_does_not_skip() -> None:
    stripes = painted([], 64, 64)
    stripes.image[:, :, ::2] = 255
    smooth = resized(stripes, 16, 16).image.float()
    assert float((smooth - 127.5).abs().max()) < 40
    assert resized(stripes, 16, 16, "nearest").image.unique().numel() == 1


def test_mosaic_shows_four_pictures_and_leaves_them_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("boxwright.data.transforms.mixing.mosaic.SPREAD", 0.0)
    first = painted([[0, 0, 90, 60]])
    kept = first.image.clone()
    transform = build_transform([MosaicConfig(size=(60, 90), scale=(1.0, 1.0))], fetch=Others())
    many = [transform(first, generator(seed)) for seed in range(8)]
    assert torch.equal(first.image, kept)
    assert {len(sample) for sample in many} > {2, 3}
    for sample in many:
        # The point is the centre, so at scale 1 each image shows the quarter nearest to it.
        assert sample.boxes[0].tolist() == [0, 0, 45, 30]
        for x, y in ((45, 0), (0, 30), (45, 30)):
            quarter = sample.boxes[1:] - torch.tensor([x, y, x, y])
            inside = ((quarter >= 0) & (quarter <= torch.tensor([45.0, 30, 45, 30]))).all(1)
            assert int(inside.sum()) <= 1
        assert sample.size == (60, 90)
