"""One case of the parity fixtures: weights and images drawn by its rule, and what the reference computed from them.

Every comparison with a fixture goes through ``compare`` and ``compare_share``, so that ``benchmarks/parity.py`` can run
the tests' own checks and keep their numbers.
"""

import importlib.util
import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from boxwright.structures import DetectionBatch


class Comparison(NamedTuple):
    """A place in a model, and how far ours is from the reference's there.

    ``absolute`` is the largest difference, ``relative`` its part of the reference's largest number. For lists, which
    have neither, ``share`` is that of the rows that found a partner.
    """

    tap: str
    absolute: float | None
    relative: float | None
    share: float | None
    tolerance: str
    kept: bool


_notes: list[Comparison] | None = None


@contextmanager
def noted() -> Iterator[list[Comparison]]:
    """What is compared inside is in the list, and nothing stops where a tolerance is exceeded."""
    global _notes
    _notes = found = []
    try:
        yield found
    finally:
        _notes = None


def compare(tap: str, mine: np.ndarray, stored: np.ndarray, atol: float, rtol: float) -> None:
    """``mine`` is ``stored``, element by element, to ``atol + rtol * |stored|``."""
    if _notes is None:
        np.testing.assert_allclose(mine, stored, err_msg=tap, atol=atol, rtol=rtol)
        return
    assert mine.shape == stored.shape, tap
    absolute = float(np.abs(mine.astype(np.float64) - stored).max())
    relative = absolute / max(float(np.abs(stored).max()), 1e-12)
    kept = np.allclose(mine, stored, atol=atol, rtol=rtol)
    _notes.append(Comparison(tap, absolute, relative, None, f"atol {atol:.0e}, rtol {rtol:.0e}", kept))


def compare_share(tap: str, share: float, least: float) -> None:
    """At least ``least`` of a list's rows have a partner in the other."""
    if _notes is None:
        assert share >= least, f"{tap}: {share:.4f} of the rows have a partner, not {least}"
    else:
        _notes.append(Comparison(tap, None, None, share, f"share {least:.3g}", share >= least))


def module_at(path: Path) -> ModuleType:
    """A module of the fixtures' folder."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class GoldenCase:
    """``weights`` is the state dict of the published layout; ``spec`` what its ``spec.json`` says."""

    def __init__(self, folder: Path) -> None:
        self.rule = module_at(folder.parent / "fill.py")
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
        compare(name, mine, self.stored[name].reshape(-1), meta.get("atol", 1e-6), meta.get("rtol", 1e-6))

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
