"""A full disk stops every command with the name of the file and the remedy, and leaves no incomplete file.

A limit on the size of files makes the system refuse to write, so that no disk must be filled.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from boxwright.app.detection.results import Record, ResultFolder
from boxwright.app.detection.sources import MediaFile
from boxwright.app.detection.video import VideoWriter
from boxwright.cli.app import main
from boxwright.data.proposals.files import ProposalSet
from boxwright.data.scenes.write import write_scenes
from boxwright.io.files import write_error
from boxwright.io.images import save_image
from boxwright.structures import InputError

resource = pytest.importorskip("resource", reason="the system has no limits on file sizes")


@contextmanager
def full(size: int = 2000) -> Iterator[None]:
    """Limit the size of every file that is written to ``size`` bytes."""
    limits, compiled = resource.getrlimit(resource.RLIMIT_FSIZE), sys.dont_write_bytecode
    sys.dont_write_bytecode = True  # an import would leave a truncated bytecode file
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        sys.dont_write_bytecode = compiled


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("scenes") / "s", {"train": 3}, size=(128, 128))


def contents(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*"))


@pytest.mark.parametrize(
    ("line", "named"),
    [
        ("data scenes OUT/scenes --train 1 --val 1 --size 128 128", "OUT/scenes/"),
        ("data show SCENES --output OUT/page.html --count 2", "OUT/page.html"),
        ("data show SCENES --output OUT/page.png --count 2", "OUT/page.png"),
        ("data convert SCENES OUT/voc --format voc", "OUT/voc"),
        ("data filter SCENES --output OUT/part --min-size 4", "OUT/part"),
        ("data merge SCENES OTHER --output OUT/both", "OUT/both"),
        ("data split SCENES --output OUT/divided --val 1", "OUT/divided"),
        ("data tile SCENES --output OUT/tiles --size 64", "OUT/tiles"),
        ("evaluate --detections FOUND --data SCENES --plots OUT", "OUT/thresholds.png"),
        ("evaluate --detections FOUND --data SCENES --save OUT/found.json", "OUT/found.json"),
    ],
)
def test_commands(line: str, named: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, found = tmp_path / "out", tmp_path / "found.json"
    out.mkdir()
    row = '{"image_id": 1, "category_id": 1, "bbox": [10, 10, 20, 20], "score": 0.5}'
    found.write_text(f"[{', '.join([row] * 60)}]")
    other = shutil.copytree(scenes, tmp_path / "other")
    paths = {"OUT": str(out), "SCENES": str(scenes), "OTHER": str(other), "FOUND": str(found)}
    words = [paths.get(word, word.replace("OUT/", f"{out}/")) for word in line.split()]
    with full():
        assert main(words) == 2
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    assert named.replace("OUT", str(out)) in printed
    assert "too large" in printed
    assert contents(out) == []


@pytest.mark.parametrize("images", ["copy", "link"])
def test_convert_suggests_links_instead_of_copies(
    images: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only a copy fails at an image; with links the annotation file is the first that does not fit."""
    with full(500):
        assert (
            main(["data", "convert", str(scenes), str(tmp_path / "out"), "--format", "coco", "--images", images]) == 2
        )
    assert ("or use `link` for the images" in capsys.readouterr().err) == (images == "copy")


def test_the_journal_of_detections(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"x")
    folder = ResultFolder(tmp_path / "out", {"threshold": 0.5})
    entry = {"image_id": 0, "category_id": 1, "bbox": [1.0, 2.0, 3.0, 4.0], "score": 0.9}
    with full(), pytest.raises(InputError, match=r"journal\.jsonl: the file is too large"):
        folder.add(MediaFile(tmp_path / "a.png", "image", "a.png"), [Record(9, 9, [entry] * 100)])


def test_a_video(tmp_path: Path) -> None:
    pytest.importorskip("av")
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    target = tmp_path / "v.mp4"

    def record() -> None:
        with VideoWriter(target, Fraction(5)) as writer:
            for turn in range(8):
                writer.write(Image.fromarray(np.roll(noise, 7 * turn, 1)))

    with full(), pytest.raises(InputError, match=r"v\.mp4: the file is too large"):
        record()
    assert contents(tmp_path) == []


def test_proposals(tmp_path: Path) -> None:
    boxes = np.tile(np.array([[1, 2, 9, 9]], dtype=np.float32), (500, 1))
    made = ProposalSet(
        boxes=boxes, scores=np.ones(500, np.float32), offsets=np.array([0, 500]), image_ids=np.array([1]),
        sizes=np.array([[20, 20]]), marks=np.array([0]), names=np.array(["a.png"]), method="m", fingerprint="f",
    )  # fmt: skip
    with full(), pytest.raises(InputError, match=r"p\.safetensors: the file is too large: .* MB are needed"):
        made.save(tmp_path / "p.safetensors")
    assert contents(tmp_path) == []


def test_free_space_is_reported_for_a_deleted_folder(tmp_path: Path) -> None:
    error = OSError(28, "No space left on device")
    assert "the disk is full: " in str(write_error(tmp_path / "gone" / "too" / "a.png", error))


@pytest.mark.parametrize("suffix", ["jpg", "png", "bmp"])
def test_a_truncated_image_is_an_error(suffix: str, tmp_path: Path) -> None:
    """Pillow ignores that the system wrote only a part of the data."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    target = tmp_path / f"a.{suffix}"
    with full(1000), pytest.raises(InputError, match=f"{target}: the file is too large"):
        save_image(noise, target)
    assert contents(tmp_path) == []
    save_image(noise, target)
    with Image.open(target) as again:
        assert again.size == (40, 40)
