"""Scheme V2: write a text into the sparsity pattern of one layer, and read it again.

A layer's masks are squeezed to one bit a kernel, *empty* or *alive* (paper, Algorithm
2). A window of these bits is made equal to the data modules of a QR code, XORed with a
stream that only the owner's secret gives: to anybody else the bits are fair coins.
"""

import functools
import hashlib
import math
import secrets
from dataclasses import dataclass, replace

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from lottolab.checks import one_of, require
from lottolab.ownership import qr
from lottolab.ownership.key import SignatureKey

ACCEPT = 1e-6  # a claim is made below this p-value


@dataclass(frozen=True)
class Verification:
    """What a signature proves of a network.

    text: what was read, None if it cannot be read. corrected: bytes that the code
    corrected. agreement: share of the data modules that agree with the text's code.
    p_value: how likely an unrelated network agrees as well, see `verify`.
    """

    text: str | None
    corrected: int
    agreement: float
    p_value: float
    accepted: bool


def embed(
    masks: dict[str, Tensor],
    text: str,
    *,
    ecc: str = "H",
    layer: str | None = None,
    seed: int = 0,
    secret: str | None = None,
) -> tuple[dict[str, Tensor], SignatureKey]:
    """Write `text` into the masks; each layer keeps exactly as many weights as it had.

    Args:
        masks: state-dict name to bool tensor, outputs × inputs × kernel.
        layer: the one to use; by default the first that is large enough, since early
            layers lose the fewest weights (paper, section 3.3.2).
        seed: of the random connections. secret: hexadecimal; from `seed` if None.

    Returns new masks and the owner's key.

    Raises:
        ValueError: the text or the layer does not fit, or the layer has too few
            weights for the code.
    """
    largest = _room(masks, layer)
    modules, form = qr.encode(text, ecc, largest)
    if layer is None:
        layer = next(n for n, m in masks.items() if _side(m) >= form.size)
    secret = secret or hashlib.sha256(f"lottolab signature {seed}".encode()).hexdigest()
    shape = tuple(masks[layer].shape[:2])
    windows = (shape[0] - form.size + 1) * (shape[1] - form.size + 1)
    digest = hashlib.sha256(text.encode()).hexdigest()
    place = {"layer": layer, "shape": shape, "row": 0, "column": 0}
    code = {"version": form.version, "ecc": ecc, "mask": form.mask}
    key = SignatureKey(
        **place, **code, secret=secret, windows=windows, threshold=0.0, digest=digest
    )
    wanted = covered(modules, key)
    key = replace(key, **_most_similar(alive(masks[layer]), wanted, form))
    changed = _write(masks[layer].clone(), wanted, key, np.random.default_rng(seed))
    return masks | {layer: changed}, key


def embed_weights(
    state: dict[str, Tensor], text: str, *, ecc: str = "H", layer: str | None = None
) -> tuple[dict[str, Tensor], SignatureKey]:
    """Write `text` into the zeros of a sparse state dict, with a secret of its own.

    Weights in places that were empty get the mean |w| of their layer and a random
    sign; the network has to be trained again.

    Raises:
        ValueError: as `embed`, or no convolution has a zero.
    """
    convolutions = {n: w for n, w in state.items() if w.ndim == 4}
    masks = {name: weights != 0 for name, weights in convolutions.items()}
    sparse = any(not mask.all() for mask in masks.values())
    require(sparse, "the network must have pruned weights (zeros)", "a dense network")
    secret = secrets.token_hex(32)
    masks, key = embed(masks, text, ecc=ecc, layer=layer, secret=secret)
    weights, mask = state[key.layer], masks[key.layer]
    size = weights.abs().sum() / (weights != 0).sum()
    signs = torch.randint(2, weights.shape) * 2 - 1
    filled = torch.where(weights == 0, (signs * size).to(weights.dtype), weights)
    return state | {key.layer: filled * mask}, key


def covered(modules: np.ndarray, key: SignatureKey) -> np.ndarray:
    """Put the owner's stream over the data modules, or take it off: bool size×size."""
    where = qr.places(key.version)
    result = modules.copy()
    result[where[:, 0], where[:, 1]] ^= key.stream()
    return result


def alive(weights: Tensor, threshold: float = 0.0) -> np.ndarray:
    """Squeeze a layer to bool outputs×inputs: kernels that hold a weight.

    A kernel lives if its largest |w| is above `threshold` × the largest of its output
    channel: batch norm undoes a rescaling of a channel, so no absolute size is safe.
    """
    strength = weights.detach().float().abs().flatten(2).amax(2)
    largest = strength.amax(1, keepdim=True)
    return (strength > threshold * largest).cpu().numpy()


def extract(
    state: dict[str, Tensor], key: SignatureKey, *, threshold: float | None = None
) -> np.ndarray:
    """Read the covered modules from a network, bool size×size; no text is needed.

    Raises:
        ValueError: the network has no such layer, or it is not finite.
    """
    weights = _layer(state, key)
    kept = alive(weights, key.threshold if threshold is None else threshold)
    side = key.form.size
    return kept[key.row : key.row + side, key.column : key.column + side]


def calibrate(state: dict[str, Tensor], key: SignatureKey) -> SignatureKey:
    """Return the key with a threshold of half the weakest living kernel's share.

    `state` is the owner's trained ticket.
    """
    strength = _layer(state, key).abs().flatten(2).amax(2)
    share = strength / strength.amax(1, keepdim=True).clamp_min(1e-30)
    side = key.form.size
    window = share[key.row : key.row + side, key.column : key.column + side]
    return replace(key, threshold=float(window[window > 0].min()) / 2)


