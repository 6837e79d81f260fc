"""Import a published ImageNet network as a backbone: find the publisher by the content of the file."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from torch import Tensor

from boxwright.structures import InputError
from boxwright.weights.caffe.models import import_caffe_backbone, recognise_caffe
from boxwright.weights.caffe.protobuf import begins_as_caffemodel, read_caffemodel
from boxwright.weights.common.foreign_files import read_foreign, tensors_in
from boxwright.weights.common.imported_backbone import ImportedBackbone, build_classifier
from boxwright.weights.darknet.files import begins_as_darknet
from boxwright.weights.darknet.models import import_darknet_backbone
from boxwright.weights.detectron.pretrained_resnet import import_resnet, recognise_resnet
from boxwright.weights.import_detector import IMPORTERS
from boxwright.weights.ports.detnet_pytorch import import_detnet_classifier, recognise_detnet_classifier
from boxwright.weights.ports.efficientnet_lite import import_efficientnet_lite, recognise_efficientnet_lite
from boxwright.weights.ports.ssd_pytorch import import_reduced_vgg, recognise_reduced_vgg
from boxwright.weights.torchvision.classifiers import import_torchvision_classifier, recognise_torchvision_classifier

Tensors = Mapping[str, Tensor]

KNOWN = (
    "torchvision's ResNet, VGG, MobileNetV2 and MobileNetV3-Large (.pth); Caffe's VGG-16, its reduced form, ZF and "
    "ResNet (.caffemodel); Darknet's trunks (.weights, .conv.N); ResNets of Detectron and detectron2 (.pkl); the "
    "reduced VGG-16 of ssd.pytorch, DetNet-59 of DetNet_pytorch and EfficientNet-Lite 0 to 2 (.pth)"
)
_DARKNET = re.compile(r".*\.(weights|conv\.\d+)")
_HEAD = 512


class BackboneImporter(NamedTuple):
    """The importer of one publisher's backbones. Both functions take the tensors of the file, by name."""

    recognise: Callable[[Tensors], bool]
    """Return True for a file of this publisher, by the names of its tensors alone."""
    read: Callable[[Tensors], ImportedBackbone]
    """Convert the file. Raises InputError for anything unknown or missing in it."""


IMPORTERS_OF_BACKBONES: tuple[BackboneImporter, ...] = (
    BackboneImporter(recognise_detnet_classifier, import_detnet_classifier),  # its first stages are torchvision's
    BackboneImporter(recognise_torchvision_classifier, import_torchvision_classifier),
    BackboneImporter(recognise_resnet, import_resnet),
    BackboneImporter(recognise_reduced_vgg, import_reduced_vgg),
    BackboneImporter(recognise_efficientnet_lite, import_efficientnet_lite),
)
"""All importers in the order in which they are asked. Files of Caffe and Darknet are known by their first bytes."""


def import_backbone(path: Path | str) -> ImportedBackbone:
    """Import the ImageNet network in the file at ``path``.

    ``KNOWN`` lists the networks. Darknet's files need no ``.cfg`` where their length tells the network; a ``.cfg``
    beside the file has precedence. Raises InputError, with the path, for a file that is absent, damaged, unknown or
    incomplete, or that holds a detector.
    """
    path = Path(path)
    try:
        imported = _read(path)
        build_classifier(imported, str(path))
    except InputError as error:
        raise InputError(str(error) if str(path) in str(error) else f"{path}: {error}") from None
    except KeyError as error:
        raise InputError(f"{path}: there is no tensor {error} in it, which the network needs; is it whole?") from error
    except (ArithmeticError, AttributeError, IndexError, RuntimeError, TypeError, ValueError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise InputError(
            f"{path}: its tensors are named as those of a network that is read, but have other shapes or types "
            f"({first[:200]}); is the file whole, and unchanged?"
        ) from error
    return imported


def _read(path: Path) -> ImportedBackbone:
    if not path.is_file():
        raise InputError(f"{path}: no such file{' but a folder' if path.is_dir() else ''}; give one of {KNOWN}")
    with path.open("rb") as file:
        start = file.read(_HEAD)
    if path.suffix == ".caffemodel" or begins_as_caffemodel(start):
        model = read_caffemodel(path)
        if recognise_caffe(model):
            raise _detector(path, "Caffe")
        return import_caffe_backbone(model)
    if _DARKNET.fullmatch(path.name) or begins_as_darknet(start):
        return import_darknet_backbone(path, _cfg_of(path))
    tensors = tensors_in(read_foreign(path))
    for importer in IMPORTERS_OF_BACKBONES:
        if importer.recognise(tensors):
            return importer.read(tensors)
    for detectors in IMPORTERS:
        if detectors.recognise(tensors):
            raise _detector(path, detectors.publisher)
    found = f"{len(tensors)} tensors, the first {next(iter(tensors))!r}" if tensors else "no tensors"
    raise InputError(f"{path}: holds {found}, which is no ImageNet network that is known: {KNOWN}")


def _detector(path: Path, publisher: str) -> InputError:
    return InputError(
        f"{path}: a detector of {publisher}, where a backbone was expected; start from it by --weights {path}"
    )


def _cfg_of(weights: Path) -> Path | None:
    """Return the cfg beside ``weights``: for ``darknet53.conv.74``, ``darknet53.conv.cfg`` or ``darknet53.cfg``."""
    names = (weights.with_suffix(".cfg").name, f"{weights.name}.cfg", f"{weights.name.split('.')[0]}.cfg")
    return next((weights.with_name(name) for name in names if weights.with_name(name).is_file()), None)
