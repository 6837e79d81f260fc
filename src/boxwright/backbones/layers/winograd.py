"""Winograd convolution on a CPU: 3x3 convolutions with a quarter of the multiplications.

Winograd's algorithm F(4x4, 3x3) as Lavin and Gray use it (arXiv 1509.09308, §4): tiles of 6 x 6 inputs, two pixels
shared with each neighbour, and the kernels are transformed; then a product of matrices for each of the 36 points sums
over channels; then each tile is transformed into 4 x 4 outputs. That takes 36 multiplications where the definition
takes 144. In float32 values differ from the definition's by about 2e-6 of their size.

bfloat16 is too coarse for these transforms. It takes F(2x2, 3x3), 16 multiplications for 36, whose transforms only add
and subtract: its error is about three times that of rounding an exact output to bfloat16, and at the end of RetinaNet's
subnets the total error of bfloat16 grows by a tenth to a quarter.

For inference the kernels are transformed once (:func:`use_winograd`). In training they are transformed in every step,
and the gradients of inputs and kernels are computed in the same way (:func:`use_winograd_in_training`).

Symbols: B images, T tiles, C channels in, K channels out, m sides of a tile's output, n = m + 2 of its input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeAlias, TypeVar

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_Module = TypeVar("_Module", bound=nn.Module)
Matrix: TypeAlias = tuple[tuple[float, ...], ...]


class Scheme(NamedTuple):
    """F(m x m, 3x3) in one direction: transforms of the input ``[n, n]``, the kernel ``[n, 3]``, the output ``[m, n]``.

    ``least_saving``: least value of C K / (C + K) for which the scheme is used. Products cost in proportion to C K, and
    transforms to C + K; below it the transforms cost more than the products save.
    """

    input: Matrix
    kernel: Matrix
    output: Matrix
    least_saving: int


FOUR = Scheme(
    input=(
        (4.0, 0.0, -5.0, 0.0, 1.0, 0.0),
        (0.0, -4.0, -4.0, 1.0, 1.0, 0.0),
        (0.0, 4.0, -4.0, -1.0, 1.0, 0.0),
        (0.0, -2.0, -1.0, 2.0, 1.0, 0.0),
        (0.0, 2.0, -1.0, -2.0, 1.0, 0.0),
        (0.0, 4.0, 0.0, -5.0, 0.0, 1.0),
    ),
    kernel=(
        (1 / 4, 0.0, 0.0),
        (-1 / 6, -1 / 6, -1 / 6),
        (-1 / 6, 1 / 6, -1 / 6),
        (1 / 24, 1 / 12, 1 / 6),
        (1 / 24, -1 / 12, 1 / 6),
        (0.0, 0.0, 1.0),
    ),
    output=(
        (1.0, 1.0, 1.0, 1.0, 1.0, 0.0),
        (0.0, 1.0, -1.0, 2.0, -2.0, 0.0),
        (0.0, 1.0, 1.0, 4.0, 4.0, 0.0),
        (0.0, 1.0, -1.0, 8.0, -8.0, 1.0),
    ),
    least_saving=40,
)
TWO = Scheme(
    input=((1.0, 0.0, -1.0, 0.0), (0.0, 1.0, 1.0, 0.0), (0.0, -1.0, 1.0, 0.0), (0.0, 1.0, 0.0, -1.0)),
    kernel=((1.0, 0.0, 0.0), (0.5, 0.5, 0.5), (0.5, -0.5, 0.5), (0.0, 0.0, 1.0)),
    output=((1.0, 1.0, 1.0, 0.0), (0.0, 1.0, -1.0, -1.0)),
    least_saving=100,
)

LEAST_PIXELS = 144
"""Least size of a map. Below it, reading the transformed kernels, which are larger, costs more than is saved."""

LEAST_TRAINED_PIXELS = 1000
"""Least size of a map over all images of a batch in training, where kernels are transformed in every step."""

LEAST_SAVING_BACK = 27
"""``least_saving`` for gradients, which take longer by the definition than outputs.

