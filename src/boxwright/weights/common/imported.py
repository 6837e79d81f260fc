"""What every importer gives: the detector that a foreign checkpoint describes, ready to be built.

An importer knows one publisher. It recognises its files by their tensors' names, states the configuration under which
they compute what they compute there, and gives the tensors in our names and order.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple, TypeVar

from torch import Tensor, nn

from boxwright.data.transforms.configs import TransformConfig
from boxwright.detectors.build import DetectorConfig, build_detector
from boxwright.detectors.contract.adoption import adopt, unallocated_parameters
from boxwright.detectors.contract.detector import Detector
from boxwright.structures import Classes, InputError

Module = TypeVar("Module", bound=nn.Module)


class Imported(NamedTuple):
    """A foreign checkpoint in our terms.

    ``source``: publisher and model, as "torchvision fasterrcnn_resnet50_fpn". ``transforms`` and ``pad_multiple``: how
    the publisher prepares an image for it.
    """

    source: str
    config: DetectorConfig
    classes: Classes
    state: dict[str, Tensor]
    transforms: tuple[TransformConfig, ...]
    pad_multiple: int = 32


def build_imported(imported: Imported, origin: str) -> Detector:
    """The detector with its weights, in eval mode, preparing images as its publisher does.

    ``origin``: the file, for errors. Every tensor of the detector must be given, and every one given must fit:
    InputError as of :func:`load_whole`. The weights are the tensors of ``imported.state`` themselves, not copies.
    """
    with unallocated_parameters():
        detector = build_detector(imported.config, imported.classes)
    load_whole(detector, imported.state, imported.source, origin)
    detector.transforms = imported.transforms
    detector.pad_multiple = imported.pad_multiple
    return detector.eval()


def load_whole(module: Module, given: Mapping[str, Tensor], source: str, origin: str) -> Module:
    """``module`` with the tensors ``given`` as its own, of which none may be missing, left over or of another shape.

    InputError says how many are, and names the first of each; the module is then as it was.
    """
    own = module.state_dict()
    missing = [n for n in own if n not in given and not n.endswith("num_batches_tracked")]
    unknown = [n for n in given if n not in own]
    wrong = [n for n in own if n in given and own[n].shape != given[n].shape]
    faults = []
    if missing:
        faults.append(f"{len(missing)} of {len(own)} tensors are missing, the first {missing[0]}")
    if unknown:
        faults.append(f"{len(unknown)} belong to none of its layers, the first {unknown[0]}")
    if wrong:
        first = wrong[0]
        faults.append(
            f"{len(wrong)} have another shape, the first {first}: {list(given[first].shape)} and not "
            f"{list(own[first].shape)}"
        )
    if faults:
        raise InputError(f"{origin}: no whole checkpoint of {source}: {'; '.join(faults)}")
    adopt(module, given)
    return module
