"""One optimiser step, accumulated, clipped, shared between processes: always the gradient of one big batch."""

from __future__ import annotations

import math
import os
import re
import socket
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as multiprocessing
from torch import Tensor

from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.resnet import ResNetConfig
from boxwright.checkpoints.backbone_files import read_card
from boxwright.config.pretrain_recipe import PretrainRecipe
from boxwright.config.recipe import CosineConfig, EMAConfig, Recipe, SGDConfig
from boxwright.data.classification.folders import open_folders
from boxwright.data.transforms.crops import CropConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Images, InputError, Targets
from boxwright.training.distributed import Processes, choose_device, micro_batch_size, processes
from boxwright.training.loop import train
from boxwright.training.optimisation.ema import EMA
from boxwright.training.optimisation.optimiser import build_optimiser
from boxwright.training.pretrain import pretrain
from boxwright.training.random_state import image_seeds
from boxwright.training.stages.gradient import Stepper
from tests.support.dataset_files import class_folders
from tests.support.toys import CLASSES, Toy, toy_index, toy_recipe

ALONE = Processes(0, 1, torch.device("cpu"))
PLAIN = SGDConfig(lr=1.0, momentum=0.0, weight_decay=0.0)  # the change of the weights is the gradient


def toy() -> Detector:
    torch.manual_seed(0)
    return Toy(None, CLASSES, drop=0.0, norm=False)


def faster_rcnn() -> Detector:
    config = FasterRCNNConfig(
        backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, norm="gn"),
        neck=FPNConfig(channels=16),
        rpn=RPNConfig(pre_nms=(40, 40), post_nms=(20, 20), samples=16),
        head=BoxHeadConfig(hidden=(16,), samples=8),
    )
    torch.manual_seed(0)
    return build_detector(config, CLASSES)


def batch(count: int = 4, size: int = 64) -> tuple[Images, Targets]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randint(0, 256, (count, 3, size, size), dtype=torch.uint8, generator=generator)
    boxes = torch.zeros(count, 3, 4)
    corners = torch.rand(count, 3, 2, generator=generator) * size / 2
    boxes[..., :2], boxes[..., 2:] = corners, corners + 20
    valid = torch.tensor([[True, True, False], [True, False, False], [False] * 3, [True] * 3])[:count]
    none = torch.zeros(count, 3, dtype=torch.bool)
    labels = torch.randint(0, 2, (count, 3), generator=generator) * valid
    seeds = image_seeds(0, 5, count, 0, count)
    targets = Targets(boxes * valid[..., None], labels, valid, none, none)
    return Images(pixels, torch.full((count, 2), size), seeds), targets


