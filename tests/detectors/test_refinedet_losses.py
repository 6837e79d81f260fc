"""The losses of RefineDet against its rules written out as loops, and the gradients between its modules."""

import pytest
import torch
from torch import Tensor

from boxwright.detectors.refinedet import Outputs, RefineDet
from boxwright.geometry.boxes import box_iou
from tests.support.batches import example_images, example_targets
from tests.support.dense_cases import small_refinedet
from tests.support.refinedet_cases import TARGETS, built, grid, losses_of, random_outputs, targets_of, with_objectness


def slow_match(iou: Tensor, port: bool) -> list[int]:
    """Return the ground truth of each anchor, -1 for none: by an IoU from 0.5, after each object took one anchor."""
    best, truth = iou.max(0)
    match = [int(t) if b >= 0.5 else -1 for b, t in zip(best, truth, strict=True)]
    if port:  # each its best; of two that meet, the later one stays
        for row in range(len(iou)):
            match[int(iou[row].argmax())] = row
        return match
    left = iou.clone()
    for _ in range(len(iou)):  # the best pair of all, again and again
        row, column = divmod(int(left.argmax()), iou.shape[1])
        match[column] = row
        left[row], left[:, column] = -1, -1
    return match


def slow_encode(reference: Tensor, box: Tensor) -> Tensor:
    size, wanted = reference[2:] - reference[:2], box[2:] - box[:2]
    centre = (box[:2] + box[2:] - reference[:2] - reference[2:]) / 2
    return torch.cat([centre / size / 0.1, torch.log(wanted / size) / 0.2])


def slow_module(
    logits: Tensor, deltas: Tensor, references: Tensor, kept: Tensor, labels: Tensor, port: bool
) -> tuple[Tensor, Tensor]:
    """Compute the classification and box loss of one module over the batch; background is the last logit.

    ``kept``: anchors that pass the filter. In the port the filter also removes positives, which may then be mined.
    """
    positives, classification, regression = 0, [torch.zeros(())], [torch.zeros(())]
    for b in range(len(logits)):
        boxes = TARGETS.boxes[b, TARGETS.valid[b]].double()
        match = slow_match(box_iou(boxes, references[b]), port)
        log_probability = logits[b] - torch.logsumexp(logits[b], -1, keepdim=True)
        positive = [truth >= 0 and (not port or bool(kept[b, i])) for i, truth in enumerate(match)]
        rest = []
        for i, truth in enumerate(match):
            ce = -log_probability[i, labels[b, truth] if truth >= 0 else -1]
            if positive[i]:
                classification.append(ce)
                error = (deltas[b, i] - slow_encode(references[b, i], boxes[truth])).abs()
                regression.append(torch.where(error < 1, error**2 / 2, error - 0.5).sum())
            elif port or kept[b, i]:
                rest.append(ce)
        positives += sum(positive)
        classification += sorted(rest, key=Tensor.item, reverse=True)[: 3 * sum(positive)]
    return torch.stack(classification).sum() / max(positives, 1), torch.stack(regression).sum() / max(positives, 1)


@pytest.mark.parametrize(("floor", "port"), [(0.0, False), (0.01, False), (0.3, False), (0.01, True), (0.3, True)])
def test_losses_and_gradients_equal_a_slow_reading_of_the_rules(floor: float, port: bool) -> None:
    options = {"filtered": "positives", "assign.forced": "parallel"} if port else {}
    detector = built(small_refinedet(floor=floor, **options))
    anchors, counts = grid(detector, 64)
    assert counts == [192, 48, 12, 3]
    out = random_outputs(len(anchors))
    losses = losses_of(detector, out, TARGETS)

    slow = Outputs(*(t.detach().double().requires_grad_() for t in out))
    refined = detector.coder.decode(anchors.double(), slow.arm_deltas.detach())
    objectness = slow.arm_logits.detach().softmax(-1)[..., 0]
    everything = torch.ones_like(objectness, dtype=torch.bool)
    arm = slow_module(
        slow.arm_logits, slow.arm_deltas, anchors.double().expand(2, -1, -1), everything, TARGETS.labels * 0, port
    )
    odm = slow_module(slow.odm_logits, slow.odm_deltas, refined, objectness >= floor, TARGETS.labels, port)
    for mine, expected in zip(losses.values(), (*arm, *odm), strict=True):
        assert expected > 0
        torch.testing.assert_close(mine.double(), expected, rtol=1e-4, atol=1e-6)
    torch.stack(list(losses.values())).sum().backward()
    torch.stack([*arm, *odm]).sum().backward()
    for mine, expected in zip(out, slow, strict=True):
        assert mine.grad is not None
        assert expected.grad is not None
        torch.testing.assert_close(mine.grad.double(), expected.grad, rtol=1e-3, atol=1e-6)


def test_the_loss_of_the_second_module_does_not_reach_the_first() -> None:
    detector = built(small_refinedet())
    anchors, _ = grid(detector, 64)
    out = random_outputs(len(anchors))
    losses = losses_of(detector, out, TARGETS)
    second = losses["odm_classification"] + losses["odm_box"]
    arm = torch.autograd.grad(second, [out.arm_deltas, out.arm_logits], allow_unused=True, retain_graph=True)
    assert all(g is None or (g == 0).all() for g in arm)
    odm = torch.autograd.grad(second, [out.odm_deltas, out.odm_logits])
    assert all(g.abs().sum() > 0 for g in odm)