A layer between this and the ``least_saving`` of outputs uses the algorithm for its gradients only, on maps of at least
``LEAST_PIXELS_BACK`` over all images.
"""

LEAST_PIXELS_BACK = 8000

CHUNK_BYTES = 4_000_000
"""Bytes of transformed tiles handled at once per thread, so that they stay in the cache for all three products."""

KERNEL_BYTES = 16_000_000
"""Bytes of transformed kernels held at once in training; a larger layer computes its outputs in parts."""

CHUNK_TILES = 96
"""Least number of tiles handled at once; with fewer, reading the kernels takes longer than the products."""


def use_winograd(module: _Module) -> _Module:
    """Use Winograd's algorithm for the convolutions of ``module`` that it makes faster; returns ``module`` itself.

    For inference, after ``fold_norms``. Replaces 3x3 convolutions of stride 1 without dilation and groups that have
    enough channels, in float32, and in bfloat16 if the processor has instructions for it but no tile units (AMX, with
    which plain convolutions are faster). The transformed kernels are held besides the plain ones and take four times
    their memory, in bfloat16 1.8 times. State dicts do not change.
    """
    return _replaced(module, WinogradConv2d, _inference_scheme)


def use_winograd_in_training(module: _Module) -> _Module:
    """Use Winograd's algorithm in training with float32 parameters, without more memory than plain convolutions."""
    scheme = FOUR._replace(least_saving=LEAST_SAVING_BACK)
    return _replaced(module, TrainableWinogradConv2d, lambda dtype: scheme if dtype == torch.float32 else None)


def bfloat16_units() -> tuple[bool, bool]:
    """Return whether the processor has bfloat16 instructions of AVX-512, and tile units (AMX)."""
    # These two have no public names in all the versions of torch that we allow.
    return torch.cpu._is_avx512_bf16_supported(), torch.cpu._is_amx_tile_supported()


def _inference_scheme(dtype: torch.dtype) -> Scheme | None:
    """Return the scheme for this number type on this processor, or None."""
    if dtype == torch.bfloat16:
        instructions, tiles = bfloat16_units()
        return TWO if instructions and not tiles else None
    return FOUR if dtype == torch.float32 else None


def _replaced(
    module: _Module, make: Callable[[nn.Conv2d], nn.Conv2d], scheme_of: Callable[[torch.dtype], Scheme | None]
) -> _Module:
    made: dict[nn.Module, nn.Conv2d] = {}
    for parent in list(module.modules()):
        for name, child in list(parent.named_children()):
            if _gains(child, scheme_of):
                assert isinstance(child, nn.Conv2d)
                if child not in made:
                    made[child] = make(child)
                setattr(parent, name, made[child])
    return module


def _gains(module: nn.Module, scheme_of: Callable[[torch.dtype], Scheme | None]) -> bool:
    if type(module) not in (nn.Conv2d, TrainableWinogradConv2d):
        return False
    assert isinstance(module, nn.Conv2d)
    if module.groups != 1 or module.padding_mode != "zeros" or isinstance(module.padding, str):
        return False
    plain = module.kernel_size == (3, 3) and module.stride == (1, 1) and module.dilation == (1, 1)
    scheme = scheme_of(module.weight.dtype)
    if not plain or scheme is None or module.weight.device.type != "cpu":
        return False
    return _saves(module, scheme.least_saving)


def _saves(conv: nn.Conv2d, least: int) -> bool:
    channels, outputs = conv.in_channels, conv.out_channels
    return channels * outputs >= least * (channels + outputs)


