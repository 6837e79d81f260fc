"""Catalogue of published checkpoints that Boxwright can read: address, training data, reported metrics, checksum.

A literal table. A checksum stands here only where the publisher gives one: torchvision and MMDetection put the first
digits of the SHA-256 into the file name, detectron2 those of the MD5. A size in bytes stands only where it is known
exactly. ``None`` means unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from boxwright.fields import nearest
from boxwright.structures import InputError

Publisher: TypeAlias = Literal["torchvision", "detectron2", "detectron", "mmdet", "darknet", "ssd_pytorch"]
PUBLISHERS: tuple[Publisher, ...] = ("torchvision", "detectron2", "detectron", "mmdet", "darknet", "ssd_pytorch")

NAME = re.compile(rf"({'|'.join(PUBLISHERS)}):(.+)")
"""Pattern of a name: publisher, colon, the name that the publisher uses."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """One file of a checkpoint."""

    url: str
    """Address of the file."""
    size: int | None = None
    """Exact size in bytes."""
    about: int | None = None
    """Approximate size in bytes, for display."""
    sha256: str | None = None
    """First hex digits of the SHA-256."""
    md5: str | None = None
    """First hex digits of the MD5."""
    edit: tuple[str, str] | None = None
    """A text to replace after the download, and its replacement."""

    @property
    def name(self) -> str:
        """File name: the last part of the address."""
        return self.url.rsplit("/", 1)[1]

    @property
    def known(self) -> str:
        """The checks of a download, in words."""
        parts = [f"{len(digits)} digits of {kind}" for kind, digits in self._digests() if digits]
        parts += ["size"] if self.size is not None else []
        return " and ".join(parts) or "unknown"

    def _digests(self) -> tuple[tuple[str, str | None], ...]:
        return ("SHA-256", self.sha256), ("MD5", self.md5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A published checkpoint."""

    name: str
    """Publisher, colon, and the publisher's own name of the checkpoint."""
    data: str
    """Training data."""
    measured_on: str
    """Data of the reported metrics."""
    figures: dict[str, float]
    """Metrics that the publisher reports, in 0..1, such as ``{"AP": 0.37}``; empty where unknown."""
    licence: str
    """The publisher's licence."""
    files: tuple[PublishedFile, ...]
    """The files. The first has the weights."""
    input_size: int | None = None
    """Size of the input in pixels where the weights do not tell it."""
    kind: Literal["detector", "backbone"] = "detector"
    """A detector, or an ImageNet network for its backbone."""

    @property
    def publisher(self) -> str:
        """The part of the name before the colon."""
        return self.name.split(":", 1)[0]

    @property
    def about(self) -> int | None:
        """Approximate size of all files in bytes; None where the first is unknown."""
        sizes = [file.size or file.about for file in self.files]
        return None if sizes[0] is None else sum(size or 0 for size in sizes)


COCO17, COCO_VAL = "COCO train2017", "COCO val2017"
BSD = "BSD-3-Clause (code); the weights carry no licence of their own"
CC = "CC BY-SA 3.0"
DARKNET = "YOLO LICENSE version 2 (no conditions)"
APACHE = "Apache-2.0"


def _torchvision(
    model: str, file: str, mebibytes: float, box: float, mask: float | None = None, size: int | None = None
) -> Published:
    digits = re.search(r"-([0-9a-f]{8})\.pth$", file)
    assert digits is not None
    url = f"https://download.pytorch.org/models/{file}"
    return Published(
        name=f"torchvision:{model}",
        data=COCO17,
        measured_on=COCO_VAL,
        figures={"AP": box} | ({} if mask is None else {"mask AP": mask}),
        licence=BSD,
        files=(PublishedFile(url=url, about=round(mebibytes * 2**20), sha256=digits[1]),),
        input_size=size,
    )


def _detectron2(
    config: str, model: str, box: float, mask: float | None = None, on: str = COCO_VAL, data: str = COCO17
) -> Published:
    number, digits = model.split("/")
    url = f"https://dl.fbaipublicfiles.com/detectron2/{config}/{number}/model_final_{digits}.pkl"
    return Published(
        name=f"detectron2:{config}",
        data=data,
        measured_on=on,
        figures={"AP": box} | ({} if mask is None else {"mask AP": mask}),
        licence=CC,
        files=(PublishedFile(url=url, md5=digits),),
    )


