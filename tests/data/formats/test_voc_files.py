"""VOC reader and writer."""

import re
from pathlib import Path

import numpy as np
import pytest

from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import open_dataset, open_splits
from boxwright.data.formats.problems import DatasetWarning, ProblemLog
from boxwright.data.formats.voc.layout import find_voc
from boxwright.data.formats.voc.reader import read_voc
from boxwright.data.formats.voc.writer import write_voc
from boxwright.data.images import read_image
from boxwright.structures import InputError
from tests.support.dataset_files import voc_xml, write_image, write_voc_files


def single(root: Path, xml: str, stem: str = "a", image: str | None = "a.jpg") -> Path:
    """Write a VOC root with one annotation."""
    if image:
        write_image(root / "JPEGImages" / image)
    (root / "Annotations").mkdir(parents=True, exist_ok=True)
    (root / "Annotations" / f"{stem}.xml").write_text(xml)
    return root


def test_corners_are_one_based_and_inclusive(tmp_path: Path) -> None:
    root = single(tmp_path, voc_xml("a.jpg", [("cat", 1, 1, 60, 40), ("cat", 2.5, 3, 4.25, 9)]))
    assert open_dataset(root).annotations(0).boxes.tolist() == [[0, 0, 60, 40], [1.5, 2, 4.25, 9]]
    assert open_dataset(root, voc_one_based=False).annotations(0).boxes.tolist()[0] == [1, 1, 60, 40]


def test_splits_classes_and_trainval(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path, {"val": ["c"], "train": ["a", "b"], "trainval": ["a", "b", "c"]})
    (root / "ImageSets/Main/cat_train.txt").write_text("a -1\nb  1\n")
    (root / "Annotations/c.xml").write_text(voc_xml("c.jpg", [("ant", 2, 3, 30, 20)]))
    splits = open_splits(root)
    assert {name: len(s) for name, s in splits.items()} == {"train": 2, "val": 1}
    assert splits["train"].classes.names == ("ant", "cat")  # over all splits, so that labels agree
    assert splits["train"].annotations(0).labels.tolist() == [1]
    assert len(open_dataset(root, "trainval")) == 3
    assert len(open_dataset(root / "Annotations", "val")) == 1
    (root / "labels.txt").write_text("cat\nbird\nant\n")
    assert open_dataset(root, "val").classes.names == ("cat", "bird", "ant")
    layout = find_voc(root)
    assert layout is not None
    assert read_voc(layout, ["val"], names=["ant", "cat"])["val"].annotations(0).labels.tolist() == [0]
    with pytest.raises(
        InputError, match=r"c\.xml, line 4, object ant: is not among the 1 classes; add it to labels.txt"
    ):
        read_voc(layout, ["val"], names=["cat"])


@pytest.mark.parametrize(
    ("folders", "expected"),
    [
        (("ImageSets/Main", "Annotations", "images"), ["val"]),
        (("ImageSets", "Annotations", "JPEGImages"), ["val"]),
        ((None, "valid", "valid"), ["val"]),  # Roboflow: images and XML files together in the folder of the split
        ((None, ".", "."), ["all"]),
        ((None, "VOCdevkit/VOC2012/Annotations", "VOCdevkit/VOC2012/JPEGImages"), ["all"]),
    ],
)
def test_layouts(tmp_path: Path, folders: tuple[str | None, str, str], expected: list[str]) -> None:
    lists, annotations, images = folders
    write_image(tmp_path / images / "a.jpg")
    (tmp_path / annotations).mkdir(parents=True, exist_ok=True)
    (tmp_path / annotations / "a.xml").write_text(voc_xml("a.jpg", [("cat", 1, 1, 9, 9)]))
    if lists:
        (tmp_path / lists).mkdir(parents=True)
        (tmp_path / lists / "val.txt").write_text("a\n\n")
    splits = open_splits(tmp_path)
    assert list(splits) == expected
    assert splits[expected[0]].path(0).is_file()


