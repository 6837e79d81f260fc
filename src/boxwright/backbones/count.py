"""Parameters and multiply-adds, the two costs that papers state for a network."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from boxwright.backbones.build import NAMED_BACKBONES, build_backbone
from boxwright.backbones.classifier import Classifier


def count_parameters(module: nn.Module) -> int:
    """Elements of all parameters, shared ones once. Buffers, such as a frozen norm's, are not parameters."""
    return sum(p.numel() for p in module.parameters())


def count_multiply_adds(module: nn.Module, input_size: int | tuple[int, int]) -> int:
    """Multiply-adds of the convolutions and matrix products for one image of ``input_size`` (height, width).

    One multiply-add is what many papers call one FLOP. Nothing is computed: the network runs on shapes alone, in eval
    mode, and is left as it was. ``module`` takes normalised images ``[B, 3, H, W]``.
    """
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    state = {name: t.to("meta") for name, t in [*module.named_parameters(), *module.named_buffers()]}
    modes = [(m, m.training) for m in module.modules()]
    counter = FlopCounterMode(display=False)
    try:
        module.eval()
        with torch.no_grad(), counter:
            torch.func.functional_call(module, state, (torch.empty(1, 3, height, width, device="meta"),))
    finally:
        for m, training in modes:
            m.training = training
    return counter.get_total_flops() // 2  # the counter has a multiplication and an addition as two


def backbone_rows() -> list[dict[str, Any]]:
    """Every named backbone as a row: name, kind, parameters, multiply_adds, input.

    Counted as papers do, as the classifier of 1000 classes on one image of 224 by 224.
    """
    rows = []
    for name, config in NAMED_BACKBONES.items():
        with torch.device("meta"):
            classifier = Classifier(build_backbone(config), 1000)
        rows.append(
            {
                "name": name,
                "kind": "backbone",
                "parameters": count_parameters(classifier),
                "multiply_adds": count_multiply_adds(classifier, 224),
                "input": 224,
            }
        )
    return rows