def _detectron(model: str, folder: str, box: float, mask: float | None = None) -> Published:
    data = "coco_2014_train%3Acoco_2014_valminusminival"
    root = "https://dl.fbaipublicfiles.com/detectron"
    return Published(
        name=f"detectron:{model}",
        data="COCO train2014 and valminusminival2014",
        measured_on="COCO minival2014",
        figures={"AP": box} | ({} if mask is None else {"mask AP": mask}),
        licence=CC,
        files=(PublishedFile(url=f"{root}/{folder}/output/train/{data}/generalized_rcnn/model_final.pkl"),),
    )


def _mmdet(
    family: str, config: str, file: str, box: float, mask: float | None = None, size: int | None = None
) -> Published:
    url = f"https://download.openmmlab.com/mmdetection/v2.0/{family}/{config}/{file}.pth"
    return Published(
        name=f"mmdet:{config}",
        data=COCO17,
        measured_on=COCO_VAL,
        figures={"AP": box} | ({} if mask is None else {"mask AP": mask}),
        licence=APACHE,
        files=(PublishedFile(url=url, size=size, sha256=file.rsplit("-", 1)[1]),),
    )


def _darknet(
    model: str,
    size: int,
    figures: dict[str, float],
    data: str,
    measured_on: str,
    edit: tuple[str, str] | None = None,
) -> Published:
    weights = PublishedFile(url=f"https://pjreddie.com/media/files/{model}.weights", size=size)
    cfg = f"https://raw.githubusercontent.com/pjreddie/darknet/master/cfg/{model}.cfg"
    return Published(
        name=f"darknet:{model}",
        data=data,
        measured_on=measured_on,
        figures=figures,
        licence=DARKNET,
        files=(weights, PublishedFile(url=cfg, about=8000, edit=edit)),
    )


def _backbone(
    name: str, url: str, licence: str, mebibytes: float | None = None, top: tuple[float, float] | None = None
) -> Published:
    digits = re.search(r"-([0-9a-f]{8})\.pth$", url)
    about = None if mebibytes is None else round(mebibytes * 2**20)
    return Published(
        name=name,
        data="ImageNet",
        measured_on="ImageNet val",
        figures={} if top is None else {"top-1": top[0], "top-5": top[1]},
        licence=licence,
        files=(PublishedFile(url=url, about=about, sha256=digits[1] if digits else None),),
        kind="backbone",
    )


def _classifier(model: str, file: str, mebibytes: float, *top: float) -> Published:
    url = f"https://download.pytorch.org/models/{file}.pth"
    return _backbone(f"torchvision:{model}", url, BSD, mebibytes, (top[0], top[1]) if top else None)


def _imagenet(publisher: Literal["detectron", "detectron2"], model: str) -> Published:
    url = f"https://dl.fbaipublicfiles.com/{publisher}/ImageNetPretrained/{model}.pkl"
    return _backbone(f"{publisher}:ImageNetPretrained/{model}", url, CC)


def _trunk(file: str, mebibytes: float, *top: float) -> Published:
    return _backbone(
        f"darknet:{file}", f"https://pjreddie.com/media/files/{file}", DARKNET, mebibytes, (top[0], top[1])
    )


_TRAINVAL, _TEST_DEV = "COCO trainval2014", "COCO test-dev"
_VOC, _VOC07 = "VOC 2007 and 2012 trainval", "VOC 2007 test"
# The masks of this cfg were changed after its weights had been trained; with the later ones their AP50 is .18.
_TINY_MASKS = ("mask = 0,1,2", "mask = 1,2,3")

