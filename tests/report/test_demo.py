"""The HTML report and its charts."""

import math
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.evaluation.coco import CocoEvaluation
from boxwright.evaluation.curves import confusion_matrix, threshold_curves
from boxwright.report.charts import Axis, Series, line_chart, smooth, ticks
from boxwright.report.demo import Curve, Example, Report, duration, report_html, write_report
from boxwright.report.page import percent, table
from boxwright.structures import Classes

CLASSES = Classes(("cat & <dog>", "bird"), (4, 9))


class Tags(HTMLParser):
    """Notes elements that are opened and not closed, and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.wrong, self.fetched = [], [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("data:", "#"))]
        if tag not in ("meta", "link", "img", "br", "line", "circle", "polyline"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag in ("line", "circle", "polyline"):
            return
        if not self.open or self.open.pop() != tag:
            self.wrong.append(tag)


def read(html: str) -> Tags:
    parser = Tags()
    parser.feed(html)
    return parser


@pytest.fixture(scope="module")
def index(tmp_path_factory) -> DetectionIndex:
    folder = tmp_path_factory.mktemp("images")
    records = []
    for k in range(3):
        Image.new("RGB", (64, 48), (40 * k, 90, 90)).save(folder / f"{k}.png")
        boxes = np.array([[5, 5, 25, 25], [30, 10, 60, 40]], dtype=np.float64)[: 2 - (k == 2)]
        labels = np.array([0, 1])[: len(boxes)]
        path = folder / f"{k}.png"
        records.append(ImageRecord(path=path, image_id=k + 1, height=48, width=64, boxes=boxes, labels=labels))
    return DetectionIndex.build(CLASSES, records, root=folder, name="val")


def report(index: DetectionIndex, found: bool = True) -> Report:
    evaluation = CocoEvaluation(index)
    for i in range(len(index)):
        truth = index.annotations(i)
        keep = len(truth.boxes) if found else 0
        evaluation.update(index.image_id(i), truth.boxes[:keep] + 1, np.linspace(0.9, 0.4, keep), truth.labels[:keep])
    columns = evaluation.detections()
    picture = Image.new("RGB", (64, 48))
    return Report(
        title="A <title> & more",
        lead="What & where",
        result=evaluation.compute(),
        facts=[("3 <s>", "time")],
        examples=[Example("a<b>.jpg", picture, picture, 1, 0)],
        curves=threshold_curves(index, columns),
        confusion=confusion_matrix(index, columns),
        losses=[Curve("loss", [1, 2, 3], [3.0, math.nan, 1.0])],
        validation=[Curve("AP", [3], [0.5])],
        timings=[("draw & train", 75.0)],
        commands=[("detect", "boxwright detect <x>")],
        notes={"next": "Now yours."},
    )


@pytest.mark.parametrize("found", [True, False])
def test_the_page_is_whole_and_fetches_nothing(index: DetectionIndex, found: bool):
    html = report_html(report(index, found))
    tags = read(html)
    assert (tags.open, tags.wrong, tags.fetched) == ([], [], [])
    assert not re.search(r"https?://|@import|url\(", html)
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html).lower()
    for anchor in ("pictures", "precision", "overlap", "curves", "confusion", "training", "timings", "next"):
        assert f'<section id="{anchor}">' in html
        assert f'href="#{anchor}"' in html


def test_names_from_outside_are_escaped(index: DetectionIndex):
    html = report_html(report(index))
    assert "<dog>" not in html
    assert "cat &amp; &lt;dog&gt;" in html
    assert "a&lt;b&gt;.jpg" in html
    assert "boxwright detect &lt;x&gt;" in html


def test_what_is_missing_is_left_out(index: DetectionIndex):
    full = report(index)
    html = report_html(Report(title="t", lead="l", result=full.result))
    for anchor in ("pictures", "confusion", "training", "timings", "next"):
        assert f'id="{anchor}"' not in html
    assert 'id="precision"' in html


def test_figures_are_those_of_the_result(index: DetectionIndex):
    whole = report(index)
    html = report_html(whole)
    assert f"<b>{percent(whole.result.stats['AP50'])} %</b>" in html
    assert "1 min 15 s" in html
    assert "Keep detections with a score of 0.40 or more" in html


def test_the_file_appears_whole(index: DetectionIndex, tmp_path: Path):
    path = write_report(tmp_path / "deep" / "report.html", report(index))
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.2, 0.4, 0.6, 0.8, 1.0]),
        (0.5, 0.95, [0.5, 0.6, 0.7, 0.8, 0.9]),
        (0, 1230, [0, 250, 500, 750, 1000]),
        (0.00031, 0.00079, [0.0004, 0.0005, 0.0006, 0.0007]),
    ],
)
def test_ticks_are_round(low: float, high: float, expected: list[float]):
    assert ticks(low, high) == pytest.approx(expected)


def test_a_line_is_interrupted_where_it_is_not_defined():
    svg = line_chart([Series("a", [0, 1, 2, 3, 4], [1, 2, math.nan, 2, 1], "red")], Axis("x"), Axis("y"), "a chart")
    assert svg.count("<polyline") == 2
    assert 'aria-label="a chart"' in svg


def test_charts_without_data_say_so():
    assert "nothing to show" in line_chart([Series("a", [0], [math.nan], "red")], Axis("x"), Axis("y"), "empty")
    assert "<svg" in line_chart([Series("a", [3], [2], "red", markers=True)], Axis("x"), Axis("y"), "one point")


def test_smoothing_keeps_a_constant_and_the_first_value():
    assert smooth([2.0] * 5) == pytest.approx([2.0] * 5)
    assert smooth([4.0, 0.0], weight=0.5) == pytest.approx([4.0, 4 / 3])
    assert smooth([math.nan, 3.0])[1] == pytest.approx(3.0)


def test_tables_show_shares_in_percent_and_counts_as_they_are():
    html = table(["class", "objects", "AP"], [["a", 12, 0.345], ["b", 0, math.nan]])
    assert "<td>12</td>" in html
    assert ">34.5</td>" in html
    assert ">–</td>" in html


@pytest.mark.parametrize(("seconds", "text"), [(8.44, "8.4 s"), (59.96, "60.0 s"), (200.2, "3 min 20 s")])
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text
