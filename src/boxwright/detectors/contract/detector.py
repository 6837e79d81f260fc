"""What every detector is: one module from a padded batch to losses or detections, and a ``detect`` for people.

Symbols: B images, H W pixels of the padded batch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, TypeAlias, overload

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Generator, Tensor, nn
from torchvision import tv_tensors

from boxwright.backbones.layers.norm import fold_norms
from boxwright.backbones.layers.winograd import use_winograd
from boxwright.data.images import read_image
from boxwright.data.index import DetectionIndex
from boxwright.data.loading.collate import padded_proposals
from boxwright.data.proposals.files import ProposalsConfig
from boxwright.data.proposals.selective_search import search_pixels
from boxwright.data.transforms.configs import TransformConfig, build_transform
from boxwright.data.transforms.resizing import ResizeConfig
from boxwright.data.transforms.sample import Sample
from boxwright.detections import Detections
from boxwright.detectors.contract.fitting import FitConfig, Fitting
from boxwright.detectors.contract.pixels import PixelConfig
from boxwright.geometry.boxes import have_area
from boxwright.geometry.paste import InstanceMasks, PasteConfig, paste_masks
from boxwright.structures import Classes, DetectionBatch, Images, InputError, Targets

Source: TypeAlias = str | Path | Image.Image | np.ndarray | Tensor


class Detector(nn.Module, ABC):
    """A detector. The argument decides what ``forward`` does, never the training flag.

    ``config`` is the frozen description it was built from; ``classes`` the names behind its labels; ``transforms`` how
    ``detect`` prepares an image. Padded inputs have sides that are multiples of ``input_multiple``, and exactly
    ``input_size`` (height, width) where that is not None: what the network's layers can take. ``paste``: how masks
    become pixels; None for a detector that gives none. ``wanted_losses``: the only terms that a stage of training
    minimises, None for all; a detector may leave out the work for the others. ``needs_proposals``: whether it works on
    ``Images.proposals`` and finds none itself; ``most_proposals``: of an image, where ``detect`` has to find them and
    where ``outputs`` counts: what selective search gives (Fast R-CNN §4.1) unless a recipe keeps fewer. ``own_state``:
    tensors that say something of the very weights they are saved with, which a start from other weights leaves alone.
    """

    needs_proposals = False
    own_state: ClassVar[frozenset[str]] = frozenset()

    def __init__(self, config: Any, classes: Classes, pixels: PixelConfig) -> None:
        super().__init__()
        if len(classes) == 0:
            raise InputError("a detector needs at least one class; the data set names none")
        self.config = config
        self.classes = classes
        self.transforms: tuple[TransformConfig, ...] = (ResizeConfig(),)
        self.pad_multiple = 32
        self.input_multiple = 1
        self.input_size: tuple[int, int] | None = None
        self.wanted_losses: tuple[str, ...] | None = None
        self.paste: PasteConfig | None = None
        self.most_proposals = 2000
        self._bgr = pixels.bgr
        self.register_buffer("pixel_mean", torch.tensor(pixels.mean).reshape(1, 3, 1, 1), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(pixels.std).reshape(1, 3, 1, 1), persistent=False)

    @overload
    def __call__(self, images: Images, targets: None = None) -> DetectionBatch: ...
    @overload
    def __call__(self, images: Images, targets: Targets) -> dict[str, Tensor]: ...
    def __call__(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """Losses of a batch when ``targets`` are given, each a scalar; its detections when not."""
        return super().__call__(images, targets)

    @abstractmethod
    def forward(self, images: Images, targets: Targets | None = None) -> dict[str, Tensor] | DetectionBatch:
        """See ``__call__``."""

    @abstractmethod
    def outputs(self, pixels: Tensor) -> list[Tensor]:
        """Raw outputs of the heads for normalised pixels ``[B, 3, H, W]``: all that costs multiply-adds at inference.

        What a comparison with another implementation looks at first, and what counting runs on shapes alone.
        """

    def anchor_shapes(self) -> list[tuple[float, float]]:
        """Width and height in input pixels of the anchors that objects are matched to by overlap; none if by none."""
        return []

    def measure(self, index: DetectionIndex, proposals: ProposalsConfig | None, learnt: bool) -> str | None:
        """Set, before a run begins, what the network takes from its training set ``index`` and the files of its
        ``proposals``; a line that says what, if anything. ``learnt``: weights are there that go on giving the same."""
        return None

    def pretrained_parts(self) -> list[nn.Module]:
        """The modules that together take a pretrained backbone's tensors, named in them as in the backbone."""
        return [self.get_submodule("backbone")]

    def take_classifier(self, state: Mapping[str, Tensor]) -> int:
        """Start layers of the head from the classifier of a pretrained network, ``state``; how many it took."""
        return 0

    def fitting(self, config: FitConfig, index: DetectionIndex, seed: int) -> Fitting:
        """Begin to fit what ``config`` says to the training set ``index``. InputError where it cannot be done."""
        raise InputError(f"a stage fits {config.kind!r}, but a {self.config.kind} has nothing to be fitted")

    def unfitted(self) -> tuple[str, ...]:
        """The kinds of what has yet to be fitted before the detector is whole."""
        return ()

    def check_input(self, height: int, width: int, what: str = "the input") -> None:
        """InputError with the nearest valid sides where the network cannot take ``height`` x ``width``."""
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
        """The type that the network computes in: that of its parameters."""
        return next(self.parameters()).dtype

    def normalise(self, images: Images) -> Tensor:
        """Network input ``[B, 3, H, W]``, channels-last, zero outside each image."""
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
        """Seeds ``[B]`` for the random choices of a training step."""
        if images.seeds is not None:
            return images.seeds
        return torch.randint(0, 2**62, (images.pixels.shape[0],), device=images.pixels.device)

    def optimised(self, dtype: torch.dtype = torch.float32) -> Detector:
        """A copy for inference: eval mode, norms folded into their convolutions, channels-last, in ``dtype``.

        bfloat16 halves the weights and is about twice as fast where the processor has instructions for it; boxes are
        still decoded in float32. On a processor wide 3x3 convolutions are computed by Winograd's algorithm, which takes
        about half their time, in bfloat16 two thirds, and memory for four times, or twice, their weights.
        """
        was_training = self.training
        twin = fold_norms(self.eval()).requires_grad_(False)
        self.train(was_training)
        return use_winograd(twin.to(dtype=dtype, memory_format=torch.channels_last))  # type: ignore[call-overload]

    def detect(
        self, sources: Source | Sequence[Source], *, threshold: float = 0.5, batch_size: int = 1
    ) -> list[Detections]:
        """Detect objects in images: paths, PIL images, arrays or tensors; one result each, in the same order.

        Arrays are RGB or gray ``[H, W, 3]`` or ``[H, W]`` and tensors RGB ``[3, H, W]``, both uint8. ``threshold``: the
        least score, 0..1. Boxes come back in pixels of the image as given (of a file: after its EXIF orientation).
        """
        if isinstance(sources, (str, Path, Image.Image, np.ndarray, Tensor)):
            sources = [sources]
        if batch_size < 1:
            raise InputError(f"batch_size = {batch_size}: at least 1")
        results: list[Detections] = []
        for start in range(0, len(sources), batch_size):
            chunk = sources[start : start + batch_size]
            results += self.detect_arrays(
                [_pixels(s) for s in chunk],
                threshold=threshold,
                paths=[Path(s) if isinstance(s, (str, Path)) else None for s in chunk],
            )
        return results

    @torch.inference_mode()
    def detect_arrays(
        self, arrays: Sequence[np.ndarray], *, threshold: float = 0.0, paths: Iterable[Path | None] | None = None
    ) -> list[Detections]:
        """Detect in one batch of uint8 ``[H, W, 3]`` RGB arrays; ``threshold`` is the least score."""
        samples = [prepared(self.sample_of(array), self.transforms) for array in arrays]
        results = self.detect_samples(samples, threshold)
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
            for sample, found, path in zip(samples, results, paths or [None] * len(samples), strict=True)
        ]

    def sample_of(self, array: np.ndarray) -> Sample:
        """A uint8 ``[H, W, 3]`` RGB array as a sample, with proposals of selective search where they are needed.

        InputError where they are, and OpenCV, which finds them, is absent.
        """
        sample = sample_of(array)
        if not self.needs_proposals:
            return sample
        return replace(sample, proposals=torch.from_numpy(search_pixels(array)[0][: self.most_proposals]))

    @torch.inference_mode()
    def detect_samples(self, samples: Sequence[Sample], threshold: float = 0.0) -> list[Found]:
        """What is in each prepared sample, in one batch; in pixels of the originals, cut at their edges, also where the
        samples are mirrored. Boxes of which the edges leave nothing are left out."""
        was_training = self.training
        self.eval()
        device = self.get_buffer("pixel_mean").device
        batch = self(_collated(samples, self.pad_multiple).to(device))
        self.train(was_training)
        keep = (batch.valid & (batch.scores >= threshold)).cpu()
        boxes, scores, labels = (t.cpu() for t in (batch.boxes.float(), batch.scores.float(), batch.labels))
        masks = None if batch.masks is None else batch.masks.float().cpu()
        found = []
        for i, sample in enumerate(samples):
            original = _in_original(boxes[i], sample)
            own = keep[i] & have_area(original)  # of a box beyond an edge nothing is left
            found.append(
                Found(
                    original[own],
                    scores[i, own],
                    labels[i, own],
                    None if masks is None else _upright(masks[i, own], sample),
                )
            )
        return found


