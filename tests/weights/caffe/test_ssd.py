"""SSD and RefineDet from ``.caffemodel`` files: narrow networks by Caffe's rules and by ours, and shapes."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from boxwright.anchors.priors import default_boxes
from boxwright.backbones.resnet import ResNetConfig
from boxwright.backbones.vgg import VGGConfig
from boxwright.detectors.refinedet import RefineDet, RefineDetConfig
from boxwright.detectors.ssd import SSD, SSDConfig
from boxwright.heads.extra_maps import ExtraConfig
from boxwright.structures import Classes, Images, InputError
from boxwright.weights.caffe.models import (
    caffe_sizes,
    import_caffe,
    import_caffe_backbone,
    recognise_caffe,
    recognise_caffe_backbone,
)
from boxwright.weights.caffe.protobuf import CaffeLayer, CaffeModel, read_caffemodel
from boxwright.weights.caffe.ssd import refinedet_size
from boxwright.weights.common.class_names import COCO, VOC
from boxwright.weights.common.imported import build_imported
from boxwright.weights.common.imported_backbone import build_classifier
from tests.support import caffe_reference as ref
from tests.support.caffe_networks import STAGES_101, check_shapes, first_blob_small, full_vgg, published
from tests.support.caffe_reference import Net, Random, field, floats
from tests.support.options import with_options

CLASSES = 3
SSD300 = {  # source: least and largest size, step, ratios beside 1, and the layer before it
    "conv4_3_norm": (30, 60, 8, (2,)), "fc7": (60, 111, 16, (2, 3)), "conv6_2": (111, 162, 32, (2, 3)),
    "conv7_2": (162, 213, 64, (2, 3)), "conv8_2": (213, 264, 100, (2,)), "conv9_2": (264, 315, 300, (2,)),
}  # fmt: skip


def input_of(side: int) -> tuple[Images, Tensor]:
    """Return an image, and Caffe's input for it: BGR minus the mean."""
    coarse = torch.rand(1, 3, 9, 9, generator=torch.Generator().manual_seed(4)) * 255
    image = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic").clamp(0, 255).round()
    bgr = image.flip(1) - torch.tensor([104.0, 117.0, 123.0])[:, None, None]
    return Images(image.to(torch.uint8), torch.tensor([[side, side]])), bgr


def head_blobs(random: Random, source: str, inputs: int, cells: int, classes: int = CLASSES + 1) -> None:
    random.conv(f"{source}_mbox_loc", 4 * cells, inputs)
    random.conv(f"{source}_mbox_conf", classes * cells, inputs)


def rows(net: Net, source: str, fmap: Tensor, classes: int) -> tuple[Tensor, Tensor]:
    """Return offsets ``[n, 4]`` and scores ``[n, classes]``, background first, permuted and flattened as in Caffe."""
    loc, conf = (net.conv(fmap, f"{source}_mbox_{part}", pad=1)[0].permute(1, 2, 0) for part in ("loc", "conf"))
    return loc.reshape(-1, 4), conf.reshape(-1, classes)


def prior_layers(table: dict[str, tuple[float, float, float, tuple[float, ...]]], clip: int = 0) -> bytes:
    """Return the layers of the default boxes, with their settings."""
    out = b""
    for source, (least, largest, step, ratios) in table.items():
        message = floats(1, least) + floats(2, largest) + floats(3, *ratios) + field(4, 1) + field(5, clip)
        message += floats(6, 0.1, 0.1, 0.2, 0.2) + floats(10, step) + floats(13, 0.5)
        out += ref.layer(f"{source}_mbox_priorbox", "PriorBox", settings=field(203, message))
    return out


def ssd_blobs() -> dict[str, tuple[Tensor, ...]]:
    random = Random(7)
    random.vgg(8, reduced=True)
    first_blob_small(random, "conv1_1")
    random.blobs["conv4_3_norm"] = (20 + random.draw(64),)
    inputs = 128
    for number in range(6, 10):
        random.conv(f"conv{number}_1", 16, inputs, 1)
        random.conv(f"conv{number}_2", 32, 16)
        inputs = 32
    for source, channels, cells in zip(SSD300, (64, 128, 32, 32, 32, 32), (4, 6, 6, 6, 4, 4), strict=True):
        head_blobs(random, source, channels, cells)
    return random.blobs


