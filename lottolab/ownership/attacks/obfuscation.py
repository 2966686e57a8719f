"""Add hidden channels that change nothing: the thief's neural obfuscation.

Yan et al., 2023 ("Rethinking White-Box Watermarks on Deep Learning Models under Neural
Structural Obfuscation", section 4): a neuron is split into several that have the same
input and whose outputs sum to the old one (NeuronSplit), or a clique of neurons with
the same input is added whose outputs cancel (NeuronClique). Then names, orders and
sizes say nothing, and neither does the sparsity pattern: where a weight was pruned its
parts are not zero. `symmetry` moves channels and adds pairs to the ResNets of lottolab;
here any network goes whose hidden channels can be named, see `channels.hidden`.

A state dict goes in, another of the same dtypes comes out (of float16 from
`split_in_half`); the first is left alone.
"""

import torch
from torch import Tensor

from lottolab.checks import check_seed, number, require, whole
from lottolab.ownership.channels.hidden import (
    Places,
    columns,
    count,
    hidden,
    norm_in,
    with_columns,
)
from lottolab.ownership.channels.matching import Groups
from lottolab.ownership.channels.naming import State


def duplicate(
    state: State,
    seed: int,
    *,
    copies: int = 2,
    size: float = 1.0,
    spread: float = 1.0,
    groups: Groups | None = None,
) -> State:
    """Write each hidden channel `copies` times; the next layer's weights are split.

    One copy is read with w + n, the others with parts of −n: dense noise of `size`
    times the layer's mean living |w|. Copies stand in random order.

    Args:
        spread: each copy is made larger by a log-uniform factor in [1/spread, spread]
            and read with as much smaller weights, which ReLU allows (ReLU6 does not).
        groups: of hidden channels; `hidden` of the state if None.

    Raises:
        ValueError: copies < 2, size <= 0, spread < 1, or groups that do not fit.
    """
    whole("copies", copies, 2)
    generator = _generator(seed, size, spread)
    result = dict(state)
    for places in _named(state, groups).values():
        n = count(state, places)
        source = torch.arange(n).repeat(copies)
        parts = {}
        for name in _read(places):
            noise = _noise(result[name], n, (copies - 1) * n, size, generator)
            first = columns(result[name], n)
            first = first - noise.view(copies - 1, n, -1).sum(0)
            parts[name] = torch.cat([first, noise])
        result = _copied(result, places, source)
        result = _settled(result, places, n, parts, spread, generator)
    return result


def split_in_half(
    state: State,
    seed: int,
    *,
    small: float = 4.0,
    large: float = 300.0,
    groups: Groups | None = None,
) -> State:
    """Write each hidden channel four times in float16, behind two that cancel.

    It is read with w + a, −a, b and −b: a is normal noise of `small`, b of either sign
    and 0.5 to 1.5 of `large` times the layer's mean living |w|. The two large ones
    cancel to the last bit, and w is less than the rounding of either: who takes sums
    of that size for nothing loses it.

    Args:
        small, large: > 0; what float16 does not hold is refused.
        groups: as in `duplicate`.

    Raises:
        ValueError: a number is out of range, or groups do not fit.
    """
    generator = _generator(seed, small, 1.0)
    number("large", large, 1e-9)
    floats = {n for n, w in state.items() if w.is_floating_point()}
    result = {n: w.half() if n in floats else w for n, w in state.items()}
    for places in _named(result, groups).values():
        n = count(result, places)
        parts = {}
        for name in _read(places):
            first = columns(result[name], n)
            noise = _noise(result[name], n, n, small, generator)
            signs = _noise(result[name], n, n, large, generator).sign()
            share = torch.rand(signs.shape, generator=generator).double() + 0.5
            mean = result[name][result[name] != 0].double().abs().mean().nan_to_num(1)
            far = (signs * share * mean * large).half()
            finite = bool(far.isfinite().all())
            require(finite, f"large must fit float16 in {name}", large)
            far = far.double()
            parts[name] = torch.cat([first + noise, -noise, far, -far])
        result = _copied(result, places, torch.arange(n).repeat(4))
        result = _settled(result, places, n, parts, 1.0, generator)
    return result


