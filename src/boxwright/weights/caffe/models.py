"""Import a detector or a pretrained classifier from a ``.caffemodel``."""

from __future__ import annotations

from dataclasses import replace

from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.backbones.zf import LAYERS, ZFConfig
from boxwright.detectors.contract.pixels import CAFFE_VGG, MSRA
from boxwright.structures import Classes, InputError
from boxwright.weights.caffe.layers import LayerConverter, resnet_depth
from boxwright.weights.caffe.protobuf import CaffeModel
from boxwright.weights.caffe.rcnn import import_rcnn, import_rfcn, recognise_rcnn, recognise_rfcn
from boxwright.weights.caffe.ssd import (
    REFINEDET_SIZES,
    import_refinedet,
    import_ssd,
    recognise_refinedet,
    recognise_ssd,
    refinedet_size,
)
from boxwright.weights.common.imported import Imported
from boxwright.weights.common.imported_backbone import ImportedBackbone

KNOWN = (
    "SSD300 and SSD512 on VGG-16 (weiliu89), RefineDet on VGG-16 and ResNet-101 (sfzhang15), Fast R-CNN on VGG-16 and "
    "Faster R-CNN on VGG-16 and ZF (rbgirshick), R-FCN on ResNet-50 and 101 (YuwenXiong/py-R-FCN)"
)


def recognise_caffe(model: CaffeModel) -> bool:
    """Return True for a detector that :func:`import_caffe` reads."""
    return any(known(model) for known in (recognise_refinedet, recognise_ssd, recognise_rfcn, recognise_rcnn))


def import_caffe(model: CaffeModel, classes: Classes | None = None, size: int | None = None) -> Imported:
    """Import the detector of a ``.caffemodel``.

    ``classes``: None for names of VOC or COCO by their number, else ``class_0`` and so on. ``size``: input size of
    RefineDet, 320 or 512; None for that of the data layer in the file, else 320. Every layer with weights is used.
    Raises InputError for another network, for a missing or extra layer, or for another number of classes.
    """
    if recognise_refinedet(model):
        return import_refinedet(model, classes, size or refinedet_size(model) or REFINEDET_SIZES[0])
    if size is not None:
        raise InputError(f"size = {size} is for RefineDet; {model.origin} says itself which input it takes")
    if recognise_ssd(model):
        return import_ssd(model, classes)
    if recognise_rfcn(model):
        return import_rfcn(model, classes)
    if recognise_rcnn(model):
        return import_rcnn(model, classes)
    first = ", ".join(model.weighted[:3])
    raise InputError(
        f"{model.origin}: none of the detectors that can be read, among them no network with the {len(model.weighted)} "
        f"layers {first} ...: {KNOWN}. An ImageNet network goes to `boxwright train "
        "RECIPE --backbone-weights`"
    )


def caffe_sizes(model: CaffeModel) -> tuple[int, ...]:
    """Return the input sizes that the layers of a RefineDet fit; empty where the file tells it, and for all others."""
    return REFINEDET_SIZES if recognise_refinedet(model) and refinedet_size(model) is None else ()


def recognise_caffe_backbone(model: CaffeModel) -> bool:
    """Return True for an ImageNet network that :func:`import_caffe_backbone` reads."""
    detector = any(name in model.layers for name in ("cls_score", "rfcn_cls", "conv4_3_norm", "TL3_1", "rpn_cls_score"))
    return not detector and ("conv5_3" in model.layers or "fc8" in model.layers or resnet_depth(model) is not None)


def import_caffe_backbone(model: CaffeModel) -> ImportedBackbone:
    """Import VGG-16, its reduced form, ZF, or ResNet-50, 101 or 152 as trained on ImageNet, of any width.

    The reduced VGG-16 is the backbone of SSD and RefineDet; a classifier in its file is left out. Raises InputError for
    another network.
    """
    if not recognise_caffe_backbone(model):
        raise InputError(
            f"{model.origin}: none of the ImageNet networks that can be read: VGG-16, its reduced form, ZF, ResNet-50, "
            "101 and 152"
        )
    if depth := resnet_depth(model):
        assert depth in (50, 101, 152)
        converter = LayerConverter(model, f"MSRA ResNet-{depth}")
        converter.resnet(depth)
        weight, bias = converter.matrix("fc1000")
        converter.state |= {"fc.weight": weight, "fc.bias": bias}
        width = len(converter.state["backbone.conv1.weight"])
        resnet = ResNetConfig(depth=depth, width=width, stride_in_1x1=True, stem_pool="ceil")
        return ImportedBackbone(converter.source, resnet, MSRA, converter.done())
    if "conv5_3" not in model.layers:
        converter = LayerConverter(model, "ZF")
        for number in range(1, 6):
            converter.conv(f"backbone.convs.{number - 1}.0", f"conv{number}")
        _classifier(converter)
        zf = ZFConfig(width=len(converter.state["backbone.convs.0.0.bias"]) / LAYERS[0][0], ceil_mode=True)
        return ImportedBackbone("Caffe ZF", zf, MSRA, converter.done())
    fc6 = model.layers.get("fc6")
    reduced = fc6 is not None and bool(fc6.blobs) and fc6.blobs[0].shape[-2:] == (3, 3)
    converter = LayerConverter(model, "reduced VGG-16" if reduced else "VGG-16")
    converter.vgg16(reduced=reduced)
    vgg = VGGConfig(width=len(converter.state["backbone.features.0.bias"]))
    if reduced:
        converter.left = {name: None for name in converter.left if not name.startswith("fc8")}
        vgg = replace(vgg, fc="reduced", out_levels=(4, 6))
    else:
        _classifier(converter)
    return ImportedBackbone(f"Caffe {converter.source}", vgg, CAFFE_VGG, converter.done())


def _classifier(converter: LayerConverter) -> None:
    """Convert fc6, fc7 and fc8."""
    for place, layer in ((0, "fc6"), (3, "fc7"), (6, "fc8")):
        weight, bias = converter.matrix(layer)
        converter.state |= {f"fc.{place}.weight": weight, f"fc.{place}.bias": bias}
