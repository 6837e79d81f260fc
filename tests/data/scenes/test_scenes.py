"""Drawn scenes are reproducible, annotated to the pixel, and not solved by colour alone."""

from __future__ import annotations

import colorsys
import hashlib
import subprocess
import sys

import numpy as np
import pytest

from boxwright.data.scenes import SCENE_CLASSES, Scene, SceneConfig, draw_scene
from boxwright.data.scenes.compose import DIFFICULT_SIDE, DIFFICULT_VISIBLE
from boxwright.data.scenes.distractors import DISTRACTORS
from boxwright.data.scenes.outlines import Part
from boxwright.data.scenes.render import Light, draw_thing, palette, projected
from boxwright.data.scenes.shapes import SHAPES
from boxwright.data.scenes.textures import TEXTURES
from boxwright.structures import InputError

GREY = np.full(3, 0.5, np.float32)
LAMP = Light(x=-0.6, y=-0.8, shadow=0.4, softness=0.04, reach=0.05)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    """Draw enough scenes for statistics."""
    return [draw_scene(3, i, (128, 128)) for i in range(150)]


def digest(scene: Scene) -> tuple[bytes, ...]:
    return tuple(value.tobytes() for value in scene)


def test_the_same_numbers_give_the_same_bytes() -> None:
    """The demo, the tests and the benchmarks use the same images at any time."""
    assert digest(draw_scene(5, 7, (96, 128))) == digest(draw_scene(5, 7, (96, 128)))
    others = {digest(draw_scene(seed, index, (96, 128)))[0] for seed, index in ((5, 8), (6, 7), (7, 5))}
    assert len(others) == 3
    assert digest(draw_scene(5, 7, (96, 128)))[0] not in others


def test_another_process_draws_the_same() -> None:
    """Scenes depend neither on hash seeds nor on earlier draws."""
    program = (
        "import hashlib; from boxwright.data.scenes import draw_scene;"
        "print(hashlib.sha256(b''.join(v.tobytes() for v in draw_scene(2, 3, (96, 96)))).hexdigest())"
    )
    there = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout.strip()
    draw_scene(9, 9, (64, 64))
    here = hashlib.sha256(b"".join(digest(draw_scene(2, 3, (96, 96))))).hexdigest()
    assert there == here


def test_shapes_and_types() -> None:
    """Check shapes and types in an image that is not square."""
    scene = draw_scene(0, 1, (96, 160))
    n = len(scene.labels)
    assert n > 0
    assert (scene.image.shape, scene.image.dtype) == ((96, 160, 3), np.uint8)
    assert (scene.boxes.shape, scene.boxes.dtype) == ((n, 4), np.float32)
    assert scene.labels.dtype == np.int64
    assert (scene.masks.shape, scene.masks.dtype) == ((n, 96, 160), np.bool_)
    assert scene.difficult.shape == scene.visible.shape == (n,)


def test_an_empty_scene_has_arrays_without_rows() -> None:
    """A scene without objects is an ordinary case."""
    scene = draw_scene(0, 0, config=SceneConfig(size=(64, 64), empty=1.0))
    assert scene.boxes.shape == (0, 4)
    assert scene.masks.shape == (0, 64, 64)
    assert scene.image.std() > 1, "distractors and background remain"


def test_boxes_are_the_tight_bounds_of_the_masks(scenes: list[Scene]) -> None:
    """Right and lower edges are exclusive."""
    for scene in scenes:
        for box, mask in zip(scene.boxes, scene.masks, strict=True):
            ys, xs = np.nonzero(mask)
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


def test_masks_share_no_pixel(scenes: list[Scene]) -> None:
    """Masks are the visible parts: the nearest object owns the pixel."""
    assert max(int(scene.masks.sum(axis=0).max(initial=0)) for scene in scenes) == 1


