"""Import the pretrained ResNets of Detectron and detectron2 as backbones.

``ImageNetPretrained/MSRA/R-50.pkl`` and ``R-101.pkl`` use Detectron's names and take BGR pixels minus their mean.
Detectron's own files hold a scale and a shift per norm, detectron2's hold whole norms.
``ImageNetPretrained/torchvision/R-50.pkl`` uses detectron2's names and takes RGB pixels as torchvision does.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from boxwright.backbones.layers.norm import Norm
from boxwright.backbones.resnet import ResNetConfig
from boxwright.detectors.contract.pixels import IMAGENET, IMAGENET_255_BGR, MSRA
from boxwright.structures import InputError
from boxwright.weights.common.imported_backbone import ImportedBackbone
from boxwright.weights.common.state_checks import refuse_keys, resnet_depth, rows_of
from boxwright.weights.common.tensor_names import Renaming
from boxwright.weights.detectron import caffe2 as detectron
from boxwright.weights.detectron import layout as detectron2_layout

_STAGES = (2, 3, 4, 5)
_MSRA = Renaming([*detectron.stem_pairs("backbone."), *detectron.stage_pairs("backbone.", _STAGES)])
_TORCHVISION = Renaming(
    [*detectron2_layout.stem_pairs("", "backbone."), *detectron2_layout.resnet_pairs("", "backbone.")]
)
_CLASSIFIER = re.compile(r"(stem\.)?(fc|linear)\..*|(fc1000|pred)_[wb]|conv1_b|lr|.*_momentum|.*\.num_batches_tracked")


def recognise_resnet(tensors: Mapping[str, Tensor]) -> bool:
    """Return True if the tensors of a file are of such a ResNet and not of a detector."""
    head = re.compile(r"(conv_rpn|cls_score|retnet_|fpn_)|(backbone|roi_heads|proposal_generator|head)\.")
    body = re.compile(r"res2_0_branch2a_w|res2\.0\.conv1\.weight")
    return any(body.match(name) for name in tensors) and not any(head.match(name) for name in tensors)


def import_resnet(tensors: Mapping[str, Tensor]) -> ImportedBackbone:
    """Import the ResNet from the ``tensors`` of a file, without its classifier.

    Raises InputError for other files, for ResNeXt, and for an incomplete file.
    """
    if not recognise_resnet(tensors):
        first = next(iter(tensors), "there are no tensors at all")
        raise InputError(
            "no pretrained ResNet of Detectron's or detectron2's: its tensors begin with "
            f"{first}; give ImageNetPretrained/MSRA/R-50.pkl, R-101.pkl or those of torchvision"
        )
    used = {name: value for name, value in tensors.items() if not _CLASSIFIER.fullmatch(name)}
    msra = "res2_0_branch2a_w" in used
    source = f"{'MSRA' if msra else 'torchvision'} ResNet"
    depth = resnet_depth(used, r"res4_(\d+)_" if msra else r"^res4\.(\d+)\.", source)
    state, unknown = (_MSRA if msra else _TORCHVISION).import_all(used)
    refuse_keys(unknown, source)
    whole = "backbone.bn1.running_mean" in state
    pixels = IMAGENET
    if msra:
        pixels = IMAGENET_255_BGR if whole else MSRA
        state = detectron.with_statistics(state)
    width = rows_of(state, "backbone.conv1.weight", source)
    norm: Norm = "bn" if whole else "frozen_bn"
    config = ResNetConfig(depth=depth, width=width, stride_in_1x1=msra, norm=norm)
    return ImportedBackbone(f"{source}-{depth}", config, pixels, state)
