"""The HTML report and its parts."""

import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from boxwright.data.index import DetectionIndex, ImageRecord
from boxwright.evaluation.coco import CocoEvaluation
from boxwright.evaluation.curves import confusion_matrix, threshold_curves
from boxwright.evaluation.voc import VocEvaluation
from boxwright.report.examples import Example, choose_examples
from boxwright.report.figures import inline_svg
from boxwright.report.page import duration, percent, table
from boxwright.report.report import Report, report_html, write_report
from boxwright.structures import Classes

CLASSES = Classes(("cat & <dog>", "bird"), (4, 9))


class Tags(HTMLParser):
    """Collects elements that are not closed, and everything that a browser would fetch."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.wrong, self.fetched = [], [], []

    def handle_starttag(self, tag, attrs):
        self.fetched += [v for k, v in attrs if k in ("src", "href", "xlink:href") and not v.startswith(("data:", "#"))]
        if tag not in ("meta", "link", "img", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag):
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


def evaluated(index: DetectionIndex, found: bool = True) -> CocoEvaluation:
    evaluation = CocoEvaluation(index)
    for i in range(len(index)):
        truth = index.annotations(i)
        keep = len(truth.boxes) if found else 0
        evaluation.update(index.image_id(i), truth.boxes[:keep] + 1, np.linspace(0.9, 0.4, keep), truth.labels[:keep])
    return evaluation


def report(index: DetectionIndex, found: bool = True) -> Report:
    evaluation = evaluated(index, found)
    columns = evaluation.detections()
    image = Image.new("RGB", (64, 48))
    return Report(
        title="A <title> & more",
        lead="What & where",
        result=evaluation.compute(),
        facts=[("3 <s>", "time")],
        examples=[Example("a<b>.jpg", image, image, 1, 0)],
        curves=threshold_curves(index, columns),
        confusion=confusion_matrix(index, columns),
        train=[{"step": step, "loss": loss, "lr": 0.1} for step, loss in ((1, 3.0), (2, None), (3, 1.0))],
        validation=[{"step": 3, "AP": 0.5}],
        timings=[("draw & train", 75.0)],
        commands=[("detect", "boxwright detect <x>")],
        notes={"next": "Now yours."},
    )


@pytest.mark.parametrize("found", [True, False])
def test_the_page_is_whole_and_fetches_nothing(index: DetectionIndex, found: bool):
    html = report_html(report(index, found))
    tags = read(html)
    assert (tags.open, tags.wrong, tags.fetched) == ([], [], [])
    names = 'xmlns(:xlink)?="http://www.w3.org/[^"]*"'
    assert not re.search(r"https?://|@import|url\((?!#)", re.sub(names, "", html))
    assert "nan" not in re.sub(r"base64,[^\"]*", "", html).lower()
    for anchor in ("examples", "metrics", "iou", "curves", "confusion", "training", "timings", "next"):
        assert f'<section id="{anchor}">' in html
        assert f'href="#{anchor}"' in html


def test_names_from_outside_are_escaped(index: DetectionIndex):
    html = report_html(report(index))
    assert "<dog>" not in html
    assert "cat &amp; &lt;dog&gt;" in html
    assert "a&lt;b&gt;.jpg" in html
    assert "boxwright detect &lt;x&gt;" in html


def test_sections_without_content_are_left_out(index: DetectionIndex):
    full = report(index)
    html = report_html(Report(title="t", lead="l", result=full.result, curves=full.curves))
    for anchor in ("examples", "masks", "confusion", "training", "timings", "next"):
        assert f'id="{anchor}"' not in html
    assert 'id="metrics"' in html


def test_masks_and_the_voc_metric_have_their_tables(index: DetectionIndex):
    coco = report(index)
    html = report_html(replace(coco, masks=coco.result))
    assert '<section id="masks">' in html
    voc = VocEvaluation(index)
    voc.extend(evaluated(index).detections())
    html = report_html(replace(coco, result=voc.compute()))
    assert "mAP: mean average precision at IoU 0.50" in html
    assert 'id="iou"' not in html
    assert read(html).wrong == []


def test_the_page_shows_the_metrics_of_the_result(index: DetectionIndex):
    whole = report(index)
    html = report_html(whole)
    assert f"<b>{percent(whole.result.stats['AP50'])} %</b>" in html
    assert "1 min 15 s" in html
    assert "Keep detections with a score of 0.40 or more" in html


def test_the_file_is_written_atomically(index: DetectionIndex, tmp_path: Path):
    path = write_report(tmp_path / "deep" / "report.html", report(index))
    assert path.read_text(encoding="utf-8").endswith("</html>\n")
    assert [p.name for p in path.parent.iterdir()] == ["report.html"]


def test_a_figure_is_one_svg_element_with_ids_of_its_own():
    figures = [Figure(figsize=(4, 3)) for _ in range(2)]
    for figure in figures:
        figure.subplots().plot([0, 1], [1, 0])
    svgs = [inline_svg(figure, f"a <chart> {number}") for number, figure in enumerate(figures)]
    assert all(svg.startswith("<svg ") and svg.endswith("</svg>") and svg.count("<svg") == 1 for svg in svgs)
    assert 'aria-label="a &lt;chart&gt; 0"' in svgs[0]
    first, second = (set(re.findall(r' id="([^"]+)"', svg)) for svg in svgs)
    assert first
    assert not first & second
    for svg, ids in zip(svgs, (first, second), strict=True):
        assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', svg)) <= ids


def test_examples_keep_the_detections_from_the_threshold_on(index: DetectionIndex):
    evaluation = evaluated(index)
    everything = choose_examples(index, evaluation.detections(), 0.0)
    counts = [(example.name, example.objects, example.detections) for example in everything]
    assert counts == [("0.png", 2, 2), ("1.png", 2, 2), ("2.png", 1, 1)]
    best = choose_examples(index, evaluation.detections(), 0.5, count=2)
    assert [(e.name, e.detections) for e in best] == [("0.png", 1), ("2.png", 1)]


def test_tables_show_shares_in_percent_and_counts_as_they_are():
    html = table(["class", "objects", "AP"], [["a", 12, 0.345], ["b", 0, math.nan]])
    assert "<td>12</td>" in html
    assert ">34.5</td>" in html
    assert ">–</td>" in html


@pytest.mark.parametrize(("seconds", "text"), [(8.44, "8.4 s"), (59.96, "60.0 s"), (200.2, "3 min 20 s")])
def test_durations_read_well(seconds: float, text: str):
    assert duration(seconds) == text
