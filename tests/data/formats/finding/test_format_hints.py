"""Data in other formats: one line says what it looks like and what to do."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from boxwright.data.formats.check import check_dataset
from boxwright.data.formats.opening import find_source
from boxwright.structures import InputError
from tests.support.dataset_files import write_drawn, yolo_line

CVAT = '<?xml version="1.0"?>\n<annotations>\n<version>1.1</version>\n<image id="0" name="a.png"></image></annotations>'
LABELME = {
    "version": "5.2",
    "flags": {},
    "shapes": [{"label": "red", "points": [[1, 2], [3, 4]]}],
    "imagePath": "a.png",
}
STUDIO = [{"id": 1, "annotations": [{"id": 1, "completed_by": 1, "result": []}], "data": {"image": "/data/a.png"}}]
STUDIO_MIN = [{"image": "/data/a.png", "label": [{"x": 1, "y": 2, "rectanglelabels": ["red"]}], "id": 1}]
VIA = {"a.png123": {"filename": "a.png", "size": 123, "regions": [{"shape_attributes": {"name": "rect"}}]}}
CREATE = [
    {"image": "a.png", "annotations": [{"label": "red", "coordinates": {"x": 1, "y": 2, "width": 3, "height": 4}}]}
]
DATUMARO = {"info": {}, "categories": {"label": {"labels": []}}, "items": [{"id": "a", "annotations": []}]}
SUPERVISELY = {"tags": [], "objects": [{"classTitle": "red", "points": {"exterior": []}}], "size": {"height": 4}}
RESULTS = [{"image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4], "score": 0.5}]
OPEN_IMAGES = "ImageID,Source,LabelName,Confidence,XMin,XMax,YMin,YMax\n0,x,/m/01,1,0.1,0.2,0.3,0.4\n"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("annotations.xml", CVAT, "CVAT XML; export the task from CVAT as COCO 1.0"),
        ("a.json", LABELME, "LabelMe JSON, one file an image; convert it to COCO with labelme2coco"),
        ("project.json", STUDIO, "Label Studio's own JSON; export again from Label Studio as COCO"),
        ("min.json", STUDIO_MIN, "Label Studio's own JSON"),
        ("via.json", VIA, "VIA JSON; in VIA choose Annotation > Export Annotations"),
        ("project.json", {"_via_settings": {}, "_via_img_metadata": VIA}, "a VIA project"),
        ("x.json", CREATE, "CreateML JSON"),
        ("default.json", DATUMARO, "Datumaro JSON; convert it with: datum convert"),
        ("a.png.json", SUPERVISELY, "Supervisely JSON"),
        ("results.json", RESULTS, "COCO results, that is detections; score them with boxwright evaluate --detections"),
        ("train.csv", OPEN_IMAGES, "Open Images CSV"),
        ("train.csv", "images/a.png,1,2,3,4,red\n", "a table of boxes, as keras-retinanet reads it"),
        ("x.csv", "filename,width,height,class,xmin,ymin,xmax,ymax\n", "a table of boxes; convert it to COCO JSON"),
        ("x.csv", "filename;file_size;region_shape_attributes\n", "VIA CSV"),
        ("train.tfrecord", b"\0\1", "TFRecord; export the data as COCO"),
        ("train.tfrecord-00000-of-00010", b"\0\1", "TFRecord"),
        ("set.zip", b"PK\3\4", "an archive; unpack it and give the folder"),
        ("labels/a.txt", "Car 0.00 0 -1.57 10.0 8.0 40.0 32.0 1.5 1.6 3.9 1.0 2.0 3.0 0.1\n", "KITTI labels"),
        ("labels/a.txt", "1 2 3 4 5.5 6 7 8 small-vehicle 0\n", "DOTA labels, rotated boxes"),
        ("labels/a.txt", "imagesource:GoogleEarth\ngsd:0.1\n1 2 3 4 5 6 7 8 plane 1\n", "DOTA labels"),
        ("gt/gt.txt", "1,1,10,8,30,24,1,1,1\n", "boxes of MOT Challenge"),
        ("gt.txt", "0--Parade/a.jpg\n1\n449 330 122 149 0 0 0 0 0 0\n", "WIDER FACE boxes"),
        ("a.jsonl", '{"file_name": "a.png", "objects": {"bbox": []}}\n', "JSON Lines"),
    ],
)
def test_hints(tmp_path: Path, name: str, content: Any, message: str) -> None:
    write_drawn(tmp_path / "images/a.png")
    file = tmp_path / name
    file.parent.mkdir(exist_ok=True)
    if not isinstance(content, bytes):
        content = (content if isinstance(content, str) else json.dumps(content)).encode()
    file.write_bytes(content)
    for read in (find_source, check_dataset):
        with pytest.raises(InputError) as caught:
            read(tmp_path)
        assert f"{name} looks like {message}" in str(caught.value)
    if not name.endswith("of-00010"):
        with pytest.raises(InputError) as caught:
            find_source(file)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)


def test_labels_without_class_names(tmp_path: Path) -> None:
    write_drawn(tmp_path / "train/a.png")
    with pytest.raises(InputError, match="There are images but no annotations; annotate them"):
        find_source(tmp_path)
    (tmp_path / "train/a.txt").write_text(yolo_line())
    with pytest.raises(InputError, match=r"The \.txt files look like YOLO labels; add a data\.yaml with `train:`"):
        find_source(tmp_path)
    (tmp_path / "a.xml").write_text("<annotation></annotation>")
    with pytest.raises(
        InputError, match=r"a\.xml: not a data set in a known format; give the folder that holds the XML"
    ):
        find_source(tmp_path / "a.xml")
    shutil.rmtree(tmp_path / "train")
    (tmp_path / "a.xml").unlink()
    with pytest.raises(InputError, match=r"Found nothing$"):
        find_source(tmp_path)


def test_the_file_that_is_recognised_is_named(tmp_path: Path) -> None:
    (tmp_path / "notes.json").write_text("{}")
    (tmp_path / "table.csv").write_text(OPEN_IMAGES)
    with pytest.raises(InputError, match=r"table\.csv looks like Open Images CSV"):
        find_source(tmp_path)


@pytest.mark.parametrize("name", ["image_info_test.json", "train.json", "deep/instances_test.json"])
def test_coco_without_boxes_is_named(tmp_path: Path, name: str) -> None:
    write_drawn(tmp_path / "images/a.png")
    (tmp_path / "deep").mkdir()
    content = {"images": [{"id": 1, "file_name": "a.png"}], "categories": [{"id": 1, "name": "red"}]}
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"no data set found.*{name} is COCO without boxes"):
        find_source(tmp_path)