@pytest.mark.parametrize(
    ("stem", "name", "image"),
    [
        ("a", "a", "a.png"),  # no suffix in the tag
        ("a", "wrong.jpg", "a.jpg"),
        ("a", "", "a.jpg"),
        ("0001", "photo.png", "photo.png"),
        ("0001", "C:\\data\\photo.png", "photo.png"),
        ("x.mp4#t=5", "x.mp4#t=5.jpg", "x.mp4#t=5.jpg"),
    ],
)
def test_the_image_of_an_annotation(tmp_path: Path, stem: str, name: str, image: str) -> None:
    root = single(tmp_path, voc_xml(name, [("cat", 1, 1, 9, 9)]), stem, image)
    assert open_dataset(root).path(0) == root / "JPEGImages" / image


def test_parts_and_tag_order_do_not_matter(tmp_path: Path) -> None:
    part = "<part><name>head</name><bndbox><xmin>1</xmin><ymin>1</ymin><xmax>2</xmax><ymax>2</ymax></bndbox></part>"
    xml = (
        f"<annotation><object>{part}<bndbox><ymax>20</ymax><xmax>30</xmax><xmin>11</xmin><ymin>5</ymin></bndbox>"
        "<difficult>1</difficult><name> cat </name></object><size><height>40</height><width>60.0</width></size>"
        "</annotation>"
    )
    index = open_dataset(single(tmp_path, xml))
    assert index.annotations(0).boxes.tolist() == [[10, 4, 30, 20]]
    assert index.annotations(0).difficult.tolist() == [True]
    assert index.classes.names == ("cat",)


def test_size_missing_or_zero_is_read_from_the_image(tmp_path: Path) -> None:
    for size in ("", "0 0"):
        root = single(tmp_path, voc_xml("a.jpg", [("cat", 1, 1, 9, 9)], size))
        assert open_dataset(root).size(0) == (40, 60)
    (root / "JPEGImages/a.jpg").unlink()
    with pytest.raises(InputError, match=r"a\.xml, size: is missing or 0"):
        open_dataset(root)


