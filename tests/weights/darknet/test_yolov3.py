"""YOLOv3 and YOLOv3-tiny against Darknet at every stored layer."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from boxwright.detectors.build import build_detector
from boxwright.detectors.yolov3 import YOLOv3, YOLOv3Config
from boxwright.structures import Classes, InputError
from boxwright.weights.darknet.files import DarknetLayer, DarknetNetwork, parse_cfg, read_darknet
from boxwright.weights.darknet.yolov3 import yolov3_config, yolov3_state
from tests.support.golden import compare, compare_share, module_at
from tests.support.resizing import darknet_letterbox

NAMES = Classes.from_names([f"class {i}" for i in range(80)])


class Golden:
    """A case: the detector with its weights, the spec and the reference's outputs."""

    def __init__(self, root: Path, name: str, folder: Path) -> None:
        self.spec: dict[str, Any] = json.loads((root / name / "spec.json").read_text())
        self.numbers = np.load(root / name / "outputs.npz")
        self.fill = module_at(root / "fill.py")
        writer = module_at(root / "write_darknet_weights.py")
        cfg, weights = root / name / "network.cfg", folder / f"{name}.weights"
        crc, size, _ = writer.write(
            cfg.read_text(), weights, self.spec["seed"], self.spec["header"], self.spec["gains"]
        )
        assert crc == self.spec["weights_file_crc32"], "the fixture's rule gives other weights here"
        assert size == self.spec["weights_file_bytes"]
        network = read_darknet(cfg, weights)
        self.config = yolov3_config(parse_cfg(cfg.read_text()))
        detector = build_detector(self.config, NAMES)
        assert isinstance(detector, YOLOv3)
        detector.load_state_dict(yolov3_state(detector, network))
        self.detector = detector.eval()
        weights.unlink()

    def image(self, number: int) -> np.ndarray:
        entry = self.spec["images"][number]
        image = self.fill.image(self.spec["seed"], entry["height"], entry["width"], entry["index"])
        assert self.fill.checksum([image]) == entry["crc32"]
        return image

    def check(self, number: int, layer: str, found: Tensor | np.ndarray) -> None:
        """Compare ``found``, without the batch axis, with the output of the reference."""
        name = f"img{number}/{layer}"
        meta = self.spec["outputs"][name]
        array = np.asarray(found)
        assert list(array.shape) == meta["shape"], name
        atol, rtol = meta.get("atol", 1e-5), meta.get("rtol", 1e-5)
        stored = self.numbers[name].reshape(-1)
        compare(name, self.fill.pick(array, meta["step"]), stored, atol, rtol)
        assert float(array.std()) == pytest.approx(meta["std"], abs=atol, rel=rtol), name