CATALOGUE: tuple[Published, ...] = (  # detectors
    _torchvision("fasterrcnn_resnet50_fpn", "fasterrcnn_resnet50_fpn_coco-258fb6c6.pth", 159.743, 0.370),
    _torchvision("fasterrcnn_resnet50_fpn_v2", "fasterrcnn_resnet50_fpn_v2_coco-dd69338a.pth", 167.104, 0.467),
    _torchvision(
        "fasterrcnn_mobilenet_v3_large_fpn",
        "fasterrcnn_mobilenet_v3_large_fpn-fb6a3cc7.pth",
        74.239,
        0.328,
        size=800,
    ),
    _torchvision(
        "fasterrcnn_mobilenet_v3_large_320_fpn",
        "fasterrcnn_mobilenet_v3_large_320_fpn-907ea3f9.pth",
        74.239,
        0.228,
        size=320,
    ),
    _torchvision("maskrcnn_resnet50_fpn", "maskrcnn_resnet50_fpn_coco-bf2d0c1e.pth", 169.84, 0.379, 0.346),
    _torchvision("maskrcnn_resnet50_fpn_v2", "maskrcnn_resnet50_fpn_v2_coco-73cbd019.pth", 177.219, 0.474, 0.418),
    _torchvision("retinanet_resnet50_fpn", "retinanet_resnet50_fpn_coco-eeacb38b.pth", 130.267, 0.364),
    _torchvision("retinanet_resnet50_fpn_v2", "retinanet_resnet50_fpn_v2_coco-5905b1c5.pth", 146.037, 0.415),
    _torchvision("ssd300_vgg16", "ssd300_vgg16_coco-b556d3b4.pth", 135.988, 0.251),
    _torchvision("ssdlite320_mobilenet_v3_large", "ssdlite320_mobilenet_v3_large_coco-a79551df.pth", 13.418, 0.213),
    _detectron2("COCO-Detection/faster_rcnn_R_50_C4_1x", "137257644/721ade", 0.357),
    _detectron2("COCO-Detection/faster_rcnn_R_50_DC5_1x", "137847829/51d356", 0.373),
    _detectron2("COCO-Detection/faster_rcnn_R_50_FPN_1x", "137257794/b275ba", 0.379),
    _detectron2("COCO-Detection/faster_rcnn_R_50_C4_3x", "137849393/f97cb7", 0.384),
    _detectron2("COCO-Detection/faster_rcnn_R_50_DC5_3x", "137849425/68d202", 0.390),
    _detectron2("COCO-Detection/faster_rcnn_R_50_FPN_3x", "137849458/280758", 0.402),
    _detectron2("COCO-Detection/faster_rcnn_R_101_C4_3x", "138204752/298dad", 0.411),
    _detectron2("COCO-Detection/faster_rcnn_R_101_DC5_3x", "138204841/3e0943", 0.406),
    _detectron2("COCO-Detection/faster_rcnn_R_101_FPN_3x", "137851257/f6e8b1", 0.420),
    _detectron2("COCO-Detection/retinanet_R_50_FPN_1x", "190397773/bfca0b", 0.374),
    _detectron2("COCO-Detection/retinanet_R_50_FPN_3x", "190397829/5bd44e", 0.387),
    _detectron2("COCO-Detection/retinanet_R_101_FPN_3x", "190397697/971ab9", 0.404),
    _detectron2("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_1x", "137260431/a54504", 0.386, 0.352),
    _detectron2("COCO-InstanceSegmentation/mask_rcnn_R_50_FPN_3x", "137849600/f10217", 0.410, 0.372),
    _detectron2("COCO-InstanceSegmentation/mask_rcnn_R_101_FPN_3x", "138205316/a3ec72", 0.429, 0.386),
    _detectron(
        "e2e_faster_rcnn_R-50-FPN_1x",
        "35857345/12_2017_baselines/e2e_faster_rcnn_R-50-FPN_1x.yaml.01_36_30.cUF7QR7I",
        0.367,
    ),
    _detectron(
        "e2e_faster_rcnn_R-101-FPN_1x",
        "35857890/12_2017_baselines/e2e_faster_rcnn_R-101-FPN_1x.yaml.01_38_50.sNxI7sX7",
        0.394,
    ),
    _mmdet(
        "faster_rcnn",
        "faster_rcnn_r50_fpn_1x_coco",
        "faster_rcnn_r50_fpn_1x_coco_20200130-047c8118",
        0.374,
        size=167_287_506,
    ),
    _mmdet(
        "mask_rcnn",
        "mask_rcnn_r50_fpn_1x_coco",
        "mask_rcnn_r50_fpn_1x_coco_20200205-d4b0c5d6",
        0.382,
        0.347,
    ),
    _mmdet("retinanet", "retinanet_r50_fpn_1x_coco", "retinanet_r50_fpn_1x_coco_20200130-c2398f9e", 0.365),
    _mmdet("ssd", "ssd300_coco", "ssd300_coco_20210803_015428-d231a06e", 0.255),
    _mmdet("ssd", "ssd512_coco", "ssd512_coco_20210803_022849-0a47a1ca", 0.295),
    _mmdet(
        "yolo",
        "yolov3_d53_mstrain-608_273e_coco",
        "yolov3_d53_mstrain-608_273e_coco_20210518_115020-a2c3acb8",
        0.337,
    ),
    _darknet("yolov1", 789_312_988, {"mAP": 0.634}, _VOC, _VOC07),
    _darknet("yolov2", 203_934_260, {}, _TRAINVAL, _TEST_DEV),
    _darknet("yolov2-tiny", 44_948_600, {}, _TRAINVAL, _TEST_DEV),
    _darknet("yolov2-voc", 202_704_260, {"mAP": 0.768}, _VOC, _VOC07),
    _darknet("yolov2-tiny-voc", 63_471_556, {}, _VOC, _VOC07),
    _darknet("yolov3", 248_007_048, {"AP50": 0.579}, _TRAINVAL, _TEST_DEV),
    _darknet("yolov3-spp", 252_209_544, {"AP50": 0.606}, _TRAINVAL, _TEST_DEV),
    _darknet("yolov3-tiny", 35_434_956, {"AP50": 0.331}, _TRAINVAL, _TEST_DEV, edit=_TINY_MASKS),
    Published(
        name="ssd_pytorch:ssd300_mAP_77.43_v2",
        data=_VOC,
        measured_on=_VOC07,
        figures={"mAP": 0.7743},
        licence="MIT",
        files=(PublishedFile(url="https://s3.amazonaws.com/amdegroot-models/ssd300_mAP_77.43_v2.pth"),),
    ),
)

