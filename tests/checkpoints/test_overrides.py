"""A checkpoint used with settings other than its recipe's."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from boxwright.checkpoints.checkpoint import load_checkpoint, save_checkpoint
from boxwright.checkpoints.opening import load_detector
from boxwright.detectors.build import build_detector
from boxwright.recipes import get_recipe
from boxwright.structures import Classes, InputError
from boxwright.training.validation import evaluate_detector
from tests.support.toys import save_proposals, toy_index

CLASSES = Classes.from_names(["a", "b"])
IMAGE = torch.randint(0, 256, (3, 100, 120), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A checkpoint with random weights of each recipe."""
    folder, made = tmp_path_factory.mktemp("changes"), {}
    for name in ("faster-rcnn-c4-small", "fast-rcnn-small", "ssd-small"):
        recipe = get_recipe(name)
        torch.manual_seed(0)
        made[name] = folder / f"{name}.safetensors"
        save_checkpoint(made[name], build_detector(recipe.detector, CLASSES).state_dict(), recipe, CLASSES, {})
    return made


def test_it_acts_and_the_file_stays(files: dict[str, Path]) -> None:
    file = files["faster-rcnn-c4-small"]
    before = file.read_bytes()
    many = load_detector(file)
    few = load_detector(file, sets=["detector.rpn.post_nms=[150, 4]", "detector.head.post.score_threshold=0.0"])
    one = load_detector(file, sets=["detector.head.post.detections=1", "detector.head.post.score_threshold=0.0"])
    counts = [len(detector.detect(IMAGE, threshold=0.0)[0].scores) for detector in (many, few, one)]
    assert counts[0] > counts[1] > counts[2] == 1
    assert counts[1] <= 4 * len(CLASSES.names)
    smaller = load_detector(file, sets=["data.eval.0.size=[128, 192]"])
    assert smaller.preparation.transforms[0].size == (128, 192)  # type: ignore[union-attr]
    assert load_detector(files["fast-rcnn-small"], sets=["data.proposals.most=7"]).preparation.most_proposals == 7
    assert file.read_bytes() == before
    assert load_checkpoint(file).recipe == get_recipe("faster-rcnn-c4-small")


def test_a_detector_on_given_proposals_is_evaluated_from_python(files: dict[str, Path], tmp_path: Path) -> None:
    index = toy_index(tmp_path / "data", 3)
    save_proposals(index, tmp_path / "some.safetensors")
    detector = build_detector(get_recipe("fast-rcnn-small").detector, index.classes)
    detector.preparation = replace(detector.preparation, transforms=get_recipe("fast-rcnn-small").data.eval)
    result = evaluate_detector(detector, index, proposals=tmp_path / "some.safetensors")
    assert result.images == 3
    with pytest.raises(InputError, match="finds no proposals of its own"):
        evaluate_detector(detector, index)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("ssd-small", "data.batch_size=2", "does not act at test; what does: detector, data.eval"),
        ("ssd-small", "data=1", "does not act at test"),
        ("fast-rcnn-small", "data.proposals.train='x'", "does not act at test"),
        ("ssd-small", "data.fixed_size=[320, 320]", "does not act at test"),
        ("ssd-small", "data.proposals.most=3", "a ssd finds its own proposals; leave it out"),
        ("ssd-small", "data.eval.0.size=[100, 100]", r"what data.eval.0 makes is 100 x 100"),
        ("ssd-small", "detector.nothing=1", "detector has no key 'nothing'"),
        ("ssd-small", "detector.size", "must have the form KEY=VALUE"),
        ("faster-rcnn-c4-small", "detector.head.class_agnostic=false", r"another network than that of .*small\.safet"),
        ("faster-rcnn-c4-small", "detector.rpn.post_nms=[1, -2]", "post_nms"),
    ],
)
def test_what_cannot_differ_is_refused(name: str, change: str, message: str, files: dict[str, Path]) -> None:
    with pytest.raises(InputError, match=message) as caught:
        load_detector(files[name], sets=[change])
    assert f"--set {change}" in str(caught.value) or "data.eval" in change
