"""The check finds and names all defects without stopping at one."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from boxwright.cli.app import main
from boxwright.data.formats.check import CheckReport, check_dataset
from boxwright.structures import InputError
from tests.support.dataset_files import (
    coco_content,
    voc_xml,
    write_coco_files,
    write_image,
    write_voc_files,
    write_yolo_files,
)


def kinds(report: CheckReport, *severities: str) -> dict[str, list[str]]:
    """Return file and position of the problems, by kind."""
    found: dict[str, list[str]] = {}
    for problem in report.problems:
        if not severities or problem.severity in severities:
            found.setdefault(problem.kind, []).append(f"{Path(problem.file).name} {problem.place}".strip())
    return found


def test_a_sound_data_set(tmp_path: Path) -> None:
    write_coco_files(tmp_path, split="train")
    report = check_dataset(tmp_path)
    assert report.problems == []
    assert report.ok
    summary = report.splits["train"]
    assert (summary.images, summary.boxes, summary.classes) == (2, 2, {"dog": 1, "cat": 1})
    assert summary.sizes == {"small": 2, "medium": 0, "large": 0}
    assert summary.side_percentiles["50"] == 14.6
    assert json.loads(json.dumps(report.to_dict()))["counts"] == {"error": 0, "warning": 0, "info": 0}


def test_every_planted_defect_of_a_coco_file(tmp_path: Path) -> None:
    content = coco_content(8)
    rows = content["annotations"]
    rows[0]["bbox"] = [5, 5, 0, 9]
    rows[1]["bbox"] = [100, 5, 9, 9]
    rows[2]["bbox"] = [50, 5, 30, 9]
    rows[3]["category_id"] = 99
    rows[4]["id"] = 0
    rows[5]["id"] = 7
    rows[6]["image_id"] = 77
    rows.append(dict(rows[7], id=20))
    content["images"][0]["id"] = 0
    rows[0]["image_id"] = 0
    content["images"].append(dict(content["images"][2]))
    content["categories"].append({"id": 50, "name": "bird"})
    file = write_coco_files(tmp_path, content)
    images = tmp_path / "images"
    (images / "1.png").unlink()
    (images / "2.png").write_bytes((images / "2.png").read_bytes()[:3000])
    write_image(images / "3.png", 30, 60)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (60, 40), "red").save(images / "4.png", exif=exif)  # upright 40 wide, 60 high
    shutil.copy(images / "5.png", images / "6.png")
    write_image(images / "unused.png", seed=99)
    report = check_dataset(file)
    assert kinds(report, "error") == {
        "duplicate-image-id": ["instances_train.json image id 3"],
        "no-area": ["instances_train.json annotation id 1, image 1.png"],
        "outside": ["instances_train.json annotation id 2, image 2.png"],
        "unknown-category": ["instances_train.json annotation id 4"],
        "unknown-image": ["instances_train.json annotation id 7"],
        "duplicate-annotation-id": ["instances_train.json annotation id 7"],
        "missing-image": ["1.png split train, image id 0"],
        "damaged-image": ["2.png split train, image id 2"],
        "wrong-size": ["3.png split train, image id 3", "4.png split train, image id 4"],
    }
    assert kinds(report, "warning") == {
        "id-zero": ["instances_train.json"],
        "over-edge": ["instances_train.json annotation id 3, image 3.png"],
        "duplicate-box": ["8.png annotation id 20"],
        "class-without-objects": ["instances_train.json split train"],
        "duplicate-image": ["6.png split train, image id 6"],
    }
    assert kinds(report, "info") == {
        "exif-orientation": ["4.png split train, image id 4"],
        "no-objects": [f"{tmp_path.name} split train"],
    }
    assert not report.ok
    turned = next(p for p in report.problems if p.kind == "wrong-size" and p.file.endswith("4.png"))
    assert "before its EXIF orientation" in turned.message


def test_images_shared_by_two_splits(tmp_path: Path) -> None:
    write_coco_files(tmp_path, split="train")
    content = coco_content()
    content["images"][0]["file_name"] = "other.png"
    content["images"][1]["file_name"] = "2.png"  # the same file
    write_coco_files(tmp_path, content, split="val")
    shutil.copy(tmp_path / "images/1.png", tmp_path / "images/other.png")  # the same content
    report = check_dataset(tmp_path)
    assert kinds(report)["shared-image"] == ["other.png split val, image id 1", "2.png split val, image id 2"]
    assert not report.ok


def test_a_broken_split_does_not_hide_the_others(tmp_path: Path) -> None:
    write_coco_files(tmp_path, split="train")
    file = write_coco_files(tmp_path, split="val")
    file.write_text(file.read_text()[:-20])
    report = check_dataset(tmp_path)
    assert kinds(report) == {"unreadable": ["instances_val.json split val, line 1, column 382"]}
    assert "not valid JSON" in report.problems[0].message
    assert list(report.splits) == ["train"]


def test_classes_that_differ_between_splits(tmp_path: Path) -> None:
    write_coco_files(tmp_path, split="train")
    content = coco_content()
    content["categories"][0]["name"] = "lion"
    write_coco_files(tmp_path, content, split="val")
    assert "classes-differ" in kinds(check_dataset(tmp_path), "error")


def test_voc(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path, {"train": ["a", "b"], "val": ["c"], "trainval": ["a", "b", "c"]})
    (root / "Annotations/a.xml").write_text(voc_xml("a.jpg", [("cat", 5, 5, 5, 9), ("cat", 2, 2, 90, 20)]))
    (root / "Annotations/b.xml").write_text("<annotation><object></annotation>")
    (root / "ImageSets/Main/val.txt").write_text("c\nlost\n")
    write_image(root / "JPEGImages/stray.jpg", seed=7).write_bytes(b"broken")
    report = check_dataset(root)
    assert kinds(report) == {
        "missing-annotation": ["val.txt line 2"],
        "unreadable": ["b.xml"],
        "no-area": ["a.xml line 4, object cat"],
        "over-edge": ["a.xml line 5, object cat"],
        "stray-image": ["JPEGImages"],
        "damaged-image": ["stray.jpg not annotated"],
    }


def test_yolo(tmp_path: Path) -> None:
    text = "1 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.5 0.5\n5 0.5 0.5 0.5 0.5\n0 0.5 0.5 0 0.5\nx\n"
    write_yolo_files(tmp_path, {"train/a": text, "train/b": "0 0.5 0.5 0.5 0.5\n"})
    (tmp_path / "labels/train/gone.txt").write_text("0 0.5 0.5 0.5 0.5\n")
    (tmp_path / "images/train/b.png").write_bytes(b"broken")
    report = check_dataset(tmp_path)
    assert kinds(report, "error") == {
        "no-folder": ["data.yaml line 2, key `val`"],
        "unknown-category": ["a.txt line 3"],
        "no-area": ["a.txt line 4"],
        "bad-line": ["a.txt line 5"],
        "bad-image": ["b.png"],
    }
    assert "a.txt line 2" in kinds(report, "warning")["duplicate-box"]
    assert kinds(report, "warning")["missing-image"] == ["train"]


def test_no_data_set_at_all(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no data set found"):
        check_dataset(tmp_path)


def test_bad_inputs(shared_data: Path) -> None:
    report = check_dataset(shared_data / "bad_inputs")
    found = kinds(report)
    assert len(found["no-area"]) == 6
    assert len(found["missing-image"]) == 6
    assert found["damaged-image"] == ["kangaroo_00090_truncated.jpg not annotated"]
    assert [place.split()[0] for place in found["exif-orientation"]] == [
        "kangaroo_00076_exif_orientation_0.jpg",
        "kangaroo_00103_exif_orientation_65537.jpg",
    ]
    assert found["wrong-suffix"] == ["dayride_type1_001.mp4#t=1055.jpg split all, image id 4"]
    assert not report.ok


def test_nwpu_and_bccd(shared_data: Path) -> None:
    report = check_dataset(shared_data / "nwpu_vhr10")
    assert kinds(report) == {
        "id-zero": ["instances_train.json"],
        "similar-images": ["nwpu_vhr10 split train", "nwpu_vhr10 split val"],
    } | {k: v for k, v in kinds(report).items() if k == "unread-key"}
    assert report.ok
    assert kinds(check_dataset(shared_data / "bccd/Annotations"), "error") == {
        "no-area": ["BloodImage_00343.xml line 50, object RBC", "BloodImage_00338.xml line 158, object RBC"]
    }


def test_lines_that_say_the_same_are_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Errors keep a line each; the JSON report keeps every place."""
    content = coco_content(6)
    for row in content["annotations"][:2]:
        row["category_id"] = 99
    write_coco_files(tmp_path, content)
    exif = Image.Exif()
    exif[0x0112] = 3
    for number in (3, 4, 5, 6):
        write_image(tmp_path / f"images/{number}.png", seed=number, exif=exif)
    assert main(["data", "check", str(tmp_path)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert sum("[unknown-category]" in line for line in lines) == 2
    (turned,) = [line for line in lines if "[exif-orientation]" in line]
    assert turned.endswith("EXIF orientation 3 is applied when read (and 3 more)")
    assert main(["data", "check", str(tmp_path), "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert sum(problem["kind"] == "exif-orientation" for problem in report["problems"]) == 4
    assert report["counts"] == {"error": 2, "warning": 0, "info": report["counts"]["info"]}


def test_entries_outside_the_folder_are_named(tmp_path: Path) -> None:
    content = coco_content()
    content["images"][1]["file_name"] = "../../out.png"
    write_image(tmp_path / "out.png", seed=9)
    write_coco_files(tmp_path / "set", coco_content(1))
    (tmp_path / "set/instances_train.json").write_text(json.dumps(content))
    outside = [p for p in check_dataset(tmp_path / "set").problems if p.kind == "image-outside"]
    assert len(outside) == 1
    assert "out.png" in str(outside[0])
    assert outside[0].severity == "warning"


def test_a_file_that_cannot_be_read_is_named_once(tmp_path: Path) -> None:
    root = write_voc_files(tmp_path, {"train": ["a"]})
    (root / "labels.txt").write_bytes("\u5b89\u5168\u5e3d\n".encode("gbk"))
    (problem,) = check_dataset(root).problems
    assert (problem.kind, problem.file, problem.place) == ("unreadable", str(root / "labels.txt"), "line 1")
    assert str(problem).count("labels.txt") == 1
