"""Parity with a publisher from the image file on: a checkpoint and a PNG are written, and read by the public road.

The only settings that are changed are those that the reference was run with in place of the publisher's own, such as a
smaller input.
"""

import json
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from boxwright.checkpoints.opening import load_detector
from boxwright.detections import Detections
from boxwright.detectors.contract.detect import batch_of, pixels_of, prepared, sample_of
from boxwright.detectors.contract.detector import Detector
from tests.support.golden import module_at


class Road(NamedTuple):
    """Writing and reading of a case. ``entry``: of the file that holds the state dict, None for a bare one. ``sets``:
    overrides, with the short side of the reference's input as ``{short}``. ``size``: of the input, where asked for."""

    suffix: str
    entry: str | None = None
    sets: tuple[str, ...] = ()
    size: int | None = None


_SHORT = "data.eval.0.short=[{short}]"
ROADS: dict[str, Road] = {
    "detnet59_fpn_voc": Road(".pth", "model", (_SHORT,)),
    "refinedet320_vgg16_voc": Road(".pth", size=320),
    "ssd300_vgg16_voc": Road(".pth"),
    **{
        f"darknet_{name}": Road(".weights", None, (
            f"detector.post.score_threshold={least}", f"detector.post.nms_iou={iou}",
            "detector.post.candidates=20000", "detector.post.detections=2000",
        ))
        for name, least, iou in (
            ("yolov3", 0.8, 0.45), ("yolov3_tiny", 0.85, 0.45), ("yolov2_voc", 0.15, 0.45),
            ("yolov2_tiny_voc", 0.15, 0.45), ("yolov1_tiny", 0.6, 0.4), ("mini_local", 0.7, 0.4),
        )
    },
    "d2_faster_rcnn_r50_fpn": Road(".pkl", "model", (_SHORT, "detector.rpn.post_nms=[1000, 200]")),
    "d2_faster_rcnn_r50_c4": Road(
        ".pkl", "model", (_SHORT, "detector.rpn.pre_nms=[12000, 6000]", "detector.rpn.post_nms=[2000, 40]")
    ),
    "d2_mask_rcnn_r50_fpn": Road(".pkl", "model", (_SHORT, "detector.rpn.post_nms=[1000, 200]")),
    "d2_retinanet_r50_fpn": Road(".pkl", "model", (_SHORT,)),
    "mmdet_retinanet_r50_fpn": Road(".pth", "state_dict", (_SHORT,)),
    "mmdet_ssd300_vgg16": Road(".pth", "state_dict"),
}  # fmt: skip
"""The cases that have a detector, by the names of their folders."""


class Compared(NamedTuple):
    """Differences of an image from the reference: the largest of the network's input, in grey levels of 255 (None where
    the fixture does not have it), and the share of the reference's detections that have a partner. ``least``: the share
    that the fixture asks for."""

    image: int
    levels: float | None
    share: float
    least: float


def compare_images(folder: Path, scratch: Path) -> list[Compared]:
    """Compare every image of the case in ``folder``; files are written to ``scratch``."""
    spec: dict[str, Any] = json.loads((folder / "spec.json").read_text())
    fill, stored, road = module_at(folder.parent / "fill.py"), np.load(folder / "outputs.npz"), ROADS[folder.name]
    checkpoint = written(folder, spec, fill, scratch / f"checkpoint{road.suffix}")
    found = []
    for entry in spec["images"]:
        if entry.get("dark_last_row"):  # a fault of the reference in some sizes, which ours does not have
            continue
        array, number = fill.image(spec["seed"], entry["height"], entry["width"], entry["index"]), entry["index"]
        assert fill.checksum([array]) == entry["crc32"]
        Image.fromarray(array).save(scratch / f"{number}.png")
        sets = [text.format(short=entry.get("target_short_side")) for text in road.sets]
        detector = load_detector(checkpoint, sets=sets, size=road.size)
        name = f"img{number}"
        # detectron2's input is stored as the padded image.
        tap = f"{name}/image" if f"{name}/image" in stored.files else f"{name}/input"
        levels = input_difference(detector, scratch / f"{number}.png", spec, tap, stored, fill)
        if f"{name}/dets" in stored.files:
            detections = detector.detect(scratch / f"{number}.png", threshold=0.0)[0]
            limits = {"box_tol": 0.002, "score_tol": 0.002, "min_share": 0.97}
            limits |= spec["outputs"][f"{name}/dets"].get("suggested", {})
            share = share_of(stored[f"{name}/dets"], detections, spec["case"], limits)
            found.append(Compared(number, levels, share, limits["min_share"]))
    return found


