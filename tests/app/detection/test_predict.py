"""Detection on files, with a function that finds a bright spot in place of a model."""

import csv
import json
import os
import re
import struct
import zlib
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from boxwright.app.detection.batches import BatchRunner
from boxwright.cli.detect import print_predicted
from boxwright.detections import Detections
from boxwright.structures import Classes, InputError
from tests.support.spots import find_spot, run, spot_image


class Counting:
    """``find_spot`` that records the batch sizes, and runs out of memory above ``most`` images."""

    def __init__(self, most: int = 99) -> None:
        self.most, self.batches = most, []

    def __call__(self, images: list[np.ndarray]) -> list[Detections]:
        if len(images) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        self.batches.append(len(images))
        return find_spot(images)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    spot_image(5, 6).save(folder / "1.png")
    spot_image(20, 30).save(folder / "2.jpg", quality=95)
    spot_image(3, 40, (48, 64)).save(folder / "deep" / "3.bmp")
    Image.new("RGB", (64, 48)).save(folder / "4.gif")
    return folder


def test_images_give_drawings_coco_and_csv(photos: Path, tmp_path: Path):
    out = tmp_path / "out"
    summary = run([photos], out)
    assert (summary.images, summary.pictures, summary.detections, summary.failed) == (4, 4, 3, [])
    images = json.loads((out / "images.json").read_text())
    names = {image["id"]: image["file_name"] for image in images["images"]}
    assert list(names.values()) == ["1.png", "2.jpg", "4.gif", "deep/3.bmp"]
    assert images["categories"] == [{"id": 7, "name": "spot"}, {"id": 9, "name": "other"}]
    results = json.loads((out / "detections.json").read_text())
    first = next(r for r in results if names[r["image_id"]] == "1.png")
    assert first == {"image_id": 1, "category_id": 7, "bbox": [5.0, 6.0, 10.0, 10.0], "score": 0.75}
    rows = list(csv.DictReader((out / "detections.csv").open()))
    assert [(row["file"], row["class"]) for row in rows] == [(names[r["image_id"]], "spot") for r in results]
    for name in ("1.png", "2.jpg", "deep/3.bmp", "4.gif.png"):
        assert Image.open(out / "pictures" / name).size in ((64, 48), (48, 64))
    assert (np.asarray(Image.open(out / "pictures" / "1.png")) != np.asarray(Image.open(photos / "1.png"))).any()


def test_a_second_run_processes_new_and_changed_files_only(photos: Path, tmp_path: Path):
    out, detect = tmp_path / "out", Counting()
    run([photos], out)
    before = (out / "detections.json").read_text()
    assert run([photos], out, detect).skipped == 4
    assert detect.batches == []
    assert (out / "detections.json").read_text() == before
    spot_image(1, 1).save(photos / "1.png", compress_level=0)
    spot_image(8, 8).save(photos / "5.png")
    summary = run([photos], out, detect)
    assert (summary.skipped, summary.images, summary.pictures) == (3, 2, 5)


def test_an_interrupted_run_continues(photos: Path, tmp_path: Path):
    """A run is stopped after two images, with an incomplete line in the journal. The final result is the same."""
    out = tmp_path / "out"

    calls: list[int] = []

    def interrupted(images: list[np.ndarray]) -> list[Detections]:
        calls.append(len(images))
        if len(calls) > 2:
            raise KeyboardInterrupt
        return find_spot(images)

    with pytest.raises(KeyboardInterrupt):
        run([photos], out, interrupted, batch_size=1)
    with (out / "journal.jsonl").open("a") as file:
        file.write('{"path": "/some')
    assert not (out / "detections.json").exists()
    summary = run([photos], out, batch_size=1)
    assert 0 < summary.skipped <= 2
    run([photos], tmp_path / "whole", batch_size=1)
    assert (out / "detections.json").read_text() == (tmp_path / "whole" / "detections.json").read_text()


