"""Read the metadata of an MMDetection 3 checkpoint, and the names of its ResNet."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from boxwright.structures import Classes
from boxwright.weights.common.class_names import default_classes
from boxwright.weights.common.foreign_files import tensors_in


@dataclass(frozen=True, slots=True, eq=False)
class MMDetFile:
    """Content of a checkpoint. ``state``: its tensors. ``names``: of the classes, may be empty. ``text``: of its
    configuration, may be empty.
    """

    state: dict[str, Tensor]
    names: tuple[str, ...]
    text: str

    def has(self, start: str) -> bool:
        """Return True if the name of a tensor begins with ``start``."""
        return any(name.startswith(start) for name in self.state)

    @property
    def caffe(self) -> bool:
        """True if the ResNet has Caffe's strides and pixels.

        Without a configuration it is detected by norms that are only a scale and a shift: they come from MSRA's
        weights.
        """
        if self.text:
            return re.search(r"style\s*=\s*['\"]caffe['\"]", self.text) is not None
        mean = self.state.get("backbone.bn1.running_mean")
        return mean is not None and not mean.any().item()

    def classes(self, count: int) -> Classes | None:
        """Return the file's own names, with the ids of a known data set; None where the names do not fit ``count``."""
        if len(self.names) != count or len(set(self.names)) != count:
            return None
        usual = default_classes(count)
        return usual if usual.names == self.names else Classes.from_names(list(self.names))


def read_parts(content: Mapping[str, Any]) -> MMDetFile:
    """Read the content of a file, whole or its ``state_dict`` alone."""
    meta = content.get("meta") if isinstance(content.get("meta"), dict) else {}
    assert isinstance(meta, dict)
    data = meta.get("dataset_meta") if isinstance(meta.get("dataset_meta"), dict) else meta
    assert isinstance(data, dict)
    names = data.get("classes") or data.get("CLASSES") or ()
    text = meta.get("cfg") or meta.get("config") or ""
    return MMDetFile(
        state={
            name: value
            for name, value in tensors_in(content).items()
            if not name.endswith("num_batches_tracked") and not name.startswith("data_preprocessor.")
        },
        names=tuple(str(name) for name in names) if isinstance(names, list) else (),
        text=text if isinstance(text, str) else "",
    )


def resnet_names() -> list[tuple[str, str]]:
    """Return the pairs of names of the ResNet: torchvision's on both sides."""
    pairs = [("backbone.conv1.{part}", "backbone.conv1.{part}"), ("backbone.bn1.{part}", "backbone.bn1.{part}")]
    for layer in ("conv1", "conv2", "conv3", "bn1", "bn2", "bn3", "downsample.0", "downsample.1"):
        names = [f"backbone.layer{n}.{{block}}.{layer}.{{part}}" for n in (1, 2, 3, 4)]
        pairs += zip(names, names, strict=True)
    return pairs
