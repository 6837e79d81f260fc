"""Transforms of other packages: what they are given and may return, and what is said if one is absent or wrong."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxwright.config.reading import dump_recipe, load_recipe
from boxwright.data.formats.coco.writer import write_coco
from boxwright.data.index import DetectionIndex
from boxwright.data.transforms.configs import CustomConfig, FlipConfig, ResizeConfig, build_transform
from boxwright.data.transforms.sample import Sample
from boxwright.recipes import resolve_recipe
from boxwright.structures import InputError
from tests.support.command_line import RECIPE, TINY, fails
from tests.support.entry_points import install
from tests.support.streams import eval_loader, same_batches, take, train_stream
from tests.support.tiny_index import generator, painted, write_index

CODE = """
from dataclasses import replace

import torch


class Rain:
    def __init__(self, density=0.1, colour=(255, 255, 255)):
        if not 0 <= density <= 1:
            raise ValueError(f"density = {density}: should be in 0..1")
        self.density, self.colour = density, torch.tensor(list(colour), dtype=torch.uint8).reshape(3, 1)

    def __call__(self, sample, generator):
        wet = torch.rand(sample.size, generator=generator) < self.density
        sample.image[:, wet] = self.colour  # in place
        keep = sample.labels != 2
        masks = None if sample.masks is None else sample.masks[keep]
        drawn = None if sample.with_mask is None else sample.with_mask[keep]
        return replace(
            sample, boxes=sample.boxes[keep], labels=sample.labels[keep], crowd=sample.crowd[keep],
            difficult=sample.difficult[keep], masks=masks, with_mask=drawn,
        )


class Wrong:
    def __init__(self, how):
        self.how = how

    def __call__(self, sample, generator):
        match self.how:
            case "none":
                return None
            case "size":
                return replace(sample, image=sample.image[:, 1:])
            case "labels":
                return replace(sample, boxes=sample.boxes[:1])
            case "float":
                return replace(sample, image=sample.image / 255)
            case "masks":
                return replace(sample, masks=None)
            case "array":
                return replace(sample, boxes=sample.boxes.numpy())
            case "empty":
                return replace(sample, boxes=sample.boxes[:, [0, 1, 0, 1]])
            case "outside":
                return replace(sample, boxes=sample.boxes + 80)
            case "label":
                return replace(sample, labels=sample.labels - 1)
            case "unknown class":
                return replace(sample, labels=sample.labels + 50)
            case "raises":
                return sample.picture


class Lazy:
    pass


