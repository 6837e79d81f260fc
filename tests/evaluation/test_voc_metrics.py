"""VOC metric on small tables, with published values on real files, and compared with a plain implementation."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from boxwright.evaluation import VocEvaluation, VocResult, VocRules
from boxwright.structures import InputError
from tests.support.evaluation_helpers import FakeIndex

Row = tuple[str, str, list[float], float]  # image, class, corners x1 y1 x2 y2, score (or 1.0 for difficult objects)


def make_index(truth: list[Row], images: list[str], names: list[str]) -> FakeIndex:
    annotations = [
        {"id": n, "image_id": images.index(image), "category_id": names.index(name) + 1, "difficult": bool(difficult)}
        | {"bbox": [x1, y1, x2 - x1, y2 - y1]}
        for n, (image, name, (x1, y1, x2, y2), difficult) in enumerate(truth)
    ]
    return FakeIndex(
        {
            "images": [{"id": i, "height": 1000, "width": 1000} for i in range(len(images))],
            "categories": [{"id": k + 1, "name": name} for k, name in enumerate(names)],
            "annotations": annotations,
        }
    )


def evaluate(truth: list[Row], found: list[Row], **rules: Any) -> VocResult:
    images = sorted({row[0] for row in truth + found})
    names = sorted({row[1] for row in truth + found})
    evaluation = VocEvaluation(make_index(truth, images, names), VocRules(**rules))
    for number, image in enumerate(images):
        mine = [row for row in found if row[0] == image]
        evaluation.update(number, [r[2] for r in mine], [r[3] for r in mine], [names.index(r[1]) for r in mine])
    return evaluation.compute()


def square(x: float, side: float = 10) -> list[float]:
    return [x, 0, x + side, side]


ONE = [("a", "cat", square(0), 0.0)]

CASES = [
    # truth, found, rules, average precision, why
    (ONE, [("a", "cat", square(0), 0.5)], {}, 1.0, "found"),
    (ONE, [], {}, 0.0, "no detections is 0, not undefined"),
    (ONE, [("a", "cat", square(0), 0.9), ("a", "cat", square(0), 0.8)], {}, 1.0, "a double after full recall is free"),
    (ONE, [("a", "cat", square(50), 0.9), ("a", "cat", square(0), 0.8)], {}, 0.5, "a better-scored false one halves"),
    (ONE, [("b", "cat", square(0), 0.9), ("a", "cat", square(0), 0.8)], {}, 0.5, "an image without objects counts"),
    (ONE, [("a", "cat", [0, 0, 10, 5], 0.5)], {}, 1.0, "IoU exactly 0.5 with >="),
    (ONE, [("a", "cat", [0, 0, 10, 5], 0.5)], {"comparison": ">"}, 0.0, "IoU exactly 0.5 with >"),
    (ONE, [("a", "cat", [0, 0, 10, 5], 0.5)], {"pixels": "inclusive", "comparison": ">"}, 1.0, "66 of 121 pixels"),
    (ONE, [("a", "cat", [0, 0, 10, 4.9], 0.5)], {"pixels": "exclusive"}, 0.0, "49 of 100"),
    (
        [*ONE, ("a", "cat", square(20), 1.0)],
        [("a", "cat", square(20), 0.9), ("a", "cat", square(0), 0.8)],
        {},
        1.0,
        "the detection of a difficult object is not false",
    ),
    (
        [("a", "cat", square(0), 0.0), ("a", "cat", square(4), 0.0)],
        [("a", "cat", square(1), 0.9), ("a", "cat", square(1.5), 0.8)],
        {},
        0.5,
        "the second overlaps the claimed object most: false, though the other one is free and overlaps by 0.6",
    ),
    (
        [("a", "cat", square(0), 0.0), ("a", "cat", square(20), 0.0)],
        [("a", "cat", square(0), 0.9), ("a", "cat", square(50), 0.8), ("a", "cat", square(20), 0.7)],
        {},
        0.5 + 0.5 * 2 / 3,
        "area: half of the recall at precision 1, half at 2/3",
    ),
    (
        [("a", "cat", square(0), 0.0), ("a", "cat", square(20), 0.0)],
        [("a", "cat", square(0), 0.9), ("a", "cat", square(50), 0.8), ("a", "cat", square(20), 0.7)],
        {"average": "11-point"},
        (6 + 5 * 2 / 3) / 11,
        "eleven points: recall 0 to 0.5 at 1, the rest at 2/3",
    ),
]


@pytest.mark.parametrize(("truth", "found", "rules", "expected", "why"), CASES, ids=[case[4] for case in CASES])
def test_drawn_cases(truth: list[Row], found: list[Row], rules: dict[str, Any], expected: float, why: str) -> None:
    assert evaluate(truth, found, **rules).mean_ap == pytest.approx(expected, abs=1e-12), why


def test_recall_of_exactly_three_tenths() -> None:
    """A recall of 3 of 10 is below numpy's 0.30000000000000004 and reaches the exact 3/10."""
    truth = [("a", "cat", square(20 * n), 0.0) for n in range(10)]
    found = [("a", "cat", square(20 * n), 0.9 - n / 100) for n in range(3)]
    assert evaluate(truth, found, average="11-point").mean_ap == pytest.approx(3 / 11)
    assert evaluate(truth, found, average="11-point", tenths="exact").mean_ap == pytest.approx(4 / 11)


