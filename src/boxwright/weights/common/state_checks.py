"""Checks of a published state dict: depth of the ResNet, number of classes, unknown tensors and models."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Literal, NoReturn

from torch import Tensor

from boxwright.structures import Classes, InputError
from boxwright.weights.common.class_names import default_classes

Depth = Literal[50, 101, 152]
_DEPTHS: dict[int, Depth] = {6: 50, 23: 101, 36: 152}
"""Depth of a ResNet with bottlenecks by its number of blocks in stage 4."""


def resnet_depth(state: Mapping[str, Tensor], stage4: str, source: str) -> Depth:
    """Return the depth of a ResNet from its blocks in stage 4.

    ``stage4``: a pattern whose first group is the number of a block, such as ``layer3\\.(\\d+)\\.``. The name of a 3x3
    convolution must contain ``conv2`` or ``branch2b``: its shape shows groups, and ResNeXt is refused.
    """
    blocks = {int(found[1]): name for name in state if (found := re.search(stage4, name))}
    if len(blocks) not in _DEPTHS or max(blocks) + 1 != len(blocks):
        raise InputError(
            f"a checkpoint of {source} whose stage 4 has {len(blocks)} blocks; expected 6, 23 or 36 (ResNet-50, 101, "
            "152); is the file whole?"
        )
    for name, value in state.items():
        if re.search(stage4, name) and re.search(r"(conv2\.weight|branch2b_w)$", name) and value.ndim == 4:
            if value.shape[0] != value.shape[1]:
                refuse_model(source, "with ResNeXt (3x3 convolutions in groups)", "one with a ResNet")
            break
    return _DEPTHS[len(blocks)]


def rows_of(state: Mapping[str, Tensor], name: str, source: str) -> int:
    """Return the length of the tensor ``name`` along its first axis. Raises InputError where it is missing."""
    if name not in state:
        raise InputError(f"a checkpoint of {source} without {name} among its {len(state)} tensors; is the file whole?")
    return state[name].shape[0]


def chosen_classes(count: int, given: Classes | None, source: str) -> Classes:
    """Return ``given``, or default names for None. Raises InputError where the checkpoint has another number."""
    if given is None:
        return default_classes(count)
    if len(given) != count:
        usual = default_classes(count)
        raise InputError(
            f"the checkpoint of {source} is for {count} classes, but {len(given)} names are given "
            f"({', '.join(given.names[:3])}, ...); give the {count} names it was trained with, in its order, or none "
            f"to call them {', '.join(usual.names[:3])}, ..."
        )
    return given


def refuse_keys(unknown: Iterable[str], source: str) -> None:
    """Raise InputError if there are keys that do not belong to ``source``."""
    names = list(unknown)
    if names:
        raise InputError(
            f"{len(names)} keys are not of {source}, the first is {names[0]!r}; other models have importers of "
            "their own"
        )


def refuse_model(source: str, what: str, instead: str) -> NoReturn:
    """Raise InputError for a model that is recognised but not supported."""
    raise InputError(f"{source} {what} has no counterpart here; give {instead}")
