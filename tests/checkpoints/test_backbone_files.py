"""``boxwright train --backbone-weights``: files in the layouts of all publishers, narrow where a layout allows it."""

import pickle
import re
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor

from boxwright.anchors.priors import PriorConfig
from boxwright.backbones import DarknetConfig, VGGConfig
from boxwright.backbones.zf import ZFConfig
from boxwright.checkpoints.backbone_files import load_pretrained, start_backbone
from boxwright.checkpoints.checkpoint import load_checkpoint
from boxwright.cli.app import main
from boxwright.detectors.build import build_detector
from boxwright.detectors.contract.pixels import DARKNET, MSRA, PixelConfig
from boxwright.detectors.faster_rcnn_c4 import FasterRCNNC4Config
from boxwright.detectors.retinanet import RetinaNetConfig
from boxwright.detectors.ssd import SSDConfig
from boxwright.heads.regions.region_heads import LayersHeadConfig
from boxwright.structures import Classes, InputError
from boxwright.weights.darknet import models as darknet_models
from boxwright.weights.import_backbone import import_backbone
from boxwright.weights.ports.ssd_pytorch import ssd_config
from tests.support import caffe_reference as ref
from tests.support.backbone_files import write_caffe_resnet, write_detnet, write_msra, write_vgg
from tests.support.published_layouts import detectron2_shapes, filled

CLASSES = Classes.from_names(["a"])
RECIPE = "faster-rcnn-resnet-small-fpn"
DARKNET_HEADER = struct.pack("<3iq", 0, 2, 5, 100)
MSRA_SETS = ["detector.pixels.mean=[122.77,115.95,102.98]", "detector.pixels.std=[1,1,1]", "detector.pixels.bgr=true"]


@dataclass(frozen=True)
class Case:
    """``write`` makes a file in a folder and tells one tensor of it. ``backbone``: a detector's, in TOML. ``place``:
    where that tensor belongs."""

    write: Callable[[Path], tuple[Path, Tensor]]
    source: str
    backbone: str
    place: str
    sets: tuple[str, ...] = ()


def write_torchvision(folder: Path) -> tuple[Path, Tensor]:
    model = torchvision.models.mobilenet_v3_large(weights=None, num_classes=10)
    torch.save({"model": model.state_dict(), "epoch": 3}, folder / "mobile.bin")  # the content counts, not the name
    return folder / "mobile.bin", model.get_parameter("features.15.block.0.0.weight")


def write_darknet(folder: Path, name: str = "darknet.conv.13", classes: int = 0) -> tuple[Path, Tensor]:
    """The trunk of the tiny detectors, whose length tells what it is: no cfg lies beside it."""
    rng = np.random.default_rng(2)
    parts: list[np.ndarray] = []
    inputs = 3
    for out in (16, 32, 64, 128, 256, 512, 1024):
        parts += [rng.normal(size=out), rng.random(out), rng.normal(size=out), 1 + rng.random(out)]
        parts.append(rng.normal(0, (2 / inputs / 9) ** 0.5, out * inputs * 9))
        inputs = out
    last = torch.from_numpy(parts[-1].astype(np.float32)).reshape(1024, 512, 3, 3)
    if classes:
        parts += [rng.normal(size=classes), rng.normal(size=classes * 1024)]
    path = folder / name
    path.write_bytes(DARKNET_HEADER + np.concatenate(parts).astype("<f4").tobytes())
    return path, last


RESNET = 'kind="resnet",depth=50,blocks="none",width=8,stride_in_1x1=true,norm="frozen_bn",freeze_at=5'
CASES = {
    "torchvision": Case(
        write_torchvision,
        "torchvision mobilenet_v3_large",
        'kind="mobilenet",version=3,norm="frozen_bn",freeze_at=5',
        "features.15.block.0.0.weight",
    ),
    "caffe": Case(
        write_caffe_resnet, "MSRA ResNet-50", f'{RESNET},stem_pool="ceil"', "layer4.2.conv2.weight", tuple(MSRA_SETS)
    ),
    "detectron": Case(write_msra, "MSRA ResNet-50", RESNET, "layer4.2.conv2.weight", tuple(MSRA_SETS)),
    "darknet": Case(
        write_darknet,
        "pjreddie/darknet tiny_v3",
        'kind="darknet",variant="tiny_v2",norm="frozen_bn",freeze_at=5,out_levels=[2,3,4,5]',
        "stages.5.3.0.weight",
        ("detector.pixels.mean=[0,0,0]", "detector.pixels.std=[255,255,255]"),
    ),
    "detnet_pytorch": Case(
        write_detnet,
        "DetNet_pytorch detnet59",
        'kind="detnet",width=8,stride_in_1x1=false,norm="frozen_bn",freeze_at=6',
        "layer5.0.downsample.0.weight",
    ),
}


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("backbones") / "scenes"
    assert main(["data", "scenes", str(folder), "--train", "2", "--val", "1", "--size", "64", "64"]) == 0
    return folder


