"""Fool a reader who measures weights against the largest of their channel.

A kernel counts as alive by its share of its output channel's largest, since batch norm
lets a thief resize channels. So he makes the largest as large as he likes, where it
does not matter: behind a hidden channel that is always zero.
"""

import torch
from torch import Tensor

from lottolab.checks import check_seed, number, require, whole
from lottolab.ownership.channels.hidden import (
    Places,
    columns,
    count,
    hidden,
    incoming,
    norm_in,
)
from lottolab.ownership.channels.matching import Groups
from lottolab.ownership.channels.naming import State


def silence(
    state: State,
    seed: int,
    *,
    decades: float = 20.0,
    dust: float = 1e-8,
    giants: int = 1,
    groups: Groups | None = None,
) -> State:
    """Silence channels of each group, and let their outgoing weights hide the others.

    The channels that do least are given a constant of −1 before ReLU, so that they are
    always zero. Their outgoing weights, one a kernel, become 10^u times the layer's
    mean living |w|, u uniform in [0, `decades`] and another for each output and each
    of the channels. All zeros of the layer are filled with `dust` times the same mean,
    times a normal number. But for the channels that are lost and for the dust the
    function stays.

    Args:
        decades: in [0, 30]; float16 holds four. dust: >= 0.
        giants: channels of each group that are silenced, >= 1, fewer than it has.
        groups: of hidden channels; `hidden` of the state if None.

    Raises:
        ValueError: a number is out of range, a group does not fit, or its layer has
            neither batch norm nor bias.
    """
    check_seed(seed)
    number("decades", decades, 0, 30)
    number("dust", dust, 0)
    whole("giants", giants, 1)
    generator = torch.Generator().manual_seed(seed)
    result = {name: tensor.clone() for name, tensor in state.items()}
    for places in (hidden(state) if groups is None else groups).values():
        n = count(result, places)
        require(giants < n, f"giants must be fewer than a group's {n} channels", giants)
        chosen = _used(result, places, n).argsort(stable=True)[:giants]
        for channel in chosen.tolist():
            _mute(result, places, channel)
        for name in [name for name, axis in places.items() if axis == 1]:
            each = result[name].shape[1] // n
            at = torch.arange(each) + chosen[:, None] * each
            result[name] = _hidden_behind(result[name], at, decades, dust, generator)
    return result


def _used(state: State, places: Places, n: int) -> Tensor:
    """Return how much each channel does: its incoming times its outgoing weights."""
    read = [name for name, axis in places.items() if axis == 1]
    outgoing = sum(columns(state[name], n).square().sum(1) for name in read).sqrt()
    return incoming(state, places).norm(dim=1) * outgoing


def _mute(state: State, places: Places, channel: int) -> None:
    norm = norm_in(places)
    written = [name for name, axis in places.items() if axis == 0]
    last = [n for n in written if state[n].ndim > 1][-1].removesuffix(".weight")
    factor, shift = (
        (f"{norm}.weight", f"{norm}.bias")
        if norm
        else (f"{last}.weight", f"{last}.bias")
    )
    require(shift in places, f"{last} must have batch norm or a bias", "neither")
    state[factor][channel] = 0
    state[shift][channel] = -1


def _hidden_behind(
    weight: Tensor, at: Tensor, decades: float, dust: float, generator: torch.Generator
) -> Tensor:
    """Fill the zeros with dust and the columns `at` with weights of many sizes.

    at: int64 channels × the columns of each, which have one size in a row.
    """
    living = weight[weight != 0].double().abs()
    mean = living.mean() if len(living) else torch.ones(())
    noise = torch.randn(weight.shape, generator=generator, dtype=torch.float64)
    filled = torch.where(weight == 0, noise * mean * dust, weight.double())
    kernels = filled.reshape(*weight.shape[:2], -1)
    rows = torch.arange(len(weight))[:, None]
    count, every = (len(rows), at.numel()), at.flatten()
    spots = torch.randint(kernels.shape[2], count, generator=generator)
    share = torch.rand((len(rows), len(at)), generator=generator, dtype=torch.float64)
    kernels[:, every] = 0
    sizes = mean * 10 ** (share * decades).repeat_interleave(at.shape[1], 1)
    kernels[rows, every, spots] = sizes
    large = kernels.to(weight.dtype)
    finite = bool(large.isfinite().all())
    require(finite, f"decades must fit the weights' {weight.dtype}", decades)
    return large.view_as(weight)
