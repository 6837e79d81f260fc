"""A published image classifier in our terms: what a detector's backbone starts from."""

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
    """``state``: the tensors of a :class:`Classifier` on the backbone that ``config`` describes, as far as the file has
    them: ``backbone.*`` is complete, ``fc.*`` complete or left out. ``pixels``: how the publisher prepares them.
    ``data``: what it learnt on.

    ``config.norm`` is ``frozen_bn`` where the file has a scale and a shift in place of whole batch norms, which have
    their statistics in them already: such norms cannot live."""

    source: str
    config: BackboneConfig
    pixels: PixelConfig
    state: dict[str, Tensor]
    data: str = "ImageNet"

    @property
    def classes(self) -> int | None:
        """How many classes its last layer tells apart; None where the file has no such layer."""
        last = [value for name, value in self.state.items() if name.startswith("fc.") and name.endswith("bias")]
        return len(last[-1]) if last else None


def build_classifier(imported: ImportedBackbone, origin: str) -> nn.Module:
    """The classifier with its weights, in eval mode; the bare backbone where the file has no classifier on top.

    ``origin``: the file, for errors. InputError where a tensor is missing, left over or of another shape. The weights
    are the tensors of ``imported.state`` themselves, not copies.
    """
    count = imported.classes
    with unallocated_parameters(), torch.random.fork_rng(devices=[]):
        backbone = build_backbone(imported.config)
        module = backbone if count is None else Classifier(backbone, count)
    state = imported.state
    if count is None:
        state = {name.removeprefix("backbone."): value for name, value in state.items()}
    return load_whole(module, state, imported.source, origin).eval()
