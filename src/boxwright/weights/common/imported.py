"""Result of an importer: configuration, classes and tensors of another program's checkpoint, ready to be built.

An importer knows one publisher. It recognises the publisher's files by the names of their tensors, states the
configuration with which they compute the same as there, and renames the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from boxwright.data.transforms.configs import TransformConfig
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.adoption import adopt, misfits, not_finite, unallocated_parameters
from boxwright.detectors.contract.detector import Detector
from boxwright.detectors.contract.preparation import Preparation
from boxwright.structures import Classes, InputError

Module = TypeVar("Module", bound=nn.Module)


class Imported(NamedTuple):
    """Another program's checkpoint in Boxwright's terms.

    ``source``: publisher and model, as "torchvision fasterrcnn_resnet50_fpn". ``transforms`` and ``pad_multiple``: how
    the publisher prepares an image for it.
    """

    source: str
    config: DetectorConfig
    classes: Classes
    state: dict[str, Tensor]
    transforms: tuple[TransformConfig, ...]
    pad_multiple: int = 32

    @property
    def preparation(self) -> Preparation:
        """Preparation of images as the publisher does it."""
        return Preparation(transforms=self.transforms, pad_multiple=self.pad_multiple)


def build_imported(imported: Imported, origin: str) -> Detector:
    """Build the detector with its weights, in eval mode, with its publisher's preparation of images.

    ``origin``: the file, for errors. The weights are the tensors of ``imported.state`` themselves, not copies. Raises
    InputError, as :func:`load_whole` does, for a missing, an unknown or a misshapen tensor.
    """
    with unallocated_parameters():
        detector = build_detector(imported.config, imported.classes, imported.preparation)
    load_whole(detector, imported.state, imported.source, origin)
    return detector.eval()


def load_whole(module: Module, given: Mapping[str, Tensor], source: str, origin: str) -> Module:
    """Make the tensors ``given`` the weights of ``module`` and return it.

    Raises InputError, which counts them and names the first, for tensors that are missing, left over or of another
    shape, or hold NaN or infinite values. The module is then unchanged.
    """
    if faults := misfits(module, given):
        raise InputError(f"{origin}: no whole checkpoint of {source}: {faults}")
    if named := not_finite(given):
        raise InputError(
            f"{origin}: values that are NaN or infinite in {named}; download it anew, or take an earlier one"
        )
    adopt(module, given)
    return module
