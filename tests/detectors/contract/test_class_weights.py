"""Class weights act on the classification loss of every detector, and on nothing else."""

from dataclasses import replace

import pytest
import torch
from torch import nn

from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.rfcn import RFCNConfig
from boxwright.structures import Classes, Images, Targets
from tests.support.batches import example_images, example_targets, with_masks
from tests.support.detector_cases import CASES
from tests.support.two_stage_cases import example_proposals

CLASSES = Classes.from_names(["disc", "bar", "ring"])
Found = tuple[dict[str, torch.Tensor], torch.Tensor]


def weighted(detector: Detector, images: Images, targets: Targets, weights: tuple[float, ...] | None) -> Found:
    """Return the losses, and the gradients of the layers that distinguish classes in one tensor."""
    detector.weigh_classes(None if weights is None else torch.tensor(weights))
    losses = detector(images, targets)
    trained = {name: parameter for name, parameter in detector.named_parameters() if parameter.requires_grad}
    rows = [trained[name] for name in detector.class_rows() if name in trained]
    gradients = torch.autograd.grad(torch.stack(list(losses.values())).sum(), rows, allow_unused=True)
    flat = [gradient.flatten() for gradient in gradients if gradient is not None]
    return {name: loss.detach() for name, loss in losses.items()}, torch.cat(flat)


@pytest.mark.parametrize("name", list(CASES))
def test_the_loss_of_objects_and_its_gradients_scale(name: str) -> None:
    """With one weight for all classes the loss is that of background plus the weight times that of the objects."""
    case = CASES[name]
    config = case.config
    if isinstance(config, RFCNConfig):  # OHEM chooses other regions where the loss is another
        config = replace(config, head=replace(config.head, ohem=False))
    torch.manual_seed(0)
    detector = build_detector(config, CLASSES).eval()
    for key, parameter in detector.named_parameters():
        if key.endswith(case.spread):
            nn.init.normal_(parameter, std=0.3)
    images = example_images(2, *case.size)._replace(
        proposals=example_proposals(2, *case.size), seeds=torch.tensor([3, 4])
    )
    targets = with_masks(example_targets())
    plain, once, twice, thrice = (
        weighted(detector, images, targets, weights) for weights in (None, (1.0,) * 3, (2.0,) * 3, (3.0,) * 3)
    )
    torch.testing.assert_close(once, plain)
    for term, loss in plain[0].items():
        step = twice[0][term] - loss
        torch.testing.assert_close(thrice[0][term] - twice[0][term], step, atol=1e-5, rtol=1e-3)
        assert bool(step > 1e-6) == term.endswith("classification"), term
    torch.testing.assert_close(thrice[1] - twice[1], twice[1] - plain[1], atol=1e-5, rtol=1e-3)
    assert (twice[1] - plain[1]).norm() > 1e-6
