"""Proposal files, made by a proposal network and by selective search."""

import importlib.util
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from boxwright.app.proposals import propose
from boxwright.cli.app import main
from boxwright.data import DetectionIndex, open_dataset
from boxwright.data.proposals.files import proposals_for
from boxwright.data.scenes import SceneConfig, write_scenes
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.structures import InputError
from tests.support.dense_cases import SMALL_SSD
from tests.support.two_stage_cases import SMALL_C4, SMALL_RFCN, small_faster_rcnn

HAS_OPENCV = importlib.util.find_spec("cv2") is not None


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SceneConfig(size=(96, 128), objects=(1, 3), empty=0, smallest=16, common=(0.25, 0.5), hidden=0.3)
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", {"train": 3}, seed=1, config=config)


@pytest.mark.parametrize(
    "config", [small_faster_rcnn(), SMALL_C4["faster_rcnn_c4"], SMALL_RFCN["rfcn"]], ids=["pyramid", "c4", "rfcn"]
)
def test_a_network_proposes_inside_the_images(config: DetectorConfig, scenes: Path, tmp_path: Path) -> None:
    index = open_dataset(scenes, "train")
    torch.manual_seed(0)
    made = propose(build_detector(config, index.classes), index, 8, torch.device("cpu"), "untrained")
    assert (made.offsets[1:] > made.offsets[:-1]).all()
    assert max(made.offsets[1:] - made.offsets[:-1]) <= 8
    assert len(proposals_for(made.save(tmp_path / "p.safetensors"), index, 5).boxes) <= 15


def test_a_detector_without_a_proposal_network(scenes: Path) -> None:
    index = open_dataset(scenes, "train")
    detector = build_detector(next(iter(SMALL_SSD.values())), index.classes)
    with pytest.raises(InputError, match="kind ssd has no proposal network"):
        propose(detector, index, 8, torch.device("cpu"), "none")


@pytest.mark.skipif(HAS_OPENCV, reason="OpenCV is installed")
def test_without_opencv(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.safetensors"
    assert main(["proposals", "--data", str(scenes), "--split", "train", "--output", str(out)]) == 2
    assert "pip install 'boxwright[selective-search]'" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(not HAS_OPENCV, reason="needs the extra selective-search")
def test_selective_search_finds_drawn_objects(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for workers, file in zip("12", files, strict=True):
        words = ["proposals", "--data", str(scenes), "--split", "train", "--output", str(file), "--workers", workers]
        assert main([*words, "--most", "400", "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["recall"][-1]["recall_50"] >= 0.7
        assert [row["count"] for row in report["recall"]] == [100, 300, 400]
    one, two = (safetensors.torch.load_file(file) for file in files)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one), "the same for any number of processes"


class _Search:
    """Replacement of selective search: a different box for each image, and an interrupt before one of them."""

    def __init__(self) -> None:
        self.stop_before: int | None = None
        self.searched: list[str] = []

    def __call__(self, index: DetectionIndex, *_: object) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for i in range(len(index)):
            name = index.relative_path(i)
            if i == self.stop_before:
                raise KeyboardInterrupt
            self.searched.append(name)
            yield np.array([[0, 0, 10 + i, len(name)]], np.float32), np.ones(1, np.float32)


def test_an_interrupted_search_continues(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = SceneConfig(size=(96, 128), objects=(1, 3), empty=0, smallest=16, common=(0.25, 0.5), hidden=0.3)
    data = write_scenes(tmp_path / "scenes", {"train": 5}, seed=1, config=config)
    index = open_dataset(data, "train")
    search = _Search()
    monkeypatch.setattr("boxwright.app.proposals.search_all", search)
    monkeypatch.setattr("boxwright.app.proposals.require_opencv", lambda: None)
    output, unfinished = tmp_path / "p.safetensors", tmp_path / "p.fast-2000.unfinished.safetensors"
    words = ["proposals", "--data", str(data), "--split", "train", "--output", str(output)]

    search.stop_before = 3
    assert main(words) == 130
    assert "kept 3 of 5 images; run the same command again to continue" in capsys.readouterr().err
    assert unfinished.is_file()
    assert not output.exists()

    changed = Path(index.path(1))
    with Image.open(changed) as image:
        turned = image.rotate(180)
    turned.save(changed)
    search.stop_before, search.searched = None, []
    assert main(words) == 0
    assert "2 of 5 images were searched earlier" in capsys.readouterr().err
    assert search.searched == [index.relative_path(i) for i in (1, 3, 4)], "and the image that has changed"
    assert not unfinished.exists()
    made = proposals_for(output, index, 5)
    # A box is as wide as 10 plus the position in its search: 0 and 2 of the first one, then 0 to 2 for the rest.
    assert made.boxes[:, 2].tolist() == [10, 10, 12, 11, 12]
    assert made.method == "selective-search fast (OpenCV)"


def test_results_of_another_setting_are_not_used(tmp_path: Path, scenes: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    search = _Search()
    monkeypatch.setattr("boxwright.app.proposals.search_all", search)
    monkeypatch.setattr("boxwright.app.proposals.require_opencv", lambda: None)
    words = ["proposals", "--data", str(scenes), "--split", "train", "--output", str(tmp_path / "p.safetensors")]
    search.stop_before = 2
    assert main(words) == 130
    search.stop_before, search.searched = None, []
    assert main([*words, "--quality", "quality"]) == 0
    assert len(search.searched) == 3
    assert (tmp_path / "p.fast-2000.unfinished.safetensors").is_file(), "and are kept"


def test_an_unwritable_output_is_refused_at_once(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / "p.safetensors"
    assert main(["proposals", "--data", str(scenes), "--split", "train", "--output", str(output)]) == 2
    assert f"{output}: cannot be written" in capsys.readouterr().err
