"""Convert the layers of a Caffe network one by one, and check that none is left."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from boxwright.structures import InputError
from boxwright.weights.caffe.protobuf import CaffeModel
from boxwright.weights.common.heads import joined_head

VGG16 = {1: (0, 2), 2: (5, 7), 3: (10, 12, 14), 4: (17, 19, 21), 5: (24, 26, 28)}
"""Index of each convolution in our ``features``, by stage, for Caffe's conv{stage}_{number}."""

RESNET_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


class LayerConverter:
    """Collects layers of ``model`` under our names in ``state``. ``source``: publisher and model, for errors."""

    def __init__(self, model: CaffeModel, source: str) -> None:
        self.model, self.source = model, source
        self.state: dict[str, Tensor] = {}
        self.left = dict.fromkeys(model.weighted)

    def blobs(self, layer: str, counts: Sequence[int]) -> tuple[Tensor, ...]:
        """Return the blobs of a layer. Raises InputError unless their number is one of ``counts``."""
        found = self.model.layers.get(layer)
        if found is None or not found.blobs:
            raise InputError(
                f"{self.model.origin}: no whole model of {self.source}: layer {layer!r} has no weights there, among "
                f"{len(self.model.weighted)} that have"
            )
        if len(found.blobs) not in counts:
            raise InputError(
                f"{self.model.origin}: layer {layer!r} has {len(found.blobs)} blobs; {self.source} has "
                f"{' or '.join(map(str, counts))} there"
            )
        self.left.pop(layer, None)
        return found.blobs

    def conv(self, ours: str, layer: str, bias: bool = True) -> None:
        """Convert a convolution, transposed or not."""
        blobs = self.blobs(layer, (2,) if bias else (1,))
        self.state[f"{ours}.weight"] = blobs[0]
        if bias:
            self.state[f"{ours}.bias"] = blobs[1].flatten()

    def matrix(self, layer: str) -> tuple[Tensor, Tensor]:
        """Return weight ``[out, in]`` and bias ``[out]`` of a fully connected layer."""
        weight, bias = self.blobs(layer, (2,))
        return weight.reshape(-1, weight.shape[-1]), bias.flatten()

    def conv_norm(self, conv: str, norm: str, layer: str, bn: str, scale: str) -> None:
        """Convert a convolution and its batch norm, which Caffe splits into a normalising and a scaling layer."""
        blobs = self.blobs(layer, (1, 2))
        self.state[f"{conv}.weight"] = blobs[0]
        mean, var, count = self.blobs(bn, (3,))
        gamma, beta = self.blobs(scale, (2,))
        # Caffe keeps weighted sums and their total weight. Without any batch both are zero.
        share = 0.0 if count.item() == 0 else 1 / count.item()
        mean, var = mean.flatten() * share, var.flatten() * share
        if len(blobs) == 2:  # The first convolution of ResNet-50 has a bias, which its norm subtracts again.
            mean = mean - blobs[1].flatten()
        parts = {"weight": gamma.flatten(), "bias": beta.flatten(), "running_mean": mean, "running_var": var}
        self.state |= {f"{norm}.{name}": value for name, value in parts.items()}

    def head(self, ours: str, layer: str) -> None:
        """Convert the two convolutions of an SSD head, ``{layer}_mbox_loc`` and ``_conf``, to one."""
        offsets, scores = (self.blobs(f"{layer}_mbox_{part}", (2,)) for part in ("loc", "conf"))
        cells = offsets[0].shape[0] // 4
        if scores[0].shape[0] % max(cells, 1):
            raise InputError(
                f"{self.model.origin}: {layer!r} has offsets of {cells} boxes a cell and {scores[0].shape[0]} scores, "
                "which is no whole number of classes for each"
            )
        for part, offset, score in zip(("weight", "bias"), offsets, scores, strict=True):
            if part == "bias":
                offset, score = offset.flatten(), score.flatten()
            self.state[f"{ours}.{part}"] = joined_head(offset, score)

    def vgg16(self, prefix: str = "backbone", reduced: bool = False) -> None:
        """Convert conv1_1 to conv5_3, and with ``reduced`` also fc6 and fc7 as convolutions."""
        for stage, indices in VGG16.items():
            for place, index in enumerate(indices, start=1):
                self.conv(f"{prefix}.features.{index}", f"conv{stage}_{place}")
        if reduced:
            self.conv(f"{prefix}.fc6", "fc6")
            self.conv(f"{prefix}.fc7", "fc7")

    def resnet(self, depth: int, prefix: str = "backbone", last: int = 5) -> None:
        """Convert the stem and stages 2 to ``last``."""
        self.conv_norm(f"{prefix}.conv1", f"{prefix}.bn1", "conv1", "bn_conv1", "scale_conv1")
        for stage, count in enumerate(RESNET_BLOCKS[depth], start=2):
            for number, block in enumerate(block_names(count, lettered=depth == 50)):
                if stage <= last:
                    self.residual(f"{prefix}.layer{stage - 1}.{number}", f"{stage}{block}", number == 0)

    def residual(self, ours: str, block: str, projects: bool) -> None:
        """Convert a bottleneck, ``res{block}_branch2a`` and so on. ``projects``: its shortcut is a convolution."""
        branches = [("branch2a", "conv1", "bn1"), ("branch2b", "conv2", "bn2"), ("branch2c", "conv3", "bn3")]
        if projects:
            branches.append(("branch1", "downsample.0", "downsample.1"))
        for branch, conv, norm in branches:
            layers = (f"{kind}{block}_{branch}" for kind in ("res", "bn", "scale"))
            self.conv_norm(f"{ours}.{conv}", f"{ours}.{norm}", *layers)

    def done(self) -> dict[str, Tensor]:
        """Return the state dict. Raises InputError if a layer with weights was not converted."""
        if self.left:
            raise InputError(
                f"{self.model.origin}: {len(self.left)} layers with weights are not of {self.source}, the first is "
                f"{next(iter(self.left))!r}"
            )
        return self.state


def block_names(count: int, lettered: bool) -> list[str]:
    """Return the names of a stage's blocks: a b c ..., but a b1 b2 ... in the long stages of ResNet-101 and 152."""
    if lettered or count == 3:
        return list("abcdef"[:count])
    return ["a", *(f"b{n}" for n in range(1, count))]


def resnet_depth(model: CaffeModel) -> int | None:
    """Return the depth of the ResNet among the layers, 50, 101 or 152; None if there is none."""
    if "res2a_branch2a" not in model.layers:
        return None
    fourth = sum(name.startswith("res4") and name.endswith("_branch2a") for name in model.layers)
    return {6: 50, 23: 101, 36: 152}.get(fourth)
