"""Fast R-CNN, Faster R-CNN and R-FCN from ``.caffemodel`` files: narrow networks by Caffe's rules and by ours."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.backbones.zf import ZFConfig
from boxwright.detectors.fast_rcnn import FastRCNN, FastRCNNConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4, FasterRCNNC4Config
from boxwright.detectors.rfcn import RFCN, RFCNConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig
from boxwright.structures import Classes, DetectionBatch, Images, InputError
from boxwright.weights.caffe.models import import_caffe, recognise_caffe
from boxwright.weights.caffe.protobuf import CaffeLayer, CaffeModel, read_caffemodel
from boxwright.weights.common.class_names import VOC
from boxwright.weights.common.imported import Imported, build_imported
from tests.support import caffe_reference as ref
from tests.support.caffe_networks import STAGES_101, check_shapes, first_blob_small, full_vgg, published
from tests.support.caffe_reference import Net, Random, field

CLASSES, HIDDEN, CHANNELS, PROPOSALS = 3, 24, 16, 40
HEIGHT, WIDTH = 117, 166  # divided by no stride


def pixels() -> tuple[Images, Tensor]:
    """Return an image, and Caffe's input for it: BGR minus the mean."""
    generator = torch.Generator().manual_seed(5)
    coarse = torch.rand(1, 3, 9, 12, generator=generator) * 255
    image = torch.nn.functional.interpolate(coarse, (HEIGHT, WIDTH), mode="bicubic").clamp(0, 255).round()
    bgr = image.flip(1) - torch.tensor([102.9801, 115.9465, 122.7717])[:, None, None]
    return Images(image.to(torch.uint8), torch.tensor([[HEIGHT, WIDTH]])), bgr


def rpn_blobs(random: Random, inputs: int, anchors: int = 9) -> None:
    random.conv("rpn_conv/3x3", CHANNELS, inputs)
    random.conv("rpn_cls_score", 2 * anchors, CHANNELS, 1, gain=0.5)
    random.conv("rpn_bbox_pred", 4 * anchors, CHANNELS, 1, gain=0.1)


def layers_blobs(random: Random, inputs: int) -> None:
    random.matrix("fc6", HIDDEN, inputs)
    random.matrix("fc7", HIDDEN, HIDDEN)
    random.matrix("cls_score", CLASSES + 1, HIDDEN, gain=2.0)
    random.matrix("bbox_pred", 4 * (CLASSES + 1), HIDDEN, gain=0.2)


def scaled_output(net: Net, name: str, x: Tensor) -> Tensor:
    weight, bias = net.blobs[name]
    return x @ weight.reshape(-1, weight.shape[-1]).T + bias.flatten()


def layers_forward(net: Net, pooled: Tensor, share: float = 1.0) -> tuple[Tensor, Tensor]:
    """Return probabilities ``[n, K + 1]`` and offsets ``[n, K + 1, 4]``."""
    x = pooled.flatten(1)
    for name in ("fc6", "fc7"):
        x = scaled_output(net, name, x).relu() * share
    return scaled_output(net, "cls_score", x).softmax(1), scaled_output(net, "bbox_pred", x).unflatten(1, (-1, 4))


def narrowed(imported: Imported, **changes: object) -> Imported:
    """Return the import with fewer channels and proposals than the published network."""
    config = replace(imported.config, **changes)  # type: ignore[arg-type]
    if not isinstance(config, FastRCNNConfig):
        config = replace(config, rpn=replace(config.rpn, post_nms=(300, PROPOSALS)))  # type: ignore[union-attr, arg-type]
    return imported._replace(config=config)


def compare(found: DetectionBatch, expected: np.ndarray, least: int) -> None:
    ours = torch.cat([found.labels[0, :, None], found.scores[0, :, None], found.boxes[0]], 1)[found.valid[0]]
    assert len(expected) >= least, "the case must find something"
    assert len(ours) == len(expected)
    unit = torch.tensor([0.1, 1e-4, 0.02, 0.02, 0.02, 0.02])
    near = (ours[:, None] - torch.from_numpy(expected).float()).abs() / unit
    assert (near.amax(-1) < 1).any(0).all()
    assert (near.amax(-1) < 1).any(1).all()


@pytest.fixture(scope="module")
def vgg_blobs() -> dict[str, tuple[Tensor, ...]]:
    random = Random(1)
    random.vgg(8, reduced=False)
    first_blob_small(random, "conv1_1")
    rpn_blobs(random, 64)
    layers_blobs(random, 64 * 49)
    return random.blobs


