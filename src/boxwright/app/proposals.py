"""Proposals of a split by selective search or by a trained detector, into a file, with their recall."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import NamedTemporaryFile
from typing import Any

import numpy as np
import torch
from torch import nn

from boxwright.app.load import load
from boxwright.app.progress import ProgressBar
from boxwright.data.formats import open_dataset
from boxwright.data.index import DetectionIndex
from boxwright.data.loader import EvalLoader
from boxwright.data.proposals import SUFFIX, ProposalSet, RecallRow, recall_report
from boxwright.data.selective_search import Quality, require_opencv, search_all
from boxwright.detectors.detector import Detector
from boxwright.heads.rpn import RPN, Proposals
from boxwright.structures import Images, InputError

SELECTIVE_SEARCH = "selective-search"


@dataclass(frozen=True)
class Made:
    """The file, what is in it, and what it finds."""

    path: Path
    proposals: ProposalSet
    recall: list[RecallRow]

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON; recall is null where the split has no object."""
        rows = [{k: None if v != v else v for k, v in asdict(row).items()} for row in self.recall]
        return {
            "output": str(self.path),
            "method": self.proposals.method,
            "images": len(self.proposals),
            "proposals": len(self.proposals.boxes),
            "recall": rows,
        }


def make_proposals(
    data: Path, split: str | None, method: str, output: Path, most: int, quality: Quality, workers: int, device: str
) -> Made:
    """Find, save and measure. ``method`` is "selective-search" or a checkpoint with a proposal network."""
    if output.suffix != SUFFIX:
        raise InputError(f"--output {output}: name a file that ends in {SUFFIX}")
    if most < 1:
        raise InputError(f"--most {most}: at least 1")
    index = open_dataset(data, split)
    check_writable(output)
    if method == SELECTIVE_SEARCH:
        made = search(index, most, quality, workers)
    else:
        loaded = load(method, device)
        made = propose(loaded.detector, index, most, loaded.device, f"proposal network of {loaded.path}")
    return Made(made.save(output), made, recall_report(made, index))


def check_writable(output: Path) -> None:
    """InputError where a file cannot be written there: better now than after hours of search."""
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        with NamedTemporaryFile(dir=output.parent, prefix=f".{output.name}."):
            pass
    except OSError as error:
        raise InputError(f"--output {output}: cannot be written: {error.strerror}; name another folder") from None


def search(index: DetectionIndex, most: int, quality: Quality = "fast", workers: int = 1) -> ProposalSet:
    """The ``most`` best of selective search for each image. InputError where OpenCV is absent."""
    require_opencv()
    boxes, scores = [], []
    with ProgressBar("selective search", len(index)) as bar:
        for found, falling in search_all(index, quality, workers):
            boxes.append(found[:most])
            scores.append(falling[:most])
            bar.advance()
    return ProposalSet.build(index, boxes, scores, f"{SELECTIVE_SEARCH} {quality} (OpenCV)")


@torch.inference_mode()
def propose(detector: Detector, index: DetectionIndex, most: int, device: torch.device, method: str) -> ProposalSet:
    """The proposals of a two-stage detector for each image, as many as it takes in training or ``most``."""
    detector.eval()
    loader = EvalLoader(index, detector.transforms, 1, pad_multiple=detector.pad_multiple)
    boxes, scores = [], []
    with ProgressBar("proposing", len(index)) as bar:
        for batch in loader:
            found = network_proposals(detector, batch.images.to(device))
            keep = found.valid[0].cpu()
            to_original = batch.info.to_original[0]
            back = (found.boxes[0].float().cpu() - to_original[2:].repeat(2)) / to_original[:2].repeat(2)
            height, width = batch.info.original_sizes[0].tolist()
            back = torch.minimum(back.clamp(min=0), torch.tensor([width, height, width, height]).float())
            keep &= (back[:, 2:] > back[:, :2]).all(1)
            boxes.append(np.asarray(back[keep][:most]))
            scores.append(np.asarray(found.scores[0].float().cpu()[keep].sigmoid()[:most]))
            bar.advance()
    return ProposalSet.build(index, boxes, scores, method)


def network_proposals(detector: Detector, images: Images) -> Proposals:
    """What the proposal network of ``detector`` finds, with its counts of training. InputError where it has none."""
    rpn = getattr(detector, "rpn", None)
    if not isinstance(rpn, RPN):
        raise InputError(
            f"a detector of kind {detector.config.kind} has no proposal network; name the checkpoint of a Faster, Mask "
            f"or R-FCN one, or --method {SELECTIVE_SEARCH}"
        )
    maps = detector.get_submodule("backbone")(detector.normalise(images))
    if isinstance(neck := getattr(detector, "neck", None), nn.Module):
        maps = neck(maps)
    return rpn.proposals(maps[: len(rpn.anchors.strides)], images.sizes, training=True)
