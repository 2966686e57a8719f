"""Prune a network before it is trained: SNIP, GraSP and SynFlow.

Each gives the weights of `masks.prunable` a score and keeps those with the highest,
with one threshold for all layers together: n − round(rate × n) of n weights. The
network is copied first, so that it comes back with every bit as it was, the running
statistics of its batch norms and its mode included.

A batch is `x`, float [B, C, H, W], normalised as for training (`batches.normalise`),
in the arithmetic of the weights and on their device, and `y`, int64 [B].
"""

import copy
import math
from collections.abc import Iterable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import one_of, require, within
from lottolab.jobs.steps import few
from lottolab.nets import masks as masking
from lottolab.nets.strided import subsampled

METHODS = ("snip", "grasp", "synflow")
Scores = dict[str, Tensor]


def prune(
    method: str, model: nn.Module, x: Tensor, y: Tensor, rate: float
) -> masking.Masks:
    """Return the masks of one of `METHODS`; SynFlow looks at the shape of `x` alone.

    Raises ValueError for another method, or what the method refuses.
    """
    one_of("method", method, METHODS)
    if method == "synflow":
        return synflow(model, tuple(x.shape[1:]), rate)
    return (snip if method == "snip" else grasp)(model, x, y, rate)


def snip(model: nn.Module, x: Tensor, y: Tensor, rate: float) -> masking.Masks:
    """Remove the weights with the lowest `connection_sensitivity`.

    Single-shot network pruning (Lee et al., 2019, algorithm 1).

    Raises ValueError for a rate outside [0, 1), a batch of another form, or a
    gradient that is not finite.
    """
    _check_rate(rate)
    return _keep(connection_sensitivity(model, x, y), rate)


def grasp(
    model: nn.Module, x: Tensor, y: Tensor, rate: float, temperature: float = 200.0
) -> masking.Masks:
    """Remove the weights with the lowest `gradient_flow`.

    Gradient signal preservation (Wang et al., 2020, algorithm 1).

    Raises ValueError as `snip` does, or for a temperature that is not positive.
    """
    _check_rate(rate)
    return _keep(gradient_flow(model, x, y, temperature), rate)


def synflow(
    model: nn.Module, shape: tuple[int, int, int], rate: float, rounds: int = 100
) -> masking.Masks:
    """Remove the weights with the lowest `synaptic_flow`, a few at a time; no data.

    Iterative synaptic flow pruning (Tanaka et al., 2020, algorithm 1): the scores are
    taken anew in each of `rounds` rounds, and after round k the density is
    (1 − rate)^(k / rounds). `shape` is an image's, (C, H, W).

    Where the flow is cut all the same (few rounds, a rate that leaves fewer weights
    than a path needs), all scores are 0 and weights go in the order of their names.

    Raises ValueError for a rate outside [0, 1), rounds below 1, another kind of shape,
    or a flow that is not finite.

    >>> network = nn.Sequential(nn.Flatten(), nn.Linear(4, 2), nn.Linear(2, 2))
    >>> masking.sizes(synflow(network, (1, 2, 2), 0.5))
    {'1.weight': (4, 8)}
    """
    _check_rate(rate)
    whole = type(rounds) is int and rounds >= 1
    require(whole, "rounds must be a whole number >= 1", rounds)
    network, masks = _positive(model, shape), masking.dense(model)
    # The last is not computed, because a rounding error there could cost a weight.
    shares = [1 - (1 - rate) ** (k / rounds) for k in range(1, rounds)] + [rate]
    for share in few(shares):
        flow = _flow(network, shape)
        # What is gone scores below all else, so that it goes first again.
        ranked = {n: s.masked_fill(~masks[n], -1) for n, s in flow.items()}
        masks = _keep(ranked, share)
        masking.apply_(network, masks)
    return masks


def connection_sensitivity(model: nn.Module, x: Tensor, y: Tensor) -> Scores:
    """Return |w · ∂L/∂w| of the mean cross-entropy L: how much L feels a weight's gate.

    For a factor c = 1 on a weight w, ∂L/∂c = w · ∂L/∂w (Lee et al., 2019, equation 6,
    without the common divisor, which changes no order). Batch norm uses the batch's
    own statistics.
    """
    _check_batch(x, y)
    network = subsampled(copy.deepcopy(model)).train().requires_grad_(True)
    weights = _weights(network, masking.prunable(model))
    gradients = torch.autograd.grad(F.cross_entropy(network(x), y), weights.values())
    return {n: s.abs() for n, s in _times(weights, gradients).items()}