def decode(
    modules: np.ndarray, key: SignatureKey, doubt: np.ndarray | None = None
) -> tuple[str, int] | None:
    """Read the text of covered modules and the bytes corrected; None if it fails."""
    return qr.decode(covered(modules, key), key.form, doubt)


def verify(
    state: dict[str, Tensor], key: SignatureKey, *, claim: str | None = None
) -> Verification:
    """Decide whether the network carries the owner's signature.

    The null hypothesis is that the network does not depend on the owner's secret. Then
    each data module agrees with a given code by the toss of a fair coin, whatever the
    mask looks like, and the p-value is the binomial tail times the windows that
    embedding chose from. Without a `claim` the text is read blindly, and the p-value
    pays for every text that could have been read (a union bound over all codes).

    Raises:
        ValueError: the claim is not the text whose hash the key holds, or the network
            does not fit the key.
    """
    if claim is not None:
        hashed = hashlib.sha256(claim.encode()).hexdigest()
        require(
            hashed == key.digest,
            "the claim must be the text that the key was made for",
            repr(claim),
        )
    modules = extract(state, key)
    found = decode(modules, key)
    text = claim if claim is not None else found and found[0]
    if text is None:
        return Verification(None, 0, math.nan, 1.0, False)
    where = qr.places(key.version)
    expected = covered(_code(text, key.form), key)[where[:, 0], where[:, 1]]
    agree = int((modules[where[:, 0], where[:, 1]] == expected).sum())
    log_p = stats.binom.logsf(agree - 1, len(where), 0.5) + math.log(key.windows)
    if claim is None:
        log_p += 8 * qr.capacity(key.version, key.ecc) * math.log(2)
    p = math.exp(min(log_p, 0.0))
    read, corrected = found or (None, 0)
    return Verification(read, corrected, agree / len(where), p, p < ACCEPT)


@functools.lru_cache(maxsize=64)
def _code(text: str, form: qr.Format) -> np.ndarray:
    return qr.encode(text, form.ecc, version=form.version, mask=form.mask)[0]


def _side(mask: Tensor) -> int:
    return min(mask.shape[:2]) if mask.ndim == 4 else 0


def _room(masks: dict[str, Tensor], layer: str | None) -> int:
    """Return how many modules a side the layer, or the largest layer, has room for."""
    if layer is not None:
        one_of("layer", layer, masks)
        require(masks[layer].ndim == 4, f"{layer} must be a convolution", "another")
    for name, mask in masks.items():
        require(mask.dtype == torch.bool, f"the mask {name} must be bool", mask.dtype)
    return max((_side(m) for n, m in masks.items() if layer in (None, n)), default=0)


def _layer(state: dict[str, Tensor], key: SignatureKey) -> Tensor:
    if key.layer not in state or tuple(state[key.layer].shape[:2]) != key.shape:
        given = tuple(state[key.layer].shape) if key.layer in state else "no such layer"
        raise ValueError(
            f"the key is for another network: {key.layer} must be {key.shape[0]} × "
            f"{key.shape[1]} kernels, got {given}"
        )
    weights = state[key.layer].float()
    require(bool(weights.isfinite().all()), f"{key.layer} must be finite", "NaN or inf")
    return weights


def _most_similar(kept: np.ndarray, wanted: np.ndarray, form: qr.Format) -> dict:
    """Return row and column of the window that agrees with the code the most."""
    where, side = qr.places(form.version), form.size
    rows, columns = where[:, 0], where[:, 1]
    best = (-1, 0, 0)
    for row in range(kept.shape[0] - side + 1):
        for column in range(kept.shape[1] - side + 1):
            there = kept[row + rows, column + columns] == wanted[rows, columns]
            if there.sum() > best[0]:
                best = (int(there.sum()), row, column)
    return {"row": best[1], "column": best[2]}


def _write(
    mask: Tensor, wanted: np.ndarray, key: SignatureKey, random: np.random.Generator
) -> Tensor:
    """Make the window's kernels alive or empty as wanted; keep the layer's count."""
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
        raise ValueError(
            f"{key.layer} keeps {before} weights, too few to write this code without "
            "changing their number; take a denser ticket, a shorter text or a lower ecc"
        )
    return mask


def _grow(kernels: Tensor, inside: Tensor, count: int, random) -> None:
    """Add weights in living kernels, those of the code first."""
    living = kernels.any(2)
    for allowed in (living & inside, living & ~inside):
        free = (~kernels & allowed[:, :, None]).nonzero().numpy()
        chosen = free[random.permutation(len(free))[:count]]
        kernels[tuple(chosen.T)] = True
        count -= len(chosen)


def _thin(kernels: Tensor, inside: Tensor, count: int, random) -> None:
    """Remove weights where the code has others, then outside of it."""
    for row, column in random.permutation(inside.nonzero().numpy()):
        places = kernels[row, column].nonzero().flatten().numpy()
        spare = min(count, max(len(places) - 1, 0))
        kernels[row, column, random.permutation(places)[:spare]] = False
        count -= spare
    held = (kernels & ~inside[:, :, None]).nonzero().numpy()
    chosen = held[random.permutation(len(held))[:count]]
    kernels[tuple(chosen.T)] = False