class Found(NamedTuple):
    """Detections of one image on the CPU: ``boxes`` ``[n, 4]``, ``scores`` and ``labels`` ``[n]``, and ``masks``,
    probabilities ``[n, m, m]`` within the boxes, or None."""

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None

    def pasted(self, size: tuple[int, int], paste: PasteConfig | None) -> InstanceMasks | None:
        """The masks' pixels in an image of ``size`` (height, width)."""
        if self.masks is None:
            return None
        return paste_masks(self.masks.numpy(), self.boxes.numpy(), size, paste)


def sample_of(array: np.ndarray) -> Sample:
    """A uint8 ``[H, W, 3]`` RGB array as a sample without annotations."""
    height, width = array.shape[:2]
    if min(height, width) == 0:
        raise InputError(f"an image of {width} x {height} pixels; give images with at least one pixel")
    none = torch.zeros(0, dtype=torch.bool)
    return Sample(
        image=tv_tensors.Image(torch.from_numpy(np.ascontiguousarray(array)).permute(2, 0, 1)),
        boxes=torch.zeros(0, 4),
        labels=torch.zeros(0, dtype=torch.int64),
        crowd=none,
        difficult=none,
        original_size=(height, width),
    )


def prepared(sample: Sample, transforms: Sequence[TransformConfig]) -> Sample:
    """The sample as a detector with these ``transforms`` looks at it."""
    return build_transform(transforms)(sample, Generator().manual_seed(0))


