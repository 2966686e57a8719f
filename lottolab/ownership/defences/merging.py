"""Undo channels that were split or added: merge those that compute the same.

Whoever copies a hidden channel cannot hide what the copies have in common: to cancel,
they need the same input up to a factor. Added up, their outgoing weights are the old
ones again, whatever they were split into; those of a clique that was added are nothing.
A negative factor adds up as well: relu(z) bends at z = 0 and so does relu(−z), and
nothing else of the layer does. How much is bent there is the sum of both outgoing
weights, and what remains is linear, which other channels may hold.
"""

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor

from lottolab.checks import number, require
from lottolab.ownership.channels import naming
from lottolab.ownership.channels.hidden import (
    Places,
    columns,
    count,
    hidden,
    incoming,
    norm_in,
    with_columns,
)
from lottolab.ownership.channels.matching import Groups
from lottolab.ownership.channels.naming import State

WAYS = ({"tolerance": 0.2, "rounding": 8}, {"tolerance": 0.6, "rounding": 0})


@dataclass(frozen=True)
class _Folding:
    """Which channels are kept, and what is added up for each.

    sums: float64 kept × n, adds up outgoing weights. kept: int64, their numbers.
    turned: int64, which of those kept are joined with one of the opposite sign.
    """

    sums: Tensor
    kept: Tensor
    turned: Tensor


def merge(
    state: State,
    reference: State,
    *,
    tolerance: float = 0.2,
    rounding: float = 8,
    groups: Groups | None = None,
) -> State:
    """Merge hidden channels with proportional incoming weights, down to the reference.

    Of each group the closest pairs are merged first, until there are as many channels
    as the reference has: what the owner's own network has twice stays apart where
    nothing was added. Two channels are apart by the sine of the angle between the lines
    of their `incoming`; dead ones, whose weights are all pruned, are constants of one
    sign, and the less is left of both outgoing weights, the closer they are. The
    second's outgoing weights, times the factor between both, join the first's. What
    then is nothing, but for the rounding of its number type, becomes zero, weight by
    weight, and a channel of which nothing is left is dropped, unless too few are left.

    All others are kept, be they more than the reference has: that a channel is large
    does not mean that it does anything, and matching chooses those that are alike.
    Where channels of opposite signs were joined both directions are kept, for nothing
    tells which was the owner's. Only where none were does the function stay, but for
    what the tolerance allows.

    No numbers are right for all that a thief may do, so who reads a network reads it in
    both `WAYS`: weights that are split into large parts of half precision are smaller
    than the rounding of these, and where only what is exactly nothing is dropped,
    cliques stand in the way of other channels.

    Args:
        tolerance: largest distance that is merged, in [0, 1): training moves copies.
        rounding: a sum of outgoing weights is nothing below so many roundings of its
            parts, >= 0.
        groups: of hidden channels; `hidden` of the state if None.

    Raises:
        ValueError: a number is out of range, or a network does not fit the groups.
    """
    number("tolerance", tolerance, 0, 0.999999)
    number("rounding", rounding, 0)
    if groups is None:
        groups = hidden(_known(state, reference))
    result = dict(state)
    for places in groups.values():
        wanted = _wanted(reference, places)
        folding = _folding(result, places, wanted, tolerance, rounding)
        n, norm = count(result, places), norm_in(places)
        even = {f"{norm}.{part}" for part in ("weight", "running_var")}
        for name, axis in places.items():
            if axis == 0:
                rows = result[name].index_select(0, folding.kept)
                other = rows[folding.turned] * (1 if name in even else -1)
                result[name] = torch.cat([rows, other])
            else:
                old = result[name]
                flat = _clean(folding.sums, columns(old, n), old, rounding)
                flat = torch.cat([flat, flat[folding.turned]])
                result[name] = with_columns(flat, result[name], n)
    return result


