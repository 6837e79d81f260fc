"""The check against host synchronisation catches what it should and nothing else; training steps pass it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from boxwright.backbones.detnet import DetNetConfig
from boxwright.config.recipe import AdamWConfig, EMAConfig, OptimiserConfig, SGDConfig
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.faster_rcnn import FasterRCNNConfig
from boxwright.heads.regions.box_head import BoxHeadConfig
from boxwright.heads.regions.rpn import RPNConfig
from boxwright.necks.fpn import FPNConfig
from boxwright.structures import Images, Targets
from boxwright.testing import HostSyncError, forbid_host_sync
from boxwright.training.distributed import Processes
from boxwright.training.optimisation.ema import EMA
from boxwright.training.optimisation.optimiser import build_optimiser
from boxwright.training.stages.gradient import Stepper
from tests.support.toys import CLASSES, Toy, toy_recipe

X = torch.tensor([[1.0, -2.0], [0.0, 3.0]])


@pytest.mark.parametrize(
    "reads",
    [
        lambda: X.sum().item(),
        lambda: bool(X.sum() > 0),
        lambda: X.sum().tolist(),
        lambda: X.numpy(),
        lambda: X.cpu(),
        lambda: X.nonzero(),
        lambda: X[X > 0],
        lambda: X.masked_select(X > 0),
        lambda: torch.where(X > 0),
        lambda: X.unique(),
        lambda: torch.equal(X, X),
        lambda: X.repeat_interleave(torch.tensor([1, 2]), dim=0),
        lambda: torch.zeros(2, 2).index_put_((X > 0,), torch.ones(2)),
    ],
)
def test_what_reads_values_is_refused(reads: Callable[[], object]) -> None:
    with pytest.raises(HostSyncError), forbid_host_sync():
        reads()
    reads()


@pytest.mark.parametrize(
    "computes",
    [
        lambda: X[torch.tensor([1, 0])],
        lambda: X.clone().masked_fill_(X > 0, 7.0),
        lambda: X.clone().__setitem__(X > 0, 0.0),
        lambda: torch.where(X > 0, X, 0.0),
        lambda: X.repeat_interleave(torch.tensor([1, 2]), dim=0, output_size=3),
        lambda: X.topk(1),
        lambda: X.sort(),
        lambda: X.to(torch.float64),
        lambda: X.shape[0] + X.numel(),
    ],
)
def test_what_only_computes_passes(computes: Callable[[], object]) -> None:
    with forbid_host_sync():
        computes()


def batch(device: str = "cpu", size: int = 64) -> tuple[Images, Targets]:
    pixels = torch.randint(0, 256, (2, 3, size, size), dtype=torch.uint8)
    images = Images(pixels, torch.tensor([[size, size], [size - 8, size]]), torch.tensor([1, 2]))
    boxes = torch.zeros(2, 3, 4)
    boxes[0, 0], boxes[0, 1] = torch.tensor([4.0, 4, 40, 40]), torch.tensor([20.0, 10, 50, 60])
    flags = [torch.zeros(2, 3, dtype=torch.bool) for _ in range(3)]
    flags[0][0, :2] = True
    return images.to(device), Targets(boxes, torch.zeros(2, 3, dtype=torch.int64), *flags).to(device)


def stepper(detector: Detector, optimiser: OptimiserConfig, device: str = "cpu") -> Stepper:
    recipe = toy_recipe(accumulation=2, precision="bf16")
    stage = replace(recipe.stages[0], optimiser=optimiser)
    scaler = torch.amp.GradScaler(device, enabled=False)
    ema = EMA(detector, EMAConfig())
    where = Processes(0, 1, torch.device(device))
    return Stepper(recipe, stage, detector.train(), build_optimiser(optimiser, detector, 2), scaler, where, ema)


def tiny_faster_rcnn() -> Detector:
    config = FasterRCNNConfig(
        backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8),
        neck=FPNConfig(channels=16),
        rpn=RPNConfig(pre_nms=(50, 50), post_nms=(20, 20), samples=16),
        head=BoxHeadConfig(hidden=(16,), samples=8),
    )
    torch.manual_seed(0)
    return build_detector(config, CLASSES)


@pytest.mark.parametrize("optimiser", [SGDConfig(), AdamWConfig()])
@pytest.mark.parametrize("make", [lambda: Toy(None, CLASSES), tiny_faster_rcnn], ids=["toy", "faster_rcnn"])
def test_a_training_step_reads_nothing_back(make: Callable[[], Detector], optimiser: OptimiserConfig) -> None:
    step = stepper(make(), optimiser)
    with forbid_host_sync():
        losses = step(*batch())
    assert losses.isfinite().all()


class Curious(Toy):
    """Looks at its own loss, as one does while debugging."""

    def forward(self, images: Images, targets: Targets | None = None):
        losses = super().forward(images, targets)
        self.seen = losses["box"].item()
        return losses


class CuriousGradient(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx, grad: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return grad.clamp(max=2.0) if grad.abs().sum() > 1 else grad


class CuriousBackward(Toy):
    """Looks at a gradient."""

    def forward(self, images: Images, targets: Targets | None = None):
        return {name: CuriousGradient.apply(loss) for name, loss in super().forward(images, targets).items()}


@pytest.mark.parametrize("detector", [Curious, CuriousBackward])
def test_the_check_fails_where_a_step_reads_a_value(detector: type[Toy]) -> None:
    step = stepper(detector(None, CLASSES), SGDConfig())
    with pytest.raises(HostSyncError, match="aten::_local_scalar_dense"), forbid_host_sync():
        step(*batch())


@pytest.mark.gpu
@pytest.mark.parametrize("make", [lambda: Toy(None, CLASSES), tiny_faster_rcnn], ids=["toy", "faster_rcnn"])
def test_a_training_step_does_not_wait_for_the_gpu(make: Callable[[], Detector]) -> None:
    step = stepper(make().cuda(), SGDConfig(), "cuda")
    images, targets = batch("cuda")
    step(images, targets)  # the first step allocates and chooses algorithms
    with forbid_host_sync():
        step(images, targets)


@pytest.mark.gpu
def test_the_gpu_check_sees_into_custom_operators() -> None:
    @torch.library.custom_op("boxwright_tests::peek", mutates_args=())
    def peek(x: Tensor) -> Tensor:
        return x * x.sum().item()

    x = torch.ones(2, device="cuda")
    peek(x)
    with pytest.raises(RuntimeError, match="synchroniz"), forbid_host_sync():
        peek(x)