@pytest.mark.parametrize(
    ("xml", "message"),
    [
        ("<annotation>\n<object></annotation>", r"a\.xml, line 2, column \d+: not valid XML"),
        ("", r"a\.xml.*not valid XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]>\n<annotation/>', r"a\.xml, line 1: declares a document type"),
        ("<html/>", "root element is <html>"),
        ("<annotation>\n<object><name>cat</name></object></annotation>", r"line 2, object cat: has no bndbox"),
        ("<annotation>\n\n<object><bndbox/></object></annotation>", "line 3: an object has no name"),
    ],
)
def test_what_cannot_be_read_names_file_and_line(tmp_path: Path, xml: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        open_dataset(single(tmp_path, xml))


def test_a_list_that_names_no_annotation(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path, {"train": ["a"], "val": ["b"]})
    (root / "ImageSets/Main/val.txt").write_text("b\nlost\n")
    with pytest.raises(InputError, match=r"val\.txt, line 2: `lost` has no Annotations/lost\.xml"):
        open_dataset(root, "val")
    assert len(open_dataset(root, "train")) == 1  # the other split is complete


def test_written_and_read_again(tmp_path: Path) -> None:
    xml = voc_xml("a.jpg", [("cat & dog", 1, 1, 60, 40), ("ant", 2.5, 3.1, 14.2, 9)]).replace("&", "&amp;")
    before = open_splits(single(tmp_path / "in", xml))
    assert write_voc(tmp_path / "out", before, fractions=True).announcements == []
    after = open_splits(tmp_path / "out")["all"]
    np.testing.assert_allclose(after.annotations(0).boxes, before["all"].annotations(0).boxes, atol=1e-6)
    assert after.classes == before["all"].classes
    text = (tmp_path / "out/Annotations/a.xml").read_text()
    assert re.search("<xmin>1</xmin><ymin>1</ymin><xmax>60</xmax><ymax>40</ymax>", text)
    with pytest.raises(InputError, match="cannot be left in place"):
        write_voc(tmp_path / "none", before, images="none")


def test_bad_inputs(shared_data: Path) -> None:
    """Every real annotation file is read or refused by name, and boxes without area are dropped."""
    log = ProblemLog()
    layout = find_voc(shared_data / "bad_inputs")
    assert layout is not None
    index = read_voc(layout, log=log)["all"]
    dropped = {(Path(p.file).name, p.place) for p in log.problems if p.kind == "no-area"}
    assert dropped == {
        ("BloodImage_00338.xml", "line 158, object RBC"), ("BloodImage_00343.xml", "line 50, object RBC"),
        ("FISH0041.xml", "line 26, object fish"), ("helmet_000057.xml", "line 74, object head"),
        ("helmet_002014.xml", "line 14, object head"), ("helmet_002014.xml", "line 26, object head"),
    }  # fmt: skip
    names = [xml.stem for xml in layout.splits["all"]]
    counts = {name: len(index.annotations(i).labels) for i, name in enumerate(names)}
    assert counts == {
        "BloodImage_00338": 13, "BloodImage_00343": 11, "FISH0041": 2, "dayride_type1_001.mp4#t=1055": 2,
        "helmet_000057": 6, "helmet_002014": 11, "kangaroo_00090": 3, "no_objects_float_cvat": 0,
        "tag_order_xmin_xmax_ymin_ymax": 2,
    }  # fmt: skip
    swapped = names.index("tag_order_xmin_xmax_ymin_ymax")
    assert index.annotations(swapped).boxes.tolist() == [[111, 184, 129, 198], [161, 59, 184, 75]]
    plate = names.index("dayride_type1_001.mp4#t=1055")
    assert read_image(index.path(plate)).shape[:2] == index.size(plate)
    with pytest.raises(InputError, match=r"00090\.jpg: there is no such image"):
        read_image(index.path(names.index("kangaroo_00090")))


def test_bccd_agrees_with_its_json(shared_data: Path) -> None:
    """Images, labels and box counts are equal. The JSON has unchanged corners, so its boxes start a pixel later."""
    with pytest.warns(DatasetWarning, match=r"no area; left out \(and 1 more\)"):
        xml = open_splits(shared_data / "bccd/Annotations")
    for split, ours in open_splits(shared_data / "bccd").items():
        theirs = xml[split]
        assert [theirs.path(i) for i in range(len(theirs))] == [ours.path(i) for i in range(len(ours))]
        for i in range(len(ours)):
            a, b = ours.annotations(i), theirs.annotations(i)
            names = [[s.classes.names[k] for k in r.labels] for s, r in ((ours, a), (theirs, b))]
            assert names[0] == names[1]
            np.testing.assert_array_equal(a.boxes, b.boxes + np.array([1, 1, 0, 0]))


def shot(root: Path, path: str, size: tuple[int, int] = (40, 60), seed: int = 0) -> Path:
    return write_image(root / path, *size, seed=seed)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("0", False), ("False", False), ("Unspecified", False), ("", False), ("0.0", False), ("1", True), ("True", True)],
)
def test_flags_as_text(tmp_path: Path, text: str, expected: bool) -> None:
    extra = f"<pose>left</pose><truncated>{text}</truncated><occluded>{text}</occluded>"
    xml = voc_xml("a.jpg", [("cat", 1, 1, 9, 9)], extra=extra).replace("<difficult>0<", f"<difficult>{text}<")
    log = ProblemLog()
    layout = find_voc(single(tmp_path, xml))
    assert layout is not None
    index = read_voc(layout, log=log)["all"]
    assert index.difficult.tolist() == index.truncated.tolist() == index.occluded.tolist() == [expected]
    assert index.poses == ["Left"]
    assert log.problems == []


@pytest.mark.parametrize("tag", ["difficult", "truncated", "occluded"])
def test_flags_that_say_nothing(tmp_path: Path, tag: str) -> None:
    xml = voc_xml("a.jpg", [("cat", 1, 1, 9, 9)]).replace("<bndbox>", f"<{tag}>maybe</{tag}><bndbox>")
    xml = xml.replace("<difficult>0</difficult>", "")
    with pytest.raises(InputError, match=rf'a\.xml, line 4, object cat: <{tag}> is "maybe"; write 0 or 1'):
        open_dataset(single(tmp_path, xml))


