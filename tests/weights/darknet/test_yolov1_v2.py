"""YOLOv1 and YOLOv2 against Darknet: every stored layer, and the detections."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxwright.app.requests.weights import ImportOptions
from boxwright.app.weights.files import convert
from boxwright.backbones.darknet import DarknetConfig
from boxwright.backbones.darknet_layers import DarknetLayersConfig
from boxwright.checkpoints.opening import load_detector
from boxwright.detectors.yolov1 import YOLOv1
from boxwright.detectors.yolov2 import (
    VOC_ANCHORS,
    YOLOv2,
    YOLOv2Config,
    YOLOv2HeadConfig,
    stack_cells,
)
from boxwright.heads.postprocess import multiclass_detections
from boxwright.recipes.yolov2 import VOC_ANCHORS_2017
from boxwright.structures import Classes, DetectionBatch, InputError
from boxwright.weights.darknet.files import DarknetNetwork, parse_cfg, read_darknet
from boxwright.weights.darknet.models import load_darknet
from boxwright.weights.darknet.yolov1 import yolov1_config, yolov1_state
from boxwright.weights.darknet.yolov2 import yolov2_config
from tests.support.golden import compare, compare_share, module_at
from tests.support.resizing import darknet_letterbox, darknet_resize


class Golden:
    """A case: its weights as a file, its spec, and the reference's outputs."""

    def __init__(self, root: Path, name: str, folder: Path) -> None:
        self.spec: dict[str, Any] = json.loads((root / name / "spec.json").read_text())
        self.numbers = np.load(root / name / "outputs.npz")
        self.fill = module_at(root / "fill.py")
        self.cfg, self.weights = root / name / "network.cfg", folder / f"{name}.weights"
        crc, size, _ = module_at(root / "write_darknet_weights.py").write(
            self.cfg.read_text(), self.weights, self.spec["seed"], self.spec["header"], self.spec["gains"]
        )
        assert crc == self.spec["weights_file_crc32"], "the fixture's rule gives other weights here"
        assert size == self.spec["weights_file_bytes"]
        self.names = Classes.from_names([f"class {i}" for i in range(self.spec["num_classes"])])

    def image(self, number: int) -> np.ndarray:
        entry = self.spec["images"][number]
        image = self.fill.image(self.spec["seed"], entry["height"], entry["width"], entry["index"])
        assert self.fill.checksum([image]) == entry["crc32"]
        return image

    def check(self, number: int, layers: dict[str, Tensor]) -> None:
        """Compare ``layers``, without the batch axis, with all layers of the reference."""
        stored = {n.split("/")[1] for n in self.spec["outputs"] if n.startswith(f"img{number}/") and "dets" not in n}
        assert stored == set(layers)
        for layer, found in layers.items():
            name = f"img{number}/{layer}"
            meta, array = self.spec["outputs"][name], np.asarray(found)
            assert list(array.shape) == meta["shape"], name
            atol, rtol = meta.get("atol", 1e-5), meta.get("rtol", 1e-5)
            mine = self.fill.pick(array, meta["step"])
            compare(name, mine, self.numbers[name].reshape(-1), atol, rtol)
            assert float(array.std()) == pytest.approx(meta["std"], abs=atol, rel=rtol), name

    def check_detections(self, name: str, boxes: Tensor, scores: Tensor, labels: Tensor) -> None:
        """Compare detections as sets, because ties may swap. ``boxes``: ``[D, 4]`` corners as shares of the original
        image.
        """
        theirs = torch.from_numpy(self.numbers[name])
        limits = {"box_tol": 0.002, "score_tol": 0.002, "min_share": 0.97} | self.spec["outputs"][name].get(
            "suggested", {}
        )
        assert len(boxes) == pytest.approx(len(theirs), abs=0.02 * len(theirs) + 1)
        centre, half = theirs[:, 2:4], theirs[:, 4:6] / 2
        near = (boxes[:, None] - torch.cat([centre - half, centre + half], 1)).abs()
        close = (near <= limits["box_tol"] * (1 + half.amax(1)[:, None])).all(-1)  # some are 100 images wide
        close &= (scores[:, None] - theirs[:, 1]).abs() < limits["score_tol"]
        close &= labels[:, None] == theirs[:, 0].long()
        for what, axis in (("", 0), (", ours among Darknet's", 1)):
            compare_share(f"{name}{what}", float(close.any(axis).float().mean()), limits["min_share"])


