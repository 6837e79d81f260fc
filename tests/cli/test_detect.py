"""The command ``boxwright detect``."""

import errno
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from boxwright.cli.app import main
from tests.support.command_line import fails, json_output
from tests.support.heic import hide_pillow_heif, write_heic


def test_detect_resumes_and_reports_unreadable_files(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    photos, out = tmp_path / "photos", tmp_path / "out"
    photos.mkdir()
    for path in list(scenes.rglob("train*.jpg"))[:3]:
        shutil.copy(path, photos)
    words = ["detect", run, photos, "--output", out, "--threshold", "0.01", "--device", "cpu", "--json"]
    first = json_output(capsys, *words)
    assert isinstance(first, dict)
    assert (first["images"], first["pictures"], first["failed"]) == (3, 3, [])
    results = json.loads((out / "detections.json").read_text())
    assert len(results) == first["detections"] > 0
    whole = next(photos.iterdir()).read_bytes()
    (photos / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    second = json_output(capsys, *words, code=1)
    assert isinstance(second, dict)
    assert (second["skipped"], second["images"]) == (3, 0)
    assert "cut.jpg" in second["failed"][0]["message"]
    assert json.loads((out / "detections.json").read_text()) == results
    assert main([str(word) for word in words[:-1]]) == 1
    assert "1 could not be read" in capsys.readouterr().out
    words[words.index("0.01")] = "0.4"
    assert "threshold was 0.01, is 0.4" in fails(capsys, *words)


def test_detect_with_bf16_agrees_with_fp32(run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    image = next(scenes.rglob("val*.jpg"))
    counts = []
    for precision in ("fp32", "bf16"):
        words = ["detect", run, image, "--output", tmp_path / precision, "--threshold", 0, "--precision", precision]
        value = json_output(capsys, *words, "--device", "cpu", "--no-pictures", "--json")
        assert isinstance(value, dict)
        counts.append(value["detections"])
    assert abs(counts[0] - counts[1]) <= 0.2 * counts[0]
    words = ["--device", "cpu", "--precision", "fp16"]
    assert "fp16 on a CPU" in fails(capsys, "detect", run, image, "--output", tmp_path / "x", *words)
    assert "fp16 on a CPU" in fails(capsys, "evaluate", run, "--data", scenes, *words)


def test_bf16_without_hardware_support_warns(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    image, words = next(scenes.rglob("val*.jpg")), ["--device", "cpu", "--precision"]
    for precision, warned in (("bf16", True), ("fp32", False)):
        assert main(["detect", str(run), str(image), "--output", str(tmp_path / precision), *words, precision]) == 0
        assert ("no instructions for bf16" in capsys.readouterr().err) == warned


def test_a_full_disk_is_reported(
    run: Path, scenes: Path, tmp_path: Path, monkeypatch, capsys: pytest.CaptureFixture[str]
):
    from boxwright.app.detection.results import ResultFolder

    def full(self, *_):
        raise OSError(errno.ENOSPC, "No space left on device", str(tmp_path / "out" / "journal.jsonl"))

    monkeypatch.setattr(ResultFolder, "add", full)
    image = next(scenes.rglob("val*.jpg"))
    message = fails(capsys, "detect", run, image, "--output", tmp_path / "out", "--device", "cpu")
    assert "the disk is full" in message
    assert "journal.jsonl" in message


@pytest.mark.gpu
def test_detect_on_a_gpu_enlarges_the_batch_and_agrees_with_the_cpu(
    run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    found = {}
    for device in ("cpu", "cuda"):
        out = tmp_path / device
        value = json_output(
            capsys,
            "detect",
            run,
            scenes,
            "--recursive",
            "--output",
            out,
            "--device",
            device,
            "--threshold",
            0,
            "--json",
        )
        assert isinstance(value, dict)
        assert value["images"] == 11
        assert device == "cpu" or value["batch_size"] > 2
        found[device] = json.loads((out / "detections.json").read_text())
    assert len(found["cpu"]) == pytest.approx(len(found["cuda"]), rel=0.02)


@pytest.mark.parametrize("address", ["rtsp://192.168.0.1:554/stream1", "https://example.org/bus.jpg", "0"])
def test_addresses_are_refused(run: Path, address: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    message = fails(capsys, "detect", run, address, "--output", tmp_path / "out")
    assert message.startswith(f"error: {address}: addresses (streams, web pages, cameras) are not read; download")
    assert not (tmp_path / "out").exists()


def test_images_that_cannot_be_read_are_named_and_the_others_done(
    run: Path, scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    photos, words = tmp_path / "photos", ["--output", tmp_path / "out", "--device", "cpu", "--threshold", "0", "--json"]
    heic = write_heic(photos / "IMG_0001.HEIC", np.full((96, 96, 3), 200, dtype=np.uint8))
    shutil.copy(next(scenes.rglob("val*.jpg")), photos)
    both = json_output(capsys, "detect", run, photos, *words)
    assert isinstance(both, dict)
    assert (both["images"], both["failed"]) == (2, [])
    hide_pillow_heif(monkeypatch)
    one = json_output(capsys, "detect", run, photos, *words, "--overwrite", code=1)
    assert isinstance(one, dict)
    assert one["images"] == 1
    (failure,) = one["failed"]
    assert failure["path"] == str(heic)
    assert failure["message"].endswith("pip install 'boxwright[heic]'")
    assert str(heic) in fails(capsys, "detect", run, heic, *words[:-1])


def test_a_list_of_images_is_read(run: Path, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    images = sorted(scenes.rglob("val*.jpg"))[:2]
    (tmp_path / "list.txt").write_text("".join(f"{image}\n" for image in images))
    words = ["--output", tmp_path / "out", "--device", "cpu", "--json"]
    value = json_output(capsys, "detect", run, tmp_path / "list.txt", *words)
    assert isinstance(value, dict)
    assert value["images"] == 2
    (tmp_path / "list.txt").write_text("missing.jpg")
    message = fails(capsys, "detect", run, tmp_path / "list.txt", *words[:-1])
    assert "list.txt, line 1: missing.jpg: no such file" in message
