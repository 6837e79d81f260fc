"""The choice of a recipe: detector, input, anchors, batch size and epochs follow data, machine and limits."""

import re
from dataclasses import replace

import pytest

from boxwright.app.choice import table
from boxwright.app.choice.candidate import Candidate, Wishes, epochs_of
from boxwright.app.choice.choose import choose, run_seconds
from boxwright.config.recipe import Stage
from boxwright.structures import InputError
from tests.support.choice_cases import CPU, GPU, boxes_index, by_pixels, never, task_of


def chosen(*, machine=CPU, wishes: Wishes | None = None, measure=never, **data) -> Candidate:
    return choose(task_of(boxes_index(**data), machine), wishes or Wishes(), measure).candidates[0]


def decision(candidate: Candidate, what: str) -> tuple[str, str]:
    return next((d.value, d.reason) for d in candidate.decisions if d.what == what)


def test_boxes_on_a_cpu_get_faster_rcnn_on_installed_weights_in_the_shape_of_the_images():
    found = chosen()
    assert found.recipe.name == "faster-rcnn-lite0-fpn"
    assert found.recipe.backbone_weights == "efficientnet-lite0"
    assert found.size == (256, 352)
    assert found.recipe.data.eval[-1].size == (256, 352)  # type: ignore[union-attr]
    assert found.recipe.detector.backbone.freeze_at == 2  # type: ignore[union-attr]
    assert (found.recipe.batch_size, epochs_of(found), found.recipe.precision) == (8, 40, "fp32")
    assert all(d.reason for d in found.decisions)


def test_masks_of_every_object_get_mask_rcnn():
    assert chosen(masks=True).recipe.name == "mask-rcnn-lite0-fpn"


def test_many_classes_get_a_detector_whose_cost_does_not_grow_with_them():
    found = choose(task_of(boxes_index(classes=3000, boxes=20)), Wishes(), never, most=2)
    assert found.recipe.name == "faster-rcnn-lite0-fpn"
    assert "3,000 classes" in decision(found.candidates[0], "detector")[1]
    assert any("3,000 classes have fewer than 10 boxes" in remark for remark in found.remarks)


def test_one_class_trains_without_a_remark():
    found = choose(task_of(boxes_index(classes=1)), Wishes(), never)
    assert found.remarks == ()


def test_a_gpu_gets_a_larger_input_a_larger_batch_bf16_and_a_backbone_that_learns():
    found = chosen(machine=GPU, side=18.0)
    assert found.size == (480, 640)
    assert (found.recipe.batch_size, found.recipe.precision) == (16, "bf16")
    assert found.recipe.detector.backbone.freeze_at == 0  # type: ignore[union-attr]


def test_a_backbone_from_random_weights_is_not_frozen():
    found = chosen(wishes=Wishes(start="--backbone-weights none", untrained=True))
    assert found.recipe.detector.backbone.freeze_at == 0  # type: ignore[union-attr]


def test_ten_images_get_small_batches_and_a_remark():
    found = choose(task_of(boxes_index(images=10)), Wishes(), never)
    assert found.recipe.batch_size == 2
    assert "only 10 images to train on" in found.remarks[0]


def test_objects_smaller_than_the_smallest_anchor_are_remarked_with_the_remedy():
    found = choose(task_of(boxes_index(side=4.0)), Wishes(), never)
    assert any("smaller than the smallest anchor fits" in remark and "data tile" in remark for remark in found.remarks)


@pytest.mark.parametrize(
    ("size", "words"), [((100, 100), "enlarged to"), ((8_000, 10_000), "are shrunk .* times .*data tile")]
)
def test_tiny_and_huge_images_are_remarked(size, words):
    found = choose(task_of(boxes_index(size=size, side=size[0] / 4)), Wishes(), never)
    assert any(re.search(words, remark) for remark in found.remarks)


def test_the_budget_bounds_the_epochs():
    wishes = Wishes(budget=600.0)
    found = chosen(wishes=wishes, measure=by_pixels)
    assert found.measured is not None
    task = task_of(boxes_index())
    assert 0.85 * 600 <= run_seconds(task, found.recipe, found.measured, epochs_of(found)) <= 600
    stage = found.recipe.stages[0]
    assert isinstance(stage, Stage)
    assert stage.schedule.kind == "cosine"  # ends with the run
    assert "10 min" in decision(found, "epochs")[1]


def test_a_budget_too_short_for_the_input_that_suits_gets_a_smaller_one():
    small = {"side": 20.0, "images": 800}
    assert chosen(**small).size == (352, 448)
    found = chosen(wishes=Wishes(budget=900.0), measure=by_pixels, **small)
    assert found.size == (192, 256)
    assert "352x448 would suit the objects, for want of time" in decision(found, "input size")[1]


def test_a_budget_that_nothing_fits_is_refused_with_one_that_does():
    with pytest.raises(InputError, match=r"--budget 10 s: 4 epochs, .* give at least \d+s") as error:
        chosen(wishes=Wishes(budget=10.0), measure=by_pixels)
    needed = float(str(error.value).split("give at least ")[1].split("s,")[0])
    assert epochs_of(chosen(wishes=Wishes(budget=needed), measure=by_pixels)) >= 4


def test_a_latency_that_nothing_keeps_is_refused_with_one_that_is_kept():
    with pytest.raises(InputError, match=r"--latency 10 ms: the fastest candidate, .* give at least 44ms"):
        chosen(wishes=Wishes(latency=0.01), measure=by_pixels)
    assert chosen(wishes=Wishes(latency=0.044), measure=by_pixels).size == (192, 256)


def test_latency_makes_the_input_smaller():
    assert chosen(wishes=Wishes(latency=0.05), measure=by_pixels, side=20.0).size == (192, 256)


def test_a_machine_without_the_memory_is_refused_with_the_remedy():
    with pytest.raises(InputError, match=r"GB of memory .* give a smaller --size, or another machine"):
        chosen(machine=replace(CPU, memory=2**27))


def test_settings_of_the_user_are_kept_and_said():
    def four(recipe):
        return replace(recipe, data=replace(recipe.data, batch_size=4))

    found = chosen(wishes=Wishes(changed=four, given="--set data.batch_size=4", epochs=3, size=(160, 224)))
    assert (found.recipe.batch_size, epochs_of(found), found.size) == (4, 3, (160, 224))
    assert decision(found, "batch size") == ("4", "as your settings say")
    assert decision(found, "epochs") == ("3", "as --epochs says")
    assert decision(found, "given")[0] == "--set data.batch_size=4"


def test_efforts_differ_in_length():
    lengths = [epochs_of(chosen(wishes=Wishes(effort=effort))) for effort in table.EFFORTS]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[2]


def test_the_same_data_and_machine_give_the_same_choice():
    assert chosen().recipe == chosen().recipe


def test_no_mirror_images_of_classes_with_a_direction():
    index = boxes_index(classes=2)
    named = replace(index, classes=type(index.classes).from_names(["arrow_left", "arrow_right"]))
    found = choose(task_of(named), Wishes(), never).candidates[0]
    assert [t.p for t in found.recipe.data.train if t.kind == "flip"] == [0.0]
    assert "arrow_left" in decision(found, "augmentation")[1]