def _in_original(boxes: Tensor, sample: Sample) -> Tensor:
    height, width = sample.original_size
    sx, sy, ox, oy = sample.to_original
    back = (boxes - torch.tensor([ox, oy, ox, oy])) / torch.tensor([sx, sy, sx, sy])
    low, high = back[:, :2], back[:, 2:]
    if sx < 0 or sy < 0:  # mirrored: right has become left
        low, high = torch.minimum(low, high), torch.maximum(low, high)
    return torch.minimum(torch.cat([low, high], 1).clamp(min=0), torch.tensor([width, height, width, height]).float())


def _upright(masks: Tensor, sample: Sample) -> Tensor:
    """Masks of the original from those of the sample, which may be mirrored."""
    sx, sy = sample.to_original[:2]
    mirrored = [axis for axis, scale in ((1, sy), (2, sx)) if scale < 0]
    return masks.flip(mirrored) if mirrored else masks


def _pixels(source: Source) -> np.ndarray:
    """uint8 ``[H, W, 3]`` RGB of any source."""
    if isinstance(source, (str, Path)):
        return read_image(Path(source))
    if isinstance(source, Image.Image):
        return np.array(ImageOps.exif_transpose(source).convert("RGB"))
    array = source.detach().cpu().numpy() if isinstance(source, Tensor) else source
    if isinstance(source, Tensor) and array.ndim == 3:
        array = np.moveaxis(array, 0, -1)
    if array.ndim == 2:
        array = np.repeat(array[..., None], 3, axis=2)
    if array.dtype != np.uint8 or array.ndim != 3 or array.shape[2] != 3:
        form = "[3, H, W]" if isinstance(source, Tensor) else "[H, W, 3] or [H, W]"
        raise InputError(
            f"an image of type {array.dtype} and shape {tuple(source.shape)}; give uint8 values in 0..255 as {form}"
        )
    return array


def _collated(samples: Sequence[Sample], multiple: int) -> Images:
    sizes = [sample.size for sample in samples]
    height, width = (-(-max(side) // multiple) * multiple for side in zip(*sizes, strict=True))
    pixels = torch.zeros((len(samples), 3, height, width), dtype=torch.uint8)
    for row, sample in enumerate(samples):
        pixels[row, :, : sample.size[0], : sample.size[1]] = sample.image
    return Images(pixels, torch.tensor(sizes), proposals=padded_proposals(samples, 1))