def test_hidden_and_difficult_follow_the_stated_rule(scenes: list[Scene]) -> None:
    """Many scenes have occlusion, never more than the limit, and the flag follows its definition."""
    visible = np.concatenate([scene.visible for scene in scenes])
    boxes = np.concatenate([scene.boxes for scene in scenes])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert visible.min() >= 1 - SceneConfig().hidden
    assert visible.max() <= 1
    assert (visible < 0.85).mean() > 0.05
    expected = (visible < DIFFICULT_VISIBLE) | (longer < DIFFICULT_SIDE)
    assert np.concatenate([scene.difficult for scene in scenes]).tolist() == expected.tolist()
    assert 0 < expected.mean() < 0.2


def test_counts_classes_and_empty_scenes(scenes: list[Scene]) -> None:
    """About six percent of scenes are empty, the others have four to six objects on average, and no class is rare."""
    counts = np.array([len(scene.labels) for scene in scenes])
    assert 0.02 <= (counts == 0).mean() <= 0.12
    assert 3.5 <= counts.mean() <= 6
    per_class = np.bincount(np.concatenate([scene.labels for scene in scenes]), minlength=len(SCENE_CLASSES))
    assert len(SCENE_CLASSES) >= 8
    assert per_class.min() > 0.5 * per_class.mean()


def test_sizes_reach_from_eight_pixels_to_three_quarters() -> None:
    """Most sizes are in the common range, both tails occur, and the limits hold."""
    scenes = [draw_scene(1, i, (256, 256)) for i in range(70)]
    boxes = np.concatenate([scene.boxes for scene in scenes])
    longer = (boxes[:, 2:] - boxes[:, :2]).max(axis=1)
    assert 8 <= longer.min() <= 12
    assert 0.55 * 256 <= longer.max() <= 0.75 * 256 + 2
    assert ((longer >= 24) & (longer <= 0.4 * 256)).mean() > 0.8
    aspect = (boxes[:, 2] - boxes[:, 0]) / (boxes[:, 3] - boxes[:, 1])
    assert (aspect > 1.8).mean() > 0.04
    assert (aspect < 1 / 1.8).mean() > 0.04


@pytest.mark.parametrize(
    ("typical", "low", "high", "why"),
    [
        (0.0, 0.0, 0.2, "without typical colours, colour finds hardly more than chance (one in ten)"),
        (SceneConfig().typical, 0.35, 0.8, "with them it hints, and does not decide"),
    ],
)
def test_colour_hints_but_does_not_decide(typical: float, low: float, high: float, why: str) -> None:
    """Classify by the nearest class mean over colour statistics of the visible pixels."""
    scenes = [draw_scene(3, i, config=SceneConfig(typical=typical)) for i in range(60)]
    labels = np.concatenate([scene.labels for scene in scenes])
    colours = []
    for scene in scenes:
        for mask in scene.masks:
            mean = scene.image[mask].mean(axis=0) / 255
            hue, saturation, value = colorsys.rgb_to_hsv(*mean.tolist())
            colours.append([np.cos(hue * 2 * np.pi), np.sin(hue * 2 * np.pi), 2 * saturation, 2 * value])
    features, half = np.array(colours), len(labels) // 2
    means = np.stack([features[:half][labels[:half] == k].mean(axis=0) for k in range(len(SCENE_CLASSES))])
    distance = np.linalg.norm(features[half:, None] - means, axis=2)
    assert low <= (distance.argmin(axis=1) == labels[half:]).mean() < high, why