@pytest.fixture(scope="module", params=["darknet_yolov3", "darknet_yolov3_tiny"])
def golden(request: pytest.FixtureRequest, shared_golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Golden:
    return Golden(shared_golden, request.param, tmp_path_factory.mktemp("darknet"))


def run(detector: YOLOv3, pixels: Tensor) -> tuple[list[list[Tensor]], dict[str, Tensor]]:
    """Return the outputs of each backbone layer by stage, and of the parts of each head."""
    stages: list[list[Tensor]] = []
    x = pixels
    for stage in detector.backbone.get_submodule("stages").children():
        stages.append([])
        for layer in stage.children():
            x = layer(x)
            stages[-1].append(x.clone())
    seen: dict[str, Tensor] = {}

    def watch(key: str) -> Callable[[nn.Module, tuple[Tensor, ...], Tensor], None]:
        def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
            seen[f"into {key}"], seen[key] = inputs[0], output

        return hook

    hooks = [
        module.register_forward_hook(watch(f"{part}{number}"))
        for number, scale in enumerate(detector.scales.scales)
        for part, module in scale.named_children()
    ]
    detector.outputs(pixels)
    for hook in hooks:
        hook.remove()
    return stages, seen


def as_yolo_layer(raw: Tensor) -> Tensor:
    """Convert an output to that of Darknet's layer: a sigmoid on all channels except widths and heights."""
    out = raw.unflatten(1, (3, 85)).sigmoid()
    out[:, :, 2:4] = raw.unflatten(1, (3, 85))[:, :, 2:4]
    return out.flatten(1, 2)


@torch.inference_mode()
def test_every_layer(golden: Golden) -> None:
    side = golden.spec["network_width"]
    for number in range(len(golden.spec["images"])):
        pixels, _, _ = darknet_letterbox(golden.image(number), side)
        golden.check(number, "input", pixels[0])
        stages, seen = run(golden.detector, pixels)
        seen = {name: value[0] for name, value in seen.items()}
        if len(golden.config.masks) == 3:
            taps = {
                0: stages[0][0], 1: stages[1][0], 4: stages[1][1], 11: stages[2][2], 36: stages[3][-1],
                61: stages[4][-1], 74: stages[5][-1],
            }  # fmt: skip
            heads = {79: "body0", 81: "predict0", 83: "body0", 84: "narrow1", 86: "into body1", 93: "predict1",
                     98: "into body2", 105: "predict2"}  # fmt: skip
            up, yolo = {85: (86, 256), 97: (98, 128)}, {82: 81, 94: 93, 106: 105}
        else:
            taps = {0: stages[0][0], 1: stages[1][0], 8: stages[4][-1], 11: stages[5][2], 12: stages[5][3]}
            heads = {
                13: "body0",
                15: "predict0",
                17: "body0",
                18: "narrow1",
                20: "into body1",
                21: "body1",
                22: "predict1",
            }
            up, yolo = {19: (20, 128)}, {16: 15, 23: 22}
        layers = {layer: value[0] for layer, value in taps.items()} | {n: seen[name] for n, name in heads.items()}
        layers |= {layer: layers[whole][:channels] for layer, (whole, channels) in up.items()}
        layers |= {layer: as_yolo_layer(layers[raw][None])[0] for layer, raw in yolo.items()}
        stored = {name.split("layer")[1] for name in golden.spec["outputs"] if name.startswith(f"img{number}/layer")}
        assert stored == {str(layer) for layer in layers}, "every stored layer is compared"
        for layer, value in layers.items():
            golden.check(number, f"layer{layer}", value)


@torch.inference_mode()
@pytest.mark.parametrize("what", ["dets_before_nms", "dets"])
def test_detections(golden: Golden, what: str) -> None:
    """Compare as sets: scores that differ by rounding may swap, an overlap at the threshold may flip."""
    settings, side = golden.spec["settings"], golden.spec["network_width"]
    post = replace(
        golden.config.post, score_threshold=settings["thresh"], candidates=20_000, detections=1000,
        nms_iou=settings["nms"] if what == "dets" else 1.0,
    )  # fmt: skip
    detector = golden.detector
    detector.config = replace(golden.config, post=post, object_threshold=settings["thresh"])
    for number in range(len(golden.spec["images"])):
        image = golden.image(number)
        pixels, inner_width, inner_height = darknet_letterbox(image, side)
        maps = detector.outputs(pixels)
        raw = torch.cat([m.permute(0, 2, 3, 1).reshape(1, -1, 85) for m in maps], 1)
        grid = detector.grid([(m.shape[2], m.shape[3]) for m in maps], torch.device("cpu"))
        theirs = golden.numbers[f"img{number}/{what}"]
        # Darknet clips boxes when it writes them, we before NMS. Far from every border that makes no difference; no
        # farther than needed, for NMS adds many of that distance to tell classes apart, and rounds.
        away = side * (1 + round(float(theirs[:, 4:].max())))
        limits = torch.tensor([[3 * away, 3 * away]])
        found = detector.detections(raw, grid._replace(anchors=grid.anchors + float(away)), limits)
        boxes, scores, labels = (values[found.valid] for values in (found.boxes, found.scores, found.labels))
        gap = torch.tensor([side - inner_width, side - inner_height]).repeat(2) / 2
        boxes = (boxes - away - gap) / torch.tensor([inner_width, inner_height]).repeat(2)  # shares of the original
        if what == "dets":
            assert len(boxes) == pytest.approx(len(theirs), abs=0.02 * len(theirs))
        else:  # the best of them are stored
            boxes, scores, labels = boxes[: len(theirs)], scores[: len(theirs)], labels[: len(theirs)]
        suggested = golden.spec["outputs"][f"img{number}/dets"]["suggested"]
        centre = torch.from_numpy(theirs[:, 2:4])
        half = torch.from_numpy(theirs[:, 4:6]) / 2
        expected = torch.cat([centre - half, centre + half], 1)
        close = (boxes[:, None] - expected).abs().amax(-1) < suggested["box_tol"]
        close &= (scores[:, None] - torch.from_numpy(theirs[:, 1])).abs() < suggested["score_tol"]
        close &= labels[:, None] == torch.from_numpy(theirs[:, 0]).long()
        for suffix, axis in (("", 0), (", ours among Darknet's", 1)):
            share = float(close.any(axis).float().mean())
            compare_share(f"img{number}/{what}{suffix}", share, suggested["min_share"])


def test_configuration_of_the_cfg(golden: Golden) -> None:
    expected = {3: ((0, 1, 2), (3, 4, 5), (6, 7, 8)), 2: ((0, 1, 2), (3, 4, 5))}[len(golden.config.masks)]
    assert golden.config.masks == expected
    assert golden.config.assign.ignore_iou == 0.7
    assert golden.config.anchors[0] == ((10, 13) if len(expected) == 3 else (10, 14))


def test_spp_and_what_is_no_yolov3(shared_golden: Path) -> None:
    text = (shared_golden / "darknet_yolov3" / "network.cfg").read_text()
    pools = "".join(f"[maxpool]\nsize={k}\nstride=1\n" for k in (5, 9, 13))
    assert yolov3_config(parse_cfg(text + pools)).scales.spp
    assert yolov3_config(parse_cfg(text)) == YOLOv3Config()
    with pytest.raises(InputError, match=r"has no \[yolo\] layer"):
        yolov3_config(parse_cfg("[net]\nheight=32\nwidth=32\n[convolutional]\n"))
    with pytest.raises(InputError, match=r"1 \[yolo\] layers without shortcuts"):
        yolov3_config(parse_cfg("[net]\nheight=32\nwidth=32\n[yolo]\nmask=0\nanchors=1,2\n"))


def test_a_count_of_classes_that_disagrees_is_named(shared_golden: Path) -> None:
    sections = parse_cfg((shared_golden / "darknet_yolov3_tiny" / "network.cfg").read_text(), "tiny.cfg")
    layers = tuple(DarknetLayer(section, (1, 1, 1), (1, 1, 1), {}) for section in sections[1:])
    detector = build_detector(yolov3_config(sections), Classes.from_names(["one", "two"]))
    assert isinstance(detector, YOLOv3)
    with pytest.raises(InputError, match=r"tiny.cfg, line \d+: is for 80 classes, but the detector has 2 names"):
        yolov3_state(detector, DarknetNetwork(sections[0], layers, 0, (0, 2)))