def _folding(
    state: State, places: Places, wanted: int, tolerance: float, rounding: float
) -> _Folding:
    """Join the closest pairs, until as many channels are left as are wanted."""
    n = count(state, places)
    read = [name for name, axis in places.items() if axis == 1]
    coarse = max((state[name] for name in read), key=lambda w: torch.finfo(w.dtype).eps)
    outgoing = torch.cat([columns(state[name], n) for name in read], 1)
    sums, left = torch.eye(n, dtype=torch.float64), torch.ones(n, dtype=torch.bool)
    home, silent, turned = list(range(n)), [], torch.zeros(n, dtype=torch.bool)
    distance, factor = _compared(state, places, outgoing, tolerance)
    for first, second in _closest(distance, tolerance):
        a, b = home[first], home[second]
        if int(left.sum()) <= wanted:
            break
        if a == b or not (left[a] and left[b]):
            continue
        a, b = min(a, b), max(a, b)
        sums[a] += factor[a, b].abs() * sums[b]
        turned[a] |= turned[b] | (factor[a, b] < 0)
        left[b] = False
        home = [a if place == b else place for place in home]
        if not _clean(sums[a], outgoing, coarse, rounding).any():
            left[a] = False
            silent.append(a)
    missing = max(0, wanted - int(left.sum()))  # the owner's own may do nothing, too
    left[silent[:missing]] = True
    kept = left.nonzero().flatten()
    return _Folding(sums[kept], kept, turned[kept].nonzero().flatten())


def _clean(sums: Tensor, outgoing: Tensor, like: Tensor, rounding: float) -> Tensor:
    """Add up outgoing weights; what is below the rounding of `like` is nothing."""
    found, parts = sums @ outgoing, sums.abs() @ outgoing.abs()
    nothing = found.abs() < rounding * torch.finfo(like.dtype).eps * parts
    return found.masked_fill(nothing, 0)


def _compared(
    state: State, places: Places, outgoing: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return how far channels are apart, and how much larger each second is.

    Both float64 n × n; the factor of i, j is the length of j over that of i, negative
    where they have opposite directions.
    """
    rows = incoming(state, places)
    length = rows.norm(dim=1)
    if sum(a == 0 and state[name].ndim > 1 for name, a in places.items()) > 1:
        apart = torch.cdist(rows, rows) / torch.maximum(length[:, None], length)
        return apart.nan_to_num(0.0), torch.ones_like(apart)
    factor = length.clamp_min(1e-300) / length.clamp_min(1e-300)[:, None]
    unit = rows / length.clamp_min(1e-300)[:, None]
    cosine = (unit @ unit.T).clamp(-1, 1)
    dead = ~rows[:, :-1].any(1)
    apart = (1 - cosine.square()).sqrt()
    distance = apart.where(dead[:, None] == dead, torch.ones(()).double())
    for i, j in itertools.combinations(dead.nonzero().flatten().tolist(), 2):
        parts = outgoing[i], factor[i, j] * outgoing[j]
        share = (parts[0] + parts[1]).norm() / sum(map(torch.norm, parts))
        alike = bool(rows[i, -1].sign() == rows[j, -1].sign())
        distance[i, j] = tolerance * share.nan_to_num(0.0) if alike else 1.0
    return distance, factor.copysign(cosine)


def _closest(distance: Tensor, tolerance: float) -> list[list[int]]:
    """List the pairs that are close enough, the closest first."""
    pairs = torch.triu_indices(*distance.shape, offset=1)
    values = distance[pairs[0], pairs[1]]
    order = values.argsort(stable=True)
    order = order[values[order] <= tolerance]
    return pairs[:, order].T.tolist()


def _known(state: State, reference: State) -> State:
    """Leave out of a ResNet what the reference does not know, see `naming`."""
    try:
        return naming.comparable(state, reference)
    except ValueError:  # a chain: what is not used is left out when it is followed
        return state


def _wanted(reference: State, places: Places) -> int:
    """Return how many channels the reference has in a group."""
    shared = [n for n, axis in places.items() if axis == 0 and n in reference]
    require(bool(shared), "the reference must have each group's weights", list(places))
    return min(len(reference[name]) for name in shared)
