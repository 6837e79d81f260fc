"""A loaded detector detects on an optimised copy of itself, as the command does, and stays trainable."""

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from boxwright.checkpoints.checkpoint import save_checkpoint
from boxwright.checkpoints.hub import from_pretrained, save_pretrained
from boxwright.checkpoints.opening import load_detector
from boxwright.detections import Detections
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.inference import OptimisedTwin, optimised
from boxwright.precision import dtype_of
from boxwright.recipes import get_recipe
from boxwright.structures import Classes, InputError

CLASSES = Classes.from_names(["disc", "bar"])
RECIPE = "retinanet-detnet-small"


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    recipe = get_recipe(RECIPE)
    detector = build_detector(recipe.detector, CLASSES)
    for module in detector.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            nn.init.normal_(module.running_mean, std=0.1)  # a fold that changes something
    for name, parameter in detector.named_parameters():
        if name.endswith("scores.bias"):
            nn.init.zeros_(parameter)
        if name.endswith("scores.weight"):
            nn.init.normal_(parameter, std=0.3)
    path = tmp_path_factory.mktemp("inference") / "retinanet.safetensors"
    save_checkpoint(path, detector.state_dict(), recipe, CLASSES, {})
    return path


def image(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (200, 240, 3), dtype=np.uint8)


def boxes(found: list[Detections]) -> torch.Tensor:
    return torch.cat([torch.from_numpy(np.column_stack([one.boxes, one.scores])) for one in found])


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.filterwarnings("ignore:precision bf16")
def test_detect_runs_what_the_command_runs(file: Path, precision) -> None:
    mine = load_detector(file, precision=precision).detect(image(), threshold=0.1)
    command = load_detector(file).optimised(dtype_of(precision)).detect_arrays([image()], threshold=0.1)
    assert len(mine[0]) > 5
    assert torch.equal(boxes(mine), boxes(command))


def test_its_weights_are_those_of_the_file_and_can_be_saved(file: Path, tmp_path: Path) -> None:
    detector = load_detector(file)
    first = detector.detect(image(), threshold=0.1)
    state = detector.state_dict()
    assert {name: value.dtype for name, value in state.items()} == {
        name: value.dtype for name, value in build_detector(detector.config, CLASSES).state_dict().items()
    }
    save_pretrained(detector, tmp_path / "folder")
    again = from_pretrained(tmp_path / "folder")
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())
    assert torch.equal(boxes(again.detect(image(), threshold=0.1)), boxes(first))
    assert torch.equal(boxes(copy.deepcopy(detector).detect(image(), threshold=0.1)), boxes(first))


def scale_weights(detector: Detector) -> None:
    with torch.no_grad():
        for parameter in detector.parameters():
            parameter.mul_(0.9)


def load_scaled(detector: Detector) -> None:
    detector.load_state_dict({name: value * 0.9 for name, value in detector.state_dict().items()}, strict=False)


def train_on_data(detector: Detector) -> None:
    """Write past the counters of versions, as some implementations of EMA do."""
    detector.train()
    for parameter in detector.parameters():
        parameter.data.mul_(0.9)
    detector.eval()


@pytest.mark.parametrize("change", [scale_weights, load_scaled, train_on_data])
def test_detect_follows_the_weights(file: Path, change) -> None:
    detector, plain = load_detector(file), load_detector(file)
    before = boxes(detector.detect(image(), threshold=0.0))
    change(detector)
    change(plain)
    after = boxes(detector.detect(image(), threshold=0.0))
    assert before.shape != after.shape or not torch.equal(before, after)
    expected = boxes(plain.optimised().detect_arrays([image()]))
    assert torch.equal(after, expected)


def test_it_trains_on_and_keeps_its_mode(file: Path) -> None:
    detector = load_detector(file).train()
    detector.detect(image())
    assert detector.training
    assert any(parameter.requires_grad for parameter in detector.parameters())
    assert sum(isinstance(module, nn.BatchNorm2d) for module in detector.modules()) > 5, "norms are not folded"


def test_modes_of_parts_are_kept() -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.ReLU()).train()
    module[1].eval()
    optimised(module)
    assert [part.training for part in module] == [True, False, True]


def test_the_copy_is_made_once(file: Path) -> None:
    module = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).eval()
    twin = OptimisedTwin[nn.Sequential]("fp32")
    first = twin.of(module)
    assert twin.of(module) is first
    module[0].weight.data = module[0].weight.data.clone()
    assert twin.of(module) is not first


def test_a_precision_that_a_device_cannot_run_well_is_refused(file: Path) -> None:
    with pytest.raises(InputError, match="fp16 on a CPU"):
        load_detector(file, precision="fp16")
