"""Change the weights of a residual network, but not its function.

A thief can permute, rescale, add and fold channels at no cost in accuracy, and each of
these moves or resizes the kernels that a signature is read from.

A state dict goes in, another of the same dtypes comes out; the first is left alone.
Each function raises ValueError for what is no ResNet of `lottolab.nets.resnets`.
"""

import math
import re
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.checks import require
from lottolab.ownership.channels.naming import (
    NORM,
    State,
    blocks,
    convolutions,
    groups,
    norm_of,
    vectors,
)

EPS = 1e-5  # of torch's batch norm; a state dict does not hold it


def permute(
    state: State, seed: int, *, hidden: bool = True, stream: bool = True
) -> State:
    """Reorder the channels of every group, or only of the hidden or stream ones."""
    generator = torch.Generator().manual_seed(seed)
    orders = {
        group.name: torch.randperm(group.size, generator=generator)
        for group in groups(state)
        if (hidden if group.hidden else stream)
    }
    return reorder(state, orders)


def reorder(state: State, orders: dict[str, Tensor]) -> State:
    """Give each group that is named a new order: number i was number `orders[i]`.

    The inverse has the orders' `argsort`.

    Raises ValueError for a group that the network does not have, or no permutation.
    """
    known = {group.name: group for group in groups(state)}
    result = dict(state)
    for name, order in orders.items():
        require(name in known, f"groups must be of {', '.join(known)}", name)
        every = torch.arange(known[name].size)
        fits = torch.equal(order.sort().values, every)
        require(fits, f"the order of {name} must be a permutation", order.tolist())
        for place in known[name].places:
            old = result[place.tensor]
            index = torch.arange(old.shape[place.axis])
            index[place.at] = place.at[order]
            result[place.tensor] = old.index_select(place.axis, index)
    return result


def rescale_outputs(
    state: State, seed: int, spread: float = 10.0, size: float = 1.0
) -> State:
    """Multiply the rows of every convolution; the batch norm after it undoes that.

    Factors are `size` × log-uniform in [1/spread, spread]. Variance that is scaled
    while its epsilon is not would show, so gamma makes up for it.

    Raises ValueError for spread < 1, size <= 0 or a folded network, which has nothing
    to undo it.
    """
    require(0 < size < math.inf, "size must be finite and > 0", size)
    draw = _factors(spread, seed)
    groups(state)
    _require_norms(state)
    result = dict(state)
    for conv in convolutions(state):
        weight, (gamma, _, mean, var) = _with_norm(state, conv)
        factor = size * draw(len(weight))
        scaled = var * factor**2
        norm = norm_of(conv)
        changed = {
            f"{conv}.weight": weight * factor.view(-1, 1, 1, 1),
            f"{norm}.weight": gamma * ((scaled + EPS) / (var + EPS)).sqrt() / factor,
            f"{norm}.running_mean": mean * factor,
            f"{norm}.running_var": scaled,
        }
        result |= _as_before(changed, state)
    return result


def rescale_channels(state: State, seed: int, spread: float = 10.0) -> State:
    """Multiply every channel where it is written and divide it where it is read.

    ReLU, pooling and zero padding commute with a positive factor. Factors are
    log-uniform in [1/spread, spread]. Raises ValueError for spread < 1.
    """
    draw = _factors(spread, seed)
    result = dict(state)
    for group in groups(state):
        factor = draw(group.size)
        for place in group.places:
            tensor = result[place.tensor].double()
            layer, _, part = place.tensor.rpartition(".")
            scale = torch.ones(tensor.shape[place.axis], dtype=torch.float64)
            if place.axis == 1:
                scale[place.at] = 1 / factor
            elif part in NORM[:2] and (tensor.ndim == 1 or f"{layer}.bias" in state):
                scale[place.at] = factor
            shape = [-1 if i == place.axis else 1 for i in range(tensor.ndim)]
            changed = {place.tensor: tensor * scale.view(shape)}
            result |= _as_before(changed, state)
    return result