def silhouette(name: str, specimen: int) -> np.ndarray:
    """Return the distribution of the outline's distance from its centre, which is invariant to rotation and colour."""
    rng = np.random.default_rng([specimen, 1])
    thing = draw_thing(projected(SHAPES[name](rng), 60, rng), 60, palette(rng, GREY), LAMP, rng)
    ys, xs = np.nonzero(thing.solid)
    reach = np.hypot(ys - ys.mean(), xs - xs.mean())
    angle = np.arctan2(ys - ys.mean(), xs - xs.mean())
    far = np.array([reach[(angle // (np.pi / 18)).astype(int) == k].max(initial=0) for k in range(-18, 18)])
    spread = np.histogram(reach, bins=12, range=(0, 48))[0] / 300
    return np.concatenate([np.abs(np.fft.rfft(far / 30))[:12] / 4, spread])


def test_form_gives_the_class_away() -> None:
    """The same classifier is right in six of ten cases by a crude outline, so there is something to learn."""
    names = SCENE_CLASSES.names
    means = np.stack([np.mean([silhouette(name, i) for i in range(20)], axis=0) for name in names])
    right = [
        np.linalg.norm(silhouette(name, i) - means, axis=1).argmin() == k
        for k, name in enumerate(names)
        for i in range(20, 35)
    ]
    assert np.mean(right) > 0.55


@pytest.mark.parametrize("draw", [*SHAPES.values(), *dict.fromkeys(DISTRACTORS)], ids=lambda f: f.__name__)
def test_each_thing_has_its_size_and_differs_between_instances(draw) -> None:
    """The longer side is as requested, to a pixel of smoothing, for all sizes."""
    rng = np.random.default_rng(4)
    first, second = draw(rng), draw(rng)
    assert all(isinstance(part, Part) and np.isfinite(part.points).all() for part in first)
    assert [part.points.tolist() for part in first] != [part.points.tolist() for part in second]
    for size in (9, 40, 150):
        thing = draw_thing(projected(draw(rng), size, rng), size, palette(rng, GREY), LAMP, rng)
        ys, xs = np.nonzero(thing.solid)
        assert abs(max(np.ptp(ys), np.ptp(xs)) + 1 - size) <= max(2, 0.05 * size)
        assert thing.colour.min() >= 0
        assert thing.colour.max() <= 1


@pytest.mark.parametrize("texture", TEXTURES, ids=lambda f: f.__name__)
def test_each_background_is_textured_and_in_range(texture) -> None:
    """Neighbouring pixels differ, also in images that are not square."""
    ground = texture(np.random.default_rng(2), 96, 160)
    assert ground.shape == (96, 160, 3)
    assert np.isfinite(ground).all()
    assert -0.5 < ground.min() <= ground.max() < 2
    assert ground.std(axis=(0, 1)).max() > 0.02
    assert (np.abs(np.diff(ground, axis=1)).max(axis=2) > 0).mean() > 0.2


def test_settings_are_obeyed() -> None:
    """Settings without distractors, blur and occlusion are followed."""
    config = SceneConfig(size=(128, 128), objects=(3, 3), empty=0.0, distractors=(0, 0), hidden=0.0, blur=0.0)
    scenes = [draw_scene(1, i, config=config) for i in range(20)]
    assert max(len(scene.labels) for scene in scenes) == 3
    assert all(scene.visible.min(initial=1) == 1 for scene in scenes)
    quiet = SceneConfig(size=(64, 64), noise=(0, 0), quality=(95, 95))
    loud = SceneConfig(size=(64, 64), noise=(40, 40), quality=(95, 95))
    grain = [np.abs(np.diff(draw_scene(1, 1, config=c).image.astype(int), axis=0)).mean() for c in (quiet, loud)]
    assert grain[1] > grain[0] + 10


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"size": (16, 256)}, "size = .*32 to 4096"),
        ({"objects": (5, 2)}, "objects = "),
        ({"distractors": (-1, 2)}, "distractors = "),
        ({"empty": 1.5}, "empty = 1.5: should be less than or equal to 1"),
        ({"blur": -0.1}, "blur = "),
        ({"hidden": 0.95}, "hidden = "),
        ({"smallest": 2}, "smallest = "),
        ({"common": (0.5, 0.2)}, "common = "),
        ({"common": (0.001, 0.01)}, "common = .*high end"),
        ({"noise": (9, 3)}, "noise = "),
        ({"quality": (5, 90)}, "quality.0 = 5"),
    ],
)
def test_a_setting_out_of_range_is_named(settings: dict, said: str) -> None:
    with pytest.raises(InputError, match=said):
        SceneConfig(**settings)


@pytest.mark.parametrize(("seed", "index"), [(-1, 0), (0, -1)])
def test_a_negative_number_is_refused(seed: int, index: int) -> None:
    with pytest.raises(InputError, match="0 or more"):
        draw_scene(seed, index)