class WinogradConv2d(nn.Conv2d):
    """The convolution ``conv`` with the same parameters, for inference.

    Uses the definition in other precisions, on other devices, if gradients are needed, and inside compiled or exported
    graphs.
    """

    transformed: Tensor
    """``[n * n, C, K]``."""

    def __init__(self, conv: nn.Conv2d) -> None:
        assert not isinstance(conv.padding, str)
        margin = (conv.padding[0], conv.padding[1])
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=margin, device="meta")
        self.margin = margin
        self.weight, self.bias = conv.weight, conv.bias
        self.number = conv.weight.dtype
        self.scheme = TWO if self.number == torch.bfloat16 else FOUR
        kernel = torch.tensor(self.scheme.kernel, dtype=torch.float64)
        with torch.no_grad():
            transformed = torch.einsum("ai,bj,kcij->abck", kernel, kernel, conv.weight.double()).flatten(0, 1)
        self.register_buffer("transformed", transformed.to(self.number).contiguous(), persistent=False)
        self.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, K, H + 2 p - 2, W + 2 p - 2]`` with padding p."""
        if torch.compiler.is_compiling() or not self.serves(input):
            return super().forward(input)
        blank = _blank(input, self.out_channels, self.margin)
        return _convolve(input, self.transformed, self.bias, self.margin, self.scheme, blank)

    def serves(self, x: Tensor) -> bool:
        """Return True if Winograd's algorithm is used for the input ``x``: on the CPU, without gradients."""
        learns = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        same = x.dtype == self.number == self.transformed.dtype
        large = x.shape[2] * x.shape[3] >= LEAST_PIXELS
        return same and large and x.device.type == "cpu" and not learns and not torch.is_autocast_enabled("cpu")


class TrainableWinogradConv2d(nn.Conv2d):
    """The convolution ``conv`` with the same parameters, for training.

    Uses the definition in other precisions, on other devices, and inside compiled or exported graphs.
    """

    def __init__(self, conv: nn.Conv2d) -> None:
        assert not isinstance(conv.padding, str)
        margin = (conv.padding[0], conv.padding[1])
        super().__init__(conv.in_channels, conv.out_channels, 3, padding=margin, device="meta")
        self.margin = margin
        self.weight, self.bias = conv.weight, conv.bias
        self.forward_too = _saves(conv, FOUR.least_saving)
        self.train(conv.training)

    def forward(self, input: Tensor) -> Tensor:
        """``[B, C, H, W] -> [B, K, H + 2 p - 2, W + 2 p - 2]`` with padding p."""
        if torch.compiler.is_compiling() or not self.serves(input):
            return super().forward(input)
        return _Convolution.apply(  # type: ignore[no-any-return]
            input, self.weight, self.bias, self.margin, self.forward_too
        )

    def serves(self, x: Tensor) -> bool:
        """Return True if Winograd's algorithm is used for the input ``x``, in float32 on the CPU."""
        single = x.dtype == self.weight.dtype == torch.float32
        learns = torch.is_grad_enabled() and (x.requires_grad or self.weight.requires_grad)
        least = LEAST_TRAINED_PIXELS if self.forward_too else LEAST_PIXELS_BACK
        large = (self.forward_too or learns) and x.shape[0] * x.shape[2] * x.shape[3] >= least
        inner = max(self.margin) <= 2  # the backward pass pads by 2 less this
        return single and large and inner and x.device.type == "cpu" and not torch.is_autocast_enabled("cpu")


class _Convolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, margin: tuple[int, int], forward_too: bool
    ) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.margin = margin
        if not forward_too:
            return F.conv2d(x, weight, bias, padding=margin)
        return _convolve_trained(x, weight, bias, margin, False)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        x, weight = ctx.saved_tensors
        back = (2 - ctx.margin[0], 2 - ctx.margin[1])
        # In this order, so that the buffers of the first are freed before the second allocates.
        for_weight = _kernel_gradient(x, grad, weight, ctx.margin) if ctx.needs_input_grad[1] else None
        del x
        for_x = _convolve_trained(grad, weight, None, back, True) if ctx.needs_input_grad[0] else None
        return for_x, for_weight, grad.sum((0, 2, 3)) if ctx.needs_input_grad[2] else None, None, None


