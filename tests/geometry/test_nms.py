"""Fixed-size NMS against torchvision's, and the laws of suppression."""

import math

import pytest
import torch
import torchvision

from boxwright.geometry.nms import class_offsets, float32_at_most, nms
from tests.support.boxes import random_boxes, scored
from tests.support.processes import run_python


@pytest.mark.parametrize("threshold", [0.1, 0.5, 0.7])
def test_keeps_what_torchvision_keeps(threshold: float) -> None:
    boxes, scores = scored(60)
    index, valid = nms(boxes[None], scores[None], threshold, 60)
    assert index[0, valid[0]].tolist() == torchvision.ops.nms(boxes, scores, threshold).tolist()


def test_rows_are_independent_and_padding_is_ignored() -> None:
    (a, a_scores), (b, b_scores) = scored(20), scored(20, seed=5)
    b_scores[7:] = -torch.inf
    index, valid = nms(torch.stack([a, b]), torch.stack([a_scores, b_scores]), 0.5, 10)
    alone = torchvision.ops.nms(b[:7], b_scores[:7], 0.5)
    assert index[1, valid[1]].tolist() == alone.tolist()
    assert index.shape == valid.shape == (2, 10)


def test_nothing_to_keep() -> None:
    index, valid = nms(torch.zeros(1, 4, 4), torch.full((1, 4), -torch.inf), 0.5, 3)
    assert not valid.any()
    assert index.tolist() == [[0, 0, 0]]


def test_is_idempotent() -> None:
    boxes, scores = scored(50)
    index, valid = nms(boxes[None], scores[None], 0.5, 50)
    kept = index[0, valid[0]]
    again, valid = nms(boxes[None, kept], scores[None, kept], 0.5, len(kept))
    assert valid.all()
    assert again[0].tolist() == list(range(len(kept)))


def test_boxes_of_different_classes_never_suppress_each_other() -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 10], [1, 0, 10, 10]]])
    labels, scores = torch.tensor([[0, 1, 0]]), torch.tensor([[0.9, 0.8, 0.7]])
    index, valid = nms(class_offsets(boxes, labels), scores, 0.5, 3)
    assert index[0, valid[0]].tolist() == [0, 1]


@pytest.mark.parametrize("value", [0.5, math.nextafter(0.5, 0), 0.7, 0.45, math.nextafter(0.3, 0), 1.0, 1e-6])
def test_a_threshold_divides_float32_overlaps_alike_in_both_precisions(value: float) -> None:
    middle = torch.tensor(value)
    around = torch.stack([middle.nextafter(torch.tensor(0.0)), middle, middle.nextafter(torch.tensor(2.0))])
    rounded = torch.tensor(float32_at_most(value))
    assert rounded.item() == float32_at_most(value), "it is a float32"
    assert (around > rounded).tolist() == (around.double() > value).tolist()


def test_operator_is_well_formed_for_the_compiler() -> None:
    boxes, scores = scored(12)
    torch.library.opcheck(nms, (boxes[None], scores[None], 0.5, 4))


GPU_KERNEL_ON_CPU = """
import torch
from boxwright.geometry.nms import nms
from boxwright.geometry.nms_cuda import nms_fixed
from tests.support.boxes import scored
a, a_scores = scored(24)
b, b_scores = scored(24, seed=3)
b_scores[15:] = -torch.inf
for threshold in (0.3, 0.7):
    for count in (5, 30):
        args = (torch.stack([a, b]), torch.stack([a_scores, b_scores]), threshold, count)
        for mine, reference in zip(nms_fixed(*args), nms(*args)):
            assert torch.equal(mine, reference), (threshold, count)
print("equal")
"""


def test_the_gpu_kernel_agrees_in_tritons_interpreter() -> None:
    """No GPU is needed to hold the kernel's logic to the CPU's."""
    pytest.importorskip("triton", minversion="3.6")  # interpreters before it fail on current numpy
    run = run_python(GPU_KERNEL_ON_CPU, TRITON_INTERPRET="1")
    assert run.stdout.strip() == "equal", run.stderr


@pytest.mark.gpu
def test_gpu_and_cpu_keep_the_same() -> None:
    boxes = torch.stack([random_boxes(1500), random_boxes(1500, seed=1)])
    scores = torch.rand(2, 1500, generator=torch.Generator().manual_seed(4))
    for mine, reference in zip(nms(boxes.cuda(), scores.cuda(), 0.6, 300), nms(boxes, scores, 0.6, 300), strict=True):
        assert torch.equal(mine.cpu(), reference)
