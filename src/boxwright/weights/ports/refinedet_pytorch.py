"""Import RefineDet of luuuyi/RefineDet.PyTorch (VGG-16, 320 or 512).

Its files are plain state dicts, with or without ``module.`` before every key. There, scores and offsets of a map are
separate convolutions and background is class 0. Here they are one convolution and background is last.
:func:`refinedet_config` states the other conventions of the training.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from torch import Tensor

from boxwright.data.transforms.resizing import WarpConfig
from boxwright.detectors.contract.pixels import SSD_RGB
from boxwright.detectors.refinedet import RefineDetAssignConfig, RefineDetConfig, RefineDetHeadConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.common.foreign_files import tensors_in
from boxwright.weights.common.heads import check_class_count, joined_head
from boxwright.weights.common.imported import Imported
from boxwright.weights.ports.ssd_pytorch import port_classes

_PER_CELL = 3
_FC = {31: "fc6", 33: "fc7"}


def refinedet_config(classes: int = 20) -> RefineDetConfig:
    """Return the configuration that reproduces the port's model of so many ``classes``.

    Its anchors are not wider or higher than the input, which at 512 changes nothing. The port takes RGB, and resizes by
    OpenCV's linear method: ``WarpConfig(size=(320, 320), interpolations=("opencv",))``. It intends to keep 500
    detections per image, but keeps all that NMS leaves of the best 1000 of each class.
    """
    return RefineDetConfig(
        l2_eps="root",
        head=RefineDetHeadConfig(start="glorot"),
        clip_sides=True,
        filtered="positives",
        assign=RefineDetAssignConfig(forced="parallel", difficult=False),
        pixels=SSD_RGB,
        post=PostprocessConfig(
            score_threshold=0.01,
            nms_iou=0.45,
            per_class=1000,
            candidates=1000 * classes,
            detections=1000 * classes,
            clip=False,
            min_size=0,
        ),
    )


def refinedet_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Convert the port's state dict. Raises InputError naming keys of other models."""
    given = tensors_in(state)
    ours: dict[str, Tensor] = {}
    unknown = []
    for key, value in given.items():
        head = re.fullmatch(r"(arm|odm)_(loc|conf)\.(\d)\.(weight|bias)", key)
        if head is None:
            name = _name(key)
            if name is None:
                unknown.append(key)
            else:
                ours[name] = value
        elif head[2] == "loc":
            other = f"{head[1]}_conf.{head[3]}.{head[4]}"
            if other not in given:
                raise InputError(f"the state dict has {key!r} but not {other!r}; is the file whole?")
            ours[f"{head[1]}.convs.{head[3]}.{head[4]}"] = joined_head(value, given[other])
    if unknown:
        raise InputError(
            f"{len(unknown)} keys are not of RefineDet.PyTorch, the first is {unknown[0]!r}; other models have "
            "importers of their own"
        )
    return ours


SIZES = (320, 512)
"""Input sizes of the port's models, whose tensors have the same shapes."""


def recognise_refinedet_pytorch(tensors: Mapping[str, Tensor]) -> bool:
    """Return True for the tensors of the port."""
    return {"conv4_3_L2Norm.weight", "arm_loc.0.weight", "odm_conf.0.weight"} <= tensors.keys()


def import_refinedet_pytorch(state: Mapping[str, Tensor], classes: Classes | None = None, size: int = 320) -> Imported:
    """Import the port's RefineDet. ``size``: its input size, 320 or 512, which the weights do not tell.

    The port has anchors for 20 classes only, and none of its own for others, so that files of other data have them too.
    ``classes``: None for names of VOC or COCO by their number, else ``class_0`` and so on. Raises InputError for
    missing keys, for keys of another model, and for another number of names.
    """
    if size < 64 or size % 64:
        raise InputError(f"size = {size}: RefineDet's input is a multiple of 64; the port's models have 320 or 512")
    tensors = tensors_in(state)
    if not recognise_refinedet_pytorch(tensors):
        raise InputError(
            f"no RefineDet of RefineDet.PyTorch: among {len(tensors)} keys there is no conv4_3_L2Norm.weight, "
            "arm_loc.0.weight or odm_conf.0.weight"
        )
    ours = refinedet_state(tensors)
    count = len(ours.get("odm.convs.0.bias", ())) // _PER_CELL - 5
    check_class_count(count, classes)
    return Imported(
        source=f"RefineDet.PyTorch refinedet{size}_vgg16",
        config=refinedet_config(count),
        classes=classes or port_classes(count),
        state=ours,
        transforms=(WarpConfig(size=(size, size), interpolations=("opencv",)),),
        pad_multiple=1,
    )


def _name(key: str) -> str | None:
    """Return our name of a tensor that keeps its shape; None for keys that the port does not have."""
    if found := re.fullmatch(r"vgg\.(\d+)\.(weight|bias)", key):
        index = int(found[1])
        return f"backbone.{_FC.get(index, f'features.{index}')}.{found[2]}"
    if found := re.fullmatch(r"conv([45])_3_L2Norm\.weight", key):
        return f"l2.{int(found[1]) - 4}.weight"
    if found := re.fullmatch(r"extras\.([01])\.(weight|bias)", key):
        return f"top.{found[1]}.0.{found[2]}"
    if found := re.fullmatch(r"tcb([012])\.(\d+)\.(weight|bias)", key):
        # Flattened lists of layers: two convolutions and a ReLU a map, one transposed convolution, ReLU, conv, ReLU.
        part, index = found[1], int(found[2])
        place = {
            "0": f"lateral.{index // 3}.{0 if index % 3 == 0 else 1}",
            "1": f"up.{index}",
            "2": f"smooth.{index // 3}",
        }[part]
        return f"tcb.{place}.0.{found[3]}"
    return None