def ssd_forward(net: Net, x: Tensor) -> list[tuple[str, Tensor]]:
    maps = net.vgg(x)
    out = [("conv4_3_norm", net.normalise(maps["conv4_3"], "conv4_3_norm"))]
    x = net.relu_conv(net.pool(maps["conv5_3"], 3, 1, 1), "fc6", pad=6, dilation=6)
    out.append(("fc7", x := net.relu_conv(x, "fc7")))
    for number, (stride, pad) in enumerate(((2, 1), (2, 1), (1, 0), (1, 0)), start=6):
        x = net.relu_conv(net.relu_conv(x, f"conv{number}_1"), f"conv{number}_2", stride, pad)
        out.append((f"conv{number}_2", x))
    return out


@torch.inference_mode()
def test_ssd300_computes_what_caffe_does(tmp_path: Path) -> None:
    blobs = ssd_blobs()
    model = read_caffemodel(ref.write(tmp_path / "ssd.caffemodel", blobs, prior_layers(SSD300)))
    assert recognise_caffe(model)
    imported = import_caffe(model)
    assert imported.source == "weiliu89/caffe ssd300_vgg16"
    config = imported.config
    assert isinstance(config, SSDConfig)
    assert config == SSDConfig(priors=config.priors, post=config.post), "all else is the default"
    extras = [replace(extra, hidden=16, out=32) for extra in config.extras]
    assert all(isinstance(extra, ExtraConfig) for extra in extras)
    backbone = VGGConfig(width=8, fc="reduced", out_levels=(4, 6))
    detector = build_imported(imported._replace(config=replace(config, backbone=backbone, extras=tuple(extras))), "x")
    assert isinstance(detector, SSD)
    net, (images, bgr) = Net(blobs), input_of(300)
    maps = detector.maps(detector.normalise(images))
    deltas, logits = detector.predict(maps)
    expected = ssd_forward(net, bgr)
    for mine, (source, fmap) in zip(maps, expected, strict=True):
        torch.testing.assert_close(mine, fmap, atol=1e-3, rtol=1e-3, msg=source)
    parts = [rows(net, source, fmap, CLASSES + 1) for source, fmap in expected]
    torch.testing.assert_close(deltas[0], torch.cat([loc for loc, _ in parts]), atol=2e-3, rtol=1e-3)
    scores = torch.cat([conf for _, conf in parts])
    torch.testing.assert_close(logits[0][:, [3, 0, 1, 2]], scores, atol=2e-3, rtol=1e-3)

    shapes = [(fmap.shape[2], fmap.shape[3]) for _, fmap in expected]
    assert [rows for rows, _ in shapes] == [38, 19, 10, 5, 3, 1]
    boxes = default_boxes(config.priors, shapes, (300, 300), torch.device("cpu")).numpy()
    np.testing.assert_allclose(boxes, caffe_priors(SSD300, [rows for rows, _ in shapes]), atol=1e-3)
    found = detector(images)
    assert found.valid.sum() == 200
    assert found.scores.max() <= 1


def caffe_priors(table: dict[str, tuple[float, float, float, tuple[float, ...]]], maps: list[int]) -> np.ndarray:
    """Compute Caffe's PriorBox in pixels. Sizes are integers there, whatever the settings say."""
    out = []
    for (least, largest, step, ratios), cells in zip(table.values(), maps, strict=True):
        small, large = int(least), int(largest)
        shapes = [(small, small), (np.sqrt(small * large),) * 2]
        for ratio in ratios:
            for each in (ratio, 1 / ratio):
                shapes.append((small * np.sqrt(each), small / np.sqrt(each)))  # noqa: PERF401
        for y in range(cells):
            for x in range(cells):
                cx, cy = (x + 0.5) * step, (y + 0.5) * step
                out += [(cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2) for w, h in shapes]
    return np.array(out)


def full_ssd(size: int, classes: int) -> dict[str, tuple[tuple[int, ...], ...]]:
    shapes = full_vgg()
    shapes |= {"fc6": ((1024, 512, 3, 3), (1024,)), "fc7": ((1024, 1024, 1, 1), (1024,)), "conv4_3_norm": ((512,),)}
    inputs, sources = 1024, {"conv4_3_norm": (512, 4), "fc7": (1024, 6)}
    for number in range(6, 10 if size == 300 else 11):
        hidden, out = (256, 512) if number == 6 else (128, 256)
        kernel = 4 if number == 10 else 3
        shapes[f"conv{number}_1"] = ((hidden, inputs, 1, 1), (hidden,))
        shapes[f"conv{number}_2"] = ((out, hidden, kernel, kernel), (out,))
        inputs = out
        sources[f"conv{number}_2"] = (out, 4 if number > (7 if size == 300 else 8) else 6)
    for source, (channels, cells) in sources.items():
        shapes[f"{source}_mbox_loc"] = ((4 * cells, channels, 3, 3), (4 * cells,))
        shapes[f"{source}_mbox_conf"] = ((classes * cells, channels, 3, 3), (classes * cells,))
    return shapes