number = 7
"""
POINTS = {
    "rain": "toy_rain:Rain",
    "wrong": "toy_rain:Wrong",
    "lazy": "toy_rain:Lazy",
    "number": "toy_rain:number",
    "gone": "toy_rain:Snow",
    "missing": "toy_snow:Snow",
}


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "toy_rain", raising=False)
    install(tmp_path / "site", monkeypatch, POINTS, CODE)


@pytest.fixture
def index(tmp_path: Path) -> DetectionIndex:
    return write_index(tmp_path)


def sample() -> Sample:
    return painted([[5, 8, 35, 28], [50, 10, 80, 50], [10, 34, 44, 58]], labels=[0, 1, 2])


@pytest.mark.usefixtures("package")
def test_it_changes_image_and_objects_and_not_its_source() -> None:
    before = sample()
    transform = build_transform([CustomConfig(name="rain", options={"density": 0.5, "colour": [9, 8, 7]})])
    made = transform(before, generator(3))
    assert made.labels.tolist() == [0, 1]
    assert made.masks is not None
    assert made.masks.shape == (2, 60, 90)
    wet = (made.image == torch.tensor([9, 8, 7]).reshape(3, 1, 1)).all(0)
    assert 0.4 < wet.float().mean() < 0.6
    assert before.image.equal(sample().image), "the sample that was given stays as it is"
    again = transform(sample(), generator(3))
    assert again.image.equal(made.image)
    assert not transform(sample(), generator(4)).image.equal(made.image)
    assert not any(map(bool, torch.tensor(made.to_original).isfinite())), "the way back is unknown"


@pytest.mark.usefixtures("package")
def test_a_stream_is_the_same_with_and_without_workers(index: DetectionIndex) -> None:
    train = (CustomConfig(name="rain"), ResizeConfig(short=(32,), long=64), FlipConfig())
    batches = take(train_stream(index, train, 2, seed=1), 6)
    with train_stream(index, train, 2, seed=1, workers=1, start_method="fork") as stream:
        assert all(same_batches(next(stream), batch) for batch in batches)
    assert all(int(labels.max()) < 2 for batch in batches for labels in [batch.targets.labels])
    with pytest.raises(InputError, match="cannot be inverted; leave out flips, rotations, custom transforms"):
        list(eval_loader(index, train[:1], 2))


@pytest.mark.usefixtures("package")
def test_a_label_beyond_the_classes_stops_training(index: DetectionIndex) -> None:
    train = (CustomConfig(name="wrong", options={"how": "unknown class"}),)
    with pytest.raises(
        InputError, match=r"image id \d+: a custom transform gave an object the label 5\d, and the data"
    ):
        take(train_stream(index, train, 2), 4)


@pytest.mark.usefixtures("package")
def test_recipes_hold_it() -> None:
    entry = 'data.train.+={kind = "custom", name = "rain", options = {density = 0.3, colour = [1, 2, 3]}}'
    recipe = resolve_recipe(RECIPE, sets=[entry, "data.train.3.options.density=0.4"])
    options = {"density": 0.4, "colour": [1, 2, 3]}
    assert recipe.data.train[-1] == CustomConfig(name="rain", options=options)
    assert load_recipe(dump_recipe(recipe)) == recipe


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CustomConfig(name="rian"), r"'rian': there is no entry point of this name .* did you mean 'rain'\?$"),
        (CustomConfig(name="qqq"), "installed are gone, lazy, missing, number, rain, wrong; install the package"),
        (CustomConfig(name="gone"), r"'gone' of toy-rain 1.2 \(entry point toy_rain:Snow\) cannot be loaded: Attrib"),
        (CustomConfig(name="missing"), "ModuleNotFoundError: No module named 'toy_snow'; repair or reinstall"),
        (CustomConfig(name="rain", options={"dense": 1}), r"does not take the options .*'dense'.* data\.train"),
        (CustomConfig(name="rain", options={"density": 3}), r"density = 3: should be in 0\.\.1"),
        (CustomConfig(name="number"), "is 7, which cannot be called with options"),
        (CustomConfig(name="lazy"), "which is no transform: it must be callable with a sample and a generator"),
    ],
)
def test_what_cannot_be_had_is_said_before_training(config: CustomConfig, words: str) -> None:
    with pytest.raises(InputError, match=words):
        build_transform([config])


@pytest.mark.usefixtures("package")
@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("none", "it returned NoneType, not a Sample"),
        ("size", r"image is torch.uint8 \[3, 59, 90\], and should be torch.uint8 \[3, 60, 90\]"),
        ("float", r"image is torch.float32 \[3, 60, 90\], and should be torch.uint8"),
        ("labels", r"labels is torch.int64 \[3\], and should be torch.int64 \[1\]"),
        ("masks", "masks is NoneType, not a tensor"),
        ("array", "boxes is ndarray, not a tensor"),
        ("empty", "a box has no area"),
        ("outside", r"outside the image of 60 x 90 pixels \(height x width\); clip it"),
        ("label", "label -1 is no class"),
        ("raises", r"failed on the image id 5: AttributeError: .*picture.*toy_rain.py, line \d+\)"),
    ],
)
def test_what_it_does_wrong_is_named_with_the_image(how: str, words: str) -> None:
    transform = build_transform([CustomConfig(name="wrong", options={"how": how})])
    with pytest.raises(InputError, match=words) as caught:
        transform(replace(sample(), image_id=5), generator())
    assert "'wrong' of toy-rain 1.2 (entry point toy_rain:Wrong)" in str(caught.value)
    assert "image id 5" in str(caught.value)


def test_two_packages_of_one_name_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(tmp_path / "one", monkeypatch, {"rain": "toy_one:Rain"}, package="toy-one")
    install(tmp_path / "two", monkeypatch, {"rain": "toy_two:Rain"}, package="toy-two")
    with pytest.raises(InputError, match=r"'rain' of toy-one 1.2 .* and .*'rain' of toy-two 1.2 .*; uninstall all but"):
        build_transform([CustomConfig(name="rain")])


def test_options_are_plain_values() -> None:
    with pytest.raises(InputError, match="not JSON serializable; give numbers, texts"):
        CustomConfig(name="rain", options={"at": object()})
    with pytest.raises(InputError, match="give numbers, texts"):
        CustomConfig(name="rain", options={"at": float("nan")})


def test_the_command_line_names_an_absent_one(
    tmp_path: Path, index: DetectionIndex, capsys: pytest.CaptureFixture[str]
) -> None:
    write_coco(tmp_path / "data", {"train": index, "val": index}, images="copy")
    entry = 'data.train.+={kind = "custom", name = "hail"}'
    told = fails(
        capsys, "train", RECIPE, "--data", tmp_path / "data", "--output", tmp_path / "run", *TINY, "--set", entry
    )
    assert "custom transform 'hail': there is no entry point of this name in the group boxwright.transforms" in told
    assert "install the package that has it" in told
    assert not (tmp_path / "run").exists()
