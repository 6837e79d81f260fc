"""Detection on files, with a function that finds a bright spot in place of a model."""

import csv
import json
from fractions import Fraction
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from boxwright.app.detection.batches import BatchRunner
from boxwright.app.detection.predict import Prediction, PredictSummary
from boxwright.app.detection.results import ResultFolder
from boxwright.app.detection.sources import find_sources
from boxwright.app.detection.video import VideoWriter, read_frames, video_facts
from boxwright.cli.detect import print_predicted
from boxwright.detections import Detections
from boxwright.io.files import WriteError
from boxwright.structures import Classes, InputError

CLASSES = Classes(("spot", "other"), (7, 9))


def spot_image(x: int, y: int, size: tuple[int, int] = (64, 48)) -> Image.Image:
    """A white square of 10 pixels at x, y on grey."""
    image = Image.new("RGB", size, (90, 90, 90))
    image.paste((255, 255, 255), (x, y, x + 10, y + 10))
    return image


def find_spot(images: list[np.ndarray], classes: Classes = CLASSES) -> list[Detections]:
    found = []
    for pixels in images:
        rows, columns = np.nonzero(pixels.min(axis=2) > 200)
        boxes = [[columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]] if len(rows) else []
        scores, labels = np.full(len(boxes), 0.75), np.zeros(len(boxes))
        found.append(Detections(np.array(boxes), scores, labels, classes, pixels.shape[:2]))
    return found


class Counting:
    """``find_spot`` that records the batch sizes, and runs out of memory above ``most`` images."""

    def __init__(self, most: int = 99) -> None:
        self.most, self.batches = most, []

    def __call__(self, images: list[np.ndarray]) -> list[Detections]:
        if len(images) > self.most:
            raise RuntimeError("CUDA out of memory. Tried to allocate 20 GiB")
        self.batches.append(len(images))
        return find_spot(images)


def run(
    sources, output: Path, detect=find_spot, settings=None, batch_size=2, classes=CLASSES, **options
) -> PredictSummary:
    runner = BatchRunner(detect, torch.device("cpu"), batch_size)
    overwrite = options.pop("overwrite", False)
    folder = ResultFolder(output, settings or {"threshold": 0.5}, overwrite)
    return Prediction(runner, classes, folder, **options).run(find_sources(sources, recursive=True))


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


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """Ten frames, 10 a second, in which the square moves 4 pixels a frame."""
    pytest.importorskip("av")
    path = tmp_path / "clip.mp4"
    with VideoWriter(path, Fraction(10)) as writer:
        for k in range(10):
            writer.write(spot_image(4 * k, 20))
    return path


def test_a_video_gives_rows_by_frame_and_a_drawn_video(clip: Path, tmp_path: Path):
    out = tmp_path / "out"
    summary = run([clip], out, every=3, batch_size=3)
    assert (summary.frames, summary.pictures, summary.failed) == (4, 4, [])
    rows = list(csv.DictReader((out / "detections.csv").open()))
    assert [row["frame"] for row in rows] == ["0", "3", "6", "9"]
    assert [row["time"] for row in rows] == ["0.000", "0.300", "0.600", "0.900"]
    assert [abs(float(row["x1"]) - 4 * int(row["frame"])) <= 1 for row in rows] == [True] * 4
    assert video_facts(out / "videos" / "clip.mp4").frames == 4
    drawn = next(read_frames(out / "videos" / "clip.mp4")).pixels
    assert np.abs(drawn.astype(int) - np.asarray(spot_image(0, 20)).astype(int)).max() > 60
    assert run([clip], out, every=3).skipped == 1


def test_frames_are_upright_and_numbered(clip: Path):
    frames = list(read_frames(clip, every=4))
    assert [(f.number, round(f.time, 3), f.pixels.shape) for f in frames] == [
        (0, 0.0, (48, 64, 3)),
        (4, 0.4, (48, 64, 3)),
        (8, 0.8, (48, 64, 3)),
    ]
    with pytest.raises(InputError, match="every 0 frames"):
        next(read_frames(clip, every=0))


def test_a_file_that_is_no_video_is_named(photos: Path, tmp_path: Path):
    (photos / "noise.mp4").write_bytes(b"not a video" * 50)
    pytest.importorskip("av")
    summary = run([photos], tmp_path / "out")
    assert summary.images == 4
    assert "noise.mp4" in summary.failed[0].message


def test_a_video_that_cannot_be_written_ends_the_run(clip: Path, tmp_path: Path):
    (tmp_path / "out" / "videos" / "clip.mp4").mkdir(parents=True)
    with pytest.raises(WriteError, match=r"clip.mp4: cannot be written"):
        run([clip], tmp_path / "out")


def test_a_video_cut_short_leaves_no_half_video(tmp_path: Path):
    pytest.importorskip("av")

    def stop_after_one_frame() -> None:
        with VideoWriter(tmp_path / "x.mp4", Fraction(5)) as writer:
            writer.write(spot_image(1, 1))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop_after_one_frame()
    assert list(tmp_path.iterdir()) == []


def test_a_video_without_frames_is_not_written(tmp_path: Path):
    pytest.importorskip("av")
    with VideoWriter(tmp_path / "x.mp4", Fraction(5)):
        pass
    assert list(tmp_path.iterdir()) == []


def test_without_pyav_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch, clip: Path):
    monkeypatch.setitem(__import__("sys").modules, "av", None)
    with pytest.raises(InputError, match=r"boxwright\[video\]"):
        video_facts(clip)


def test_hostile_names_of_classes_and_files_are_harmless(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Nothing fails, no cell of the table is a formula, and no escape code reaches the terminal."""
    classes = Classes(("=cmd|'/c calc'!A0\n\x1b[31m", "+1"), (7, 9))
    folder = tmp_path / "photos"
    folder.mkdir()
    names = ("=1+1\x1b[2J.png", "-a\nb.png", "\u202egnp.exe.png")
    for name in names:
        spot_image(5, 6).save(folder / name)
    (folder / "@\x1b]0;title\x07.jpg").write_bytes(b"damaged")
    summary = run([folder], tmp_path / "out", partial(find_spot, classes=classes), classes=classes)
    assert (summary.images, summary.detections, len(summary.failed)) == (3, 3, 1)
    with (tmp_path / "out" / "detections.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["class"] for row in rows} == {r"'=cmd|'/c calc'!A0\n\x1b[31m"}
    assert {row["file"] for row in rows} == {r"'=1+1\x1b[2J.png", r"'-a\nb.png", r"\u202egnp.exe.png"}
    images = json.loads((tmp_path / "out" / "images.json").read_text())
    assert {image["file_name"] for image in images["images"]} == set(names)  # as they are, for programs
    assert images["categories"][0]["name"] == classes.names[0]
    assert len(list((tmp_path / "out" / "pictures").iterdir())) == 3
    print_predicted(summary, Console(soft_wrap=True))
    captured = capsys.readouterr()
    assert r"@\x1b]0;title\x07.jpg" in captured.out
    assert r"@\x1b]0;title\x07.jpg" in captured.err
    assert not set(captured.out + captured.err) & {"\x1b", "\x07", "\u202e"}