def before_and_after_nms(golden: Golden, scores: Tensor, boxes: Tensor, detector: YOLOv1 | YOLOv2) -> list[
    tuple[Tensor, Tensor, Tensor]
]:  # fmt: skip
    settings = golden.spec["settings"]
    chosen = scores[0] > settings["thresh"]
    row, label = chosen.nonzero(as_tuple=True)
    post = replace(
        detector.config.post, score_threshold=settings["thresh"], nms_iou=settings["nms"], detections=2000,
        candidates=20_000,
    )  # fmt: skip
    found = multiclass_detections(scores, boxes, torch.ones(1, 2), post)  # clips nothing, as Darknet here
    assert isinstance(found, DetectionBatch)
    keep = found.valid[0]
    return [
        (boxes[0, row], scores[0][chosen], label),
        (found.boxes[0, keep], found.scores[0, keep], found.labels[0, keep]),
    ]


def trunk(detector: nn.Module, pixels: Tensor) -> list[Tensor]:
    """Return every layer of the backbone in the order of the cfg: convolutions with their activation, and pools."""
    found, x = [], pixels
    for stage in detector.get_submodule("backbone.stages").children():
        for layer in stage.children():
            x = layer(x)
            found.append(x.clone())
    return found


def watched(parts: nn.Sequential, x: Tensor) -> list[Tensor]:
    found = []
    for part in parts:
        x = part(x)
        found.append(x.clone())
    return found


@pytest.mark.parametrize("case", ["darknet_yolov2_voc", "darknet_yolov2_tiny_voc"])
@torch.inference_mode()
def test_yolov2(case: str, shared_golden: Path, tmp_path: Path) -> None:
    golden = Golden(shared_golden, case, tmp_path)
    detector = load_darknet(golden.cfg, golden.weights, golden.names)
    assert isinstance(detector, YOLOv2)
    assert int(detector.seen) == 32_013_312
    side = golden.spec["network_width"]
    for number in range(len(golden.spec["images"])):
        pixels, inner_width, inner_height = darknet_letterbox(golden.image(number), side)
        layers = trunk(detector, pixels)
        (out,) = detector.outputs(pixels)
        stored = out.unflatten(1, (5, 25)).clone()  # as the region layer keeps it
        stored[:, :, :2], stored[:, :, 4] = stored[:, :, :2].sigmoid(), stored[:, :, 4].sigmoid()
        stored[:, :, 5:] = stored[:, :, 5:].softmax(2)
        if case == "darknet_yolov2_voc":
            coarse, fine = detector.convs(layers[22]), layers[16]
            narrow = detector.narrow(fine)
            stacked = stack_cells(narrow, 2)
            joined = torch.cat([stacked, coarse], 1)
            taps = {0: layers[0], 16: fine, 24: coarse, 25: fine, 26: narrow, 27: stacked, 28: joined, 30: out}
            taps[31] = stored.flatten(1, 2)
            torch.testing.assert_close(detector.output(detector.merged(joined)), out)
        else:
            taps = {0: layers[0], 5: layers[5], 10: layers[10], 11: layers[11], 12: layers[12], 14: out}
            taps[15] = stored.flatten(1, 2)
        golden.check(number, {"input": pixels[0], **{f"layer{n}": value[0] for n, value in taps.items()}})

        found = detector.predictions(out)
        scores = found.objectness.sigmoid().unsqueeze(-1) * found.logits.softmax(-1)
        inner = torch.tensor([inner_width, inner_height]).repeat(2)
        for name, (boxes, score, label) in zip(
            ("dets_before_nms", "dets"), before_and_after_nms(golden, scores, found.boxes, detector), strict=True
        ):
            golden.check_detections(f"img{number}/{name}", (boxes - (side - inner) / 2) / inner, score, label)