def faster(imported: Imported, backbone: VGGConfig | ZFConfig) -> FasterRCNNC4:
    config = imported.config
    assert isinstance(config, FasterRCNNC4Config)
    assert isinstance(config.head, LayersHeadConfig)
    detector = build_imported(
        narrowed(imported, backbone=backbone, head=replace(config.head, hidden=(HIDDEN, HIDDEN))), "narrow"
    )
    assert isinstance(detector, FasterRCNNC4)
    return detector


@torch.inference_mode()
def check_faster(net: Net, fmap: Tensor, detector: FasterRCNNC4, cells: int, share: float) -> None:
    images, _ = pixels()
    ours = detector.backbone(detector.normalise(images))[0]
    torch.testing.assert_close(ours, fmap, atol=1e-4, rtol=1e-4)
    hidden = net.relu_conv(fmap, "rpn_conv/3x3", pad=1)
    scores, deltas = net.conv(hidden, "rpn_cls_score"), net.conv(hidden, "rpn_bbox_pred")
    boxes = ref.proposals(scores, deltas, (128, 256, 512), (HEIGHT, WIDTH), 6000, PROPOSALS)
    found = detector.rpn.proposals([ours], images.sizes, training=False)
    mine = found.boxes[0][found.valid[0]].numpy()
    assert mine.shape == boxes.shape
    assert len(boxes) > 4
    np.testing.assert_allclose(mine, boxes, atol=5e-3)
    probabilities, offsets = layers_forward(net, ref.roi_pool(fmap, boxes, cells), share)
    refined = np.stack([ref.transformed(boxes, offsets[:, k].numpy(), 1.0) for k in range(CLASSES + 1)], 1)
    compare(detector(images), ref.detections(refined, probabilities.numpy(), (HEIGHT, WIDTH), 0.05, 100), 4)


def test_faster_rcnn_on_vgg16(vgg_blobs: dict[str, tuple[Tensor, ...]], tmp_path: Path) -> None:
    model = read_caffemodel(ref.write(tmp_path / "vgg.caffemodel", vgg_blobs))
    assert recognise_caffe(model)
    imported = import_caffe(model)
    assert imported.source == "rbgirshick faster_rcnn_vgg16"
    assert imported.classes.names == ("class_0", "class_1", "class_2")
    detector = faster(imported, VGGConfig(width=8, freeze_at=2, out_levels=(5,)))
    net = Net(vgg_blobs)
    check_faster(net, net.vgg(pixels()[1])["conv5_3"], detector, 7, 1.0)


def zf_blobs() -> dict[str, tuple[Tensor, ...]]:
    random, inputs = Random(2), 3
    for number, (out, kernel) in enumerate(((24, 7), (64, 5), (96, 3), (96, 3), (64, 3)), start=1):
        random.conv(f"conv{number}", out, inputs, kernel)
        inputs = out
    first_blob_small(random, "conv2")  # the first normalisation has something to divide
    rpn_blobs(random, 64)
    layers_blobs(random, 64 * 36)
    return random.blobs


def zf_map(net: Net) -> Tensor:
    """Return conv5, with the local response normalisation and the pools of the prototxt."""
    x = pixels()[1]
    for number, (stride, pad) in enumerate(((2, 3), (2, 2), (1, 1), (1, 1), (1, 1)), start=1):
        x = net.relu_conv(x, f"conv{number}", stride, pad)
        if number < 3:
            padded = torch.nn.functional.pad(x.square(), (1, 1, 1, 1))
            energy = sum(padded[:, :, i : i + x.shape[2], j : j + x.shape[3]] for i in range(3) for j in range(3))
            x = net.pool(x * (1 + 5e-5 * energy / 9) ** -0.75, 3, 2, 1)
    return x


@pytest.mark.parametrize(("stated", "share"), [(None, 0.5), (0, 0.5), (1, 1.0)])
def test_faster_rcnn_on_zf(tmp_path: Path, stated: int | None, share: float) -> None:
    """Its dropout halves outputs at test instead of doubling them in training, and the file may state otherwise."""
    blobs = zf_blobs()
    extra = b"" if stated is None else ref.layer("drop6", "Dropout", settings=field(108, field(2, stated)))
    imported = import_caffe(read_caffemodel(ref.write(tmp_path / "zf.caffemodel", blobs, extra)))
    assert imported.source == "rbgirshick faster_rcnn_zf"
    detector = faster(imported, ZFConfig(width=0.25, ceil_mode=True))
    net = Net(blobs)
    check_faster(net, zf_map(net), detector, 6, share)