def test_other_settings_do_not_mix_with_old_results(photos: Path, tmp_path: Path):
    run([photos], tmp_path / "out")
    with pytest.raises(InputError, match=r"threshold was 0\.5, is 0\.3.*--overwrite"):
        run([photos], tmp_path / "out", settings={"threshold": 0.3})
    assert run([photos], tmp_path / "out", settings={"threshold": 0.3}, overwrite=True).images == 4


def test_unreadable_images_are_named_and_the_others_processed(photos: Path, tmp_path: Path, capsys):
    whole = (photos / "2.jpg").read_bytes()
    (photos / "broken.jpg").write_bytes(whole[: len(whole) // 2])
    (photos / "text.jpg").write_text("not an image")
    summary = run([photos], tmp_path / "out")
    assert summary.images == 4
    assert sorted(Path(failure.path).name for failure in summary.failed) == ["broken.jpg", "text.jpg"]
    assert "broken.jpg" in capsys.readouterr().err


def test_drawings_can_be_left_out(photos: Path, tmp_path: Path):
    run([photos], tmp_path / "out", pictures=False)
    assert not (tmp_path / "out" / "pictures").exists()


def test_drawings_of_an_earlier_run_are_no_sources(photos: Path):
    run([photos], photos / "out")
    assert run([photos], photos / "out").skipped == 4
    assert len(json.loads((photos / "out" / "images.json").read_text())["images"]) == 4


def test_out_of_memory_halves_the_batch_for_good():
    detect = Counting(most=2)
    runner = BatchRunner(detect, torch.device("cpu"), 8)
    images = [np.asarray(spot_image(k, k)) for k in range(7)]
    assert [int(d.boxes[0, 0]) for d in runner(images)] == list(range(7))
    assert (detect.batches, runner.size, runner.shrunk) == ([2, 2, 2, 1], 2, [7, 4])


def test_one_image_too_many_for_memory_is_an_error_with_a_remedy():
    with pytest.raises(InputError, match="not enough memory on cpu for one image"):
        BatchRunner(Counting(most=0), torch.device("cpu"), 4)([np.asarray(spot_image(0, 0))])


def test_other_errors_pass():
    def broken(images: list[np.ndarray]) -> list[Detections]:
        raise RuntimeError("shapes differ")

    with pytest.raises(RuntimeError, match="shapes differ"):
        BatchRunner(broken, torch.device("cpu"), 4)([np.asarray(spot_image(0, 0))])


@pytest.mark.parametrize("suffix", ["gif", "webp", "tif", "png"])
def test_the_further_frames_of_an_animation_are_spoken_of(
    tmp_path: Path, suffix: str, capsys: pytest.CaptureFixture[str]
):
    frames = [spot_image(x, 20) for x in (5, 20, 40)]
    path = tmp_path / f"a.{suffix}"
    frames[0].save(path, save_all=True, append_images=frames[1:])
    summary = run([path], tmp_path / "out")
    assert (summary.images, summary.failed) == (1, [])
    assert summary.notes == [f"{path}: of its 3 frames or pages, only the first is read"]
    assert f"note: {summary.notes[0]}" in capsys.readouterr().err
    (found,) = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert abs(found["bbox"][0] - 5) <= 1


def test_bad_images_amid_a_folder_are_named_and_the_others_done(photos: Path, tmp_path: Path):
    whole = (photos / "2.jpg").read_bytes()
    bad = {
        "b.jpg": (whole[:-40], "the image is damaged"),
        "c.png": (b"", "the file is empty"),
        "d.png": (png_header(100_000, 100_000), r"100000x100000 is 10,000,000,000 pixels, more than the limit"),
        "e.png": (png_header(0, 10), "none of the image formats"),
        "f.jpg": (b"version https://git-lfs.github.com/spec/v1\noid", "a pointer of Git LFS .* `git lfs pull`"),
        "g.jpg": (b"\n<!DOCTYPE html><html>404</html>", "this is a web page, not an image"),
        "h.jpg": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n", "drawings in EPS are not read"),
    }
    for name, (content, _) in bad.items():
        (photos / name).write_bytes(content)
    (photos / "dead.jpg").symlink_to("nowhere.jpg")
    Image.new("RGB", (30_000, 1)).save(photos / "thin.png")
    summary = run([photos], tmp_path / "out")
    assert summary.images == 5
    messages = {Path(failure.path).name: failure.message for failure in summary.failed}
    assert set(messages) == {*bad, "dead.jpg"}
    for name, (_, words) in bad.items():
        assert re.search(f"{re.escape(name)}: .*{words}", messages[name])
    assert re.search(r"dead\.jpg: this is a link to .*nowhere\.jpg, which does not exist", messages["dead.jpg"])


def png_header(width: int, height: int) -> bytes:
    """A PNG file that claims a size and has no pixels."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(b"")))
    parts = (struct.pack(">I", len(d)) + kind + d + struct.pack(">I", zlib.crc32(kind + d)) for kind, d in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_hostile_names_of_classes_and_files_are_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing fails, no cell of the table is a formula, and no escape code reaches the terminal."""
    classes = Classes(("=cmd|'/c calc'!A0", "+1"), (7, 9))
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ("=1+1\x1b[2J.png", "-a\nb.png", os.fsdecode(b"caf\xe9.png"), "\u202egnp.exe.png")
    for name in names:
        spot_image(5, 6).save(folder / name)
    (folder / "@\x1b]0;title\x07.jpg").write_bytes(b"damaged")
    summary = run([folder], tmp_path / "out", partial(find_spot, classes=classes), classes=classes)
    assert (summary.images, summary.detections, len(summary.failed)) == (4, 4, 1)
    with (tmp_path / "out" / "detections.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {"'=cmd|'/c calc'!A0"}
    assert {row["file"] for row in rows} == {r"'=1+1\x1b[2J.png", r"'-a\nb.png", r"caf\xe9.png", r"\u202egnp.exe.png"}
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert {image["file_name"] for image in images["images"]} == set(names)  # as they are, for programs
    assert images["categories"][0]["name"] == classes.names[0]
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 4
    print_predicted(summary, Console(soft_wrap=True))
    captured = capsys.readouterr()
    assert r"@\x1b]0;title\x07.jpg" in captured.out
    assert r"@\x1b]0;title\x07.jpg" in captured.err
    assert not set(captured.out + captured.err) & {"\x1b", "\x07", "\u202e"}


@pytest.mark.parametrize(
    ("line", "content"),
    [
        (1, "[]"),
        (1, '{"settings": 1}'),
        (2, '{"path": 1}'),
        (2, '{"path": "a", "name": "a", "records": [1]}'),
        (2, "[" * 100_000),
        (2, "1" * 5000),
        (2, "\udcff"),
    ],
)
def test_a_journal_that_was_edited_is_refused(photos: Path, tmp_path: Path, line: int, content: str):
    run([photos], tmp_path / "out")
    journal = tmp_path / "out" / "journal.jsonl"
    lines = journal.read_text().split("\n")
    lines[line - 1] = content
    journal.write_bytes("\n".join(lines).encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=r"journal\.jsonl.*: not a .*--overwrite"):
        run([photos], tmp_path / "out")
    assert run([photos], tmp_path / "out", overwrite=True).images == 4


def test_names_as_long_as_they_can_be(tmp_path: Path):
    """A drawing of a GIF is a PNG, whose name is longer by its suffix."""
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ["n" * 250 + "1.gif", "n" * 250 + "2.gif", "\u00e9" * 125 + ".gif", "n" * 251 + ".jpg"]
    for name in names:
        spot_image(5, 6).save(folder / name)
    summary = run([folder], tmp_path / "out")
    assert (summary.images, summary.failed) == (4, [])
    drawn = {path.name for path in (tmp_path / "out" / "pictures").iterdir()}
    assert len(drawn) == 4
    assert "n" * 251 + ".jpg" in drawn