@pytest.mark.parametrize(
    ("size", "classes", "second"), [(300, 21, 60), (300, 81, 45), (512, 21, 76.8), (512, 81, 51.2)]
)
def test_ssd_of_full_size(size: int, classes: int, second: float) -> None:
    """A file without settings gets the published boxes of its data set."""
    imported = import_caffe(published(full_ssd(size, classes)))
    check_shapes(imported)
    assert imported.classes is (VOC if classes == 21 else COCO)
    config = imported.config
    assert isinstance(config, SSDConfig)
    assert config.priors.sizes[1] == second
    assert config.priors.truncate
    assert sum(len(cell) * side**2 for cell, side in zip(
        config.priors.shapes, (38, 19, 10, 5, 3, 1) if size == 300 else (64, 32, 16, 8, 4, 2, 1), strict=True
    )) == (8732 if size == 300 else 24564)  # fmt: skip


def test_settings_of_the_default_boxes(tmp_path: Path) -> None:
    blobs = ssd_blobs()

    def sizes(**changes: tuple[float, float, float, tuple[float, ...]]) -> SSDConfig:
        table = {**SSD300, **changes}
        config = import_caffe(read_caffemodel(ref.write(tmp_path / "a", blobs, prior_layers(table, clip=1)))).config
        assert isinstance(config, SSDConfig)
        return config

    priors = sizes(conv4_3_norm=(21, 60, 8, (2,))).priors
    assert (priors.sizes, priors.clip, priors.steps) == ((21, 60, 111, 162, 213, 264, 315), "corners",
                                                        (8, 16, 32, 64, 100, 300))  # fmt: skip
    with pytest.raises(InputError, match="its default boxes are not SSD's"):
        sizes(fc7=(60, 100, 16, (2, 3)))


TRANSFER = [name for k in (3, 4, 5, 6) for name in (f"TL{k}_1", f"TL{k}_2", f"P{k}", *([f"P{k}-up"] if k > 3 else []))]


def tcb_blobs(random: Random, channels: tuple[int, ...], width: int, norm: bool) -> None:
    for name in TRANSFER:
        level = int(name[1 + name.startswith("TL")]) - 3
        inputs = channels[level] if name.endswith("_1") else width
        kernel = 2 if name.endswith("-up") else 3
        random.conv(name, width, inputs, kernel, bias=not norm)
        if norm:
            random.norm(f"{name}_bn", f"{name}_scale", width)


def tcb_forward(net: Net, sources: list[Tensor], norm: bool) -> list[Tensor]:
    """Return P3 to P6."""

    def unit(x: Tensor, name: str) -> Tensor:
        if name.endswith("-up"):
            weight, bias = (*net.blobs[name], None)[:2]
            x = torch.nn.functional.conv_transpose2d(x, weight, bias, 2)
        else:
            x = net.conv(x, name, pad=1)
        return net.norm(x, f"{name}_bn", f"{name}_scale") if norm else x

    out: list[Tensor] = []
    for k in (6, 5, 4, 3):
        x = unit(unit(sources[k - 3], f"TL{k}_1").relu(), f"TL{k}_2")
        if out:
            x = x + unit(out[0], f"P{k + 1}-up")
        out.insert(0, unit(x.relu(), f"P{k}").relu())
    return out


def check_refinedet(net: Net, detector: RefineDet, sources: list[Tensor], names: list[str], norm: bool,
                    images: Images) -> None:  # fmt: skip
    """Compare ARM and ODM with Caffe's rules."""
    ours = detector.sources(detector.normalise(images))
    for mine, theirs in zip(ours, sources, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-3, rtol=1e-3)
    out = detector.heads(ours)
    pyramid = tcb_forward(net, sources, norm)
    for maps, prefix, deltas, logits, classes in (
        (sources, names, out.arm_deltas, out.arm_logits.flip(-1), 2),
        (pyramid, ["P3", "P4", "P5", "P6"], out.odm_deltas, out.odm_logits[..., [3, 0, 1, 2]], CLASSES + 1),
    ):
        found = []
        for fmap, name in zip(maps, prefix, strict=True):
            if norm:
                block = f"{name}_inter"
                found.append(rows(net, f"res{block}", net.bottleneck(fmap, block), classes))
            else:
                found.append(rows(net, name, fmap, classes))
        torch.testing.assert_close(deltas[0], torch.cat([loc for loc, _ in found]), atol=2e-3, rtol=1e-3)
        torch.testing.assert_close(logits[0], torch.cat([conf for _, conf in found]), atol=2e-3, rtol=1e-3)
    assert detector(images).valid.sum() > 0


