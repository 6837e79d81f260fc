"""The result of importing an ImageNet network: its configuration and its tensors under our names."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from boxwright.backbones.build import BackboneConfig, build_backbone
from boxwright.backbones.classifier import Classifier
from boxwright.detectors.contract.adoption import unallocated_parameters
from boxwright.detectors.contract.pixels import PixelConfig
from boxwright.weights.common.imported import load_whole


class ImportedBackbone(NamedTuple):
    """An imported image classifier, or the backbone of one."""

    source: str
    """Publisher and model, such as "torchvision resnet50"."""
    config: BackboneConfig
    """The backbone. Its norm is ``frozen_bn`` where the file has a scale and a shift instead of whole batch norms: the
    statistics are merged into them, so such norms cannot be trained."""
    pixels: PixelConfig
    """The publisher's normalisation of pixels."""
    state: dict[str, Tensor]
    """Tensors of a :class:`Classifier`: ``backbone.*`` is complete, ``fc.*`` is complete or absent."""
    data: str = "ImageNet"
    """The data set of the training."""

    @property
    def classes(self) -> int | None:
        """Number of classes of the last layer; None where the file has no such layer."""
        last = [value for name, value in self.state.items() if name.startswith("fc.") and name.endswith("bias")]
        return len(last[-1]) if last else None


def build_classifier(imported: ImportedBackbone, origin: str) -> nn.Module:
    """Build the classifier in eval mode, or the bare backbone where the file has no classifier.

    ``origin``: the file, for errors. The weights are the tensors of ``imported.state``, not copies. Raises InputError
    where a tensor is missing, left over or of another shape.
    """
    count = imported.classes
    with unallocated_parameters(), torch.random.fork_rng(devices=[]):
        backbone = build_backbone(imported.config)
        module = backbone if count is None else Classifier(backbone, count)
    state = imported.state
    if count is None:
        state = {name.removeprefix("backbone."): value for name, value in state.items()}
    return load_whole(module, state, imported.source, origin).eval()
