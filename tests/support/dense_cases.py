"""One-stage detectors other than YOLO, small enough to test."""

from boxwright.anchors.priors import PriorConfig
from boxwright.backbones.detnet import DetNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.refinedet import RefineDetConfig, RefineDetHeadConfig
from boxwright.detectors.retinanet import RetinaNetConfig, octave_anchors
from boxwright.detectors.ssd import SSDConfig, SSDHeadConfig
from boxwright.heads.dense import DenseHeadConfig
from boxwright.heads.extra_maps import ExtraConfig
from boxwright.heads.postprocess import PostprocessConfig
from boxwright.necks.fpn import FPNConfig
from tests.support.options import with_options

PLAIN_SSD = SSDConfig(
    size=(128, 160),
    backbone=VGGConfig(depth=11, width=8, norm="bn", fc="reduced", out_levels=(4, 6)),
    extras=(ExtraConfig(hidden=16, out=32), ExtraConfig(hidden=16, out=32)),
    head=SSDHeadConfig(norm="bn"),
    priors=PriorConfig(sizes=(16, 32, 56, 80, 110), ratios=((2,), (2, 3), (2, 3), (2,)), steps=(8, 16, 32, 64)),
    post=PostprocessConfig(score_threshold=0.01, nms_iou=0.3, per_class=50, candidates=100, detections=50),
)


# Small enough for the tests that hold for every detector: the paper's way, and the other way at every fork.
SMALL_SSD = {
    "ssd": PLAIN_SSD,
    "ssdlite_focal": with_options(
        PLAIN_SSD,
        {
            "head.separable": True,
            "l2_scale": None,
            "priors.steps": None,
            "assign.method": "atss",
            "loss.classification": "quality_focal",
            "loss.box": "giou",
            "post.per_class": None,
        },
    ),
}


def small_retinanet(**changes: object) -> RetinaNetConfig:
    """Return a small RetinaNet on DetNet, with strides 8, 16, 16, 16 and 32."""
    config = RetinaNetConfig(
        backbone=DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, out_levels=(3, 4, 5, 6)),
        neck=FPNConfig(channels=16, extra="conv_c", extra_strides=(2,)),
        anchors=octave_anchors(bases=(16, 24, 32, 48, 64), scales=2),
        head=DenseHeadConfig(convs=1, norm="bn", prior=0.2),
        post=PostprocessConfig(candidates=100, detections=20, min_size=0.0),
    )
    return with_options(config, changes)


MODERN_RETINANET = {"assign.method": "atss", "loss.classification": "quality_focal", "loss.box": "giou"}


SMALL_RETINANET = {
    "retinanet": small_retinanet(),
    "retinanet_modern": small_retinanet(**MODERN_RETINANET),
    "retinanet_average": small_retinanet(**{"head.norm": "gn", "loss.normalizer": "average"}),
}


def small_refinedet_vgg() -> VGGConfig:
    return VGGConfig(depth=11, width=8, norm="bn", fc="reduced", fc6_dilation=3, pool5="2x2s2", out_levels=(4, 5, 6))


def small_refinedet(**changes: object) -> RefineDetConfig:
    config = RefineDetConfig(
        backbone=small_refinedet_vgg(),
        top_channels=(16, 32),
        head=RefineDetHeadConfig(channels=16, norm="bn"),
        post=PostprocessConfig(score_threshold=0.01, nms_iou=0.45, candidates=200, detections=50),
    )
    return with_options(config, changes)


def small_refinedet_detnet() -> RefineDetConfig:
    """Return a small RefineDet on DetNet. Three of its four maps have the same stride."""
    backbone = DetNetConfig(depths=(1, 1, 1, 1, 1), width=8, out_levels=(3, 4, 5, 6))
    return small_refinedet(**{"backbone": backbone, "top": "none", "l2_scales": (None,) * 4, "head.block": 8})


SMALL_REFINEDET = {"refinedet": small_refinedet(), "refinedet_detnet": small_refinedet_detnet()}