@torch.inference_mode()
def test_refinedet_on_vgg16(tmp_path: Path) -> None:
    random = Random(8)
    random.vgg(8, reduced=True)
    first_blob_small(random, "conv1_1")
    random.blobs |= {"conv4_3_norm": (10 + random.draw(64),), "conv5_3_norm": (8 + random.draw(64),)}
    random.conv("conv6_1", 16, 128, 1)
    random.conv("conv6_2", 24, 16)
    tcb_blobs(random, (64, 64, 128, 24), 16, norm=False)
    names = ["conv4_3_norm", "conv5_3_norm", "fc7", "conv6_2"]
    for name, channels in zip(names, (64, 64, 128, 24), strict=True):
        head_blobs(random, name, channels, 3, classes=2)
    for k in (3, 4, 5, 6):
        head_blobs(random, f"P{k}", 16, 3)
    imported = import_caffe(read_caffemodel(ref.write(tmp_path / "a", random.blobs)), size=128)
    assert imported.source == "sfzhang15/RefineDet refinedet128_vgg16"
    config = imported.config
    assert isinstance(config, RefineDetConfig)
    assert config == RefineDetConfig(post=config.post), "all else is the default"
    backbone = replace(config.backbone, width=8)
    config = with_options(config, {"backbone": backbone, "top_channels": (16, 24), "head.channels": 16})
    detector = build_imported(imported._replace(config=config), "x")
    assert isinstance(detector, RefineDet)
    net, (images, bgr) = Net(random.blobs), input_of(128)
    maps = net.vgg(bgr)
    fc7 = net.relu_conv(net.relu_conv(net.pool(maps["conv5_3"]), "fc6", pad=3, dilation=3), "fc7")
    top = net.relu_conv(net.relu_conv(fc7, "conv6_1"), "conv6_2", 2, 1)
    sources = [net.normalise(maps["conv4_3"], names[0]), net.normalise(maps["conv5_3"], names[1]), fc7, top]
    check_refinedet(net, detector, sources, names, False, images)
    with pytest.raises(InputError, match=r"size = 300: RefineDet's input is a multiple of 64"):
        import_caffe(CaffeModel("", read_caffemodel(tmp_path / "a").layers, "a"), size=300)


@torch.inference_mode()
def test_refinedet_on_resnet101(tmp_path: Path) -> None:
    random = Random(9)
    random.resnet(8, STAGES_101, stem_bias=False)
    first_blob_small(random, "conv1")
    random.bottleneck("6", 8, 32, 256, True)
    channels = (64, 128, 256, 32)
    tcb_blobs(random, channels, 16, norm=True)
    names = ["res3b3_relu", "res4b22_relu", "res5c_relu", "res6_relu"]
    for name, inputs in zip([*names, "P3", "P4", "P5", "P6"], (*channels, 16, 16, 16, 16), strict=True):
        random.bottleneck(f"{name}_inter", 8, 32, inputs, True)
        head_blobs(random, f"res{name}_inter", 32, 3, classes=2 if name.startswith("res") else CLASSES + 1)
    imported = import_caffe(read_caffemodel(ref.write(tmp_path / "a", random.blobs)), size=128)
    assert imported.source == "sfzhang15/RefineDet refinedet128_resnet101"
    config = imported.config
    assert isinstance(config, RefineDetConfig)
    assert isinstance(config.backbone, ResNetConfig)
    backbone = replace(config.backbone, width=8)
    config = with_options(config, {"backbone": backbone, "top_channels": (8, 32), "head.channels": 16, "head.block": 8})
    detector = build_imported(imported._replace(config=config), "x")
    assert isinstance(detector, RefineDet)
    net, (images, bgr) = Net(random.blobs), input_of(128)
    maps = net.resnet(bgr, STAGES_101, dilated=False)
    sources = [maps[3], maps[4], maps[5], net.bottleneck(maps[5], "6", 2)]
    check_refinedet(net, detector, sources, names, True, images)