def test_numbers_as_they_are_written(tmp_path: Path) -> None:
    xml = voc_xml("a.jpg", [("cat", 1, 1, 9, 9)]).replace("<xmax>9<", "<xmax> 3e1 <").replace(">60<", "> 60.0 <")
    assert open_dataset(single(tmp_path, xml)).annotations(0).boxes.tolist() == [[0, 0, 30, 9]]


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmax>9<", "<xmax>9,5<", 'object cat: has no bndbox with four numbers: <xmax> is "9,5"'),
        ("<xmax>9<", "<xmax>true<", '<xmax> is "true"'),
        ("bndbox>", "robndbox>", r"rotated box \(robndbox\), which is not read"),
        ("<bndbox>", "<bndbox/><bndbox>", "has 2 bndbox"),
        ("<width>60<", "<width>wide<", 'a.xml, size/width: is "wide", no number of pixels'),
        ("<width>60<", "<width>-60<", 'size/width: is "-60"'),
        ("<width>60<", "<width>1e9<", "size: is 1000000000x40, more than the 250,000,000 pixels"),
        ("<width>60<", "<width>1e400<", 'size/width: is "1e400"'),
        ("<name>cat<", "<name>c\u202eat<", r"a\.xml: the name of class 0 is 'c\\u202eat'"),
    ],
)
def test_values_that_are_refused_are_shown(tmp_path: Path, old: str, new: str, message: str) -> None:
    xml = voc_xml("a.jpg", [("cat", 1, 1, 9, 9)])
    assert old in xml
    root = single(tmp_path, xml.replace(old, new))
    with pytest.raises(InputError, match=message):
        open_dataset(root)
    assert not check_dataset(root).ok


def test_names_of_two_lines_become_one(tmp_path: Path) -> None:
    root = single(tmp_path, voc_xml("a.jpg", [("traffic\n  light", 1, 1, 9, 9), ("traffic light", 1, 1, 19, 9)]))
    with pytest.warns(DatasetWarning, match=r'class name "traffic\\n  light" is read as "traffic light"'):
        index = open_dataset(root)
    assert index.classes.names == ("traffic light",)
    assert index.num_boxes == 2


def test_an_xml_file_that_contradicts_its_name(tmp_path: Path) -> None:
    """Both names are of images: the boxes may belong to either."""
    root = single(tmp_path, voc_xml("b.jpg", [("cat", 1, 1, 9, 9)]))
    shot(root, "JPEGImages/b.jpg", seed=5)
    with pytest.raises(InputError, match=r"a\.xml, filename: names b\.jpg, but a\.jpg has the name of the XML file"):
        open_dataset(root)
    assert [p.kind for p in check_dataset(root).problems if p.severity == "error"] == ["two-images"]
    (root / "JPEGImages/a.jpg").unlink()
    assert open_dataset(root).path(0) == root / "JPEGImages/b.jpg"  # a renamed XML file
    (root / "JPEGImages/b.jpg").rename(root / "JPEGImages/a.jpg")
    log = ProblemLog()
    layout = find_voc(root)
    assert layout is not None
    assert read_voc(layout, log=log)["all"].path(0) == root / "JPEGImages/a.jpg"
    assert [p.message for p in log.problems] == [
        "1 XML files name another image than that of their own name, which is taken: a.xml (b.jpg)"
    ]


def test_one_stem_with_two_suffixes(tmp_path: Path) -> None:
    root = single(tmp_path, voc_xml("a.jpg", [("cat", 1, 1, 9, 9)]))
    shot(root, "JPEGImages/a.png", seed=5)
    assert open_dataset(root).path(0) == root / "JPEGImages/a.jpg"
    (root / "Annotations/a.xml").write_text(voc_xml("a", [("cat", 1, 1, 9, 9)]))
    with pytest.raises(InputError, match=r"which image it is of: .*JPEGImages holds a\.jpg and a\.png; name one"):
        open_dataset(root)