def test_yolov2_configurations(shared_golden: Path) -> None:
    texts = {name: (shared_golden / name / "network.cfg").read_text() for name in GOLDEN_V2}
    current = yolov2_config(parse_cfg(texts["darknet_yolov2_voc"]))
    assert current == YOLOv2Config(
        head=YOLOv2HeadConfig(narrow=64), anchors=VOC_ANCHORS_2017, loss=replace(current.loss)
    )
    assert current.loss.favour_small
    tiny = yolov2_config(parse_cfg(texts["darknet_yolov2_tiny_voc"]))
    assert (tiny.head.convs, tiny.head.passthrough, tiny.head.merged, tiny.anchors) == ((), None, 1024, VOC_ANCHORS)
    # The generation of 2016: no 1x1 convolution between the route and the reorg.
    lines = texts["darknet_yolov2_voc"].split("[route]\nlayers=-9\n")
    first = lines[0] + "[route]\nlayers=-9\n\n[reorg]" + lines[1].split("[reorg]")[1].replace("-1,-4", "-1,-3")
    assert yolov2_config(parse_cfg(first)).head.narrow is None
    with pytest.raises(InputError, match=r"has no \[region\] layer"):
        yolov2_config(parse_cfg("[net]\nheight=32\nwidth=32\n"))
    with pytest.raises(InputError, match="a tree of classes, as YOLO9000"):
        yolov2_config(parse_cfg(texts["darknet_yolov2_voc"].replace("softmax=1", "softmax=1\ntree=9k.tree")))
    for other in ("softmax=0", ""):  # without the option Darknet has no softmax
        with pytest.raises(InputError, match="softmax=1"):
            yolov2_config(parse_cfg(texts["darknet_yolov2_voc"].replace("softmax=1", other)))


GOLDEN_V2 = ("darknet_yolov2_voc", "darknet_yolov2_tiny_voc")


def test_weights_of_the_first_generation_do_not_fit_the_second(shared_golden: Path, tmp_path: Path) -> None:
    cfg = shared_golden / "darknet_yolov2_tiny_voc" / "network.cfg"
    weights = tmp_path / "other.weights"
    weights.write_bytes(bytes(16 + 4 * 1000))
    with pytest.raises(InputError, match=r"holds 1,000 floats after a header of 16 bytes, but .* describes 15,867,885"):
        load_darknet(cfg, weights, Classes.from_names(["one"]))


@torch.inference_mode()
def check_yolov1(golden: Golden, detector: YOLOv1, tail: int) -> None:
    """Compare a YOLOv1. ``tail``: layer of the cfg that follows the last of the backbone."""
    side = golden.spec["network_width"]
    for number, entry in enumerate(golden.spec["images"]):
        array = darknet_resize(golden.image(number), side, side)
        if entry["dark_last_row"]:  # a fault of the reference, which a fixture keeps
            array[-1] = dark_row(golden, number, array)
        pixels = torch.from_numpy(array).permute(2, 0, 1)[None].contiguous()
        layers = trunk(detector, pixels)
        hidden = [v for part, v in zip(detector.hidden, watched(detector.hidden, layers[-1]), strict=True)
                  if isinstance(part, nn.LeakyReLU)]  # fmt: skip
        (out,) = detector.outputs(pixels)
        wanted = {int(n.split("layer")[1]) for n in golden.spec["outputs"] if n.startswith(f"img{number}/layer")}
        taps = {f"layer{n}": value[0] for n, value in enumerate(layers) if n in wanted}
        if hidden:  # local, dropout, connected
            taps |= {f"layer{tail}": hidden[0][0], f"layer{tail + 2}": hidden[1][0][:, None, None]}
        last = max(wanted)
        taps |= {f"layer{last - 1}": out[0][:, None, None], f"layer{last}": out[0]}
        golden.check(number, {"input": pixels[0], **taps})

        found = detector.predictions(out)
        scores = (found.classes.unsqueeze(2) * found.confidence.unsqueeze(-1)).flatten(1, 2)
        for name, (boxes, score, label) in zip(
            ("dets_before_nms", "dets"),
            before_and_after_nms(golden, scores, found.boxes.flatten(1, 2), detector),
            strict=True,
        ):
            golden.check_detections(f"img{number}/{name}", boxes / side, score, label)


