"""Find the signed window by what embedding leaves there, without the key.

Embedding keeps a layer's number of weights: what it takes from kernels that must be
empty it gives to others, first to living ones of its own code, and a kernel that must
live starts with a single weight. So the living kernels of the window hold more, or
fewer, weights than those around it, however few windows look like coins
(`signatures.detection` looks for those).
"""

import math

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from lottolab.checks import one_of, require, whole
from lottolab.ownership.signatures import qr

MEASURES = ("count", "size")


def fullness(weights: Tensor, version: int, measure: str = "count") -> np.ndarray:
    """Return how unlike the living kernels in each window are to those outside of it.

    Welch's t of what the living kernels on the window's data modules hold against all
    other living kernels of the layer; 0 where either side has fewer than two, or
    nothing differs at all. Its sign says who holds more; the detector does not know
    which way to look and goes by |t|.

    Args:
        weights: float or bool, outputs × inputs × kernel, 0 where pruned.
        version: of the QR code. measure: what a kernel holds, `count` of its weights or
            `size`, the mean |w| of those that it has.

    Returns float64 rows × columns, one value for each place of the window.

    Raises:
        ValueError: another measure, weights without a kernel or not finite, or a layer
            smaller than the code.
    """
    one_of("measure", measure, MEASURES)
    whole("version", version, 1)
    require(version <= 40, "version must be at most 40", version)
    require(weights.ndim >= 3, "weights must have a kernel", f"{weights.ndim} axes")
    require(bool(weights.isfinite().all()), "weights must be finite", "NaN or inf")
    side, shape = 17 + 4 * version, tuple(weights.shape[:2])
    require(min(shape) >= side, f"the layer must be {side}×{side}", shape)
    kernels = weights.detach().cpu().double().abs().flatten(2)
    count = (kernels > 0).sum(2).double()
    alive = count > 0
    held = count if measure == "count" else kernels.sum(2) / count.clamp_min(1)
    held = held.where(alive, torch.zeros(())).numpy()
    return _welch(alive.numpy().astype(float), held, version)


def rank(table: np.ndarray, row: int, column: int) -> float:
    """Return the place of a window when all are put in order by |t|: 1 is the first.

    Of equals each has their mean place.

    Raises:
        ValueError: the window is not in the table.
    """
    rows, columns = table.shape
    inside = 0 <= row < rows and 0 <= column < columns
    require(inside, f"the window must be in {rows} × {columns}", (row, column))
    sizes = np.abs(table)
    own = sizes[row, column]
    equal = np.count_nonzero(sizes == own)
    return float(1 + np.count_nonzero(sizes > own) + (equal - 1) / 2)


def found(weights: Tensor, version: int, measure: str = "count") -> tuple[int, int]:
    """Return row and column of the most suspicious window; errors as `fullness`."""
    table = np.abs(fullness(weights, version, measure))
    row, column = np.unravel_index(table.argmax(), table.shape)
    return int(row), int(column)


def _welch(alive: np.ndarray, held: np.ndarray, version: int) -> np.ndarray:
    """Return Welch's t for every place of the window; `held` is 0 where not alive."""
    places, side = qr.places(version), 17 + 4 * version
    pattern = np.zeros((side, side))
    pattern[tuple(places.T)] = 1
    held = np.where(alive > 0, held - held.sum() / max(alive.sum(), 1), 0)  # for digits
    parts = (alive, held, held**2)
    inside = [signal.correlate(part, pattern, "valid", "direct") for part in parts]
    means, errors = [], []
    for n, total, squares in (
        inside,
        [part.sum() - part_in for part, part_in in zip(parts, inside, strict=True)],
    ):
        many = np.rint(n).clip(2)
        mean = total / many
        variance = (squares - many * mean**2).clip(0) / (many - 1)
        means.append(mean)
        errors.append(np.where(np.rint(n) < 2, math.inf, variance / many))
    error = np.sqrt(errors[0] + errors[1])
    usual = np.isfinite(error) & (error > 1e-9)
    difference = means[0] - means[1]
    return np.where(usual, difference / np.where(usual, error, 1.0), 0.0)
