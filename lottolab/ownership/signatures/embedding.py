"""Write a signature's bits into a layer's mask; the layer keeps its number of weights.

Algorithm 2 of the paper asks for "unchanged sparsity" and leaves open how: here weights
are moved inside the layer, at random, until their number is the one of before.
"""

import numpy as np
import torch
from scipy import signal
from torch import Tensor

from lottolab.checks import one_of, require
from lottolab.checks.tensors import described, tensor
from lottolab.ownership.signatures import qr
from lottolab.ownership.signatures.key import SignatureKey


def side(mask: Tensor) -> int:
    """Return how many modules a side a layer has room for; 0 if no convolution."""
    return min(mask.shape[:2]) if mask.ndim == 4 else 0


def room(masks: dict[str, Tensor], layer: str | None = None) -> int:
    """Return how many modules a side the layer, or the largest layer, has room for.

    Raises:
        ValueError: no such layer, one that is no convolution, or a mask is not bool.
    """
    require(isinstance(masks, dict), "masks must be by name", described(masks))
    if layer is not None:
        one_of("layer", layer, masks)
        tensor(f"mask {layer}", masks[layer])
        require(masks[layer].ndim == 4, f"{layer} must be a convolution", "another")
    for name, mask in masks.items():
        tensor(f"mask {name}", mask)
        require(mask.numel() > 0, f"mask {name} must hold weights", list(mask.shape))
        require(mask.dtype == torch.bool, f"the mask {name} must be bool", mask.dtype)
    return max((side(m) for n, m in masks.items() if layer in (None, n)), default=0)


def by_twos(mask: Tensor) -> bool:
    """Does a mask keep two of every four inputs, or of every four weights of a row?

    That is what sparse tensor cores compute with; the first is how they read kernels.
    mask: bool outputs × inputs × kernel, or without a kernel.
    """
    mask = mask if mask.ndim > 2 else mask[..., None]
    for lines in (mask.flatten(2).transpose(1, 2), mask.flatten(1)):
        if lines.shape[-1] % 4 == 0 and mask.numel():
            kept = lines.unflatten(-1, (-1, 4)).sum(-1)
            if kept.max() == 2 and (kept == 2).float().mean() > 0.9:
                return True  # training may have made a weight zero
    return False


def most_similar(
    kept: np.ndarray, wanted: np.ndarray, form: qr.Format
) -> tuple[int, int]:
    """Return row and column of the window that agrees with the code the most.

    Args:
        kept: bool outputs×inputs, the living kernels. wanted: bool size×size; only its
            data modules count.

    Of equals the upper, then the left one.
    """
    where = tuple(qr.places(form.version).T)
    code = np.zeros(wanted.shape, dtype=int)
    code[where] = np.where(wanted[where], 1, -1)
    # Whole numbers of a few hundred, so that rounding undoes what Fourier's sums lose.
    turned, signs = code[::-1, ::-1].astype("f4"), np.where(kept, 1, -1).astype("f4")
    agreeing = np.rint(signal.oaconvolve(signs, turned, "valid"))
    row, column = np.unravel_index(agreeing.argmax(), agreeing.shape)
    return int(row), int(column)


def write(
    mask: Tensor, wanted: np.ndarray, key: SignatureKey, random: np.random.Generator
) -> Tensor:
    """Return the mask with the window's kernels alive or empty as wanted.

    Args:
        mask: bool outputs × inputs × kernel. wanted: bool size×size, True = alive.

    Raises:
        ValueError: the layer has too few or too many weights for the code, or keeps
            two of every four, which a signature would break.
    """
    other = f"{key.layer} must have its zeros elsewhere than in two of every four"
    require(not by_twos(mask), other, "a 2:4 pattern, which a signature would break")
    mask = mask.clone(memory_format=torch.contiguous_format)
    where = qr.places(key.version)
    before = int(mask.sum())
    kernels = mask.flatten(2)
    for row, column in where:
        kernel = kernels[key.row + row, key.column + column]
        if not wanted[row, column]:
            kernel[:] = False
        elif not kernel.any():
            kernel[random.integers(len(kernel))] = True
    surplus = int(kernels.sum()) - before
    inside = torch.zeros(kernels.shape[:2], dtype=torch.bool)
    inside[key.row + where[:, 0], key.column + where[:, 1]] = True
    if surplus < 0:
        _grow(kernels, inside, -surplus, random)
    elif surplus > 0:
        _thin(kernels, inside, surplus, random)
    if int(kernels.sum()) != before:
        wrong, other = ("few", "denser") if surplus > 0 else ("many", "sparser")
        raise ValueError(
            f"{key.layer} keeps {before} weights, too {wrong} to write this code and "
            f"keep their number; take a {other} ticket, a shorter text or lower ecc"
        )
    return mask


def fill(weights: Tensor, mask: Tensor, seed: int) -> Tensor:
    """Give a trained layer another mask: what comes to life gets the mean |w|, ±.

    weights: float outputs × inputs × kernel, 0 where pruned. mask: bool of that shape.
    """
    generator = torch.Generator().manual_seed(seed)
    wide = weights.to(torch.promote_types(weights.dtype, torch.float32))
    size = wide.abs().sum() / (weights != 0).sum()
    require(bool(size.isfinite()), "the weights are too large to be added up", "inf")
    signs = torch.randint(2, weights.shape, generator=generator)
    filled, new = weights * mask, mask & (weights == 0)
    filled[new] = ((signs[new] * 2 - 1) * size).to(weights.dtype)
    return filled


def _grow(
    kernels: Tensor, inside: Tensor, count: int, random: np.random.Generator
) -> None:
    """Add weights in living kernels, those of the code first, then in empty ones."""
    living = kernels.any(2)
    for allowed in (living & inside, living & ~inside, ~inside):
        if count == 0:
            return
        free = (~kernels & allowed[:, :, None]).flatten().nonzero().numpy()[:, 0]
        chosen = free[random.permutation(len(free))[:count]]
        kernels.view(-1)[chosen] = True
        count -= len(chosen)


def _thin(
    kernels: Tensor, inside: Tensor, count: int, random: np.random.Generator
) -> None:
    """Remove weights where the code has others, then outside of it."""
    for row, column in random.permutation(inside.nonzero().numpy()):
        places = kernels[row, column].nonzero().flatten().numpy()
        spare = min(count, max(len(places) - 1, 0))
        kernels[row, column, random.permutation(places)[:spare]] = False
        count -= spare
    held = (kernels & ~inside[:, :, None]).flatten().nonzero().numpy()[:, 0]
    chosen = held[random.permutation(len(held))[:count]]
    kernels.view(-1)[chosen] = False