def dark_row(golden: Golden, number: int, array: np.ndarray) -> np.ndarray:
    """Return the last row as the reference has it: weighted with the rounding error of float32."""
    height, side = golden.spec["images"][number]["height"], len(array)
    scale = np.float32(height - 1) / np.float32(side - 1)
    at = np.float32(side - 1) * scale
    assert int(at) == height - 2, "the rounding that this is about"
    return array[-1] * (1 - (at - int(at)))


def test_tiny_yolov1(shared_golden: Path, tmp_path: Path) -> None:
    golden = Golden(shared_golden, "darknet_yolov1_tiny", tmp_path)
    detector = load_darknet(golden.cfg, golden.weights, golden.names)
    assert isinstance(detector, YOLOv1)
    assert detector.input_size == (448, 448)
    check_yolov1(golden, detector, 14)


def test_untied_layer_and_connected_batch_norm(shared_golden: Path, tmp_path: Path) -> None:
    """A network made for this test: its trunk is none of Darknet's, and one convolution has no batch norm."""
    golden = Golden(shared_golden, "darknet_mini_local", tmp_path)
    weights = tmp_path / "network.weights"
    golden.weights.rename(weights)
    weights.with_suffix(".cfg").write_text(golden.cfg.read_text())
    detector = load_detector(weights, classes=golden.names)
    assert isinstance(detector, YOLOv1)
    config = detector.config
    assert (config.grid, config.cell, config.boxes, config.head.hidden, config.head.local) == (4, 24, 1, (), None)
    assert [(layer.kind, layer.norm) for layer in config.backbone.layers] == [
        ("convolutional", True), ("maxpool", False), ("convolutional", True), ("convolutional", False),
        ("maxpool", False), ("local", False), ("dropout", False), ("connected", True),
    ]  # fmt: skip
    check_yolov1(golden, detector, 5)
    ours = tmp_path / "ours.safetensors"
    convert(str(weights), ours, ImportOptions())
    saved = load_detector(ours)
    assert saved.config == config
    image = golden.image(0)
    first, again = (found.detect(image, threshold=0.0)[0] for found in (detector, saved))
    assert len(first.boxes) > 10
    np.testing.assert_array_equal(first.boxes, again.boxes)
    with pytest.raises(InputError, match=r"is for 4 classes, but the detector has 1 names"):
        yolov1_state(YOLOv1(config, Classes.from_names(["one"])), read_darknet(golden.cfg, weights))


def test_a_published_trunk_with_other_layers_is_not_taken_for_it(shared_golden: Path) -> None:
    text = (shared_golden / "darknet_yolov1_tiny" / "network.cfg").read_text()
    assert isinstance(yolov1_config(parse_cfg(text)).backbone, DarknetConfig)
    for old, new in (
        ("activation=leaky", "activation=relu"),
        ("size=2\nstride=2", "size=3\nstride=2"),
        ("pad=1", "pad=0"),
    ):
        assert old in text
        changed = yolov1_config(parse_cfg(text.replace(old, new, 1))).backbone
        assert isinstance(changed, DarknetLayersConfig)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("[detection]", "[region]"), r"has no \[detection\] layer"),
        (("coords=4", "coords=5"), r"\[detection\] must have coords=4"),
        (("height=448", "height=416"), "416 x 448 is no square of 7 x 7 cells"),
        (("side=7", "side=5"), "448 x 448 is no square of 5 x 5 cells"),
    ],
)
def test_what_is_no_yolov1(change: tuple[str, str], message: str, shared_golden: Path) -> None:
    text = (shared_golden / "darknet_yolov1_tiny" / "network.cfg").read_text()
    with pytest.raises(InputError, match=message):
        yolov1_config(parse_cfg(text.replace(*change)))


def test_not_a_yolo_at_all(tmp_path: Path) -> None:
    (tmp_path / "n.cfg").write_text("[net]\nheight=8\nwidth=8\n[maxpool]\n")
    (tmp_path / "n.weights").write_bytes(bytes(16))
    with pytest.raises(InputError, match="so that it is no YOLO"):
        load_darknet(tmp_path / "n.cfg", tmp_path / "n.weights", Classes.from_names(["one"]))
    assert isinstance(read_darknet(tmp_path / "n.cfg", tmp_path / "n.weights"), DarknetNetwork)
