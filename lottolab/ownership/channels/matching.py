"""Bring any network's channels into a reference's order, by groups that are named.

`alignment` knows the ResNets of `lottolab`. For others the owner says which axes of
which tensors are reordered together, in a YAML or JSON file, a mapping a group:

    first: {conv1.weight: 0, conv2.weight: 1}
    second: {conv2.weight: 0, fc.weight: 1}

An axis may be a multiple of the group's size: each channel then has as many places in a
row, as where an image is flattened before a linear layer. Biases and batch norms may be
named and are not needed. The method is `alignment.match`'s; a suspect may have more
channels in a group than the reference, of which those that are alike are taken.
"""

import itertools
import math
import re
from collections.abc import Collection
from pathlib import Path

import torch
import yaml
from torch import Tensor

from lottolab.checks import require
from lottolab.ownership.channels import alignment
from lottolab.ownership.channels.naming import State
from lottolab.ownership.channels.scales import additive
from lottolab.ownership.channels.views import (
    Groups,
    View,
    size,
    views_of,
    widened,
    width,
)


def read(path: str | Path) -> Groups:
    """Read groups from a YAML or JSON file.

    Raises ValueError for a file of another form.
    """
    try:
        found = yaml.safe_load(Path(path).read_text())
    except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is no YAML: {str(error).splitlines()[0]}") from error
    what = f"{path} must map each group to its TENSOR: AXIS pairs"
    require(isinstance(found, dict) and found != {}, what, repr(found)[:60])
    for name, places in found.items():
        right = isinstance(places, dict) and places != {}
        right = right and all(type(axis) is int for axis in places.values())
        require(right, what, f"{name}: {places!r}"[:60])
    return {str(name): dict(places) for name, places in found.items()}


def chain(state: State) -> Groups:
    """Name the groups of a plain chain of layers: convolutions, then linear ones.

    Layers follow each other in the order of their names, numbers by value. A tensor
    that fits no other, as one that is not used, is left out. Of a network that is no
    chain but whose shapes allow one, the groups come out too free: channels may then
    not be found, but no p-value gets wrong: they follow from the shapes alone.

    Raises ValueError where a layer does not take what the one before gives.
    """
    weights = [name for name, tensor in state.items() if tensor.ndim in (2, 3, 4)]
    weights.sort(key=lambda name: (state[name].ndim == 2, natural(name)))
    require(len(weights) > 1, "a chain must have two layers", f"{len(weights)}")

    def fits(above: str, below: str) -> bool:
        given, taken = len(state[above]), state[below].shape[1]
        flat = state[above].ndim > state[below].ndim
        return bool(given) and (taken % given == 0 if flat else taken == given)

    ends = [pair for pair in itertools.combinations(weights, 2) if fits(*pair)]
    joined = {name for pair in ends for name in pair}
    if len(joined) > 1:
        weights = [name for name in weights if name in joined]
    found = {}
    for above, below in itertools.pairwise(weights):
        given, taken = len(state[above]), state[below].shape[1]
        chained = f"{below} must take the {given} outputs of {above}, or the groups "
        right = fits(above, below)
        require(right, f"{chained}must be named in a file (--groups)", taken)
        found[above] = {above: 0, below: 1}
    return found


def align(
    state: State,
    reference: State,
    groups: Groups,
    *,
    restarts: int = 3,
    seed: int = 0,
    enough: float = math.inf,
    names: Collection[str] | None = None,
) -> State:
    """Return the suspect's weights in the reference's order and scale.

    All tensors of two and more axes; for comparing and reading signatures, since those
    of one axis, such as batch norm's, are left out. Signs that batch norm turns around
    stay as they are.

    An end of the network, a weight that is in one group alone, may be missing or have
    another shape, as a new classifier has: it is left out. Channels that the suspect
    has to spare are left out, too.

    Args:
        groups: as `read` or `chain` return them.
        restarts, seed, enough, names: as of `alignment.align`.

    Raises:
        ValueError: weights of the groups that are missing, not finite or not of the
            reference's shapes, or wider; groups that do not fit them.
    """
    require(restarts >= 1, "restarts must be at least 1", restarts)
    views = views_of(state, reference, groups)
    wide = widened(views, state, reference, groups)
    pairs, described = _compared(views, state, reference, groups)
    orders, _ = alignment._best(pairs, *described, restarts, seed, enough)
    result = {n: tensor for n, tensor in state.items() if tensor.ndim > 1}
    for name in {n for places in groups.values() for n in places} - set(views):
        result.pop(name, None)
    if names is not None:
        result = {name: tensor for name, tensor in result.items() if name in names}
    for name, view in ((n, view) for n, view in views.items() if n in result):
        lines = [torch.arange(view.rows), torch.arange(view.columns)]
        for group, places in groups.items():
            if name in places:
                lines[int(places[name] != view.row)] = orders[group]
        moved = wide[name].of(state[name])[lines[0][:, None], lines[1]]
        target = view.of(reference[name])
        alike = torch.minimum(_described(moved), described[1][name])
        alike = sum(alike.chunk(2, dim=2))
        ratios = (moved / target).abs().where(alike > 0, torch.ones(())).log()
        moved = moved / additive(ratios, alike, robust=True).exp()
        result[name] = view.back(moved, reference[name]).to(state[name].dtype)
    return result


def match(
    state: State, reference: State, groups: Groups, *, restarts: int = 3, seed: int = 0
) -> tuple[dict[str, Tensor], float]:
    """Find which channel of the suspect stands for each channel of the reference.

    Returns int64 indices for each group, and the likeness; see `alignment.match`, whose
    search this is. Raises ValueError as `align`.
    """
    require(restarts >= 1, "restarts must be at least 1", restarts)
    views = views_of(state, reference, groups)
    pairs, described = _compared(views, state, reference, groups)
    return alignment._best(pairs, *described, restarts, seed)


def _compared(
    views: dict[str, View], state: State, reference: State, groups: Groups
) -> tuple[dict[str, alignment._Pair], tuple[State, State]]:
    """Pair the groups of both networks, and describe the weights that both hold."""
    both = (widened(views, state, reference, groups), state), (views, reference)
    described = tuple(
        {name: _described(view.of(weights[name])) for name, view in seen.items()}
        for seen, weights in both
    )
    pairs = {}
    for group, places in groups.items():
        counts = width(state, reference, places), size(reference, places)
        theirs, ours = (torch.arange(count) for count in counts)
        there = [
            (name, int(axis != views[name].row), theirs, ours)
            for name, axis in places.items()
            if name in views
        ]
        pairs[group] = alignment._Pair(*counts, there)
    return pairs, described


def _described(weight: Tensor) -> Tensor:
    """Describe a weight as `alignment.features` does: rows × columns × (2 × rest)."""
    norms = weight.norm(dim=2, keepdim=True)
    alive = norms > 0
    logs = norms.where(alive, torch.ones(())).log()
    scaled = weight / additive(logs, alive).exp()
    return torch.cat([scaled.relu(), (-scaled).relu()], 2).sqrt()


def natural(name: str) -> list:
    """Return what sorts names with the numbers in them by value."""
    return [int(p) if p.isdigit() else p for p in re.split(r"(\d+)", name)]