def test_in_the_network_only_shared_maps_learn_from_both() -> None:
    detector = built(small_refinedet(), spread=0.1).train()
    losses = detector(example_images(2, 128, 192), example_targets())
    (losses["odm_classification"] + losses["odm_box"]).backward()
    assert all(p.grad is None or (p.grad == 0).all() for p in detector.arm.parameters())
    first = next(detector.backbone.parameters())
    assert first.grad is not None
    assert first.grad.abs().sum() > 0
    assert all(p.grad is not None for part in (detector.tcb, detector.odm) for p in part.parameters())  # type: ignore[union-attr]


def test_without_filter_and_refinement_targets_are_those_of_raw_anchors() -> None:
    """Without offsets and floor the targets of the ODM are those of SSD."""
    full, plain = built(small_refinedet(floor=0.0)), built(small_refinedet(floor=0.0, two_step=False))
    anchors, _ = grid(full, 64)
    out = random_outputs(len(anchors))
    still = out._replace(arm_deltas=torch.zeros_like(out.arm_deltas))
    for name, value in losses_of(full, still, TARGETS).items():
        torch.testing.assert_close(value, losses_of(plain, still, TARGETS)[name])
    assert losses_of(full, out, TARGETS)["odm_box"] != losses_of(plain, out, TARGETS)["odm_box"]
    torch.testing.assert_close(plain.refined(anchors, out)[1], anchors)


def odm_matches(detector: RefineDet, out: Outputs) -> tuple[Tensor, Tensor]:
    """Return the positive and negative anchors of the ODM before filtering."""
    anchors, _ = grid(detector, 64)
    matches = detector.odm_matcher(detector.refined(anchors, out), TARGETS.boxes, TARGETS.valid, TARGETS.crowd)
    return matches.positive, matches.negative


def test_a_positive_stays_whatever_the_first_module_thinks_of_it() -> None:
    detector = built(small_refinedet())
    out = random_outputs(255)
    positive, _ = odm_matches(detector, out)
    sure = with_objectness(out, positive, 50.0)
    doubted = with_objectness(out, positive, -50.0)
    for name in ("odm_classification", "odm_box"):
        mine = losses_of(detector, doubted, TARGETS)[name]
        torch.testing.assert_close(
            mine, losses_of(detector, doubted._replace(arm_logits=sure.arm_logits), TARGETS)[name]
        )
    losses_of(detector, doubted, TARGETS)["odm_classification"].backward()
    assert doubted.odm_logits.grad is not None
    assert (doubted.odm_logits.grad.abs().sum(-1) > 0)[positive].all()


def test_the_port_drops_doubted_positives_instead() -> None:
    caffe, port = built(small_refinedet()), built(small_refinedet(filtered="positives"))
    out = random_outputs(255)
    positive, negative = odm_matches(port, out)
    all_positive = losses_of(caffe, out, TARGETS)
    doubted = with_objectness(out, positive, -50.0)
    nothing = losses_of(port, doubted, TARGETS)
    assert nothing["odm_box"] == nothing["odm_classification"] == 0, "no positives, no hard negatives"
    assert all_positive["odm_box"] > 0
    # Negatives are not filtered: one that the ARM is sure of is mined if it is the hardest.
    clear = with_objectness(out, negative, -50.0)
    for detector, mined in ((port, True), (caffe, False)):
        logits = clear.odm_logits.detach().clone()
        row = int(negative[0].nonzero()[0])
        logits[0, row] = torch.tensor([20.0, 0, 0, 0])
        hard = clear._replace(odm_logits=logits.requires_grad_())
        losses_of(detector, hard, TARGETS)["odm_classification"].backward()
        assert hard.odm_logits.grad is not None
        assert (hard.odm_logits.grad[0, row].abs().sum() > 0) == mined


def test_a_filtered_negative_is_never_mined() -> None:
    detector = built(small_refinedet())
    out = random_outputs(255)
    _, negative = odm_matches(detector, out)
    row = int(negative[0].nonzero()[3])
    one = torch.zeros_like(negative)
    one[0, row] = True
    for logit, mined in ((-4.6, False), (-4.5, True)):  # sigmoid .00995 and .01099 about the floor of .01
        doubted = with_objectness(out, one, logit)
        logits = doubted.odm_logits.detach().clone()
        logits[0, row] = torch.tensor([30.0, 0, 0, 0])  # the largest loss of all
        doubted = doubted._replace(odm_logits=logits.requires_grad_())
        losses_of(detector, doubted, TARGETS)["odm_classification"].backward()
        assert doubted.odm_logits.grad is not None
        assert (doubted.odm_logits.grad[0, row].abs().sum() > 0) == mined


def test_a_batch_without_objects_has_no_loss() -> None:
    detector = built(small_refinedet())
    for targets in (targets_of([[], []]), TARGETS._replace(valid=torch.zeros_like(TARGETS.valid))):
        out = random_outputs(255)
        losses = losses_of(detector, out, targets)
        assert all(value == 0 for value in losses.values())
        torch.stack(list(losses.values())).sum().backward()
        assert all(t.grad is not None and (t.grad == 0).all() for t in out)


def test_negatives_of_images_without_objects_on_request() -> None:
    detector = built(small_refinedet(**{"loss.min_negatives": 16}))
    losses = losses_of(detector, random_outputs(255), targets_of([[], []]))
    assert losses["arm_objectness"] > 0
    assert losses["odm_classification"] > 0
    assert losses["arm_box"] == losses["odm_box"] == 0


def test_crowd_and_difficult_boxes() -> None:
    out = random_outputs(255)
    crowd, difficult = TARGETS._replace(crowd=TARGETS.valid), TARGETS._replace(difficult=TARGETS.valid)
    detector, strict = built(small_refinedet()), built(small_refinedet(**{"assign.difficult": False}))
    assert losses_of(detector, out, crowd)["odm_box"] == losses_of(strict, out, difficult)["odm_box"] == 0
    assert losses_of(detector, out, difficult)["odm_box"] > 0
