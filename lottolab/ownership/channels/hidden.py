"""Name the hidden channels of a network, and say what each of them computes.

A hidden channel is written by one layer and read by the next, and by nothing else, so
that whoever owns the weights may add, copy and remove such channels. The groups have
the form of `matching.Groups`, with the biases and batch norms that `matching` does not
need and whoever rebuilds a network does.
"""

import re

import torch
from torch import Tensor

from lottolab.checks import one_of, require
from lottolab.ownership.channels import naming
from lottolab.ownership.channels.matching import Groups, chain, natural
from lottolab.ownership.channels.naming import NORM, State, norm_of

EPS = 1e-5  # of torch's batch norm; a state dict does not hold it
Places = dict[str, int]  # the tensors of one group, and their axes


def hidden(state: State) -> Groups:
    """List the hidden channels of a ResNet, ours or torchvision's, or of a chain.

    Of what is neither, the owner or the thief writes the groups down: each tensor that
    holds the channels, vectors included, and its axis.

    Raises ValueError for a network that is neither.
    """
    if _residual(state):
        found = naming.groups(naming.residual(state))
        inner = [group for group in found if group.hidden]
        return {g.name: {p.tensor: p.axis for p in g.places} for g in inner}
    groups = chain(state)
    return {
        name: places | dict.fromkeys(_vectors(state, name), 0)
        for name, places in groups.items()
    }


def rectified(state: State) -> Groups:
    """List the hidden channels whose layer reads what ReLU gave, so nothing negative.

    Those of a ResNet do; of a chain all do but the first, which the image comes to.

    Raises ValueError as `hidden`.
    """
    groups = hidden(state)
    return groups if _residual(state) else dict(list(groups.items())[1:])


def writer(state: State, places: Places) -> str:
    """Name the one layer that writes a group, without `.weight`.

    Raises ValueError for a group that two weights write, as a depthwise convolution.
    """
    found = [n for n, axis in places.items() if axis == 0 and state[n].ndim > 1]
    require(len(found) == 1, "a group must be written by one weight", found)
    return found[0].removesuffix(".weight")


def count(state: State, places: Places) -> int:
    """Return how many channels a group has, and refuse what holds other numbers.

    An axis that is read may be a multiple of it, as after an image is flattened.

    Raises ValueError for tensors that are not there or do not fit, no row or no column.
    """
    for name, axis in places.items():
        one_of("a tensor of a group", name, state)
        inside = axis in (0, 1) and axis < state[name].ndim
        require(inside, f"an axis of {name} must be 0 (written) or 1 (read)", axis)
    rows = {name: len(state[name]) for name, axis in places.items() if axis == 0}
    both = any(state[n].ndim > 1 for n in rows) and len(rows) < len(places)
    require(both, "a group must have a weight that writes and one that reads", places)
    size = min(rows.values())
    require(len(set(rows.values())) == 1, f"a group's rows must be {size}", rows)
    for name in places.keys() - rows.keys():
        fits = state[name].shape[1] % size == 0
        require(fits, f"the columns of {name} must be a multiple of {size}", "others")
    return size


def columns(weight: Tensor, size: int) -> Tensor:
    """View a weight's columns as float64, channels × all else: outputs, places."""
    front = weight.double().movedim(1, 0)
    return front.reshape(size, front.shape[0] // size, -1).flatten(1)


def with_columns(flat: Tensor, like: Tensor, size: int) -> Tensor:
    """Undo `columns`: `flat` has other channels than the `size` of `like`."""
    shape = list(like.movedim(1, 0).shape)
    shape[0] = shape[0] // size * len(flat)
    return flat.reshape(shape).movedim(0, 1).contiguous().to(like.dtype)


def incoming(state: State, places: Places) -> Tensor:
    """Describe what each channel computes before ReLU: float64 n × (inputs + 1).

    The weights and the constant of the affine map that layer and batch norm are
    together. Two channels of proportional rows, by a positive factor, have proportional
    values. Of a group that two weights write, as with a depthwise convolution, all that
    is written stands there as it is.
    """
    written = {n: state[n].double() for n, axis in places.items() if axis == 0}
    weights = [n for n, tensor in written.items() if tensor.ndim > 1]
    if len(weights) > 1:
        return torch.cat([w.reshape(len(w), -1) for w in written.values()], 1)
    norm = norm_in(places)
    row = written[weights[0]].flatten(1)
    bias = written.get(f"{weights[0].removesuffix('.weight')}.bias")
    shift = torch.zeros(len(row)).double() if bias is None else bias
    if norm:
        gamma, beta, mean, var = (written[f"{norm}.{part}"] for part in NORM)
        factor = gamma / (var + EPS).sqrt()
        row, shift = row * factor[:, None], beta + factor * (shift - mean)
    return torch.cat([row, shift[:, None]], 1)


def norm_in(places: Places) -> str | None:
    """Name the batch norm of a group, the last of several; None if it has none.

    Raises ValueError for one of which the group does not have all vectors.
    """
    found = [n.removesuffix(".running_var") for n in places if n.endswith(NORM[3])]
    for norm in found:
        lacks = [part for part in NORM if f"{norm}.{part}" not in places]
        require(not lacks, f"a group must have all of {norm}", f"no {lacks}")
    return found[-1] if found else None


def _residual(state: State) -> bool:
    return any(re.match(r"layer\d+\.\d+\.conv1\.weight", name) for name in state)


def _vectors(state: State, layer: str) -> list[str]:
    """Name the vectors of a layer's rows: its bias, and the batch norm after it.

    The batch norm has the layer's name with other letters, or the next name in order.
    """
    stem = layer.removesuffix(".weight")
    norms = [
        f"{n.removesuffix('.running_var')}.weight" for n in state if n.endswith(NORM[3])
    ]
    layers = [n for n in state if state[n].ndim > 1]
    later = [n for n in [*norms, *layers] if natural(n) > natural(layer)]
    following = min(later, key=natural, default=layer)
    own = f"{norm_of(stem)}.weight"
    chosen = own if own in norms else following
    names = [f"{stem}.bias"]
    if chosen in norms:
        names += [f"{chosen.removesuffix('.weight')}.{part}" for part in NORM]
    size = len(state[layer])
    return [n for n in names if n in state and state[n].shape == (size,)]
