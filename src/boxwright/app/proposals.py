"""Compute the proposals of a split by selective search or a trained detector, write them, and report recall."""

from __future__ import annotations

import time
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from boxwright.app.load import load
from boxwright.app.progress import ProgressBar
from boxwright.app.requests.inference import SELECTIVE_SEARCH, ProposalsRequest
from boxwright.data.config import DataConfig
from boxwright.data.formats.opening import open_dataset
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.loader import EvalLoader
from boxwright.data.proposals.files import SUFFIX, ProposalSet, read_proposals
from boxwright.data.proposals.selective_search import Quality, require_opencv, search_all
from boxwright.detectors.contract.capabilities import ProposesRegions
from boxwright.detectors.contract.detector import Detector
from boxwright.evaluation.proposals import COUNTS, RecallRow, recall_report
from boxwright.geometry.boxes import have_area
from boxwright.geometry.original import in_original
from boxwright.heads.regions.proposals import Proposals
from boxwright.io.files import check_writable
from boxwright.structures import Images, InputError

_SECONDS_BETWEEN_SAVES = 300.0


@dataclass(frozen=True)
class Made:
    """A proposal file that was written: its path, its proposals and their recall."""

    path: Path
    proposals: ProposalSet
    recall: list[RecallRow]

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON. Recall is None if the split has no objects."""
        rows = [{k: None if v != v else v for k, v in asdict(row).items()} for row in self.recall]
        return {
            "output": str(self.path),
            "method": self.proposals.method,
            "images": len(self.proposals),
            "proposals": len(self.proposals.boxes),
            "recall": rows,
        }


def make_proposals(request: ProposalsRequest) -> Made:
    """Compute and write the proposals of a split, and measure their recall.

    A search that is stopped keeps its results in a file beside ``output``, and the next search continues from it.
    """
    output, most, quality = request.output, request.most, request.quality
    if output.suffix != SUFFIX:
        raise InputError(f"--output {output}: name a file that ends in {SUFFIX}")
    if most < 1:
        raise InputError(f"--most {most}: at least 1")
    index = open_dataset(request.data, request.split, not request.voc_zero_based)
    check_writable(output)
    if request.method == SELECTIVE_SEARCH:
        # Named by setting, so that a search with other settings does not overwrite it.
        unfinished = output.with_suffix(f".{quality}-{most}.unfinished{SUFFIX}")
        made = search(index, most, quality, request.workers, unfinished)
        written = made.save(output)
        unfinished.unlink(missing_ok=True)
    else:
        loaded = load(request.method, request.device)
        made = propose(loaded.detector, index, most, loaded.device, f"proposal network of {loaded.path}")
        written = made.save(output)
    counts = [count for count in COUNTS if count < most]
    return Made(written, made, recall_report(made, index, [*counts, most]))


def search(
    index: DetectionIndex,
    most: int,
    quality: Quality = "fast",
    workers: int = 1,
    unfinished: Path | None = None,
) -> ProposalSet:
    """Return the best ``most`` proposals of selective search for each image.

    The results so far are written to the file ``unfinished`` every few minutes, and when Ctrl-C or an unreadable image
    stops the search. Images that are in this file already are not searched again. Raises InputError if OpenCV is not
    installed.
    """
    require_opencv()
    method = f"{SELECTIVE_SEARCH} {quality} (OpenCV)"
    found = {} if unfinished is None else _found_before(unfinished, index)
    left = [i for i in range(len(index)) if i not in found]

    def keep() -> None:
        if unfinished is not None and found:
            rows = sorted(found)
            boxes, scores = zip(*(found[i] for i in rows), strict=True)
            ProposalSet.build(index.subset(rows), boxes, scores, f"{method}, unfinished").save(unfinished)

    kept_at = time.monotonic()
    with ProgressBar("selective search", len(index)) as bar:
        if found:
            bar.say(f"{len(found)} of {len(index)} images were searched earlier: {unfinished}")
            bar.advance(len(found))
        try:
            with closing(search_all(index.subset(left), quality, workers)) as searched:
                for i, (boxes, scores) in zip(left, searched, strict=True):
                    found[i] = boxes[:most], scores[:most]
                    bar.advance()
                    if time.monotonic() - kept_at >= _SECONDS_BETWEEN_SAVES:
                        keep()
                        kept_at = time.monotonic()
        except BaseException:
            keep()
            if unfinished is not None and found:
                bar.say(f"kept {len(found)} of {len(index)} images; run the same command again to continue")
            raise
    columns = [found[i] for i in range(len(index))]
    return ProposalSet.build(index, [boxes for boxes, _ in columns], [scores for _, scores in columns], method)


def _found_before(unfinished: Path, index: DetectionIndex) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Read the results of an unfinished search by position in ``index``, without images that have changed since."""
    if not unfinished.is_file():
        return {}
    before = read_proposals(unfinished)
    rows = {str(name): row for row, name in enumerate(before.names)}
    found = {}
    for i in range(len(index)):
        row = rows.get(index.relative_path(i))
        if row is not None and before.is_of(row, index, i):
            part = slice(before.offsets[row], before.offsets[row + 1])
            found[i] = before.boxes[part], before.scores[part]
    return found


@torch.inference_mode()
def propose(detector: Detector, index: DetectionIndex, most: int, device: torch.device, method: str) -> ProposalSet:
    """Return the best ``most`` proposals of a two-stage detector for each image, at most as many as it trains on."""
    detector.eval()
    prepared = detector.preparation
    data = DataConfig(
        train=(), eval=prepared.transforms, eval_batch_size=1, workers=0, pad_multiple=prepared.pad_multiple
    )
    loader = EvalLoader(index, data)
    boxes, scores = [], []
    with ProgressBar("proposing", len(index)) as bar:
        for batch in loader:
            found = network_proposals(detector, batch.images.to(device))
            keep = found.valid[0].cpu()
            back = in_original(found.boxes.float().cpu(), batch.info.to_original, batch.info.original_sizes)[0]
            keep &= have_area(back)
            boxes.append(np.asarray(back[keep][:most]))
            scores.append(np.asarray(found.scores[0].float().cpu()[keep].sigmoid()[:most]))
            bar.advance()
    return ProposalSet.build(index, boxes, scores, method)


def network_proposals(detector: Detector, images: Images) -> Proposals:
    """Run the proposal network of ``detector`` with the proposal counts of training.

    Raises InputError if the detector has no proposal network.
    """
    if not isinstance(detector, ProposesRegions):
        raise InputError(
            f"a detector of kind {detector.config.kind} has no proposal network; give the checkpoint of a Faster "
            f"R-CNN, Mask R-CNN or R-FCN, or use --method {SELECTIVE_SEARCH}"
        )
    return detector.propose(images)
