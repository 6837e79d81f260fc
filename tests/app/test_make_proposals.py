"""Making files of proposals, by network and by selective search."""

import importlib.util
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from tests.detectors.test_faster_rcnn import small_config
from tests.detectors.test_ssd import SMALL_SSD
from tests.detectors.two_stage_cases import SMALL_C4, SMALL_RFCN

from boxwright.app.proposals import propose
from boxwright.cli import main
from boxwright.data import open_dataset
from boxwright.data.proposals import proposals_for
from boxwright.data.scenes import SceneConfig, write_scenes
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.structures import InputError

HAS_OPENCV = importlib.util.find_spec("cv2") is not None


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    config = SceneConfig(size=(96, 128), objects=(1, 3), empty=0, smallest=16, common=(0.25, 0.5), hidden=0.3)
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", {"train": 3}, seed=1, config=config)


@pytest.mark.parametrize(
    "config", [small_config(), SMALL_C4["faster_rcnn_c4"], SMALL_RFCN["rfcn"]], ids=["pyramid", "c4", "rfcn"]
)
def test_a_network_proposes_within_the_pictures(config: DetectorConfig, scenes: Path, tmp_path: Path) -> None:
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


@pytest.mark.skipif(HAS_OPENCV, reason="OpenCV is there")
def test_without_opencv(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "p.safetensors"
    assert main(["proposals", "--data", str(scenes), "--split", "train", "--output", str(out)]) == 2
    assert "pip install boxwright[selective-search]" in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.skipif(not HAS_OPENCV, reason="needs the extra selective-search")
def test_selective_search_finds_drawn_objects(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    files = [tmp_path / "one.safetensors", tmp_path / "two.safetensors"]
    for workers, file in zip("12", files, strict=True):
        words = ["proposals", "--data", str(scenes), "--split", "train", "--output", str(file), "--workers", workers]
        assert main([*words, "--json"]) == 0
        report = json.loads(capsys.readouterr().out)
        assert report["recall"][-1]["recall_50"] >= 0.7
    one, two = (safetensors.torch.load_file(file) for file in files)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one), "the same for any number of processes"


def test_a_place_where_nothing_can_be_written_is_said_at_once(
    scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").write_text("in the way")
    output = tmp_path / "file" / "p.safetensors"
    assert main(["proposals", "--data", str(scenes), "--split", "train", "--output", str(output)]) == 2
    said = capsys.readouterr().err
    assert f"--output {output}: cannot be written" in said
    assert "name another folder" in said
