"""Squeeze a layer's weights to one bit a kernel, *alive* or *empty* (Algorithm 2)."""

from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import require
from lottolab.ownership.signatures import qr
from lottolab.ownership.signatures.key import SignatureKey


def alive(weights: Tensor, threshold: float = 0.0) -> np.ndarray:
    """Squeeze a layer to bool outputs×inputs: kernels that hold a weight.

    A kernel lives if its largest |w| is above `threshold` × the largest of its output
    channel: batch norm undoes a rescaling of a channel, so no absolute size is safe.
    """
    return _shares(weights) > threshold


def extract(
    state: dict[str, Tensor], key: SignatureKey, *, threshold: float | None = None
) -> np.ndarray:
    """Read the covered modules from a network, bool size×size; no text is needed.

    Raises:
        ValueError: the network has no such layer, or it is not finite.
    """
    limit = key.threshold if threshold is None else threshold
    return alive(_layer(state, key), limit)[key.window]


def calibrate(state: dict[str, Tensor], key: SignatureKey) -> SignatureKey:
    """Return the key with a threshold of half the weakest living kernel's share.

    `state` is the owner's trained ticket.

    Raises:
        ValueError: as `extract`, or no kernel of the window holds a weight.
    """
    shares = _shares(_layer(state, key))[key.window]
    living = shares[shares > 0]
    require(len(living) > 0, f"{key.layer} must hold weights in the window", "none")
    return replace(key, threshold=float(living.min()) / 2)


def median(state: dict[str, Tensor], key: SignatureKey) -> float:
    """Return the threshold that would leave half of the data modules alive.

    A covered code has as many living as empty kernels, up to chance. Raises ValueError
    as `extract`.
    """
    shares = _shares(_layer(state, key))[key.window]
    return float(np.median(shares[tuple(qr.places(key.version).T)]))


def doubts(state: dict[str, Tensor], key: SignatureKey) -> np.ndarray:
    """Say from the weights alone how doubtful each module is, float size×size, [0, 1].

    A covered code has as many living as empty kernels, up to chance. If more live,
    weights were added: a living kernel is the more doubtful the weaker it is (1 for
    the weakest) and an empty one is sure. If fewer live, weights were removed: a
    living kernel is sure, and nothing tells the empty ones apart (all 1).

    Raises:
        ValueError: as `extract`.
    """
    shares = _shares(_layer(state, key))[key.window].astype(float)
    living = shares > key.threshold
    where = tuple(qr.places(key.version).T)
    if living[where].mean() <= 0.5:
        return np.where(living, 0.0, 1.0)
    weakest = shares[living].min()
    return np.where(living, weakest / np.maximum(shares, weakest), 0.0)


def _shares(weights: Tensor) -> np.ndarray:
    """Divide each kernel's largest |w| by its output channel's, outputs×inputs."""
    strength = _real(weights.detach()).abs().flatten(2).amax(2)
    shares = strength / strength.amax(1, keepdim=True)
    return shares.nan_to_num(0.0).cpu().numpy()  # 0 / 0 in an empty channel


def _real(weights: Tensor) -> Tensor:
    """Return float32 or, of doubles, doubles: a tiny channel must not become empty."""
    return weights.to(torch.promote_types(weights.dtype, torch.float32))


def _layer(state: dict[str, Tensor], key: SignatureKey) -> Tensor:
    if not key.fits(state):
        given = tuple(state[key.layer].shape) if key.layer in state else "no such layer"
        raise ValueError(
            f"the key is for another network: {key.layer} must be {key.shape[0]} × "
            f"{key.shape[1]} kernels, got {given}"
        )
    weights = _real(state[key.layer])
    require(bool(weights.isfinite().all()), f"{key.layer} must be finite", "NaN or inf")
    return weights
