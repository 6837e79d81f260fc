"""Images held back for validation: chosen by class, the same in every run, kept in the run folder."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

from boxwright.app.choice.holdout import FILE, divide, held_back_of, hold_back, stored_division
from boxwright.app.requests.training import TrainRequest
from boxwright.app.train import resume_command, validated_splits
from boxwright.cli.app import main
from boxwright.data.formats.opening import open_dataset
from boxwright.recipes import get_recipe
from boxwright.structures import InputError
from tests.support.command_line import RECIPE, TINY, fails, json_output
from tests.support.dataset_files import write_drawn, write_yolo_files, yolo_line


def yolo_set(root: Path, count: int, yaml: str = "train: images/train\nnames: [cat, dog]\n") -> Path:
    """Write a data set with one split: every fourth image has a dog, the others a cat."""
    lines = {f"train/{i:03}": yolo_line(label=int(i % 4 == 3)) for i in range(count)}
    write_yolo_files(root, lines, yaml)
    for place in lines:
        write_drawn(root / "images" / f"{place}.png")
    return root


def paths(index) -> set[str]:
    return {index.relative_path(i) for i in range(len(index))}


@pytest.mark.parametrize(("count", "held"), [(2, 1), (4, 1), (10, 2), (40, 8)])
def test_a_fifth_is_held_back_in_proportion_to_the_classes(tmp_path: Path, count: int, held: int) -> None:
    index = open_dataset(yolo_set(tmp_path, count))
    found = hold_back(index)
    assert found.val is not None
    assert len(found.val) == held
    assert paths(found.train) | paths(found.val) == paths(index)
    assert not paths(found.train) & paths(found.val)
    if count == 40:
        assert np.bincount(found.val.labels).tolist() == [6, 2]
    assert paths(hold_back(index).val) == paths(found.val)  # type: ignore[arg-type]


def test_the_note_says_how_many_images_and_what_they_are_worth(tmp_path: Path) -> None:
    note = hold_back(open_dataset(yolo_set(tmp_path, 10))).note
    assert "no split for validation, so 2 images of the 10 (2 boxes) are held back from training for it" in note
    assert FILE in note
    assert "a change of several points may be chance" in note
    assert "one image only" in hold_back(open_dataset(yolo_set(tmp_path / "one", 1))).note


def test_a_class_with_one_image_is_trained_on_and_named(tmp_path: Path) -> None:
    root = yolo_set(tmp_path, 9, "train: images/train\nnames: [cat, dog, owl]\n")
    (root / "labels" / "train" / "000.txt").write_text(yolo_line(label=2))
    found = hold_back(open_dataset(root))
    assert 2 in found.train.labels
    assert "Not among them: 'owl' (too few images)" in found.note


def test_options_decide_whether_images_are_held_back(tmp_path: Path) -> None:
    root, recipe = yolo_set(tmp_path / "set", 10), get_recipe(RECIPE)
    train, val, held = validated_splits(TrainRequest(data=root), recipe)
    assert (len(train), len(val or ()), held is not None) == (8, 2, True)
    request = TrainRequest(data=root, val=False)
    train, val, held = validated_splits(request, recipe)
    assert (len(train), val, held) == (10, None, None)
    assert "--no-val" in resume_command(request, tmp_path)
    with pytest.raises(InputError, match="--no-val validates nothing"):
        validated_splits(TrainRequest(data=root, val=False, val_split="train"), recipe)
    # A split for validation or testing is taken as it is.
    write_yolo_files(root, {"test/a": yolo_line()}, "train: images/train\ntest: images/test\nnames: [cat, dog]\n")
    train, val, held = validated_splits(TrainRequest(data=root), recipe)
    assert (len(train), len(val or ()), held) == (10, 1, None)


def test_an_older_run_is_resumed_without_validation(tmp_path: Path) -> None:
    root = yolo_set(tmp_path / "set", 10)
    for recipe in (None, get_recipe(RECIPE)):
        train, val, held = validated_splits(TrainRequest(data=root, resume=tmp_path), recipe)
        assert (len(train), val, held) == (10, None, None)


def test_recipes_that_take_files_of_proposals_hold_nothing_back(tmp_path: Path) -> None:
    recipe = next(r for r in (get_recipe("fast-rcnn-small-modern"),) if r.data.proposals is not None)
    train, val, _ = validated_splits(TrainRequest(data=yolo_set(tmp_path, 10)), recipe)
    assert (len(train), val) == (10, None)


def test_the_record_gives_the_same_images_again(tmp_path: Path) -> None:
    index = open_dataset(yolo_set(tmp_path / "set", 10))
    found = hold_back(index)
    assert found.record is not None
    assert found.val is not None
    (tmp_path / FILE).write_text(found.record)
    record = stored_division(tmp_path)
    assert record is not None
    again = divide(index, record, tmp_path)
    assert again.val is not None
    assert again.train.fingerprint() == found.train.fingerprint()
    assert again.val.fingerprint() == found.val.fingerprint() == held_back_of(index, tmp_path).fingerprint()


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "split.json"),
        ("[]", "not the record of a division"),
        ('{"split": "train", "train": ["a.png"], "val": [3]}', "val should be a list of image files"),
        ('{"split": "train", "train": [], "val": ["a.png"]}', "train should be a list of image files"),
    ],
)
def test_a_damaged_record_is_refused(tmp_path: Path, text: str, words: str) -> None:
    (tmp_path / FILE).write_text(text)
    with pytest.raises(InputError, match=words):
        stored_division(tmp_path)


def test_a_run_resumes_and_is_evaluated_on_the_images_that_it_held_back(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = yolo_set(tmp_path / "set", 10), tmp_path / "run"
    assert main(["train", RECIPE, "--data", str(root), "--output", str(run), *TINY]) == 0
    assert "2 images of the 10" in capsys.readouterr().err
    record = json.loads((run / FILE).read_text())
    assert (record["split"], len(record["train"]), len(record["val"])) == ("train", 8, 2)
    assert FILE in (run / "README.txt").read_text()
    validated = json.loads((run / "run.json").read_text())["data"]["validation"]
    assert (validated["split"], validated["images"]) == ("val", 2)
    assert main(["train", "--data", str(root), "--resume", str(run), "--device", "cpu"]) == 0
    assert "validated on the 2 images of train that the run has held back" in capsys.readouterr().err
    value = json_output(capsys, "evaluate", run, "--data", root, "--json")
    assert isinstance(value, dict)
    assert (value["split"], value["images"]) == ("val", 2)
    assert "the 2 images of train that the run held back" in value["note"]
    # A split that is named, and a checkpoint away from its run, mean what they say.
    shutil.copy(run / "best.safetensors", tmp_path / "copy.safetensors")
    for words in ((run, "--split", "train"), (tmp_path / "copy.safetensors",)):
        value = json_output(capsys, "evaluate", *words, "--data", root, "--json")
        assert isinstance(value, dict)
        assert (value["split"], value["images"]) == ("train", 10)
    # An image that is gone is named.
    gone = record["val"][0]
    (root / gone).unlink()
    (root / gone.replace("images", "labels").replace(".png", ".txt")).unlink()
    assert f"{gone} is not in the split train" in fails(capsys, "evaluate", run, "--data", root)
    assert f"{gone} is not in the split train" in fails(capsys, "train", "--data", root, "--resume", run)
