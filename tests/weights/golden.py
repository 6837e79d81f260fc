"""One case of the parity fixtures: weights and images drawn by its rule, and what the reference computed from them."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.backbones.test_detnet import load_rule
from torch import Tensor

from boxwright.structures import DetectionBatch


class GoldenCase:
    """``weights`` is the state dict of the published layout; ``spec`` what its ``spec.json`` says."""

    def __init__(self, folder: Path) -> None:
        self.rule = load_rule(folder.parent)
        self.spec: dict[str, Any] = json.loads((folder / "spec.json").read_text())
        self.stored = np.load(folder / "outputs.npz")
        keys = json.loads((folder / "keys.json").read_text())
        weights = self.rule.state_dict(keys, self.spec["seed"], self.spec["gains"], self.spec["transposed"])
        assert self.rule.checksum(weights.values()) == self.spec["weights_crc32"]
        self.weights = {key: torch.from_numpy(value) for key, value in weights.items()}

    def picture(self, number: int) -> np.ndarray:
        """Image ``number`` as uint8 RGB ``[H, W, 3]``."""
        entry = self.spec["images"][number]
        array = self.rule.image(self.spec["seed"], entry["height"], entry["width"], entry["index"])
        assert self.rule.checksum([array]) == entry["crc32"]
        return array

    def names(self, number: int) -> set[str]:
        """The outputs stored for image ``number``."""
        return {name.split("/")[1] for name in self.spec["outputs"] if name.startswith(f"img{number}/")}

    def check(self, name: str, value: Tensor) -> None:
        """``value`` is the stored output ``name``, within the tolerance stored with it."""
        meta = self.spec["outputs"][name]
        assert list(value.shape) == meta["shape"], name
        mine = self.rule.pick(value.numpy(), meta["step"])
        limits = {key: meta.get(key, 1e-6) for key in ("atol", "rtol")}
        np.testing.assert_allclose(mine, self.stored[name].reshape(-1), err_msg=name, **limits)

    def share_found(self, name: str, found: DetectionBatch, size: tuple[int, int]) -> float:
        """Share of the stored detections (class from 1, score, box in shares of the image) that ``found`` has."""
        height, width = size
        boxes = found.boxes[0] / torch.tensor([width, height, width, height])
        ours = torch.cat([found.labels[0, :, None] + 1.0, found.scores[0, :, None], boxes], 1)[found.valid[0]]
        stored = torch.from_numpy(self.stored[name])
        limits = self.spec["outputs"][name]["suggested"]
        near = (ours[:, None, 2:] - stored[:, 2:]).abs().amax(-1) < limits["box_tol"]
        near &= (ours[:, None, 1] - stored[:, 1]).abs() < limits["score_tol"]
        return (near & (ours[:, None, 0] == stored[:, 0])).any(0).float().mean().item()