def add_cliques(
    state: State,
    extra: int,
    seed: int,
    *,
    members: int = 2,
    size: float = 1.0,
    spread: float = 1.0,
    groups: Groups | None = None,
) -> State:
    """Add `extra` cliques to each group: `members` channels that cancel each other.

    A clique has the input of a channel that is there, its weights shuffled, and dense
    random outgoing weights that sum to nothing: a single member's are all zero, as of a
    spare channel. Arguments as in `duplicate`.

    Raises:
        ValueError: extra < 1 or members < 1, and as `duplicate`.
    """
    whole("extra", extra, 1)
    whole("members", members, 1)
    generator = _generator(seed, size, spread)
    result = dict(state)
    for places in _named(state, groups).values():
        n = count(state, places)
        donors = torch.randint(n, (extra,), generator=generator)
        source = torch.cat([torch.arange(n), donors.repeat(members)])
        parts = {}
        for name in _read(places):
            shape = (members, extra, -1)
            noise = _noise(result[name], n, members * extra, size, generator)
            noise = noise.view(shape) - noise.view(shape).mean(0)
            parts[name] = torch.cat([columns(result[name], n), noise.flatten(0, 1)])
        result = _copied(result, places, source)
        result = _shuffled(result, places, n, source, generator)
        result = _settled(result, places, n, parts, spread, generator)
    return result


def _generator(seed: int, size: float, spread: float) -> torch.Generator:
    check_seed(seed)
    number("size", size, 1e-9)
    number("spread", spread, 1.0)
    return torch.Generator().manual_seed(seed)


def _named(state: State, groups: Groups | None) -> Groups:
    return hidden(state) if groups is None else groups


def _read(places: Places) -> list[str]:
    return [name for name, axis in places.items() if axis == 1]


def _noise(
    weight: Tensor, n: int, rows: int, size: float, generator: torch.Generator
) -> Tensor:
    """Draw outgoing weights of so many channels, in the dtype's own steps."""
    living = weight[weight != 0].double().abs()
    mean = living.mean() if len(living) else torch.ones(())
    shape = (rows, columns(weight, n).shape[1])
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64)
    return (drawn * mean * size).to(weight.dtype).double()


def _copied(state: State, places: Places, source: Tensor) -> State:
    """Give the layer that writes a group the rows of the channels `source`."""
    rows = [name for name, axis in places.items() if axis == 0]
    return state | {name: state[name].index_select(0, source) for name in rows}


def _shuffled(
    state: State, places: Places, n: int, source: Tensor, generator: torch.Generator
) -> State:
    """Shuffle the weights of the rows from number n on, copies of one row alike."""
    result = dict(state)
    for name in [name for name, axis in places.items() if axis == 0]:
        flat = state[name].reshape(len(source), -1).clone()
        order = torch.rand((n, flat.shape[1]), generator=generator).argsort(1)
        flat[n:] = flat[n:].gather(1, order[source[n:]])
        result[name] = flat.view_as(state[name])
    return result


def _settled(
    state: State,
    places: Places,
    n: int,
    parts: dict[str, Tensor],
    spread: float,
    generator: torch.Generator,
) -> State:
    """Give the channels a random order, and each a factor of its own.

    n: how many there were. parts: their new columns, by the weight that reads them.
    """
    total = len(next(iter(parts.values())))
    order = torch.randperm(total, generator=generator)
    share = torch.rand(total, generator=generator, dtype=torch.float64)
    factor = spread ** (2 * share - 1)
    norm, changed = norm_in(places), {}
    for name, axis in places.items():
        if axis == 1:
            flat = (parts[name] / factor[:, None])[order]
            changed[name] = with_columns(flat, state[name], n)
            continue
        tensor = state[name].index_select(0, order)
        if norm is None or name in (f"{norm}.weight", f"{norm}.bias"):
            scale = factor[order].view(-1, *[1] * (tensor.ndim - 1))
            tensor = (tensor.double() * scale).to(tensor.dtype)
        changed[name] = tensor
    return state | changed