def test_two_xml_files_of_one_image(tmp_path: Path) -> None:
    root = single(tmp_path, voc_xml("a.jpg", [("cat", 1, 1, 9, 9)]))
    (root / "Annotations/b.xml").write_text(voc_xml("a.jpg", [("cat", 11, 1, 19, 9)]))
    with pytest.raises(InputError, match=r"b\.xml, split all: its image .*a\.jpg is also that of a\.xml"):
        open_dataset(root)
    report = check_dataset(root)
    assert [(p.kind, p.severity) for p in report.problems] == [("one-image-twice", "error")]


def test_a_stem_listed_twice_counts_once(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path, {"train": ["a", "b"]})
    (root / "ImageSets/Main/train.txt").write_text("a\nb\na\n")
    with pytest.warns(DatasetWarning, match="split train: 1 entries stand more than once, the first a"):
        assert len(open_dataset(root, "train")) == 2


def test_an_image_outside_the_data_set_does_not_replace_one_inside(tmp_path: Path) -> None:
    shot(tmp_path, "JPEGImages/b.jpg")  # that of another data set
    root = write_voc_files(tmp_path / "set", {"train": ["a", "b"]})
    (root / "JPEGImages/b.jpg").unlink()
    assert open_dataset(root).path(1) == root / "JPEGImages/b.jpg"  # missing, as the check says
    assert [p.kind for p in check_dataset(root).problems if p.severity == "error"] == ["missing-image"]
    shot(tmp_path, "JPEGImages/a.jpg")
    (root / "JPEGImages/a.jpg").unlink()
    with pytest.warns(DatasetWarning, match=r"2 images were found outside the folder of the data set, .*a\.jpg"):
        assert open_dataset(root).path(0) == tmp_path / "JPEGImages/a.jpg"


def test_folders_of_annotations_have_folders_of_images(tmp_path: Path) -> None:
    for number, camera in enumerate(("one", "two")):
        shot(tmp_path, f"JPEGImages/{camera}/1.jpg", seed=number)
        (tmp_path / "Annotations" / camera).mkdir(parents=True)
        (tmp_path / "Annotations" / camera / "1.xml").write_text(voc_xml("1.jpg", [("cat", 1, 1, 9 + number, 9)]))
    index = open_dataset(tmp_path)
    assert [index.relative_path(i) for i in range(2)] == ["JPEGImages/one/1.jpg", "JPEGImages/two/1.jpg"]
    (tmp_path / "JPEGImages/two/1.jpg").rename(tmp_path / "JPEGImages/1.jpg")
    assert open_dataset(tmp_path).path(1) == tmp_path / "JPEGImages/two/1.jpg"  # missing, not that of no camera


def test_boxes_that_begin_at_zero(tmp_path: Path) -> None:
    root = single(tmp_path, voc_xml("a.jpg", [("cat", 0, 5, 9, 9), ("cat", 2, 2, 9, 9)]))
    (message,) = [p.message for p in check_dataset(root).problems if p.kind == "zero-based"]
    assert message.startswith("1 of 2 boxes begin at 0")
    assert [p.kind for p in check_dataset(root, voc_one_based=False).problems] == []


def test_boxes_in_fractions(tmp_path: Path) -> None:
    root = single(tmp_path, voc_xml("a.jpg", [("cat", 0.1, 0.2, 0.9, 0.8)] * 2))
    with pytest.raises(InputError, match=r"a\.xml: all 2 boxes lie within 0\.\.1: fractions of the image"):
        open_dataset(root)


def test_tags_that_are_not_read_take_one_line(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path, {"train": ["a", "b"]})
    extra = "<pose>Rear-left</pose><part><name>head</name></part><attributes>x</attributes>"
    for stem in ("a", "b"):
        (root / f"Annotations/{stem}.xml").write_text(voc_xml("", [("cat", 2, 3, 30, 20)] * 2, extra=extra))
    lines = [str(p) for p in check_dataset(root).problems if p.kind == "unread-key"]
    assert lines == [f"{root}/Annotations/a.xml: not read: <part>, <attributes>, <pose> (and in 1 more file)"]