@torch.no_grad()
def _convolve_trained(
    x: Tensor, weight: Tensor, bias: Tensor | None, margin: tuple[int, int], mirrored: bool
) -> Tensor:
    """Convolve by kernels ``[K, C, 3, 3]`` that are transformed here; ``mirrored`` gives the gradient of inputs."""
    side = 1 if mirrored else 0
    out = _blank(x, weight.shape[side], margin)
    for part in _parts(weight, side):
        kernels = _transformed(weight.narrow(side, part.start, len(part)), mirrored)
        kernels = kernels if mirrored else kernels.transpose(1, 2)
        own = bias if bias is None else bias[part.start : part.stop]
        _convolve(x, kernels, own, margin, FOUR, out[:, part.start : part.stop])
    return out


def _parts(weight: Tensor, side: int) -> list[range]:
    """Split the outputs into parts whose transformed kernels take ``KERNEL_BYTES`` at most."""
    outputs, others = weight.shape[side], weight.shape[1 - side]
    count = min(outputs, -(-36 * 4 * outputs * others // KERNEL_BYTES))
    step = -(-outputs // count)
    return [range(start, min(start + step, outputs)) for start in range(0, outputs, step)]


def _transformed(weight: Tensor, mirrored: bool) -> Tensor:
    """Transform kernels ``[K, C, 3, 3]`` to ``[36, K, C]``; ``mirrored`` for the gradient of inputs."""
    kernel = tuple(row[::-1] for row in FOUR.kernel) if mirrored else FOUR.kernel
    return (_doubled(kernel) @ weight.permute(2, 3, 0, 1).reshape(9, -1)).view(36, *weight.shape[:2])


def _kernel_gradient(x: Tensor, grad: Tensor, weight: Tensor, padding: tuple[int, int]) -> Tensor:
    """Compute the gradient of ``weight [K, C, 3, 3]`` from inputs ``[B, C, H, W]`` and gradients ``[B, K, h, w]``."""
    out = torch.empty_like(weight)
    for part in _parts(weight, 0):
        total = _summed(x, grad[:, part.start : part.stop], padding)
        mine = (_doubled(FOUR.kernel).t() @ total.flatten(1)).view(3, 3, *total.shape[1:])
        out[part.start : part.stop] = mine.permute(2, 3, 0, 1)
    return out


def _summed(x: Tensor, grad: Tensor, padding: tuple[int, int]) -> Tensor:
    """Compute the gradient of the transformed kernels, ``[36, K, C]``."""
    (channels, outputs), (height, width) = (x.shape[1], grad.shape[1]), grad.shape[2:]
    down, across = -(-height // 4), -(-width // 4)
    over = (0, 0, 0, across * 4 - width, 0, down * 4 - height)
    # As many tiles as fill the cache, but enough that adding to the sum takes little of the time.
    fill = CHUNK_BYTES * torch.get_num_threads() // (36 * 4 * (channels + outputs))
    rows = max(1, max(fill, channels * outputs // (channels + outputs)) // across)
    to_input, from_output = _doubled(FOUR.input), _doubled(FOUR.output).t()
    total = x.new_zeros(36, outputs, channels)
    for image, slope in zip(x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1), strict=True):
        tile = _tiles(image, padding, down, across, 4)
        block = F.pad(slope, over) if any(over) else slope
        block = block.unflatten(0, (down, 4)).unflatten(2, (across, 4)).permute(1, 3, 0, 2, 4)  # [4, 4, ...]
        for row in range(0, down, rows):
            values = to_input @ tile[:, :, row : row + rows].reshape(36, -1)
            slopes = from_output @ block[:, :, row : row + rows].reshape(16, -1)
            total.baddbmm_(slopes.view(36, -1, outputs).transpose(1, 2), values.view(36, -1, channels))
    return total


def _tiles(image: Tensor, padding: tuple[int, int], down: int, across: int, m: int) -> Tensor:
    """Return tiles ``[n, n, down, across, C]`` of one image ``[H, W, C]``, a view of a padded copy."""
    right, bottom = across * m + 2 - image.shape[1] - padding[1], down * m + 2 - image.shape[0] - padding[0]
    padded = F.pad(image, (0, 0, padding[1], right, padding[0], bottom))
    return padded.unfold(0, m + 2, m).unfold(1, m + 2, m).permute(3, 4, 0, 1, 2)


def _blank(x: Tensor, outputs: int, padding: tuple[int, int]) -> Tensor:
    """Allocate the outputs ``[B, K, H, W]`` of a convolution of ``x``, channels last.

    It is not a view: autograd refuses an in-place ReLU on a view that a custom function returns.
    """
    size = (len(x), outputs, x.shape[2] + 2 * padding[0] - 2, x.shape[3] + 2 * padding[1] - 2)
    return torch.empty(size, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


@torch.no_grad()
def _convolve(
    x: Tensor, transformed: Tensor, bias: Tensor | None, padding: tuple[int, int], scheme: Scheme, whole: Tensor
) -> Tensor:
    """Convolve ``x [B, C, H, W]`` in chunks of tile rows; writes to ``whole [B, K, H, W]`` and returns it."""
    points, channels, outputs = transformed.shape
    height, width = whole.shape[2:]
    m = len(scheme.output)
    down, across = -(-height // m), -(-width // m)

    tile_bytes = points * x.element_size() * max(channels, outputs)
    least = max(CHUNK_TILES, CHUNK_BYTES * torch.get_num_threads() // tile_bytes)
    chunks = max(1, down * across // least)
    rows = -(-down // chunks)
    to_points, to_outputs = _doubled(scheme.input).to(x.dtype), _doubled(scheme.output).to(x.dtype)
    out = whole.permute(0, 2, 3, 1)
    # One set of buffers for all chunks stays in the cache.
    most = rows * across
    taken, values = x.new_empty(points * most * channels), x.new_empty(points * most * channels)
    products, results = x.new_empty(points * most * outputs), x.new_empty(m * m * most * outputs)
    for image, target in zip(x.permute(0, 2, 3, 1), out, strict=True):
        tiles = _tiles(image, padding, down, across, m)
        for row in range(0, down, rows):
            chunk = tiles[:, :, row : row + rows]
            count = chunk.shape[2] * across
            tile = taken[: points * count * channels].view(points, -1)
            tile.view(chunk.shape).copy_(chunk)
            value = torch.mm(to_points, tile, out=values[: tile.numel()].view(points, -1))
            product = products[: points * count * outputs].view(points, count, outputs)
            torch.bmm(value.view(points, count, channels), transformed, out=product)
            result = results[: m * m * count * outputs].view(m * m, -1)
            torch.mm(to_outputs, product.view(points, -1), out=result)
            _place(result.view(m, m, -1, across, outputs), bias, target[row * m : (row + rows) * m])
    return whole


def _place(result: Tensor, bias: Tensor | None, target: Tensor) -> None:
    """Write outputs of tiles ``[m, m, rows, across, K]``, plus ``bias``, to ``target [h, w, K]``."""
    image = result.permute(2, 0, 3, 1, 4)  # [rows, m, across, m, K]
    rows, m, across, _, outputs = image.shape
    whole = target.shape[:2] == (rows * m, across * m)
    place = target.view(image.shape) if whole else target.new_empty(image.shape)
    if bias is None:
        place.copy_(image)
    else:
        torch.add(image, bias, out=place)
    if not whole:
        target.copy_(place.view(rows * m, across * m, outputs)[: target.shape[0], : target.shape[1]])


def _doubled(matrix: Matrix) -> Tensor:
    """Return the matrix that applies ``matrix`` in both directions to flattened tiles."""
    one = torch.tensor(matrix)
    return torch.kron(one, one)
