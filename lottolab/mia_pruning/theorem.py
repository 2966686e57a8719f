"""Theorem 1: a random network twice as deep holds, pruned, any given network.

Wang et al. (2021), section 4.2, after Malach et al. (2020), "Proving the lottery ticket
hypothesis: pruning is all you need". For a linear layer with weights in [−1, 1]: each
weight gets a block of hidden units with random weights, and pruning leaves of each
block the two units, one for positive and one for negative inputs, that come nearest
to it. Deeper networks repeat this layer by layer.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from lottolab.checks import check_seed, require, whole
from lottolab.checks.taking import floats
from lottolab.nets.masks import Masks, apply_


class Pruned(NamedTuple):
    """A random network of two layers and which of its weights are kept.

    network: d inputs, a ReLU between, m outputs, no biases; pruned already.
    masks: of its two weights, True = kept. error: the largest change of an output for
        inputs in [−1, 1]^d (Equation 7 with the largest input as the norm).
    """

    network: nn.Sequential
    masks: Masks
    error: float


def subnetwork(weights: Tensor, width: int, seed: int) -> Pruned:
    """Prune a random network until it computes x -> weights·x, as nearly as it can.

    The random network has `width` hidden units for each of the m·d weights, and its own
    weights are uniform in [−1, 1]. A weight that none of its units can help with is
    left at 0.

    Args:
        weights: float[m, d] in [−1, 1]. width: >= 1. seed: of the random network.

    Raises:
        ValueError: weights of another shape or range, or a width below 1.

    >>> found = subnetwork(torch.tensor([[0.3, -0.2]]), 200, seed=0)
    >>> round(found.error, 2)
    0.01
    """
    check_seed(seed)
    whole("width", width, 1)
    weights = floats("weights", weights)
    shape = tuple(weights.shape)
    require(weights.ndim == 2, "weights must be of shape outputs × inputs", shape)
    outside = weights[~(weights.abs() <= 1)]
    right = len(outside) == 0 and weights.numel() > 0
    require(right, "weights must be in [-1, 1], at least one", outside[:1].tolist())
    (m, d), generator = shape, torch.Generator().manual_seed(seed)
    hidden = m * d * width
    first = 2 * torch.rand(hidden, d, generator=generator) - 1
    second = 2 * torch.rand(m, hidden, generator=generator) - 1
    # Unit h is there for weight h // width, which joins input `here` to output `there`.
    which = torch.arange(hidden) // width
    there, here = which // d, which % d
    into, out = first[torch.arange(hidden), here], second[there, torch.arange(hidden)]
    missed = (into * out - weights.flatten()[which]).abs().view(m * d, width)
    masks = torch.zeros(hidden, d, dtype=torch.bool), second.new_zeros(m, hidden).bool()
    worst = torch.zeros(m * d)
    for side in (into > 0, into < 0):
        gap, unit = missed.masked_fill(~side.view(m * d, width), torch.inf).min(1)
        nothing = weights.flatten().abs()
        used = gap < nothing
        chosen = (torch.arange(m * d) * width + unit)[used]
        masks[0][chosen, here[chosen]] = True
        masks[1][there[chosen], chosen] = True
        worst = worst.maximum(torch.where(used, gap, nothing))
    layers = nn.Linear(d, hidden, bias=False), nn.Linear(hidden, m, bias=False)
    network = nn.Sequential(layers[0], nn.ReLU(), layers[1])
    state = {"0.weight": first, "2.weight": second}
    network.load_state_dict(state)
    kept = dict(zip(state, masks, strict=True))
    apply_(network, kept)
    return Pruned(network, kept, float(worst.view(m, d).sum(1).max()))
