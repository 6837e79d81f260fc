"""Agreement of two images after one is moved and stretched to fit the other, computed for many pairs at once.

The fit is found by Gauss-Newton steps on the squared difference of the grey levels (Lucas and Kanade, "An Iterative
Image Registration Technique", 1981) with four parameters, a scale and a shift along each axis, which describe any crop
that is resized. What counts in the end is the correlation of the gradients, that is of edges: brightness, contrast and
large soft gradients such as a sky or the light of a microscope do not matter.

Symbols: P pairs, n side of the images. Positions in an image run from -0.5 to 0.5.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

_LONGEST_STEP = 0.06
_SCALES, _SHIFTS = (0.8, 1.25), (-0.15, 0.15)
_NOISE = 0.5
"""Root mean square of a gradient, in grey levels, that is taken for noise."""


class Fit(NamedTuple):
    """Positions in the second images as a function of those in the first, float64 ``[P, 4]``: scale x, shift x, y, y.

    A point x y of the first image lies at ``scale x * x + shift x``, ``scale y * y + shift y`` of the second one.
    """

    parameters: np.ndarray

    def positions(self, side: int) -> tuple[np.ndarray, np.ndarray]:
        """Return where the columns and the rows of the first images lie in the second, each ``[P, n]``."""
        points = _points(side)
        scale_x, shift_x, scale_y, shift_y = self.parameters.T[..., None]
        return scale_x * points + shift_x, scale_y * points + shift_y

    def of(self, rows: np.ndarray) -> Fit:
        """Return the fit of some of the pairs."""
        return Fit(self.parameters[rows])


def fit(first: np.ndarray, second: np.ndarray, steps: int, start: Fit | None = None) -> Fit:
    """Fit the second image of each pair to the first; both float ``[P, n, n]``. Four to six steps suffice."""
    side = first.shape[1]
    first, second = smooth(smooth(first)), smooth(smooth(second))
    slopes = np.gradient(second, axis=2) * side, np.gradient(second, axis=1) * side
    points = _points(side).astype(np.float32)
    parameters = np.tile([1.0, 0.0, 1.0, 0.0], (len(first), 1)) if start is None else start.parameters
    for _ in range(steps):
        across, down = Fit(parameters).positions(side)
        inside = _inside(across, down)
        target = _centred(first, inside)
        warped = _centred(sample(second, across, down), inside)
        gain = (target * warped).sum((1, 2), keepdims=True) / np.maximum((warped**2).sum((1, 2), keepdims=True), 1e-3)
        slope_x, slope_y = (sample(slope, across, down) * inside * gain for slope in slopes)
        columns = np.stack([slope_x * points, slope_x, slope_y * points[:, None], slope_y], axis=1)
        jacobian = columns.reshape(len(first), 4, side * side)
        jacobian = jacobian - jacobian.mean(axis=2, keepdims=True)
        hessian = jacobian @ jacobian.transpose(0, 2, 1)
        damping = 1e-3 * (np.trace(hessian, axis1=1, axis2=2) / 4 + 1)
        hessian = hessian + damping[:, None, None] * np.eye(4)
        rest = jacobian @ (target - gain * warped).reshape(len(first), side * side, 1)
        step = np.linalg.solve(hessian, rest)[..., 0]
        parameters = parameters + np.clip(step, -_LONGEST_STEP, _LONGEST_STEP)
        parameters[:, ::2] = np.clip(parameters[:, ::2], *_SCALES)
        parameters[:, 1::2] = np.clip(parameters[:, 1::2], *_SHIFTS)
    return Fit(parameters)


def agreement(first: np.ndarray, second: np.ndarray, fitted: Fit) -> np.ndarray:
    """Return the correlation of the gradients where the fitted images overlap, -1..1 ``[P]``.

    Noise lowers it in images without structure. Images ``[P, n, n]``; n may be another one than that of the fit.
    """
    across, down = fitted.positions(first.shape[1])
    inside = _inside(across, down)
    both = inside[:, :-1, :-1] * inside[:, 1:, :-1] * inside[:, :-1, 1:]
    a = gradients(smooth(first)) * both[:, None]
    b = gradients(smooth(sample(second, across, down))) * both[:, None]
    energies = [(g**2).sum((1, 2, 3)) + _NOISE**2 * both.sum((1, 2)) for g in (a, b)]
    return (a * b).sum((1, 2, 3)) / np.maximum(np.sqrt(energies[0] * energies[1]), 1e-9)


def gradients(images: np.ndarray) -> np.ndarray:
    """Return differences of neighbours along x and y, ``[P, 2, n - 1, n - 1]``."""
    return np.stack([np.diff(images, axis=2)[:, :-1], np.diff(images, axis=1)[:, :, :-1]], axis=1)


def smooth(images: np.ndarray) -> np.ndarray:
    """Blur images with the weights 1 2 1 along both axes."""
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)), mode="edge")
    across = padded[:, :, :-2] + 2 * padded[:, :, 1:-1] + padded[:, :, 2:]
    return (across[:, :-2] + 2 * across[:, 1:-1] + across[:, 2:]) / 16


def sample(images: np.ndarray, across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Interpolate images linearly at columns ``across`` and rows ``down``, each ``[P, n]``, the edge repeated."""
    side = images.shape[1]
    return _weights(down, side) @ images @ _weights(across, side).transpose(0, 2, 1)


def _points(side: int) -> np.ndarray:
    """Return the positions of the middles of pixels, ``[n]``."""
    return (np.arange(side) + 0.5) / side - 0.5


def _weights(positions: np.ndarray, side: int) -> np.ndarray:
    """Return the weights of the pixels for each position, float32 ``[P, n, n]``."""
    pixels = np.clip((positions + 0.5) * side - 0.5, 0, side - 1)
    return np.maximum(0, 1 - np.abs(pixels[..., None] - np.arange(side))).astype(np.float32)


def _inside(across: np.ndarray, down: np.ndarray) -> np.ndarray:
    """Return 1 where a position is inside the second image, else 0, float32 ``[P, n, n]``."""
    return ((np.abs(down) <= 0.5)[:, :, None] & (np.abs(across) <= 0.5)[:, None, :]).astype(np.float32)


def _centred(images: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Subtract the mean of the inside, and set the outside to zero."""
    mean = (images * inside).sum((1, 2), keepdims=True) / np.maximum(inside.sum((1, 2), keepdims=True), 1)
    return (images - mean) * inside