def written(folder: Path, spec: dict[str, Any], fill: Any, path: Path) -> Path:
    """Write the checkpoint of a case in the published form, with the cfg beside Darknet's."""
    if path.suffix == ".weights":
        cfg = (folder / "network.cfg").read_text()
        path.with_suffix(".cfg").write_text(cfg)
        writer = module_at(folder.parent / "write_darknet_weights.py")
        crc, _, _ = writer.write(cfg, path, spec["seed"], spec["header"], spec["gains"])
        assert crc == spec["weights_file_crc32"]
        return path
    keys = json.loads((folder / "keys.json").read_text())
    arrays = fill.state_dict(keys, spec["seed"], spec["gains"], spec["transposed"])
    assert fill.checksum(arrays.values()) == spec["weights_crc32"]
    entry = ROADS[folder.name].entry
    state = {name: torch.from_numpy(value) for name, value in arrays.items()}
    torch.save(state if entry is None else {entry: state}, path)
    return path


def input_difference(
    detector: Detector, path: Path, spec: dict[str, Any], name: str, stored: Any, fill: Any
) -> float | None:
    """Return the largest difference of the network's input, in grey levels; None where the input is not stored.

    An input that is called "image" is the resized image: BGR, before the mean is subtracted and without padding.
    """
    if name not in stored.files:
        return None
    sample = prepared(sample_of(pixels_of(path)), detector.preparation.transforms)
    deviation: Tensor = detector.get_buffer("pixel_std").flatten()
    deviation = deviation.flip(0) if detector._bgr else deviation
    if name.endswith("/image"):
        mine, deviation = sample.image.as_subclass(Tensor).float().flip(0), torch.ones(3)
    else:
        mine = detector.normalise(batch_of([sample], detector.preparation.pad_multiple))
    meta = spec["outputs"][name]
    mine = mine.reshape(mine.shape[-len(meta["shape"]) :]).contiguous()
    assert list(mine.shape) == meta["shape"], name
    unit = deviation[:, None, None].expand_as(mine).contiguous()
    picked, of_levels = (torch.from_numpy(fill.pick(part.numpy(), meta["step"])).reshape(-1) for part in (mine, unit))
    return float(((picked - torch.from_numpy(stored[name].reshape(-1))) * of_levels).abs().max())


def share_of(stored: np.ndarray, found: Detections, case: str, limits: dict[str, Any]) -> float:
    """Return the share of the stored rows that have a partner among ``found``, in pixels of the original image."""
    height, width = found.size
    theirs = torch.from_numpy(stored).clone()
    boxes, size = theirs[:, 2:6], torch.tensor([width, height, width, height], dtype=torch.float32)
    tolerance = torch.full_like(boxes, limits["box_tol"])
    first = 0
    if case.startswith("darknet"):
        centre, half = boxes[:, :2], boxes[:, 2:] / 2
        tolerance = limits["box_tol"] * (1 + half.amax(1, keepdim=True)) * size
        boxes = torch.cat([centre - half, centre + half], 1) * size
    elif case.startswith(("ssd300", "refinedet")):
        boxes, tolerance, first = boxes * size, tolerance * size, 1
    elif case.startswith("detnet"):
        first = 1
    # `detect` cuts boxes to the image and drops what is left without area; so does whoever reads the reference's.
    boxes = torch.minimum(boxes.clamp(min=0), size)
    kept = ((boxes[:, 2:] - boxes[:, :2]) > 1e-3).all(1)
    theirs, boxes, tolerance = theirs[kept], boxes[kept], tolerance[kept]
    near = ((torch.from_numpy(found.boxes)[:, None] - boxes).abs() <= tolerance).all(-1)
    near &= (torch.from_numpy(found.scores)[:, None] - theirs[:, 1]).abs() <= limits["score_tol"]
    near &= torch.from_numpy(found.labels)[:, None] == theirs[:, 0].long() - first
    return float(near.any(0).float().mean())
