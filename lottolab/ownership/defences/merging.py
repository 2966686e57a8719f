"""Undo channels that were split or added: merge those that compute the same.

Whoever copies a hidden channel cannot hide what the copies have in common: to cancel,
they need the same input up to a positive factor (ReLU takes no other). Added up, their
outgoing weights are the old ones again, whatever they were split into; those of a
clique that was added are nothing.
"""

import itertools

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
    with_columns,
)
from lottolab.ownership.channels.matching import Groups
from lottolab.ownership.channels.naming import State

ROUNDING = 4  # a sum of outgoing weights is none below so many roundings of its parts


def merge(
    state: State,
    reference: State,
    *,
    tolerance: float = 0.2,
    groups: Groups | None = None,
) -> State:
    """Merge hidden channels with proportional incoming weights, down to the reference.

    Of each group the closest pairs are merged first, until there are as many channels
    as the reference has: what the owner's own network has twice stays apart where
    nothing was added. Two channels are apart by the sine of the angle between their
    `incoming`; dead ones, whose weights are all pruned, are constants of one sign, and
    the less is left of both outgoing weights, the closer they are. The second's
    outgoing weights, times the factor between both, join the first's, which keeps the
    function where both are exactly proportional. A channel whose outgoing weights then
    cancel, but for the rounding of their number type, is dropped, unless too few are
    left; what is still too many goes by the least outgoing weights.

    Args:
        tolerance: largest distance that is merged, in [0, 1): training moves copies.
        groups: of hidden channels; `hidden` of the state if None.

    Raises:
        ValueError: a number is out of range, or a network does not fit the groups.
    """
    number("tolerance", tolerance, 0, 0.999999)
    if groups is None:
        groups = hidden(_known(state, reference))
    result = dict(state)
    for places in groups.values():
        wanted = _wanted(reference, places)
        folding, kept = _folding(result, places, wanted, tolerance)
        n = count(result, places)
        for name, axis in places.items():
            if axis == 0:
                result[name] = result[name].index_select(0, kept)
            else:
                flat = folding @ columns(result[name], n)
                result[name] = with_columns(flat, result[name], n)
    return result


def _folding(
    state: State, places: Places, wanted: int, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return the matrix that adds up outgoing weights, float64 kept × n, and `kept`."""
    n = count(state, places)
    read = [name for name, axis in places.items() if axis == 1]
    outgoing = torch.cat([columns(state[name], n) for name in read], 1)
    folding, left = torch.eye(n, dtype=torch.float64), torch.ones(n, dtype=torch.bool)
    home, silent = list(range(n)), []
    nothing = ROUNDING * max(torch.finfo(state[name].dtype).eps for name in read)
    distance, factor = _compared(state, places, outgoing, tolerance)
    for first, second in _closest(distance, tolerance):
        a, b = home[first], home[second]
        if int(left.sum()) <= wanted:
            break
        if a == b or not (left[a] and left[b]):
            continue
        a, b = min(a, b), max(a, b)
        parts = [float((folding[i] @ outgoing).norm()) for i in (a, b)]
        folding[a] += factor[a, b] * folding[b]
        left[b] = False
        home = [a if place == b else place for place in home]
        if float((folding[a] @ outgoing).norm()) < nothing * max(parts):
            left[a] = False
            silent.append(a)
    strength = (folding @ outgoing).norm(dim=1)
    missing = max(0, wanted - int(left.sum()))  # the owner's own may do nothing, too
    left[silent[:missing]] = True
    kept = left.nonzero().flatten()
    kept = kept[strength[kept].argsort(descending=True, stable=True)[:wanted]]
    kept = kept.sort().values
    return folding[kept], kept


def _compared(
    state: State, places: Places, outgoing: Tensor, tolerance: float
) -> tuple[Tensor, Tensor]:
    """Return how far channels are apart, and how much larger each second is.

    Both float64 n × n; the factor of i, j is the length of j over that of i.
    """
    rows = incoming(state, places)
    length = rows.norm(dim=1)
    factor = length.clamp_min(1e-300) / length.clamp_min(1e-300)[:, None]
    if sum(a == 0 and state[name].ndim > 1 for name, a in places.items()) > 1:
        apart = torch.cdist(rows, rows) / torch.maximum(length[:, None], length)
        return apart.nan_to_num(0.0), torch.ones_like(apart)
    unit = rows / length.clamp_min(1e-300)[:, None]
    cosine = (unit @ unit.T).clamp(-1, 1)
    angle = (1 - cosine.square()).sqrt().where(cosine > 0, torch.ones(()).double())
    dead = ~rows[:, :-1].any(1)
    distance = angle.where(dead[:, None] == dead, torch.ones(()).double())
    for i, j in itertools.combinations(dead.nonzero().flatten().tolist(), 2):
        parts = outgoing[i], factor[i, j] * outgoing[j]
        share = (parts[0] + parts[1]).norm() / sum(map(torch.norm, parts))
        alike = bool(rows[i, -1].sign() == rows[j, -1].sign())
        distance[i, j] = tolerance * share.nan_to_num(0.0) if alike else 1.0
    return distance, factor


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
