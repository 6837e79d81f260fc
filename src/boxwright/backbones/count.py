"""Count the parameters and multiply-adds of a network, the two costs that papers state."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from boxwright.backbones.build import NAMED_BACKBONES, build_backbone
from boxwright.backbones.classifier import Classifier

_T = TypeVar("_T")
_DRAWS = {Tensor.normal_, Tensor.uniform_, Tensor.fill_, Tensor.zero_}
_BATCH_NORMS = (torch.ops.aten.native_batch_norm, torch.ops.aten._native_batch_norm_legit_no_training)


def built_of_shapes(build: Callable[[], _T]) -> _T:
    """Call ``build`` on the meta device, which has shapes but no values, and skip the initialisation of weights."""
    with torch.device("meta"), _NothingDrawn():
        return build()


def count_parameters(module: nn.Module) -> int:
    """Count the elements of all parameters, shared ones once. Buffers (frozen norms have them) do not count."""
    return sum(p.numel() for p in module.parameters())


def count_multiply_adds(module: nn.Module, input_size: int | tuple[int, int]) -> int:
    """Count multiply-adds of convolutions and matrix products for one image of ``input_size`` (height, width).

    Many papers call one multiply-add a FLOP. The network runs in eval mode on the meta device, which computes shapes
    only, and is then as before. ``module`` takes normalised images ``[B, 3, H, W]``.
    """
    height, width = (input_size, input_size) if isinstance(input_size, int) else input_size
    state = {name: t.to("meta") for name, t in [*module.named_parameters(), *module.named_buffers()]}
    modes = [(m, m.training) for m in module.modules()]
    counter = _Counter()
    try:
        module.eval()
        with torch.no_grad(), counter:
            torch.func.functional_call(module, state, (torch.empty(1, 3, height, width, device="meta"),))
    finally:
        for m, training in modes:
            m.training = training
    return counter.operations // 2  # torch's formulas have a multiplication and an addition as two


def backbone_rows() -> list[dict[str, Any]]:
    """Return a row for every named backbone: name, kind, parameters, multiply_adds, input.

    As in papers, costs are those of the classifier with 1000 classes for one image of 224 by 224.
    """
    rows = []
    for name, config in NAMED_BACKBONES.items():
        classifier = built_of_shapes(lambda config=config: Classifier(build_backbone(config), 1000))
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


class _NothingDrawn(TorchFunctionMode):
    """Skips random draws and fills of tensors on the meta device, which have no values."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return args[0] if func in _DRAWS and args[0].is_meta else func(*args, **(kwargs or {}))


class _Counter(TorchDispatchMode):
    """Sums torch's own formulas. ``FlopCounterMode`` does so per module, which takes twice the time."""

    def __init__(self) -> None:
        super().__init__()
        self.operations = 0

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        packet = func.overloadpacket
        if packet in _BATCH_NORMS:  # without products, and slow to work out on shapes
            return torch.empty_like(args[0]), args[0].new_empty(0), args[0].new_empty(0)
        out = func(*args, **kwargs)
        if packet in flop_registry:
            self.operations += flop_registry[packet](*args, **kwargs, out_val=out)
        return out
