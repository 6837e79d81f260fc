"""SSD against torchvision's with the same weights, the paper's figures, and the conventions that are options."""

import pytest
import torch
import torchvision
from torch import nn

from boxwright.detectors.ssd import SSD
from boxwright.structures import Classes, Images, Targets
from boxwright.weights.torchvision_ssd import ssd_config, ssd_state


def names(count: int) -> Classes:
    return Classes.from_names([f"class {i}" for i in range(count)])


def torchvision_model(classes: int) -> nn.Module:
    """Random weights, with scores and offsets spread."""
    torch.manual_seed(classes)
    model = torchvision.models.detection.ssd300_vgg16(weights=None, weights_backbone=None, num_classes=classes + 1)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("features.0.weight"):
                parameter.mul_(0.02)  # pixels are of the order of 100
            if "classification_head" in name:
                parameter.mul_(4)
    return model


def pictures(batch: int, side: int = 300) -> Images:
    generator = torch.Generator().manual_seed(batch)
    coarse = torch.rand((batch, 3, 12, 12), generator=generator)
    pixels = nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 1) * 255
    return Images(pixels.to(torch.uint8), torch.tensor([[side, side]] * batch))


def example_targets() -> Targets:
    """Boxes of every map's size on an input of 300; two of them meet in the same priors."""
    boxes = torch.tensor(
        [
            [[202.0, 198, 226, 222], [200, 200, 225, 223], [40, 60, 95, 110], [10, 150, 130, 260], [80, 90, 240, 260],
             [60, 50, 290, 270], [10, 15, 280, 290]],
            [[50, 60, 220, 180], [150, 20, 175, 60], *[[0, 0, 0, 0]] * 5],
        ]
    )  # fmt: skip
    valid = boxes[..., 2] > 0
    labels = torch.tensor([[0, 1, 2, 1, 0, 2, 1], [2, 0, 0, 0, 0, 0, 0]])
    no = torch.zeros_like(valid)
    return Targets(boxes, labels, valid, no, no)


@pytest.mark.parametrize(("classes", "batch"), [(3, 2), (90, 1)])
def test_detections_equal_torchvisions(classes: int, batch: int) -> None:
    theirs = torchvision_model(classes).eval()
    ours, images = SSD(ssd_config(), names(classes)).eval(), pictures(batch)
    ours.load_state_dict(ssd_state(theirs.state_dict()))
    with torch.inference_mode():
        found = ours(images)
        expected = theirs([image.float() / 255 for image in images.pixels])
    for b, reference in enumerate(expected):
        valid = found.valid[b]
        assert len(reference["scores"]) == valid.sum() > 100, "the comparison needs detections"
        torch.testing.assert_close(found.scores[b, valid], reference["scores"], atol=1e-5, rtol=1e-4)
        same = found.labels[b, valid] + 1 == reference["labels"]
        assert same.float().mean() > 0.97  # near ties may swap
        torch.testing.assert_close(found.boxes[b, valid][same], reference["boxes"][same], atol=0.05, rtol=1e-3)


@pytest.mark.parametrize(("classes", "batch"), [(3, 2), (20, 1)])
def test_losses_and_gradients_equal_torchvisions(classes: int, batch: int) -> None:
    theirs = torchvision_model(classes).train()
    ours = SSD(ssd_config(freeze_at=0), names(classes)).train()
    ours.load_state_dict(ssd_state(theirs.state_dict()))
    images = pictures(batch)
    targets = Targets(*(t if t is None else t[:batch] for t in example_targets()))
    dicts = [
        {"boxes": b[v], "labels": k[v] + 1}
        for b, k, v in zip(targets.boxes, targets.labels, targets.valid, strict=True)
    ]
    expected = theirs([image.float() / 255 for image in images.pixels], dicts)
    losses = ours(images, targets)
    for mine, reference in (("classification", "classification"), ("box", "bbox_regression")):
        torch.testing.assert_close(losses[mine], expected[reference], atol=1e-5, rtol=1e-4)

    torch.stack(list(losses.values())).sum().backward()
    sum(expected.values()).backward()
    gradients = ssd_state({name: p.grad for name, p in theirs.named_parameters()})
    assert set(gradients) == {name for name, _ in ours.named_parameters()}
    for name, parameter in ours.named_parameters():
        reference, mine = gradients[name], parameter.grad
        assert mine is not None
        assert reference.abs().max() > 0, f"{name} is not tested"
        # In the norm: single entries differ by more where rounding takes an activation to the other side of a ReLU.
        assert ((mine - reference).norm() / reference.norm()).item() < 1e-3, name
