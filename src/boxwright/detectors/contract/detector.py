"""The contract of a detector: one module from a padded batch to losses or detections, and a ``detect`` for people.

Symbols: B images, H W pixels of the padded batch. Capabilities that only some detectors have are in ``capabilities``.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Self, overload

import numpy as np
import torch
from torch import Tensor, nn

from boxwright.data.proposals.selective_search import search_pixels
from boxwright.data.transforms.sample import Sample
from boxwright.detections import Detections
from boxwright.detectors.contract.capabilities import TakesProposals
from boxwright.detectors.contract.detect import (
    Found,
    ImageSource,
    batch_of,
    found_in,
    pixels_of,
    prepared,
    sample_of,
)
from boxwright.detectors.contract.inference import OptimisedTwin, evaluating, optimised
from boxwright.detectors.contract.pixels import PixelConfig
from boxwright.detectors.contract.preparation import Preparation
from boxwright.geometry.paste import PasteConfig
from boxwright.heads.class_weights import ClassWeights
from boxwright.precision import Precision
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets


class Detector(nn.Module, ABC):
    """A detector. The argument decides what ``forward`` does, never the training flag."""

    config: Any
    """The frozen configuration that the detector was built from."""
    classes: Classes
    """Names of the classes; labels are indexes into them."""
    preparation: Preparation
    """Preparation of an image for the network, set by ``build_detector``."""
    input_multiple: int
    """The network takes sides that are multiples of this many pixels."""
    input_size: tuple[int, int] | None
    """The only height and width that the network takes; None for any."""
    wanted_losses: tuple[str, ...] | None
    """The loss terms that a stage of training minimises, None for all. A detector may skip the work for the others."""
    paste: PasteConfig | None
    """Conversion of masks to pixels; None for a detector without masks."""

    def __init__(self, config: Any, classes: Classes, pixels: PixelConfig) -> None:
        super().__init__()
        if len(classes) == 0:
            raise InputError("a detector needs at least one class; the data set names none")
        self.config = config
        self.classes = classes
        self.preparation = Preparation()
        self.input_multiple = 1
        self.input_size = None
        self.wanted_losses = None
        self.paste = None
        self.class_weights = ClassWeights()
        self._twin: OptimisedTwin[Detector] | None = None
        self._bgr = pixels.bgr
        self.register_buffer("pixel_mean", torch.tensor(pixels.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixels.std).reshape(1, 3, 1, 1), persistent=False)

    @overload
    def __call__(self, images: Images, targets: None = None) -> DetectionBatch: ...
    @overload
    def __call__(self, images: Images, targets: Targets) -> dict[str, Tensor]: ...
    def __call__(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Return the losses of a batch when ``targets`` are given, each a scalar, and its detections when not."""
        return super().__call__(images, targets)

    @abstractmethod
    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Compute the losses of a batch with ``targets``, its detections without."""

    @abstractmethod
    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Compute the raw outputs of the heads for normalised pixels ``[B, 3, H, W]``.

        Contains all multiply-adds of inference, which are counted on it. Comparisons with other implementations begin
        here.
        """

    @abstractmethod
    def class_rows(self) -> dict[str, Tensor]:
        """Return the class of each row, int64 ``[rows]``, of every tensor whose first axis counts classes, by name.

        0..K-1 are the labels, K is background and ``SHARED`` is a row that serves all classes. Transfer between lists
        of classes copies these tensors row by row.
        """

    def weigh_classes(self, weights: Tensor | None) -> None:
        """Weight the classes in the classification loss by ``weights`` ``[K]``, positive; None weights nothing.

        Losses of boxes and masks, and of objectness, which knows no classes, stay as they are.
        """
        for part in self.modules():
            if isinstance(part, ClassWeights):
                part.set(weights)

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Return width and height, in input pixels, of the anchors that are matched by overlap; empty without any."""
        return []

    def pretrained_parts(self) -> list[nn.Module]:
        """Return the submodules that a pretrained backbone's weights initialise, with its names in each."""
        return [self.get_submodule("backbone")]

    @property
    def gives_masks(self) -> bool:
        """True if detections have masks."""
        return self.paste is not None

    def check_input(self, height: int, width: int, what: str = "the input") -> None:
        """Raise InputError with the nearest valid sides if the network cannot take ``height`` x ``width``."""
        if self.input_size is not None and (height, width) != self.input_size:
            raise InputError(
                f"{what} is {height} x {width} pixels (height x width), but this detector takes exactly "
                f"{self.input_size[0]} x {self.input_size[1]}"
            )
        multiple = self.input_multiple
        if height % multiple or width % multiple:
            near = [max(multiple, multiple * ((side + multiple // 2) // multiple)) for side in (height, width)]
            raise InputError(
                f"{what} is {height} x {width} pixels (height x width), but this detector needs multiples of "
                f"{multiple}; the nearest are {near[0]} x {near[1]}"
            )

    @property
    def dtype(self) -> torch.dtype:
        """Floating-point type of the parameters, in which the network runs."""
        return next(self.parameters()).dtype

    def normalise(self, images: Images) -> Tensor:
        """Return the network's input ``[B, 3, H, W]``, channels-last, zero outside each image."""
        mean, std = self.get_buffer("pixel_mean").float(), self.get_buffer("pixel_std").float()
        pixels = (images.pixels.float() - mean) / std
        height, width = pixels.shape[-2:]
        row = torch.arange(height, device=pixels.device).reshape(1, 1, -1, 1)
        column = torch.arange(width, device=pixels.device).reshape(1, 1, 1, -1)
        sizes = images.sizes[:, :, None, None]  # [B, 2, 1, 1]
        inside = (row < sizes[:, :1]) & (column < sizes[:, 1:])
        pixels = torch.where(inside, pixels, 0.0)
        if self._bgr:
            pixels = pixels.flip(1)
        return pixels.to(self.dtype).contiguous(memory_format=torch.channels_last)

    @staticmethod
    def sample_seeds(images: Images) -> Tensor:
        """Return seeds ``[B]`` for the random choices of a training step."""
        if images.seeds is not None:
            return images.seeds
        return torch.randint(0, 2**62, (images.pixels.shape[0],), device=images.pixels.device)

    def optimised(self, dtype: torch.dtype = torch.float32) -> Self:
        """Return a copy for inference only, see :func:`~boxwright.detectors.contract.inference.optimised`."""
        twin = optimised(self, dtype)
        twin._twin = None
        return twin

    def detect_with(self, precision: Precision) -> Self:
        """Make ``detect`` run on an optimised copy in ``precision`` from now on, and return this detector.

        The copy is made at the first call and again whenever the weights have changed. ``forward``, training and the
        state dict are as before. Writes through ``.data`` and changes of layers are not noticed: call this method again
        after them.
        """
        self._twin = OptimisedTwin(precision)
        return self

    def train(self, mode: bool = True) -> Self:
        """Set training or eval mode. Training frees the copy that ``detect`` runs on."""
        if mode and self._twin is not None:
            self._twin.drop()
        return super().train(mode)

    def detect(
        self, sources: ImageSource | Sequence[ImageSource], *, threshold: float = 0.5, batch_size: int = 1
    ) -> list[Detections]:
        """Detect objects in images: paths, PIL images, arrays or tensors; one result each, in the same order.

        Arrays are RGB or gray ``[H, W, 3]`` or ``[H, W]`` and tensors RGB ``[3, H, W]``, both uint8. ``threshold``: the
        minimum score, 0..1. Boxes are in pixels of the image as given (of a file: after its EXIF orientation).
        Raises InputError for an image that cannot be read.
        """
        if not isinstance(sources, Sequence) or isinstance(sources, str):  # one image, or what is none
            sources = [sources]
        if batch_size < 1:
            raise InputError(f"batch_size = {batch_size}: at least 1")
        results: list[Detections] = []
        for start in range(0, len(sources), batch_size):
            chunk = sources[start : start + batch_size]
            results += self.detect_arrays(
                [pixels_of(s) for s in chunk],
                threshold=threshold,
                paths=[Path(s) if isinstance(s, (str, Path)) else None for s in chunk],
            )
        return results

    def detect_arrays(
        self, arrays: Sequence[np.ndarray], *, threshold: float = 0.0, paths: Iterable[Path | None] | None = None
    ) -> list[Detections]:
        """Detect in one batch of uint8 ``[H, W, 3]`` RGB arrays; ``threshold`` is the minimum score."""
        samples = [prepared(self.sample_of(array), self.preparation.transforms) for array in arrays]
        return [
            Detections(
                boxes=found.boxes.numpy(),
                scores=found.scores.numpy(),
                labels=found.labels.numpy(),
                names=self.classes,
                size=sample.original_size,
                masks=found.pasted(sample.original_size, self.paste),
                path=path,
            )
            for sample, found, path in zip(
                samples, self.detect_samples(samples, threshold), paths or [None] * len(samples), strict=True
            )
        ]

    def sample_of(self, array: np.ndarray) -> Sample:
        """Wrap a uint8 ``[H, W, 3]`` RGB array as a sample, with proposals of selective search if they are needed.

        Raises InputError if they are, and OpenCV, which finds them, is absent.
        """
        sample = sample_of(array)
        if not isinstance(self, TakesProposals):
            return sample
        proposals = search_pixels(array)[0][: self.preparation.most_proposals]
        return replace(sample, proposals=torch.from_numpy(proposals))

    @torch.inference_mode()
    def detect_samples(self, samples: Sequence[Sample], threshold: float = 0.0) -> list[Found]:
        """Detect in one batch of prepared samples; the results are in pixels of the original images."""
        network = self if self._twin is None else self._twin.of(self)
        images = batch_of(samples, self.preparation.pad_multiple).to(self.get_buffer("pixel_mean").device)
        with evaluating(network):
            batch = network(images)
        return found_in(batch, samples, threshold)
