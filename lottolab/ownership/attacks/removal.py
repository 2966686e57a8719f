"""What a thief does to the weights of a stolen ticket, in one step.

Each takes a state dict and returns another one; what is zero afterwards counts as
pruned. `names` are the prunable weights. Nothing here trains; a thief who goes on to
train is in `lottolab.ownership.experiments.thief`.
"""

import torch
from torch import Tensor

from lottolab.checks import one_of, require, whole
from lottolab.nets import masks as masking
from lottolab.ownership.channels.naming import State
from lottolab.ownership.signatures.key import SignatureKey


def sparsity(state: State, names: list[str]) -> masking.Masks:
    """Return the masks that a state dict wears: True where a weight is not zero."""
    return {name: state[name] != 0 for name in names}


def prune(state: State, names: list[str], amount: float, method: str, seed: int):
    """Remove a share `amount` of the weights left, by `magnitude` or at `random`.

    Paper, section 4.3, Tables 5 and 6.

    Raises:
        ValueError: another method, or an amount outside [0, 1).
    """
    one_of("method", method, ("magnitude", "random"))
    require(0 <= amount < 1, "amount must be in [0, 1)", amount)
    masks = sparsity(state, names)
    if method == "magnitude":
        kept = masking.magnitude(state, masks, amount)
    else:
        kept = masking.random(masks, amount, seed)
    return state | {n: state[n].masked_fill(~kept[n], 0) for n in names}


def add_on(state: State, names: list[str], rate: float, size: float, seed: int):
    """Fill a share `rate` of the pruned places with noise N(0, size²).

    The paper's add-on attack (section 4.4, Table 8, there called fake_2).

    Raises:
        ValueError: rate is outside [0, 1] or size is not positive.
    """
    require(0 <= rate <= 1, "rate must be in [0, 1]", rate)
    require(size > 0, "size must be > 0", size)
    generator = torch.Generator().manual_seed(seed)
    places = [(name, (state[name] == 0).flatten().nonzero()[:, 0]) for name in names]
    total = sum(len(found) for _, found in places)
    drawn = torch.randperm(total, generator=generator)[: round(rate * total)]
    chosen = torch.zeros(total, dtype=torch.bool)
    chosen[drawn] = True
    changed = dict(state)
    parts = chosen.split([len(found) for _, found in places])
    for (name, found), part in zip(places, parts, strict=True):
        weights = state[name].flatten().clone()
        noise = torch.randn(int(part.sum()), generator=generator) * size
        weights[found[part]] = noise.to(weights.dtype)
        changed[name] = weights.view(state[name].shape)
    return changed


def overwrite(state: State, key: SignatureKey, wanted: Tensor, seed: int) -> State:
    """Put another code over the owner's, its dark kernels full of noise N(0, 0.1²).

    The insider of the paper's fake_3 (section 4.4), who knows where the owner's code
    is and replaces the region.

    Args:
        wanted: bool size×size, the other code's modules, covered or not.
    """
    generator = torch.Generator().manual_seed(seed)
    weights = state[key.layer].clone()
    region = weights[key.window]
    noise = torch.randn(region.shape, generator=generator) * 0.1
    weights[key.window] = noise.to(weights.dtype) * wanted[:, :, None, None]
    return state | {key.layer: weights}


def guess_key(start: State, locked: masking.Masks, count: int, seed: int):
    """Forge a key of `count` random places and random weights N(0, 0.01²).

    The paper's fake_1 (section 4.4, Figure 5): the thief holds the locked part alone.

    Returns the start with the guessed weights, and the masks.

    Raises:
        ValueError: count is no whole number >= 0, or more than the lock leaves free.
    """
    whole("count", count, 0)
    generator = torch.Generator().manual_seed(seed)
    names = sorted(locked)
    free = [int((~locked[name]).sum()) for name in names]
    require(count <= sum(free), f"count must be at most {sum(free)}", count)
    chosen = torch.zeros(sum(free), dtype=torch.bool)
    chosen[torch.randperm(sum(free), generator=generator)[:count]] = True
    masks, state = dict(locked), dict(start)
    for name, part in zip(names, chosen.split(free), strict=True):
        extra = torch.zeros_like(locked[name])
        extra[~locked[name]] = part
        guess = torch.randn(extra.shape, generator=generator) * 0.01
        masks[name] = locked[name] | extra
        state[name] = torch.where(extra, guess.to(start[name].dtype), start[name])
    return state, masks


def below(state: State, names: list[str], threshold: float) -> State:
    """Set weights of |w| < `threshold` to zero: the paper's defence against add-ons."""
    small = {name: state[name].abs() < threshold for name in names}
    return state | {name: state[name].masked_fill(small[name], 0) for name in names}
