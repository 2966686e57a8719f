"""Bring the channels of a suspect network into the order and scale of a reference.

A signature is read from fixed places, and a thief can move channels for nothing. Weight
matching (Ainsworth et al., 2023, "Git Re-Basin", section 3.2) looks for the orders of
the channels that bring the suspect's weights closest to the reference's: with the other
groups held fixed, the best order of one group is a linear assignment.

Two weights are alike by the root of their product if they have the same sign, which no
rescaling that ReLU allows can change, and else by 0. Plain products let few large
weights decide and count a flipped sign against the channel, but where a sparse network
has weights at all says more; sizes without signs confuse dense channels.

Alignment makes any network as much like the reference as it can. If the reference
holds a pattern, what is aligned to it can hold more of it than chance, whoever made it:
a p-value for a pattern is valid only where the reference does not depend on the secret.
So the owner aligns to the unsigned twin, the ticket before the secret was drawn.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from lottolab.checks import require
from lottolab.ownership.channels import naming
from lottolab.ownership.channels.naming import State, groups, row_signs, signed_weights
from lottolab.ownership.channels.scales import additive, features
from lottolab.runs import progress

SPARE = 0.1  # see `match`
Index = dict[str, list[Tensor]]  # for each tensor: their row, their column of each ours


@dataclass(frozen=True)
class _Pair:
    """A group in both networks: how many channels, and (tensor, axis, theirs, ours)."""

    theirs: int
    ours: int
    places: list[tuple[str, int, Tensor, Tensor]]


def align(
    state: State,
    reference: State,
    *,
    restarts: int = 3,
    seed: int = 0,
    enough: float = math.inf,
    names: Collection[str] | None = None,
) -> State:
    """Return the suspect's weights in the reference's order, shapes and scale.

    All convolutions, and the classifier if it has the same classes; float32. They can
    be compared with the reference's one by one, but need not compute the suspect's
    function: there is no batch norm, channels that the reference does not have are left
    out, those that the suspect does not have are zero, and a row that batch norm turns
    around has the sign that it has in the reference.

    Args:
        state, reference: state dicts of ResNets of `lottolab.nets.resnets` with the
            same blocks, trained, folded or widened.
        restarts, seed: of the search, see `match`. enough: share of the reference's
            likeness to itself from which on no other start is tried.
        names: of the weights to return; all if None.

    Raises:
        ValueError: another kind of network, weights not finite, or no start.
    """
    require(restarts >= 1, "restarts must be at least 1", restarts)
    state = naming.comparable(state, reference)
    pairs = _pairs(state, reference)
    described = features(state), features(reference)
    orders, _ = _best(pairs, *described, restarts, seed, enough)
    theirs, ours = signed_weights(state), signed_weights(reference)
    index, result = _placed(pairs, ours, orders), {}
    for name in index if names is None else index.keys() & names:
        moved, target = _take(_framed(theirs[name]), index[name]), ours[name]
        # Weights that a signature cut and training left tiny tell nothing of the scale.
        found = _take(_framed(described[0][name]), index[name])
        alike = sum(torch.minimum(found, described[1][name]).chunk(2, dim=2))
        ratios = (moved / target).abs().where(alike > 0, torch.ones(())).log()
        moved = moved / additive(ratios, alike, robust=True).exp()
        moved = moved * row_signs(reference, name)
        result[name] = moved.view_as(reference[name]).float()
    return result


def match(
    state: State, reference: State, *, restarts: int = 3, seed: int = 0
) -> tuple[dict[str, Tensor], float]:
    """Find which channel of the suspect stands for each channel of the reference.

    Returns for each group int64 indices, as many as the reference has channels, −1
    where the suspect has none; and the likeness: the sum of the products of their
    `features` and ours, less SPARE × the sum of the squares of theirs.

    The squares matter where the suspect has channels to spare: of two that are alike
    the emptier one is taken, so that no dummy fills an empty place. With half of them
    this would be the squared distance, which gives up channels that changed much.

    The first start takes the groups in the image's order. Image channels and classes
    hold the ends in place; where the channels on a kernel's other side are not matched
    yet, weights are compared in sorted order, which no permutation changes. Later
    starts begin at random. Each goes on until nothing changes; the best one counts.

    Raises ValueError as `align`.
    """
    require(restarts >= 1, "restarts must be at least 1", restarts)
    state = naming.comparable(state, reference)
    pairs = _pairs(state, reference)
    return _best(pairs, features(state), features(reference), restarts, seed)


def _best(
    pairs: dict[str, _Pair],
    theirs: State,
    ours: State,
    restarts: int,
    seed: int,
    enough: float = math.inf,
) -> tuple[dict[str, Tensor], float]:
    """Search as `match` says; theirs, ours: `features` of both. See `align`."""
    own = (1 - SPARE) * sum(float(weight.square().sum()) for weight in ours.values())
    theirs = {name: _framed(weight) for name, weight in theirs.items()}
    generator, found = torch.Generator().manual_seed(seed), []
    for start in range(restarts):
        orders = {name: torch.full((p.ours,), -1) for name, p in pairs.items()}
        if start:
            orders = {name: _random_order(p, generator) for name, p in pairs.items()}
        found.append(_ascend(pairs, theirs, ours, orders))
        if found[-1][1] >= enough * own:
            break
    return max(found, key=lambda pair: pair[1])


def _ascend(
    pairs: dict[str, _Pair], theirs: State, ours: State, orders: dict[str, Tensor]
) -> tuple[dict[str, Tensor], float]:
    """Match one group after the other until the likeness grows no more.

    A group waits while all that its channels are joined to stays as it was.
    """
    index, last = _placed(pairs, ours, orders), -math.inf
    before: dict[str, list[Tensor]] = {}
    while True:
        for name, pair in pairs.items():
            joined = [index[n][1 - axis].clone() for n, axis, *_ in pair.places]
            if name in before and all(map(torch.equal, joined, before[name])):
                continue
            before[name] = joined
            progress.emit("step", text=f"matching the channels of {name}")
            orders[name] = _assign(pair, theirs, ours, index)
            _update(index, pair, orders[name])
        moved = {name: _take(theirs[name], lines) for name, lines in index.items()}
        parts = [(a * (ours[name] - SPARE * a)).sum() for name, a in moved.items()]
        likeness = float(sum(parts))
        if likeness <= last + 1e-9 * abs(last):
            return orders, likeness
        last = likeness


def _assign(pair: _Pair, theirs: State, ours: State, index: Index) -> Tensor:
    """Give each of our channels one of theirs, so that the likeness is greatest."""
    gain = torch.zeros(pair.theirs, pair.ours, dtype=torch.float64)
    for name, axis, at, our_at in pair.places:
        other = index[name][1 - axis]
        unknown = bool((other < 0).all())
        if unknown:
            other = torch.arange(theirs[name].shape[1 - axis])
        lines = [at, other] if axis == 0 else [other, at]
        a = _take(theirs[name], lines).transpose(0, axis)
        b = ours[name].index_select(axis, our_at).transpose(0, axis)
        if unknown:
            a, b = _sorted(a, b)
        a, b = a.flatten(1), b.flatten(1)
        gain += a @ b.T - SPARE * a.square().sum(1, keepdim=True)
    rows, columns = linear_sum_assignment(gain.numpy(), maximize=True)
    order = torch.full((pair.ours,), -1)
    order[torch.from_numpy(columns)] = torch.from_numpy(rows)
    return order


def _sorted(*weights: Tensor) -> list[Tensor]:
    """Sort the channels at each place of the kernel, after zeros made them as many."""
    most = max(w.shape[1] for w in weights)
    padded = [F.pad(w, (0, 0, 0, most - w.shape[1])) for w in weights]
    return [w.sort(1).values for w in padded]


def _pairs(state: State, reference: State) -> dict[str, _Pair]:
    """Pair the groups of both networks; refuse networks that cannot be paired."""
    theirs, ours = groups(state), groups(reference)
    wanted, given = ([group.name for group in g] for g in (ours, theirs))
    require(wanted == given, f"the groups must be the reference's, {wanted}", given)
    for name, tensor in [*state.items(), *reference.items()]:
        require(bool(tensor.isfinite().all()), f"{name} must be finite", "NaN or inf")
    for name in signed_weights(reference):
        first = 1 if name == "conv1.weight" else 2
        shapes = [tuple(s[name].shape[first:]) for s in (reference, state)]
        require(shapes[0] == shapes[1], f"{name} must end in {shapes[0]}", shapes[1])
    same_classes = len(state["fc.weight"]) == len(reference["fc.weight"])
    kept = {n for n in signed_weights(reference) if same_classes or n != "fc.weight"}
    result = {}
    for group, our_group in zip(theirs, ours, strict=True):
        at = {(place.tensor, place.axis): place.at for place in group.places}
        places = [
            (p.tensor, p.axis, at[p.tensor, p.axis], p.at)
            for p in our_group.places
            if p.tensor in kept
        ]
        result[group.name] = _Pair(group.size, our_group.size, places)
    return result


def _placed(pairs: dict[str, _Pair], ours: State, orders: dict[str, Tensor]) -> Index:
    names = {name for pair in pairs.values() for name, *_ in pair.places}
    index = {
        name: [torch.arange(count) for count in ours[name].shape[:2]]
        for name in ours
        if name in names
    }
    for name, pair in pairs.items():
        _update(index, pair, orders[name])
    return index


def _update(index: Index, pair: _Pair, order: Tensor) -> None:
    for name, axis, theirs, ours in pair.places:
        index[name][axis][ours] = torch.where(order < 0, -1, theirs[order])


def _random_order(pair: _Pair, generator: torch.Generator) -> Tensor:
    drawn = torch.randperm(max(pair.ours, pair.theirs), generator=generator)
    return torch.where(drawn < pair.theirs, drawn, -1)[: pair.ours]


def _framed(weight: Tensor) -> Tensor:
    """Add a row and a column of zeros, which the index −1, no channel, finds."""
    return F.pad(weight, (0, 0, 0, 1, 0, 1))


def _take(framed: Tensor, lines: list[Tensor]) -> Tensor:
    return framed[lines[0][:, None], lines[1]]