def words(scenes: Path, output: Path, file: object, backbone: str, *sets: str) -> list[str]:
    given = [
        f"detector.backbone={{{backbone}}}",
        *("data.train.0.size=[64,64]", "data.eval.0.size=[64,64]", "data.batch_size=2"),
        *("stages.0.length=1", "stages.0.unit=steps", "stages.0.schedule.warmup=none"),
        *("detector.rpn.post_nms=[20,20]", "detector.head.hidden=[16,16]"),
        *sets,
    ]
    changes = [word for text in given for word in ("--set", text)]
    where = ["--output", str(output), "--workers", "0", "--device", "cpu"]
    return ["train", RECIPE, "--data", str(scenes), *where, "--backbone-weights", str(file), *changes]


@pytest.mark.parametrize("publisher", CASES)
def test_a_training_starts_from_it(publisher: str, scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """The whole backbone is frozen, so that the checkpoint after a step still holds what was in the file."""
    case = CASES[publisher]
    path, tensor = case.write(tmp_path)
    assert main(words(scenes, tmp_path / "run", path, case.backbone, *case.sets)) == 0
    told = "".join(capsys.readouterr())
    assert re.search(
        rf"backbone from .*{path.name}: \d+ tensors, trained on ImageNet \({re.escape(case.source)}\)", told
    )
    state = load_checkpoint(tmp_path / "run" / "last.safetensors").state
    assert torch.equal(state[f"backbone.{case.place}"], tensor)


def refused(capsys: pytest.CaptureFixture, given: list[str]) -> str:
    capsys.readouterr()
    assert main(given) == 2
    told = capsys.readouterr()
    assert "Traceback" not in told.err
    (line,) = [line for line in told.err.splitlines() if line.startswith("error: ")]
    return line


def test_what_is_refused_says_what_to_do(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def error(file: object, backbone: str = RESNET, *sets: str) -> str:
        return refused(capsys, words(scenes, tmp_path / "none", file, backbone, *sets))

    msra, _ = write_msra(tmp_path)
    wrong = error(msra)
    assert "trained on pixels prepared as" in wrong
    assert (
        "--set 'detector.pixels.mean=[122.7717,115.9465,102.9801]' --set 'detector.pixels.std=[1.0,1.0,1.0]'" in wrong
    )
    assert "--set detector.pixels.bgr=true" in wrong
    narrow = error(msra, RESNET.replace("width=8", "width=16"))
    assert "width = 8 there and 16 here; use --set detector.backbone.width=8, or another file" in narrow
    live = error(msra, RESNET.replace("frozen_bn", "bn").replace("freeze_at=5", "freeze_at=0"))
    assert "norm = 'frozen_bn' there and 'bn' here; use --set detector.backbone.norm=frozen_bn" in live
    assert "a resnet there and a detnet here; use another file, or a recipe on a resnet" in error(msra, 'kind="detnet"')
    assert "no such file" in error(tmp_path / "absent.pth")
    assert "no such file but a folder" in error(tmp_path)

    (tmp_path / "cut.pkl").write_bytes(msra.read_bytes()[:2000])
    assert "cut short or damaged (2000 bytes" in error(tmp_path / "cut.pkl")
    caffe, _ = write_caffe_resnet(tmp_path)
    (tmp_path / "cut.caffemodel").write_bytes(caffe.read_bytes()[:-100])
    assert "truncated, or no .caffemodel" in error(tmp_path / "cut.caffemodel")
    darknet, _ = write_darknet(tmp_path)
    (tmp_path / "cut.weights").write_bytes(darknet.read_bytes()[:-400])
    assert "the length of no trunk that is known" in error(tmp_path / "cut.weights")

    class Evil:
        def __reduce__(self) -> tuple[object, ...]:
            return (eval, (f"open({str(tmp_path / 'ran')!r}, 'w')",))

    (tmp_path / "evil.pkl").write_bytes(pickle.dumps({"blobs": {"conv1_w": Evil()}}, protocol=2))
    assert "can only be read by running code that it names (__builtin__.eval)" in error(tmp_path / "evil.pkl")
    assert not (tmp_path / "ran").exists()
    assert not (tmp_path / "none").exists(), "nothing is left of a run that never began"


def test_a_detector_goes_to_weights(scenes: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    def error(file: object) -> str:
        return refused(capsys, words(scenes, tmp_path / "none", file, RESNET))

    state = filled({n: s[:1] if len(s) == 1 else (1,) * len(s) for n, s in detectron2_shapes("retinanet").items()})
    torch.save({"model": state}, tmp_path / "model_final.pth")
    told = error(tmp_path / "model_final.pth")
    assert f"a detector of detectron2, where a backbone was expected; start from it by --weights {tmp_path}" in told
    random = ref.Random()
    random.vgg(8, reduced=False)
    for name, out, inputs in (("fc6", 8, 64 * 49), ("fc7", 8, 8), ("cls_score", 3, 8), ("bbox_pred", 12, 8)):
        random.matrix(name, out, inputs)
    ref.write(tmp_path / "vgg16_fast_rcnn.caffemodel", random.blobs)
    assert "a detector of Caffe, where a backbone was expected" in error(tmp_path / "vgg16_fast_rcnn.caffemodel")
    assert main(words(scenes, tmp_path / "run", write_msra(tmp_path)[0], RESNET, *MSRA_SETS)) == 0
    assert "a detector, where a backbone was expected" in error(tmp_path / "run" / "last.safetensors")
    assert "a detector, where a backbone was expected; start from it by --weights torchvision:ssd300_vgg16" in error(
        "torchvision:ssd300_vgg16"
    )
    assert "run `boxwright weights fetch torchvision:resnet50` (103 MB)" in error("torchvision:resnet50")
    assert "did you mean 'torchvision:resnet50'" in error("torchvision:resnet5")


SMALL_SSD = {"backbone": VGGConfig(width=8, fc="reduced", out_levels=(4, 6))}


def ssd(pixels: PixelConfig) -> SSDConfig:
    priors = PriorConfig(sizes=(30.0, 60.0, 111.0), steps=(8, 16), ratios=((2,), (2, 3)))
    return SSDConfig(**SMALL_SSD, extras=(), priors=priors, pixels=pixels)  # type: ignore[arg-type]


def test_caffes_vgg16_starts_both_kinds_of_head(tmp_path: Path) -> None:
    path, random = write_vgg(tmp_path, reduced=False)
    backbone = VGGConfig(width=8, out_levels=(5,))
    head = LayersHeadConfig(hidden=(512, 512))
    detector = build_detector(FasterRCNNC4Config(backbone=backbone, head=head, pixels=MSRA), CLASSES)
    assert "26 tensors and 2 layers of the head, trained on ImageNet (Caffe VGG-16)" in start_backbone(detector, path)
    assert torch.equal(detector.get_parameter("backbone.features.28.weight"), random.blobs["conv5_3"][0])
    small = build_detector(ssd(MSRA), CLASSES)
    assert "30 tensors, trained" in start_backbone(small, path)
    assert torch.equal(small.get_parameter("backbone.fc7.weight")[:, :, 0, 0], random.blobs["fc7"][0][::4, ::4])


def test_reduced_vggs_of_caffe_and_of_its_port(tmp_path: Path) -> None:
    path, random = write_vgg(tmp_path, reduced=True)
    detector = build_detector(ssd(MSRA), CLASSES)
    assert "30 tensors, trained on ImageNet (Caffe reduced VGG-16)" in start_backbone(detector, path)
    assert torch.equal(detector.get_parameter("backbone.fc6.weight"), random.blobs["fc6"][0])
    names = [f"conv{s}_{n}" for s, count in enumerate((2, 2, 3, 3, 3), 1) for n in range(1, count + 1)]
    places = (0, 2, 5, 7, 10, 12, 14, 17, 19, 21, 24, 26, 28, 31, 33)
    state = {
        f"{place}.{part}": value
        for place, name in zip(places, [*names, "fc6", "fc7"], strict=True)
        for part, value in zip(("weight", "bias"), random.blobs[name], strict=True)
    }
    torch.save(state, tmp_path / "vgg16_reducedfc.pth")
    port = build_detector(ssd(ssd_config().pixels), CLASSES)
    assert "trained on ImageNet (ssd.pytorch vgg16_reducedfc)" in start_backbone(port, tmp_path / "vgg16_reducedfc.pth")
    mine, theirs = (d.get_submodule("backbone").state_dict() for d in (port, detector))
    assert all(torch.equal(value, theirs[name]) for name, value in mine.items())
    with pytest.raises(InputError, match=r"use .* --set detector\.pixels\.bgr=false"):
        start_backbone(detector, tmp_path / "vgg16_reducedfc.pth")
    torch.save(state | {"35.weight": torch.zeros(1)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"more\.pth: .* ssd\.pytorch vgg16_reducedfc: 1 belong to none of its layers"):
        start_backbone(port, tmp_path / "more.pth")


def test_caffes_zf(tmp_path: Path) -> None:
    random = ref.Random(7)
    for number, (out, inputs, kernel) in enumerate(((24, 3, 7), (64, 24, 5), (96, 64, 3), (96, 96, 3), (64, 96, 3)), 1):
        random.conv(f"conv{number}", out, inputs, kernel)
    for name, out, inputs in (("fc6", 1024, 64 * 36), ("fc7", 1024, 1024), ("fc8", 10, 1024)):
        random.matrix(name, out, inputs)
    path = ref.write(tmp_path / "ZF.v2.caffemodel", random.blobs)
    backbone = ZFConfig(width=0.25)
    detector = build_detector(FasterRCNNC4Config(backbone=backbone, pixels=MSRA), CLASSES)
    assert "10 tensors, trained on ImageNet (Caffe ZF)" in start_backbone(detector, path)
    assert torch.equal(detector.get_parameter("backbone.convs.4.0.weight"), random.blobs["conv5"][0])


def test_darknets_classifier_without_a_cfg(tmp_path: Path) -> None:
    path, last = write_darknet(tmp_path, "darknet.weights", classes=1000)
    found = load_pretrained(path)
    assert found.card["backbone"]["variant"] == "tiny_v3"
    assert found.classifier["weight"].shape == (1000, 1024)
    assert torch.equal(found.state["stages.5.3.0.weight"], last)
    (tmp_path / "darknet.cfg").write_text("[net]\nheight=64\nwidth=64\n[convolutional]\nfilters=16\n")
    with pytest.raises(InputError, match=r"but .*darknet\.cfg describes 64"):
        load_pretrained(path)  # the cfg beside it counts


def test_extraction_starts_yolov1(tmp_path: Path) -> None:
    """YOLOv1 §2.2: four layers are added above the 20 that were pretrained."""
    numbers = np.full(22_430_400, 0.5, "<f4")
    (tmp_path / "extraction.conv.weights").write_bytes(DARKNET_HEADER + numbers.tobytes())
    whole = DarknetConfig(variant="yolov1", out_levels=(4, 5, 6))
    retina = RetinaNetConfig(backbone=whole, pixels=DARKNET)
    with torch.device("meta"):
        detector = build_detector(retina, CLASSES)
    detector.get_submodule("backbone").to_empty(device="cpu")
    fresh = detector.get_parameter("backbone.stages.6.0.0.weight").data.fill_(3.0)
    line = start_backbone(detector, tmp_path / "extraction.conv.weights")
    assert re.search(r": 120 tensors, 24 above them fresh, trained on ImageNet \(pjreddie/darknet extraction\)", line)
    assert (detector.get_parameter("backbone.stages.5.4.0.weight") == 0.5).all()
    assert (fresh == 3.0).all()


def test_lengths_of_darknets_trunks_are_distinct() -> None:
    """Else a file without a cfg could be taken for another. The two tiny ones are the same trunk."""
    networks = [darknet_models._sections(v, norm) for v in darknet_models.VARIANTS for norm in (True, False)]
    plans = [darknet_models.plan_layers(part) for each in networks for part in (each, each[:-2])]
    lengths = [sum(int(np.prod(shape)) for *_, arrays in plan for shape in arrays.values()) for plan in plans]
    assert len(lengths) - len(set(lengths)) == 4
    assert {162_482_580, 79_327_120 + 4} <= {4 * n + len(DARKNET_HEADER) for n in lengths}, (
        "darknet53.conv.74 and so on"
    )


def test_half_a_network_is_refused(tmp_path: Path) -> None:
    path, _ = write_detnet(tmp_path)
    state = torch.load(path)
    torch.save({n: v for n, v in state.items() if "layer3" not in n}, path)
    with pytest.raises(InputError, match=r"detnet59\.pth: no whole checkpoint of DetNet_pytorch detnet59: \d+ of \d+"):
        import_backbone(path)