def widen(state: State, extra: int, seed: int) -> State:
    """Add `extra` dummy channels between the convolutions of every block.

    They come in pairs with the same input and opposite output, so that they look alive
    but add nothing. Weights are those of living channels in the block, shuffled and
    with 10 % of noise; batch norm is that of the same channels, with noise. Dummies
    stand at random positions, real channels keep their order.

    Raises ValueError unless `extra` is even and at least 2.
    """
    pairs = isinstance(extra, int) and extra >= 2 and extra % 2 == 0
    require(pairs, "extra must be even and at least 2", extra)
    generator = torch.Generator().manual_seed(seed)
    groups(state)
    result = dict(state)
    for block in blocks(state):
        written, read = f"{block}.conv1.weight", f"{block}.conv2.weight"
        count = len(state[written])
        out = state[read].transpose(0, 1)
        alive = state[written].flatten(1).any(1) & out.flatten(1).any(1)
        living = alive.nonzero().flatten() if alive.any() else torch.arange(count)
        chosen = torch.randint(len(living), (extra // 2,), generator=generator)
        donors = living[chosen]
        slots = torch.randperm(count + extra, generator=generator)
        order = torch.empty_like(slots)
        order[slots[extra:].sort().values] = torch.arange(count)
        order[slots[:extra]] = torch.arange(count, count + extra)
        for name in (written, *vectors(state, f"{block}.conv1")):
            dummies = _like(state[name][donors], generator).repeat_interleave(2, 0)
            result[name] = torch.cat([state[name], dummies])[order]
        dummies = _like(out[donors], generator).repeat_interleave(2, 0)
        dummies[1::2] *= -1
        widened = torch.cat([out, dummies])[order].transpose(0, 1)
        result[read] = widened.contiguous()
    return result


def fold(state: State) -> State:
    """Fold every batch norm into the convolution before it, which gets a bias.

    Raises ValueError for a network that is folded already.
    """
    groups(state)
    _require_norms(state)
    norms = tuple(f"{norm_of(conv)}." for conv in convolutions(state))
    result = {n: tensor for n, tensor in state.items() if not n.startswith(norms)}
    for conv in convolutions(state):
        weight, (gamma, beta, mean, var) = _with_norm(state, conv)
        factor = gamma / (var + EPS).sqrt()
        changed = {
            f"{conv}.weight": weight * factor.view(-1, 1, 1, 1),
            f"{conv}.bias": beta - mean * factor,
        }
        like = {f"{conv}.bias": state[f"{conv}.weight"]} | state
        result |= _as_before(changed, like)
    return result


@torch.no_grad()
def logits(state: State, images: Tensor, stem: str = "same") -> Tensor:
    """Evaluate a network in any of these forms, which no module may fit: N×classes.

    `images` float, N×C×H×W, normalised; `stem` as in `lottolab.nets.resnets`.

    Raises ValueError for blocks of three convolutions.
    """
    three = [block for block in blocks(state) if f"{block}.conv3.weight" in state]
    require(not three, "a block must have two convolutions to be evaluated", three[:1])

    def layer(conv: str, x: Tensor, stride: int = 1) -> Tensor:
        weight = state[f"{conv}.weight"]
        x = F.conv2d(x, weight, state.get(f"{conv}.bias"), stride, weight.shape[2] // 2)
        if f"{conv}.bias" in state:
            return x
        gamma, beta, mean, var = (state[name] for name in vectors(state, conv))
        return F.batch_norm(x, mean, var, gamma, beta, eps=EPS)

    x = F.relu(layer("conv1", images, stride=1 if stem == "same" else 2))
    if stem == "imagenet":
        x = F.max_pool2d(x, 3, 2, 1)
    for block in blocks(state):
        stride = 2 if re.fullmatch(r"layer(?!1\.)\d+\.0", block) else 1
        out = F.relu(layer(f"{block}.conv1", x, stride))
        out = layer(f"{block}.conv2", out)
        if f"{block}.downsample.0.weight" in state:
            x = layer(f"{block}.downsample.0", x, stride)
        else:
            more = out.shape[1] - x.shape[1]
            padding = (0, 0, 0, 0, more // 2, more - more // 2)
            x = F.pad(x[:, :, ::stride, ::stride], padding)
        x = F.relu(out + x)
    return F.linear(x.mean((2, 3)), state["fc.weight"], state["fc.bias"])


def _require_norms(state: State) -> None:
    folded = [conv for conv in convolutions(state) if f"{conv}.bias" in state]
    require(not folded, "the network must have batch norm", f"{folded} folded")


def _with_norm(state: State, conv: str) -> tuple[Tensor, list[Tensor]]:
    """Return a convolution's weight and the vectors of its batch norm, float64."""
    norm = [state[name].double() for name in vectors(state, conv)]
    return state[f"{conv}.weight"].double(), norm


def _as_before(changed: State, state: State) -> State:
    """Give each tensor the dtype that it has in `state`."""
    return {name: tensor.to(state[name].dtype) for name, tensor in changed.items()}


def _factors(spread: float, seed: int) -> Callable[[int], Tensor]:
    """Return a function that draws n log-uniform factors in [1/spread, spread]."""
    require(1 <= spread < math.inf, "spread must be finite and at least 1", spread)
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> Tensor:
        share = torch.rand(count, generator=generator, dtype=torch.float64)
        return spread ** (2 * share - 1)

    return draw


def _like(donors: Tensor, generator: torch.Generator) -> Tensor:
    """Shuffle the weights within each donor and change their sizes by up to 10 %."""
    flat = donors.flatten(1) if donors.ndim > 1 else donors[:, None]
    order = torch.rand(flat.shape, generator=generator).argsort(1)
    noise = 0.9 + 0.2 * torch.rand(flat.shape, generator=generator)
    return (flat.gather(1, order) * noise).view_as(donors)