def test_classes_without_objects_are_undefined_and_left_out() -> None:
    only_difficult = ("a", "dog", square(40), 1.0)
    result = evaluate([*ONE, only_difficult], [("a", "cat", square(0), 0.9), ("a", "dog", square(90), 0.9)])
    cat, dog = result.per_class
    assert (cat.AP, cat.objects, dog.objects) == (1.0, 1, 0)
    assert math.isnan(dog.AP)
    assert result.mean_ap == 1.0
    told = json.loads(json.dumps(result.to_dict(), allow_nan=False))
    assert told["per_class"][1] == {"name": "dog", "objects": 0, "AP": None}
    assert (told["mAP"], told["rules"]["comparison"], told["detections"]) == (1.0, ">=", 2)


def test_equal_scores_keep_their_order() -> None:
    """A thousand equal scores, the true one first or last, would be mixed by a sort that is not stable."""
    false = [("a", "cat", square(50 + n), 0.5) for n in range(1000)]
    true = ("a", "cat", square(0), 0.5)
    assert evaluate(ONE, [true, *false]).mean_ap == 1.0
    assert evaluate(ONE, [*false, true]).mean_ap == pytest.approx(1 / 1001)


def test_unknown_rules_are_refused() -> None:
    with pytest.raises(InputError, match=r"average 'auc' is not known.*'11-point'"):
        VocRules(average="auc")
    with pytest.raises(InputError, match="iou 50"):
        VocRules(iou=50)


def read_files(folder: Path, scored: bool) -> list[Row]:
    """Read lines of ``class [score] x y width height``, one file per image."""
    rows: list[Row] = []
    for file in sorted(folder.glob("*.txt")):
        for line in file.read_text().splitlines():
            name, *numbers = line.split()
            score = float(numbers.pop(0)) if scored else 0.0
            x, y, w, h = map(float, numbers)
            rows.append((file.stem, name, [x, y, x + w, y + h], score))
    return rows


@pytest.mark.parametrize(
    ("iou", "eleven", "area"),
    [
        (0.1, 0.3333333333, 0.3371980676),
        (0.3, 0.2683982683, 0.2456866804),
        (0.5, 0.0303030303, 0.0222222222),
        (0.75, 0.0, 0.0),
    ],
)
def test_published_values_of_seven_images(shared_data: Path, iou: float, eleven: float, area: float) -> None:
    folder = shared_data / "metric_oracles" / "padilla_tests" / "test_case_1"
    truth, found = read_files(folder / "gts", False), read_files(folder / "dets", True)
    for average, expected in (("11-point", eleven), ("area", area)):
        result = evaluate(truth, found, iou=iou, average=average, pixels="inclusive")
        assert result.mean_ap == pytest.approx(expected, abs=1e-10)


def test_published_precision_and_recall_lists(shared_data: Path) -> None:
    folder = shared_data / "metric_oracles" / "padilla_v1"
    text = (folder / "results" / "results.txt").read_text()
    lists = {
        line.split(":")[0]: [float(value) for value in line.split("[")[1].strip("]").replace("'", "").split(",")]
        for line in text.splitlines()
        if line.startswith(("Precision", "Recall"))
    }
    truth, found = read_files(folder / "groundtruths", False), read_files(folder / "detections", True)
    result = evaluate(truth, found, iou=0.3, pixels="inclusive")
    assert f"{100 * result.mean_ap:.2f}%" == "24.57%"
    person = result.per_class[0]
    assert person.precision.round(2).tolist() == pytest.approx(lists["Precision"], abs=0.0051)
    assert person.recall.round(2).tolist() == pytest.approx(lists["Recall"], abs=0.0051)


def plain_voc(truth: list[Row], found: list[Row], name: str, iou: float) -> float:
    """Compute the metric in loops, one object at a time, with sentinels for the area under the curve."""
    objects = [[row[0], row[2], False] for row in truth if row[1] == name]
    hits, misses, points = 0, 0, [(0.0, 0.0)]
    for image, _, box, _ in sorted((r for r in found if r[1] == name), key=lambda r: -r[3]):
        best, target = -1.0, None
        for candidate in objects:
            if candidate[0] != image:
                continue
            other = candidate[1]
            w = min(box[2], other[2]) - max(box[0], other[0]) + 1
            h = min(box[3], other[3]) - max(box[1], other[1]) + 1
            areas = sum((b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, other))
            overlap = w * h / (areas - w * h) if w > 0 and h > 0 else 0.0
            if overlap > best:
                best, target = overlap, candidate
        if target is not None and best >= iou and not target[2]:
            target[2] = True
            hits += 1
        else:
            misses += 1
        points.append((hits / len(objects), hits / (hits + misses)))
    return sum(
        (points[n][0] - points[n - 1][0]) * max(precision for _, precision in points[n:]) for n in range(1, len(points))
    )


def test_many_classes_equal_the_plain_rule(shared_data: Path) -> None:
    """Use files with corners, many classes, and scores of many digits."""

    def read(folder: Path, scored: bool) -> list[Row]:
        rows: list[Row] = []
        for file in sorted(folder.glob("*.txt")):
            for line in file.read_text().splitlines():
                name, *numbers = line.removesuffix(" difficult").split()
                score = float(numbers.pop(0)) if scored else 0.0
                rows.append((file.stem, name, [float(v) for v in numbers], score))
        return rows

    folder = shared_data / "metric_oracles" / "cartucho_map" / "input"
    truth, found = read(folder / "ground-truth", False), read(folder / "detection-results", True)
    assert len({row[1] for row in truth}) > 20
    result = evaluate(truth, found, pixels="inclusive")
    expected = {row.name: plain_voc(truth, found, row.name, 0.5) for row in result.per_class if row.objects}
    assert {r.name: r.AP for r in result.per_class if r.objects} == pytest.approx(expected, abs=1e-12)
    assert 0.05 < result.mean_ap < 0.95
    assert result.mean_ap == pytest.approx(np.mean(list(expected.values())))