def test_what_is_refused() -> None:
    ssd = full_ssd(300, 21)
    with pytest.raises(InputError, match="is for 20 classes and background, but 1 names were given"):
        import_caffe(published(ssd), Classes.from_names(["a"]))
    with pytest.raises(InputError, match="SSD300 of weiliu89/caffe: layer 'conv9_1' has no weights there, among 35"):
        import_caffe(published({name: shapes for name, shapes in ssd.items() if name != "conv9_1"}))
    with pytest.raises(InputError, match="'fc7' has offsets of 6 boxes a cell and 125 scores"):
        import_caffe(published({**ssd, "fc7_mbox_conf": ((125, 1024, 3, 3), (125,))}))
    narrow = import_caffe(published({**ssd, "conv6_1": ((255, 1024, 1, 1), (255,))}))
    with pytest.raises(InputError, match=r"x: no whole checkpoint of .*: 2 have another shape, the first extras.0.0.0"):
        build_imported(narrow, "x")


@torch.inference_mode()
def test_imagenet_networks(tmp_path: Path) -> None:
    vgg = {**full_vgg(), "fc6": ((1, 1, 4096, 25088), (1, 1, 1, 4096)), "fc7": ((4096, 4096), (4096,)),
           "fc8": ((1000, 4096), (1000,))}  # fmt: skip
    imported = import_caffe_backbone(published(vgg))
    assert imported.classes == 1000
    assert {len(value.shape) for name, value in imported.state.items() if name.startswith("fc.")} == {1, 2}
    assert imported.state["fc.0.weight"].shape == (4096, 25088)

    reduced = {**full_vgg(), "fc6": ((1024, 512, 3, 3), (1024,)), "fc7": ((1024, 1024, 1, 1), (1024,)),
               "fc8": ((1000, 1024, 1, 1), (1000,))}  # fmt: skip
    backbone = import_caffe_backbone(published(reduced))
    assert backbone.classes is None
    assert backbone.config == VGGConfig(fc="reduced", out_levels=(4, 6))
    build_classifier(backbone, "reduced.caffemodel")

    random = Random(11)
    stages = {2: list("abc"), 3: list("abcd"), 4: list("abcdef"), 5: list("abc")}
    random.resnet(8, stages, stem_bias=True)
    first_blob_small(random, "conv1")
    random.matrix("fc1000", 10, 256)
    model = read_caffemodel(ref.write(tmp_path / "resnet", random.blobs))
    assert recognise_caffe_backbone(model)
    assert not recognise_caffe(model)
    imported = import_caffe_backbone(model)
    assert isinstance(imported.config, ResNetConfig)
    classifier = build_classifier(imported, "resnet")
    net, (_, bgr) = Net(random.blobs), input_of(96)
    weight, bias = random.blobs["fc1000"]
    expected = net.resnet(bgr, stages, dilated=False)[5].mean((2, 3)) @ weight.T + bias
    torch.testing.assert_close(classifier(bgr), expected, atol=1e-3, rtol=1e-3)
    with pytest.raises(InputError, match="none of the ImageNet networks"):
        import_caffe_backbone(published({"ip1": ((10, 5), (10,))}))


def transform(height: int, width: int) -> bytes:
    """Return the settings of a data layer's images: a mean value of 104, and a resize to ``height`` x ``width``."""

    def varint(value: int) -> bytes:
        low, rest = value & 127, value >> 7
        return bytes([low | 128]) + varint(rest) if rest else bytes([low])

    resize = b"\x18" + varint(height) + b"\x20" + varint(width)
    return b"\x2d\x00\x00\xd0\x42" + b"\x42" + varint(len(resize)) + resize


@pytest.mark.parametrize(
    ("settings", "size"),
    [
        ({}, None),
        ({100: transform(320, 320)}, 320),
        ({100: transform(512, 512)}, 512),
        ({100: transform(9, 512)}, None),
    ],
)
def test_the_data_layer_of_a_training_tells_refinedets_size(settings: dict[int, bytes], size: int | None) -> None:
    layers = {name: CaffeLayer(name, "", (), {}) for name in ("TL3_1", "P6-up")}
    model = CaffeModel("", {"data": CaffeLayer("data", "AnnotatedData", (), settings), **layers}, "a")
    assert refinedet_size(model) == size
    assert caffe_sizes(model) == ((320, 512) if size is None else ())