BACKBONES: tuple[Published, ...] = (
    _classifier("resnet18", "resnet18-f37072fd", 44.661, 0.69758, 0.89078),
    _classifier("resnet34", "resnet34-b627a593", 83.275, 0.73314, 0.91420),
    _classifier("resnet50", "resnet50-0676ba61", 97.781, 0.76130, 0.92862),
    _classifier("resnet101", "resnet101-63fe2227", 170.511, 0.77374, 0.93546),
    _classifier("resnet152", "resnet152-394f9c45", 230.434, 0.78312, 0.94046),
    _classifier("vgg11", "vgg11-8a719046", 506.840, 0.69020, 0.88628),
    _classifier("vgg13", "vgg13-19584684", 507.545, 0.69928, 0.89246),
    _classifier("vgg16", "vgg16-397923af", 527.796, 0.71592, 0.90382),
    _classifier("vgg16_bn", "vgg16_bn-6c64b313", 527.866, 0.73360, 0.91516),
    _classifier("vgg16_features", "vgg16_features-amdegroot-88682ab5", 527.802),
    _classifier("vgg19", "vgg19-dcbb9e9d", 548.051, 0.72376, 0.90876),
    _classifier("mobilenet_v2", "mobilenet_v2-b0353104", 13.555, 0.71878, 0.90286),
    _classifier("mobilenet_v3_large", "mobilenet_v3_large-8738ca79", 21.114, 0.74042, 0.91340),
    _imagenet("detectron2", "MSRA/R-50"),
    _imagenet("detectron2", "MSRA/R-101"),
    _imagenet("detectron2", "torchvision/R-50"),
    _imagenet("detectron", "MSRA/R-50"),
    _imagenet("detectron", "MSRA/R-101"),
    _trunk("darknet19_448.conv.23", 75.7, 0.765, 0.933),  # arXiv 1612.08242 §3
    _trunk("darknet53.conv.74", 155.0, 0.772, 0.938),  # arXiv 1804.02767, table 2
    _backbone(
        "ssd_pytorch:vgg16_reducedfc", "https://s3.amazonaws.com/amdegroot-models/vgg16_reducedfc.pth", "MIT", 78.1
    ),
)

_BY_NAME = {entry.name: entry for entry in (*CATALOGUE, *BACKBONES)}


def is_name(text: str) -> bool:
    """Return True if ``text`` has the form of a published name, known or not."""
    return NAME.fullmatch(text) is not None


def find_published(name: str) -> Published:
    """Return the entry called ``name``. Raises InputError with the nearest names and the command that lists all."""
    if name in _BY_NAME:
        return _BY_NAME[name]
    near = nearest(name, _BY_NAME) or ";"
    raise InputError(f"{name}: no published checkpoint of that name is known{near} `boxwright weights list` shows all")
