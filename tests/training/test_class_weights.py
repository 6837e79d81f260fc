"""Class weights of a recipe: by name, from counts, checked against the classes, and in force in a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.checkpoints.checkpoint import load_checkpoint
from boxwright.config.reading import dump_recipe, load_recipe
from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.recipes import resolve_recipe
from boxwright.structures import Classes, InputError
from boxwright.training.loop import train
from boxwright.training.tasks.class_weights import weights_note, weights_of_classes
from tests.support.command_line import RECIPE
from tests.support.runs import without_pictures
from tests.support.toys import Toy, toy_index, toy_recipe


def counted(*counts: int, crowds: int = 0) -> DetectionIndex:
    """Index of one image with so many objects of the classes ant, bee, cow; ``crowds`` more ants are crowds."""
    labels = [label for label, count in enumerate(counts) for _ in range(count)] + [0] * crowds
    crowd = np.arange(len(labels)) >= len(labels) - crowds
    boxes = np.tile([2.0, 2, 9, 9], (len(labels), 1))
    record = ImageRecord(
        path=Path("a.png"), image_id=1, height=16, width=20, boxes=boxes, labels=np.array(labels, int), crowd=crowd
    )
    return DetectionIndex.build(Classes.from_names(["ant", "bee", "cow"]), [record], root=Path("insects"))


def test_weights_from_the_counts() -> None:
    index = counted(16, 4, 4, crowds=9)
    balanced = weights_of_classes("balanced", index)
    assert balanced == pytest.approx([0.5, 2.0, 2.0])  # n / (K n_k) = 24 / (3 * 16), 24 / (3 * 4)
    root = weights_of_classes("sqrt", index)
    assert root == pytest.approx([0.75, 1.5, 1.5])  # 1/4 : 1/2 : 1/2, times 24 / (16/4 + 4/2 + 4/2) = 3
    for made in (balanced, root):
        assert made is not None
        assert np.dot(made, [16, 4, 4]) == pytest.approx(24)
    assert weights_of_classes("balanced", counted(6, 2, 0)) == pytest.approx([8 / 12, 2.0, 1.0])
    assert weights_of_classes("sqrt", counted(0, 0, 0)) == [1.0, 1.0, 1.0]
    assert weights_of_classes(None, index) is None


def test_weights_by_name_are_checked_against_the_classes() -> None:
    index = counted(1, 1, 1)
    assert weights_of_classes({"bee": 3.0}, index) == [1.0, 3.0, 1.0]
    with pytest.raises(InputError, match=r"class_weights: 'beee' is not a class of insects; did you mean 'bee'\?"):
        weights_of_classes({"beee": 2.0}, index)
    with pytest.raises(InputError, match=r"'tiger' is not a class of insects; the classes are ant, bee, cow$"):
        weights_of_classes({"tiger": 2.0}, index)


def test_the_note_names_the_extremes() -> None:
    assert weights_note(("a", "b"), [0.5, 2.0]) == "class weights: b 2, a 0.5"
    names = tuple(f"c{i}" for i in range(10))
    note = weights_note(names, [float(i) for i in range(10)])
    assert note == "class weights: c9 9, c8 8, c7 7, c6 6, ..., c3 3, c2 2, c1 1, c0 0"


def test_recipes_hold_them() -> None:
    assert resolve_recipe(RECIPE).class_weights is None
    named = resolve_recipe(RECIPE, sets=["class_weights.disc=2", "class_weights.bar=0.5"])
    assert named.class_weights == {"disc": 2, "bar": 0.5}
    assert load_recipe(dump_recipe(named)) == named
    spaced = resolve_recipe(RECIPE, sets=['class_weights={"fire truck" = 2.0}'])
    assert spaced.class_weights == {"fire truck": 2.0}
    assert resolve_recipe(RECIPE, sets=["class_weights=balanced"]).class_weights == "balanced"
    for wrong in ("class_weights=balance", "class_weights.disc=0", "class_weights.disc=-1", "class_weights=2"):
        with pytest.raises(InputError, match="class_weights"):
            resolve_recipe(RECIPE, sets=[wrong])


def test_a_run_uses_and_stores_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    without_pictures(monkeypatch)
    data = toy_index(tmp_path / "train", 8), toy_index(tmp_path / "val", 4, seed=1)
    seen: list[Any] = []

    class Watched(Toy):
        def forward(self, images, targets=None):
            if targets is not None and self.training:
                seen.append(None if self.class_weights.values is None else self.class_weights.values.tolist())
            return super().forward(images, targets)

    def run(folder: str, weights: Any, **options: Any) -> None:
        recipe = replace(toy_recipe(2), class_weights=weights)
        train(recipe, *data, tmp_path / folder, build=Watched, device="cpu", log="quiet", **options)

    name = data[0].classes.names[0]
    run("plain", None)
    assert seen == [None, None]
    run("weighted", {name: 3.0})
    assert seen[2:] == [[3.0, *[1.0] * len(data[0].classes.names)]] * 2
    stored = load_checkpoint(tmp_path / "weighted" / "last.safetensors")
    assert stored.recipe.class_weights == {name: 3.0}
    with pytest.raises(InputError, match="is not a class"):
        run("refused", {f"{name}x": 3.0})
