"""Candidates, NMS and the final selection of dense heads, against the same written out as loops."""

import pytest
import torch
import torchvision

from boxwright.heads.postprocess import (
    PostprocessConfig,
    best_pairs,
    multiclass_detections,
    suppress,
)
from boxwright.structures import DetectionBatch, InputError
from boxwright.testing import forbid_host_sync
from tests.support.boxes import SHEET, random_boxes

SIZES = torch.tensor([[130, 130]])
KINDS = ["greedy", "soft_linear", "soft_gaussian", "diou", "weighted", "matrix"]


def probabilities(boxes: int, classes: int, images: int = 1, seed: int = 0) -> torch.Tensor:
    return torch.rand((images, boxes, classes), generator=torch.Generator().manual_seed(seed)) ** 4


def rows(found: DetectionBatch, image: int = 0) -> list[tuple[float, int, list[float]]]:
    """Return score, label and box of each detection of an image."""
    valid = found.valid[image]
    parts = (found.scores[image, valid], found.labels[image, valid], found.boxes[image, valid])
    return [
        (round(s, 6), n, [round(x, 4) for x in box]) for s, n, box in zip(*(p.tolist() for p in parts), strict=True)
    ]


def test_best_pairs_are_the_best_of_all_entries() -> None:
    values = probabilities(200, 7, images=3)
    value, row, column = best_pairs(values, 50)
    expected, index = values.flatten(1).topk(50, dim=1)
    assert torch.equal(value, expected)
    assert torch.equal(row * 7 + column, index)
    assert best_pairs(values, 5000)[0].shape == (3, 1400)


def written_out(
    p: torch.Tensor, boxes: torch.Tensor, config: PostprocessConfig
) -> list[tuple[float, int, list[float]]]:
    """Run SSD's inference for one image, class by class."""
    found = []
    for label in range(p.shape[1]):
        score = p[:, label]
        order = score.argsort(descending=True)[: config.per_class]
        order = order[score[order] > config.score_threshold]
        kept = order[torchvision.ops.nms(boxes[order], score[order], config.nms_iou)].tolist()
        found += [(round(float(score[i]), 6), label, [round(x, 4) for x in boxes[i].tolist()]) for i in kept]
    return sorted(found, key=lambda row: -row[0])[: config.detections]


@pytest.mark.parametrize("per_class", [5, 40, 1000])
def test_detections_by_class_are_ssd_written_out(per_class: int) -> None:
    config = PostprocessConfig(score_threshold=0.01, nms_iou=0.45, detections=60, per_class=per_class)
    p, boxes = probabilities(150, 6, images=2), torch.stack([random_boxes(150), random_boxes(150, seed=1)])
    found = multiclass_detections(p, boxes, SIZES.expand(2, 2), config)
    for image in range(2):
        assert rows(found, image) == written_out(p[image], boxes[image], config)


@pytest.mark.parametrize("kind", KINDS)
def test_both_ways_to_choose_candidates_agree_where_none_is_left_out(kind: str) -> None:
    p, boxes = probabilities(40, 3), random_boxes(40)[None]
    settings = {"score_threshold": 0.01, "nms": kind, "detections": 120}
    flat = multiclass_detections(p, boxes, SIZES, PostprocessConfig(**settings))  # type: ignore[arg-type]
    by_class = multiclass_detections(p, boxes, SIZES, PostprocessConfig(**settings, per_class=40))  # type: ignore[arg-type]
    assert flat.boxes.shape == by_class.boxes.shape == (1, 120, 4)
    assert len(rows(flat)) > 10
    assert torch.equal(flat.labels, by_class.labels)
    torch.testing.assert_close(flat.boxes, by_class.boxes, atol=1e-3, rtol=1e-5)
    torch.testing.assert_close(flat.scores, by_class.scores)


@pytest.mark.parametrize(
    ("kind", "scores"),
    [
        ("greedy", [0.9, 0.6]), ("diou", [0.9, 0.6]), ("weighted", [0.9, 0.6]),
        ("soft_linear", [0.9, 0.6, 0.4, 0.091656]), ("soft_gaussian", [0.9, 0.6, 0.484799, 0.159520]),
    ],
)  # fmt: skip
def test_every_kind_of_suppression(kind: str, scores: list[float]) -> None:
    config = PostprocessConfig(nms=kind, nms_iou=0.3, detections=6)  # type: ignore[arg-type]
    found = suppress(SHEET[None], torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.zeros(1, 4).long(), SIZES, config)
    assert found.boxes.shape == (1, 6, 4)
    assert found.scores[0].tolist() == pytest.approx(scores + [0] * (6 - len(scores)), abs=1e-6)
    assert found.valid[0].sum() == len(scores)
    assert not found.boxes[0, len(scores) :].any()
    if kind == "weighted":
        torch.testing.assert_close(found.boxes[0, 0], (0.9 * SHEET[0] + 0.8 * SHEET[1] + 0.7 * SHEET[2]) / 2.4)


@pytest.mark.parametrize("kind", KINDS)
def test_the_number_of_detections_is_cut_after_scores_have_changed(kind: str) -> None:
    config = PostprocessConfig(nms=kind, nms_iou=0.3, detections=2)  # type: ignore[arg-type]
    found = suppress(SHEET[None], torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.zeros(1, 4).long(), SIZES, config)
    assert found.scores[0].tolist() == pytest.approx([0.9, 0.6])