def gradient_flow(
    model: nn.Module, x: Tensor, y: Tensor, temperature: float = 200.0
) -> Scores:
    """Return w · (Hg): half the squared gradient norm that goes with a weight.

    g and H are the gradient and the Hessian of the mean cross-entropy in the weights of
    all Conv2d and Linear layers. A step δ changes gᵀg by 2 δᵀHg + O(δ²), and a removal
    is the step −w. What is lowest here is highest in the paper's S(−θ) = −θᵀHg: without
    it the gradient norm grows most, or falls least (Wang et al., 2020, equation 8).
    Logits are divided by `temperature`, 200 there. Batch norm uses the batch's own
    statistics.
    """
    _check_batch(x, y)
    warm = 0 < temperature < math.inf
    require(warm, "temperature must be > 0 and finite", temperature)
    network = subsampled(copy.deepcopy(model)).train().requires_grad_(True)
    weights = _weights(network, masking.prunable(model, first=True, last=True))
    loss = F.cross_entropy(network(x) / temperature, y)
    gradients = torch.autograd.grad(loss, weights.values(), create_graph=True)
    # With one of its factors held fixed, the gradient of gᵀg is Hg.
    product = sum((g * g.detach()).sum() for g in gradients)
    scores = _times(weights, torch.autograd.grad(product, weights.values()))
    return {name: scores[name] for name in masking.prunable(model)}


def synaptic_flow(model: nn.Module, shape: tuple[int, int, int]) -> Scores:
    """Return |θ · ∂R/∂θ|, float64: how much of the flow R goes through a weight.

    R is the sum of the outputs for one image of ones, all parameters replaced by their
    absolute values (Tanaka et al., 2020, section 6). Float64, because R is a product
    over layers and overflows float32 in deep networks. Batch norm is in evaluation
    mode, as the authors advise: with the statistics of a new network it lets signals
    through almost as they are, where those of one image of ones would undo them.
    """
    return _flow(_positive(model, shape), shape)


def _positive(model: nn.Module, shape: tuple[int, int, int]) -> nn.Module:
    """Copy a model for `_flow`, and refuse another kind of shape before."""
    image = len(shape) == 3 and all(type(n) is int and n >= 1 for n in shape)
    require(image, "shape must be (C, H, W), whole numbers >= 1", shape)
    network = copy.deepcopy(model).double().eval().requires_grad_(True)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.abs_()
    return network


def _flow(network: nn.Module, shape: tuple[int, int, int]) -> Scores:
    weights = _weights(network, masking.prunable(network))
    some = next(network.parameters())
    through = network(some.new_ones(1, *shape)).sum()
    return _times(weights, torch.autograd.grad(through, weights.values()))


def _weights(network: nn.Module, names: list[str]) -> dict[str, Tensor]:
    return {name: network.get_parameter(name) for name in names}


def _times(weights: dict[str, Tensor], gradients: Iterable[Tensor]) -> Scores:
    """Multiply weights by their gradients, and refuse what is not finite."""
    pairs = zip(weights.items(), gradients, strict=True)
    scores = {name: (w * gradient).detach() for (name, w), gradient in pairs}
    for name, score in scores.items():
        count = int((~score.isfinite()).sum())
        what = f"gradient × weight of {name} must be finite"
        require(not count, what, f"{count} NaN or infinite")
    return scores


def _keep(scores: Scores, rate: float) -> masking.Masks:
    masks = {n: torch.ones_like(s, dtype=torch.bool) for n, s in scores.items()}
    return masking.by_score(scores, masks, rate)


def _check_rate(rate: float) -> None:
    within("rate", rate, "[0, 1)")


def _check_batch(x: Tensor, y: Tensor) -> None:
    require(
        x.is_floating_point() and x.ndim == 4 and len(x) >= 1,
        "x must be float [B, C, H, W] with B >= 1",
        f"{x.dtype} {list(x.shape)}",
    )
    require(
        y.dtype == torch.int64 and y.shape == (len(x),),
        f"y must be torch.int64 [{len(x)}]",
        f"{y.dtype} {list(y.shape)}",
    )
