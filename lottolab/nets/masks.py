"""Masks of sparse networks: which weights are kept.

A mask set is `dict[str, BoolTensor]` keyed by state-dict name, True = kept. Names that
are not in it are dense. Every function takes layers in the order of their names, not
of the dictionary, because a file gives them back in another order.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from lottolab.checks import check_seed, one_of, require, within
from lottolab.checks.tensors import described, tensor

Masks = dict[str, Tensor]


def prunable(model: nn.Module, first: bool = False, last: bool = False) -> list[str]:
    """List the weights of Conv2d and Linear layers, in the model's order.

    The first convolution is left out unless `first`, the last Linear (the classifier)
    unless `last`: they are few weights and costly to lose.

    >>> prunable(nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)))
    ['0.weight']
    """
    named = list(model.named_modules())
    convs = [name for name, module in named if isinstance(module, nn.Conv2d)]
    linears = [name for name, module in named if isinstance(module, nn.Linear)]
    left_out = set(convs[:1] if not first else []) | set(
        linears[-1:] if not last else []
    )
    kept = {*convs, *linears} - left_out
    return [f"{name}.weight".removeprefix(".") for name, _ in named if name in kept]


def dense(model: nn.Module, first: bool = False, last: bool = False) -> Masks:
    """Keep every weight of `prunable`; masks on the weights' device."""
    state = model.state_dict()
    names = prunable(model, first, last)
    return {name: torch.ones_like(state[name], dtype=torch.bool) for name in names}


def sizes(masks: Masks) -> dict[str, tuple[int, int]]:
    """Count the kept and all weights of each layer."""
    return {name: (int(mask.sum()), mask.numel()) for name, mask in masks.items()}


def density(masks: Masks) -> float:
    """Divide the kept weights by all weights under masks; in [0, 1].

    Raises ValueError for no masks.

    >>> density({"a": torch.tensor([True, False, False, False])})
    0.25
    """
    _check_bool(masks)
    kept, total = (
        map(sum, zip(*sizes(masks).values(), strict=True)) if masks else (0, 0)
    )
    require(total > 0, "masks must hold at least one weight", total)
    return kept / total


def magnitude(
    weights: dict[str, Tensor], masks: Masks, rate: float, scope: str = "global"
) -> Masks:
    """Remove the smallest |w| of the kept weights (Han et al., 2015).

    `weights` float tensors by name; others than `masks` names are ignored. Of the kept
    weights exactly round(rate × kept) go: of all layers together ("global") or of each
    layer ("layer"). Among equals the earlier name and position goes first. What is
    pruned stays pruned.

    Raises ValueError for a rate outside [0, 1), another scope, or what `check` refuses.

    >>> w = {"a": torch.tensor([3.0, -1.0, 2.0, -4.0])}
    >>> magnitude(w, {"a": torch.ones(4, dtype=torch.bool)}, 0.5)
    {'a': tensor([ True, False, False,  True])}
    """
    _check_bool(masks)
    _check_weights(weights)
    size = {name: w.detach().abs() for name, w in weights.items() if name in masks}
    return by_score(size, masks, rate, scope)


def by_score(
    scores: dict[str, Tensor], masks: Masks, rate: float, scope: str = "global"
) -> Masks:
    """Remove the lowest scores of the kept weights; all else is as in `magnitude`.

    `scores` float tensors by name, of either sign, the shapes those of the masks.

    Raises ValueError as `magnitude` does.

    >>> s = {"a": torch.tensor([3.0, -1.0, 2.0, -4.0])}
    >>> by_score(s, {"a": torch.ones(4, dtype=torch.bool)}, 0.5)
    {'a': tensor([ True, False,  True, False])}
    """
    check(masks, scores)

    def lowest(names: list[str], count: int) -> Tensor:
        kept = [scores[n].detach().to(masks[n].device)[masks[n]] for n in names]
        return torch.cat(kept).sort(stable=True).indices[:count]

    return _remove(masks, rate, scope, lowest)


def random(masks: Masks, rate: float, seed: int, scope: str = "global") -> Masks:
    """Remove random weights: exactly round(rate × kept), as `magnitude` counts them.

    Raises ValueError for a rate outside [0, 1) or another scope.
    """
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)

    def drawn(names: list[str], count: int) -> Tensor:
        total = sum(int(masks[name].sum()) for name in names)
        return torch.randperm(total, generator=generator)[:count]

    return _remove(masks, rate, scope, drawn)


def _remove(
    masks: Masks, rate: float, scope: str, choose: Callable[[list[str], int], Tensor]
) -> Masks:
    """Remove what `choose(names, count)` points at among the kept weights in a row."""
    within("rate", rate, "[0, 1)")
    one_of("scope", scope, ("global", "layer"))
    _check_bool(masks)
    result = {name: mask.clone() for name, mask in masks.items()}
    names = sorted(masks)
    for group in [names] if scope == "global" else [[name] for name in names]:
        kept = [int(masks[name].sum()) for name in group]
        left = torch.ones(sum(kept), dtype=torch.bool)
        left[choose(group, round(rate * sum(kept))).cpu()] = False
        for name, part in zip(group, left.split(kept), strict=True):
            result[name][masks[name]] = part.to(result[name].device)
    return result


def shuffled(masks: Masks, seed: int) -> Masks:
    """Place each layer's kept weights at random: the control with the same densities.

    What a mask does beyond its layer-wise densities, this one does not do.
    """
    _check_bool(masks)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    result = dict(masks)
    for name in sorted(masks):
        mask = masks[name]
        order = torch.randperm(mask.numel(), generator=generator).to(mask.device)
        result[name] = mask.flatten()[order].view(mask.shape)
    return result


def apply_(model: nn.Module, masks: Masks) -> None:
    """Set the pruned weights of a model to zero, in place.

    Raises ValueError for masks that do not fit the model.
    """
    state = model.state_dict()
    _check_fit(masks, state)
    for name, mask in masks.items():
        # Filled, not multiplied: a pruned weight that is not finite must go too.
        state[name].masked_fill_(~mask.to(state[name].device), 0)


def check(masks: Masks, weights: dict[str, Tensor]) -> None:
    """Raise ValueError unless the masks are bool, fit the weights, and none is NaN."""
    _check_fit(masks, weights)
    for name in masks:
        require(
            weights[name].is_floating_point(),
            f"weights of {name} must be floating-point numbers",
            weights[name].dtype,
        )
        count = int(weights[name].isnan().sum())
        require(not count, f"weights of {name} must be numbers", f"{count} NaN")


def _check_bool(masks: Masks) -> None:
    require(isinstance(masks, dict), "masks must be by name", described(masks))
    for name, mask in masks.items():
        tensor(f"mask {name}", mask)
        require(mask.dtype == torch.bool, f"mask {name} must be torch.bool", mask.dtype)


def _check_weights(weights: dict[str, Tensor]) -> None:
    right = isinstance(weights, dict)
    require(right, "weights must be tensors by name", described(weights))
    for name, weight in weights.items():
        tensor(f"weights {name}", weight)


def _check_fit(masks: Masks, weights: dict[str, Tensor]) -> None:
    _check_bool(masks)
    _check_weights(weights)
    for name, mask in masks.items():
        one_of("mask name", name, weights)
        given, shape = list(mask.shape), list(weights[name].shape)
        require(given == shape, f"mask {name} must have the shape {shape}", given)