@torch.inference_mode()
def test_fast_rcnn(vgg_blobs: dict[str, tuple[Tensor, ...]], tmp_path: Path) -> None:
    blobs = {name: value for name, value in vgg_blobs.items() if not name.startswith("rpn")}
    imported = import_caffe(read_caffemodel(ref.write(tmp_path / "fast.caffemodel", blobs)))
    assert imported.source == "rbgirshick fast_rcnn_vgg16"
    config = imported.config
    assert isinstance(config, FastRCNNConfig)
    assert isinstance(config.head, LayersHeadConfig)
    head = replace(config.head, hidden=(HIDDEN, HIDDEN))
    detector = build_imported(narrowed(imported, backbone=VGGConfig(width=8, out_levels=(5,)), head=head), "narrow")
    assert isinstance(detector, FastRCNN)
    generator = np.random.default_rng(0)
    corner, side = generator.uniform(0, 90, (30, 2)), generator.uniform(8, 70, (30, 2))
    boxes = np.concatenate([corner, np.minimum(corner + side, [WIDTH - 1, HEIGHT - 1])], 1).astype(np.float32)
    net, (images, bgr) = Net(blobs), pixels()
    probabilities, offsets = layers_forward(net, ref.roi_pool(net.vgg(bgr)["conv5_3"], boxes, 7))
    refined = np.stack([ref.transformed(boxes, offsets[:, k].numpy(), 0.0) for k in range(CLASSES + 1)], 1)
    expected = ref.detections(refined, probabilities.numpy(), (HEIGHT, WIDTH), 0.0, 100)
    compare(detector(images._replace(proposals=torch.from_numpy(boxes)[None])), expected, 20)


STAGES_50 = {2: list("abc"), 3: list("abcd"), 4: list("abcdef"), 5: list("abc")}


def rfcn_blobs(stages: dict[int, list[str]], stem_bias: bool, anchors: int = 9) -> dict[str, tuple[Tensor, ...]]:
    random = Random(3)
    random.resnet(8, stages, stem_bias)
    first_blob_small(random, "conv1")
    rpn_blobs(random, 128, anchors)
    random.conv("conv_new_1", 16, 256, 1, gain=0.5)
    random.conv("rfcn_cls", 49 * (CLASSES + 1), 16, 1)
    random.conv("rfcn_bbox", 49 * 8, 16, 1, gain=0.3)
    return random.blobs


@torch.inference_mode()
@pytest.mark.parametrize(("depth", "anchors"), [(50, 9), pytest.param(101, 12, marks=pytest.mark.slow)])
def test_rfcn(tmp_path: Path, depth: int, anchors: int) -> None:
    stages = STAGES_50 if depth == 50 else STAGES_101
    blobs = rfcn_blobs(stages, stem_bias=depth == 50, anchors=anchors)
    imported = import_caffe(read_caffemodel(ref.write(tmp_path / "rfcn.caffemodel", blobs)))
    assert imported.source == f"YuwenXiong/py-R-FCN rfcn_resnet{depth}"
    config = imported.config
    assert isinstance(config, RFCNConfig)
    assert isinstance(config.backbone, ResNetConfig)
    detector = build_imported(
        narrowed(imported, backbone=replace(config.backbone, width=8), head=replace(config.head, channels=16)), "narrow"
    )
    assert isinstance(detector, RFCN)
    net, (images, bgr) = Net(blobs), pixels()
    maps = net.resnet(bgr, stages, dilated=True)
    ours = detector.backbone(detector.normalise(images))
    for mine, stage in zip(ours, (4, 5), strict=True):
        torch.testing.assert_close(mine, maps[stage], atol=2e-4, rtol=2e-4)
    hidden = net.relu_conv(maps[4], "rpn_conv/3x3", pad=1)
    sizes = (128, 256, 512) if anchors == 9 else (64, 128, 256, 512)
    boxes = ref.proposals(net.conv(hidden, "rpn_cls_score"), net.conv(hidden, "rpn_bbox_pred"), sizes, (HEIGHT, WIDTH),
                          6000, PROPOSALS)  # fmt: skip
    found = detector.rpn.proposals(ours[:1], images.sizes, training=False)
    np.testing.assert_allclose(found.boxes[0][found.valid[0]].numpy(), boxes, atol=5e-3)
    new = net.relu_conv(maps[5], "conv_new_1")
    probabilities = ref.psroi_pool(net.conv(new, "rfcn_cls"), boxes, 7).softmax(1).numpy()
    offsets = ref.psroi_pool(net.conv(new, "rfcn_bbox"), boxes, 7)[:, 4:].numpy()  # the code reads columns 4 to 7
    refined = np.repeat(ref.transformed(boxes, offsets, 1.0)[:, None], CLASSES + 1, 1)
    compare(detector(images), ref.detections(refined, probabilities, (HEIGHT, WIDTH), 0.0, 400), 10)