def step_once(detector: Detector, where: Processes, share: slice, **changes: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The losses and the weights after one step on ``share`` of the batch."""
    recipe = toy_recipe(ema=None, **{"clip_norm": None, **changes})
    stage = replace(recipe.stages[0], optimiser=PLAIN)
    detector.train()
    optimiser = build_optimiser(PLAIN, detector, 4)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(recipe, stage, where.wrap(detector), optimiser, scaler, where)
    images, targets = batch()
    losses = stepper(
        Images(*(t[share] for t in images if t is not None)), Targets(*(t[share] for t in targets if t is not None))
    )
    return losses, detector.state_dict()


@pytest.mark.parametrize("make", [toy, faster_rcnn])
@pytest.mark.parametrize("accumulation", [2, 4])
def test_accumulation_equals_the_big_batch(make, accumulation: int) -> None:
    whole, expected = step_once(make(), ALONE, slice(None))
    parts, found = step_once(make(), ALONE, slice(None), accumulation=accumulation)
    start = make().state_dict()
    torch.testing.assert_close(parts, whole)
    for name in expected:
        torch.testing.assert_close(found[name] - start[name], expected[name] - start[name], rtol=1e-4, atol=2e-6)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def worker(rank: int, port: int, folder: str) -> None:
    """One of two processes, as torchrun would start it."""
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": str(rank)}
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    with processes("cpu") as where:
        for make in (toy, faster_rcnn):
            for accumulation in (1, 2):
                share = slice(2 * rank, 2 * rank + 2)
                losses, state = step_once(make(), where, share, accumulation=accumulation)
                losses = where.sum(losses) / 2
                torch.save([losses, state], f"{folder}/{make.__name__}_{accumulation}_{rank}.pt")
        data = toy_index(Path(folder) / f"a{rank}", 11), toy_index(Path(folder) / f"b{rank}", 5, seed=1)
        lines: list[str] = []
        result = train(run_recipe(), *data, f"{folder}/run", build=quiet_toy, device="cpu", log=lines.append)
        torch.save([result.metrics, lines], f"{folder}/result_{rank}.pt")
        splits = open_folders(class_folders(Path(folder) / f"classes{rank}" / "data", per_class=5))
        lines = []
        tops = pretrain(CLASSIFY, splits["train"], splits["val"], f"{folder}/tops", device="cpu", log=lines.append)
        torch.save([[tops.top1, tops.top5], lines], f"{folder}/tops_{rank}.pt")


CLASSIFY = PretrainRecipe(
    name="quiet",
    backbone=ResNetConfig(depth=18, blocks=(1, 1, 1, 1), width=8, norm="gn"),
    crops=CropConfig(size=64, eval_size=64),  # not smaller: on maps of one cell group norm makes noise of rounding
    epochs=3,
    batch_size=4,
    workers=0,
    optimiser=SGDConfig(lr=0.02),
    schedule=CosineConfig(),
    ema=EMAConfig(decay=0.9, ramp=2),
)


def run_recipe() -> Recipe:
    return toy_recipe(8)


def quiet_toy(config: Any, classes: Any) -> Toy:
    return Toy(config, classes, drop=0.0, norm=False)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Results of two gloo processes, shared because starting them is most of the time of these tests."""
    folder = tmp_path_factory.mktemp("pair")
    multiprocessing.spawn(worker, (free_port(), str(folder)), nprocs=2)
    return folder


def test_two_processes_give_the_gradients_of_one(pair: Path) -> None:
    """The same global batch on two gloo processes: the same losses and weights, at both of them."""
    for make in (toy, faster_rcnn):
        whole, expected = step_once(make(), ALONE, slice(None))
        start = make().state_dict()
        assert any(not torch.equal(start[name], expected[name]) for name in start)
        for accumulation in (1, 2):
            parts = [torch.load(pair / f"{make.__name__}_{accumulation}_{r}.pt", weights_only=True) for r in (0, 1)]
            for losses, state in parts:
                torch.testing.assert_close(losses, whole)
                for name in expected:
                    change = expected[name] - start[name]
                    torch.testing.assert_close(state[name] - start[name], change, rtol=1e-4, atol=2e-6)
            assert all(torch.equal(parts[0][1][name], parts[1][1][name]) for name in expected)


def test_a_run_of_two_processes_equals_a_run_of_one(pair: Path, tmp_path: Path) -> None:
    """Data, augmentation, seeds, schedule, average and validation included; one of them writes and talks."""
    (metrics, lines), (metrics_1, lines_1) = (torch.load(pair / f"result_{r}.pt", weights_only=True) for r in (0, 1))
    assert metrics == metrics_1
    assert any(line.startswith("step 6/8") for line in lines)
    assert lines_1 == []
    data = toy_index(tmp_path / "a", 11), toy_index(tmp_path / "b", 5, seed=1)
    alone = train(run_recipe(), *data, tmp_path / "alone", build=quiet_toy, device="cpu", log="quiet")
    assert alone.metrics is not None
    assert {k: v for k, v in metrics.items() if v is not None} == pytest.approx(
        {k: v for k, v in alone.metrics.items() if v is not None}, rel=1e-4
    )
    together, single = (
        torch.load(folder / "last.train", weights_only=True) for folder in (pair / "run", tmp_path / "alone")
    )
    assert together["stream"] == single["stream"]
    for name, tensor in single["ema"]["module"].items():
        torch.testing.assert_close(together["ema"]["module"][name], tensor, rtol=1e-4, atol=1e-6)


def test_pretraining_in_two_processes_equals_one(pair: Path, tmp_path: Path) -> None:
    (tops, lines), (tops_1, lines_1) = (torch.load(pair / f"tops_{r}.pt", weights_only=True) for r in (0, 1))
    assert any("top-1" in line for line in lines)
    assert lines_1 == []
    splits = open_folders(class_folders(tmp_path / "data", per_class=5))
    alone = pretrain(CLASSIFY, splits["train"], splits["val"], tmp_path / "alone", device="cpu", log="quiet")
    assert tops == tops_1 == [alone.top1, alone.top5]
    assert read_card(pair / "tops" / "backbone.safetensors")["validation_images"] == 10
    together, single = (torch.load(f / "last.train", weights_only=True) for f in (pair / "tops", tmp_path / "alone"))
    for name, tensor in single["ema"]["module"].items():
        torch.testing.assert_close(together["ema"]["module"][name], tensor, rtol=1e-4, atol=1e-5)


def test_seeds_belong_to_the_place_in_the_stream() -> None:
    whole = image_seeds(3, step=7, batch_size=4, first=0, count=4)
    assert whole.tolist() == [*image_seeds(3, 7, 4, 0, 2).tolist(), *image_seeds(3, 7, 4, 2, 2).tolist()]
    assert image_seeds(3, 7, 4, 3, 1).tolist() == image_seeds(3, 14, 2, 3, 1).tolist()  # place 31 both times
    assert len({*whole.tolist(), *image_seeds(3, 8, 4, 0, 4).tolist(), *image_seeds(4, 7, 4, 0, 4).tolist()}) == 12
    assert min(whole.tolist()) >= 0


def test_clipping_bounds_the_gradient() -> None:
    start = toy().state_dict()
    _, free = step_once(toy(), ALONE, slice(None))
    _, clipped = step_once(toy(), ALONE, slice(None), clip_norm=0.01)

    def norm(state: dict[str, Tensor]) -> float:
        return math.sqrt(sum(float((state[n] - start[n]).square().sum()) for n in start))

    assert norm(free) > 0.02
    assert norm(clipped) == pytest.approx(0.01, rel=1e-3)


def test_the_minimised_terms_can_be_chosen() -> None:
    start = toy().state_dict()
    detector, recipe = toy().train(), toy_recipe(clip_norm=None)
    stage = replace(recipe.stages[0], losses=("label",), optimiser=PLAIN)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    stepper = Stepper(recipe, stage, detector, build_optimiser(PLAIN, detector, 4), scaler, ALONE)
    losses = stepper(*batch())
    assert stepper.names == ("box", "label")
    assert len(losses) == 2
    assert torch.equal(detector.state_dict()["head.weight"][:4], start["head.weight"][:4])  # rows of the box
    assert not torch.equal(detector.state_dict()["head.weight"][4:], start["head.weight"][4:])
    stepper = Stepper(recipe, replace(stage, losses=("lable",)), detector, stepper.optimiser, scaler, ALONE)
    with pytest.raises(InputError, match=r"losses names 'lable'; the detector's are box, label"):
        stepper(*batch())


def test_ema_follows_its_formula() -> None:
    model = torch.nn.BatchNorm1d(1)
    ema = EMA(model, EMAConfig(decay=0.9, ramp=2.0))
    expected = 1.0
    for n, value in enumerate([3.0, -2.0, 5.0], start=1):
        with torch.no_grad():
            model.weight.fill_(value)
            model.running_mean.fill_(value)  # pyright: ignore[reportOptionalMemberAccess]
            model.num_batches_tracked.fill_(n)  # pyright: ignore[reportOptionalMemberAccess]
        ema.update()
        decay = 0.9 * (1 - math.exp(-n / 2))
        expected = decay * expected + (1 - decay) * value
        assert ema.module.weight.item() == pytest.approx(expected)
    assert ema.module.num_batches_tracked.item() == 3
    assert ema.module.running_mean.item() != 0
    assert not ema.module.training
    assert not ema.module.weight.requires_grad


def test_a_batch_that_does_not_divide_is_named() -> None:
    assert micro_batch_size(16, 2, 4) == 2
    with pytest.raises(InputError, match=r"batch_size = 16 .* 3 processes x accumulation 2; use a multiple of 6"):
        micro_batch_size(16, 3, 2)
    with pytest.raises(InputError, match=r"^batch_size = 16 is not a multiple of 3 processes; use a multiple of 3$"):
        micro_batch_size(16, 3, 1, "batch_size")


@pytest.mark.parametrize("device", ["gpu", "GPU", "0", "cuda", "cuda:1", "gpu:1", "cuda:77"])
def test_a_gpu_that_is_not_there(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    message = re.escape(f"device '{device}' is a CUDA device, and ") + ".* use --device cpu, or see `boxwright env`"
    with pytest.raises(InputError, match=message):
        choose_device(device)


@pytest.mark.parametrize(
    ("device", "chosen"),
    [("auto", "cuda:0"), ("gpu", "cuda:0"), ("0", "cuda:0"), ("1", "cuda:1"), ("GPU:1", "cuda:1"), ("cpu", "cpu")],
)
def test_names_of_devices(device: str, chosen: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert str(choose_device(device)) == chosen
    with pytest.raises(InputError, match=r"^CUDA device 77 does not exist: this machine has 2$"):
        choose_device("77")


def test_devices_that_no_process_can_use() -> None:
    with pytest.raises(InputError, match=r"device 'abc' is unknown; use auto, cpu, cuda, cuda:0 or mps"):
        choose_device("abc")
    with pytest.raises(InputError, match=r"one process uses one device; .*torchrun --nproc-per-node 2 -m boxwright"):
        choose_device("0,1")