@pytest.mark.parametrize("kind", ["greedy", "soft_linear", "diou"])
def test_overlap_equal_to_the_threshold(kind: str) -> None:
    boxes = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 10, 5]]])
    scores, labels = torch.tensor([[0.9, 0.8]]), torch.zeros(1, 2).long()
    threshold = 0.5 - (2.5**2 / 200 if kind == "diou" else 0)
    for inclusive in (False, True):
        config = PostprocessConfig(nms=kind, nms_iou=threshold, nms_inclusive=inclusive)  # type: ignore[arg-type]
        found = suppress(boxes, scores, labels, SIZES, config)
        changed = found.scores[0, 1].item() != pytest.approx(0.8)
        assert changed == inclusive


def test_inclusive_boxes_come_back_as_they_were() -> None:
    config = PostprocessConfig(nms="weighted", offset=1, nms_iou=0.9)
    found = suppress(SHEET[None], torch.tensor([[0.9, 0.8, 0.7, 0.6]]), torch.zeros(1, 4).long(), SIZES, config)
    torch.testing.assert_close(found.boxes[0, :4], SHEET)


@pytest.mark.parametrize("per_class", [None, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_nothing_above_the_threshold(kind: str, per_class: int | None) -> None:
    config = PostprocessConfig(nms=kind, per_class=per_class, score_threshold=0.5, detections=7)  # type: ignore[arg-type]
    found = multiclass_detections(torch.full((2, 20, 3), 0.5), torch.zeros(2, 20, 4), SIZES.expand(2, 2), config)
    assert found.boxes.shape == (2, 7, 4)
    assert not found.valid.any()
    assert not found.boxes.any()
    assert not found.scores.any()


@pytest.mark.parametrize("per_class", [None, 10])
@pytest.mark.parametrize("kind", KINDS)
def test_detections_are_one_graph_without_waiting(kind: str, per_class: int | None) -> None:
    config = PostprocessConfig(nms=kind, per_class=per_class, detections=15)  # type: ignore[arg-type]
    p, boxes, sizes = probabilities(30, 3, images=2), torch.stack([random_boxes(30)] * 2), SIZES.expand(2, 2)
    with forbid_host_sync():
        plain = multiclass_detections(p, boxes, sizes, config)
    torch._dynamo.reset()
    compiled = torch.compile(multiclass_detections, fullgraph=True, backend="aot_eager")(p, boxes, sizes, config)
    for mine, reference in zip(compiled[:4], plain[:4], strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize("kind", ["greedy", "soft_linear"])
def test_export_holds_with_a_dynamic_batch(kind: str) -> None:
    class Post(torch.nn.Module):
        def forward(self, p: torch.Tensor, boxes: torch.Tensor, sizes: torch.Tensor) -> tuple[torch.Tensor, ...]:
            config = PostprocessConfig(nms=kind, per_class=10, detections=15)  # type: ignore[arg-type]
            return tuple(multiclass_detections(p, boxes, sizes, config)[:4])

    batch = torch.export.Dim("batch", min=1, max=8)
    example = (probabilities(30, 3, images=2), torch.stack([random_boxes(30)] * 2), SIZES.repeat(2, 1))
    exported = torch.export.export(Post(), example, dynamic_shapes=({0: batch}, {0: batch}, {0: batch}))
    other = (probabilities(30, 3, images=3, seed=1), torch.stack([random_boxes(30)] * 3), SIZES.repeat(3, 1))
    for mine, reference in zip(exported.module()(*other), Post()(*other), strict=True):
        torch.testing.assert_close(mine, reference)


@pytest.mark.parametrize(
    ("settings", "message"),
    [({"per_class": 0}, "per_class"), ({"sigma": 0.0}, "sigma"), ({"soft_floor": 0.0}, "soft_floor")],
)
def test_impossible_settings_are_refused(settings: dict[str, float], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PostprocessConfig(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.5])
@pytest.mark.parametrize("step", ["never", "nms", "clip", "decoding"])
def test_steps_in_pixels_of_the_original_image(step: str, scale: float) -> None:
    """With sides that count one more, NMS and clipping depend on the size of a pixel: by hand, on the original."""
    original, size = (random_boxes(60, seed=3) * 1.2 - 3) / scale, round(130 / scale)
    config = PostprocessConfig(
        score_threshold=0.0,
        nms_iou=0.3,
        offset=1.0,
        min_size=-1e9,
        detections=60,
        original_from=step,  # type: ignore[arg-type]
    )
    scores, labels = (
        torch.rand((1, 60), generator=torch.Generator().manual_seed(1)),
        torch.zeros(1, 60, dtype=torch.int64),
    )
    sizes, scales = torch.tensor([[130, 130]]), torch.tensor([[scale, scale]])
    found = suppress(original[None] * scale, scores, labels, sizes, config, scales)

    clipped = original.clamp(min=0)
    if step in ("clip", "decoding"):
        clipped = clipped.clamp(max=size - 1.0)
    else:
        clipped = (clipped * scale).clamp(max=129.0) / scale
    unit = 1.0 if step != "never" else 1 / scale
    kept: list[int] = []
    for row in scores[0].argsort(descending=True).tolist():
        a = clipped[row]
        for other in kept:
            b = clipped[other]
            sides = (torch.minimum(a[2:], b[2:]) - torch.maximum(a[:2], b[:2]) + unit).clamp(min=0)
            areas = [((c[2:] - c[:2]) + unit).prod() for c in (a, b)]
            if sides.prod() / (areas[0] + areas[1] - sides.prod()) > 0.3:
                break
        else:
            kept.append(row)
    valid = found.valid[0]
    torch.testing.assert_close(found.boxes[0, valid], clipped[kept] * scale, atol=1e-3, rtol=1e-4)


def test_the_original_image_with_a_limit_per_class_is_refused() -> None:
    config = PostprocessConfig(per_class=5, original_from="nms")
    with pytest.raises(InputError, match=r"post.original_from = 'nms' together with post.per_class"):
        multiclass_detections(probabilities(9, 2), SHEET[None, :9], SIZES, config, torch.ones(1, 2))