def full_head() -> dict[str, tuple[tuple[int, ...], ...]]:
    return {
        "fc6": ((1, 1, 4096, 25088), (1, 1, 1, 4096)), "fc7": ((4096, 4096), (4096,)),
        "cls_score": ((21, 4096), (21,)), "bbox_pred": ((84, 4096), (84,)),
    }  # fmt: skip


def test_networks_of_full_size_fit() -> None:
    rpn = {"rpn_conv/3x3": ((512, 512, 3, 3), (512,)), "rpn_cls_score": ((18, 512, 1, 1), (18,)),
           "rpn_bbox_pred": ((36, 512, 1, 1), (36,))}  # fmt: skip
    fast = import_caffe(published({**full_vgg(), **full_head()}))
    assert fast.classes is VOC
    check_shapes(fast)
    check_shapes(import_caffe(published({**full_vgg(), **rpn, **full_head()})))


def test_what_is_refused() -> None:
    fast = {**full_vgg(), "fc6": ((8, 25088), (8,)), "fc7": ((8, 8), (8,)), "cls_score": ((21, 8), (21,)),
            "bbox_pred": ((84, 8), (84,))}  # fmt: skip
    with pytest.raises(InputError, match="is for 20 classes and background, but 2 names were given; give 20"):
        import_caffe(published(fast), Classes.from_names(["a", "b"]))
    half = dict(list(fast.items())[::2]) | {name: fast[name] for name in ("fc7", "cls_score", "bbox_pred", "conv5_3")}
    with pytest.raises(InputError, match=r"no whole model of fast_rcnn_vgg16 of rbgirshick: layer 'conv1_2' has no"):
        import_caffe(published(half))
    with pytest.raises(InputError, match=r"1 layers with weights are not of fast_rcnn_vgg16 .*, the first is 'more'"):
        import_caffe(published({**fast, "more": ((1,),)}))
    with pytest.raises(InputError, match="bbox_pred has 8 rows for 20 classes"):
        import_caffe(published({**fast, "bbox_pred": ((8, 8), (8,))}))
    with pytest.raises(InputError, match="layer 'conv1_1' has 1 blobs; fast_rcnn_vgg16 of rbgirshick has 2 there"):
        import_caffe(published({**fast, "conv1_1": ((64, 3, 3, 3),)}))
    caffenet = {name: fast[name] for name in ("fc6", "fc7", "cls_score", "bbox_pred")}
    with pytest.raises(InputError, match="CaffeNet and VGG_CNN_M_1024 are not known"):
        import_caffe(published(caffenet))
    with pytest.raises(InputError, match=r"none of the detectors that can be read.*conv1_1, conv1_2"):
        import_caffe(published(full_vgg()))
    with pytest.raises(InputError, match="size = 512 is for RefineDet"):
        import_caffe(published(fast), size=512)
    anchors = {**fast, "rpn_conv/3x3": ((512, 512, 3, 3), (512,)), "rpn_cls_score": ((14, 512, 1, 1), (14,)),
               "rpn_bbox_pred": ((28, 512, 1, 1), (28,))}  # fmt: skip
    with pytest.raises(InputError, match="7 anchors in a cell; known are 9"):
        import_caffe(published(anchors))


def test_rfcn_files_that_are_refused() -> None:
    blobs = rfcn_blobs(STAGES_50, stem_bias=False)

    def model(**changes: tuple[Tensor, ...] | None) -> CaffeModel:
        layers = {name: CaffeLayer(name, "", value, {}) for name, value in {**blobs, **changes}.items() if value}
        return CaffeModel("", layers, "x.caffemodel")

    without = {name: None for name in blobs if name.startswith("rpn")}
    with pytest.raises(InputError, match="an R-FCN without a proposal network, as the MATLAB code writes it"):
        import_caffe(model(**without))
    with pytest.raises(InputError, match="200 maps of boxes and 196 of scores"):
        import_caffe(model(rfcn_bbox=(torch.zeros(200, 16, 1, 1), torch.zeros(200))))
    with pytest.raises(InputError, match="layer 'bn3a_branch1' has no weights there"):
        import_caffe(model(bn3a_branch1=None))


@torch.inference_mode()
def test_an_untrained_batch_norm_has_no_statistics() -> None:
    blobs = rfcn_blobs(STAGES_50, stem_bias=False)
    mean, var, count = blobs["bn_conv1"]
    layers = {name: CaffeLayer(name, "", value, {}) for name, value in blobs.items()}
    layers["bn_conv1"] = CaffeLayer("bn_conv1", "", (mean, var, torch.zeros_like(count)), {})
    state = import_caffe(CaffeModel("", layers, "x")).state
    assert state["backbone.bn1.running_mean"].abs().max() == 0
    assert state["backbone.bn1.running_var"].abs().max() == 0
