"""Prune while training, by ADMM: the solver of MIA-Pruning (section 4.1, Algorithm 1).

Minimise the loss subject to card(W_i) <= n_i in each layer i (Equation 2), as Zhang et
al. (2018) do, "A systematic DNN weight pruning framework using ADMM". What the paper
"modified" is in an appendix that is not public, so this is theirs, its penalty squared.

Counts are `dict[str, int]`: the n_i by state-dict name. Names not in it are dense.
"""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch import Tensor, nn

from lottolab.checks import one_of, require, within
from lottolab.nets import train
from lottolab.nets.masks import Masks

Weights = dict[str, Tensor]
Counts = dict[str, int]
RECORD = ["rho", "penalty", "primal", "moved"]
RETRAINING = 1_000_000  # is added to the seed: retraining shows other batches


def cardinalities(layers: Weights, rate: float | Counts) -> Counts:
    """Return how many weights each layer may keep.

    `layers` are weights or masks, of which only the sizes count. A rate is the share
    to remove of each layer, rounded as in `masks.magnitude`; counts are checked.

    Raises ValueError for a rate outside [0, 1), or counts that are not whole numbers
    in [0, size of the layer], name an unknown layer or none.

    >>> cardinalities({"a": torch.ones(4, 5), "b": torch.ones(7)}, 0.9)
    {'a': 2, 'b': 1}
    """
    if isinstance(rate, dict):
        _check(rate, layers)
        return dict(rate)
    within("rate", rate, "[0, 1)")
    sizes = {name: layer.numel() for name, layer in layers.items()}
    return {name: size - round(rate * size) for name, size in sizes.items()}


def support(weights: Weights, counts: Counts) -> Masks:
    """Mark the n_i largest |w| of each layer; exactly n_i are True.

    Among equals the earlier position goes first, as in `masks.magnitude`.

    Raises ValueError for NaN and for the counts that `cardinalities` refuses.
    """
    _check(counts, weights)
    masks = {}
    for name, count in counts.items():
        size = weights[name].detach().abs().flatten()
        odd = int(size.isnan().sum())
        require(not odd, f"weights of {name} must be numbers; lower lr", f"{odd} NaN")
        kept = torch.zeros_like(size, dtype=torch.bool)
        kept[size.sort(stable=True).indices[len(size) - count :]] = True
        masks[name] = kept.view(weights[name].shape)
    return masks


def project(weights: Weights, counts: Counts) -> Weights:
    """Return the nearest weights, in Euclidean distance, with card(W_i) <= n_i.

    The rest of each layer becomes 0; layers without a count come back as they are.

    Raises ValueError as `support` does.

    >>> project({"a": torch.tensor([3.0, -1.0, 2.0, -4.0])}, {"a": 2})
    {'a': tensor([ 3.,  0.,  0., -4.])}
    """
    masks = support(weights, counts)
    near = {n: weights[n].detach().masked_fill(~m, 0) for n, m in masks.items()}
    return weights | near


def update(
    weights: Weights, dual: Weights, counts: Counts, growth: float = 1.0
) -> tuple[Weights, Weights]:
    """Return Z = project(W + U) and U + W − Z: an iteration's step after that in W.

    `dual` is U, the multipliers divided by ρ. Where the next ρ is `growth` times this
    one, U is divided by it. Raises ValueError as `support` does.
    """
    moved = {name: weights[name].detach() + dual[name] for name in counts}
    z = project(moved, counts)
    return z, {name: (moved[name] - z[name]) / growth for name in counts}


def penalty(weights: Weights, z: Weights, dual: Weights, rho: float | Tensor) -> Tensor:
    """Return Σ_i ρ/2 ‖W_i − Z_i + U_i‖², what the step in W adds to the loss."""
    parts = [(weights[n] - z[n] + dual[n]).square().sum() for n in z]
    return rho / 2 * torch.stack(parts).sum()


def schedule(rho: float | Sequence[float], epochs: int) -> list[float]:
    """Return ρ of each epoch: constant, or from the first of two to the last.

    A large ρ holds ADMM to the support that it starts from, a small one does not let
    it settle. One that grows, by the same factor each epoch, does first the one and
    then the other (varying penalty: Boyd et al., 2011, section 3.4.1).

    Raises ValueError for one ρ that is < 0 or two that are not > 0, or not finite.

    >>> schedule([0.01, 1.0], 3)
    [0.01, 0.1, 1.0]
    """
    if isinstance(rho, Sequence):
        right = len(rho) == 2 and all(0 < value < math.inf for value in rho)
        require(right, "rho must be a number or two, both > 0 and finite", rho)
        return np.geomspace(*rho, epochs).tolist()
    within("rho", rho, "[0, inf)")
    return [float(rho)] * epochs


def admm_prune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: train.Recipe,
    counts: Counts,
    *,
    rho: float | Sequence[float],
    retrain: train.Recipe,
    seed: int,
    loss: train.Loss = train.cross_entropy,
    after_step: Callable[[nn.Module, int], None] | None = None,
    checkpoint: Path | None = None,
    **options,
) -> tuple[Masks, pd.DataFrame]:
    """Prune a trained `model` in place, and retrain what is left.

    Each epoch of `recipe` takes SGD steps on loss + `penalty`, then one `update`. The
    first Z is the projection of the trained weights, the first U is 0. Then all but
    the n_i largest weights of each layer are cut, and the rest is trained by
    `retrain`. A killed run goes on at its last whole epoch, with the same bits.

    Args:
        images, labels, loss, after_step: as for `train.fit`, in both trainings.
        rho: one ρ >= 0, or the first and the last, see `schedule`. At 0 nothing draws
            the weights towards Z; where ρ × lr × steps an epoch / (1 − momentum) is
            not well above 1, W cannot follow Z, and the two swing.
        seed: of order and augmentation. Retraining draws others of its own; so does
            this, if it is not the seed that the model was trained with.
        checkpoint: folder for both trainings; the running stage's if None.
        options: `parameters`, `mean_std`, `device` and `precision` of `train.fit`.

    Returns:
        The masks, bool on the CPU with exactly n_i True; and the history: `phase`
        ("admm" or "retrain"), `epoch`, `loss` (with the penalty), `lr`; and of ADMM,
        else NaN, `rho`, `penalty` (the epoch's mean), and after the update `primal`,
        ‖W − Z‖ over all layers, and `moved`, how far Z went. Where both are 0 it has
        converged.

    Raises:
        ValueError: counts as `cardinalities` refuses, ρ out of range, or `train.fit`'s.
    """
    _check(counts, dict(model.named_parameters()))
    split = _Split(model, counts, schedule(rho, recipe.epochs))
    steps = len(images) // recipe.batch

    def penalised(split, x, y, index):
        return loss(split.network, x, y, index) + split.penalty()

    def stepped(split, step):
        if after_step:
            after_step(split.network, step)
        if (step + 1) % steps == 0:
            split.update(step // steps, steps)

    hooks = {"loss": penalised, "after_step": stepped}
    options["checkpoint"] = _folder(checkpoint, "admm")
    pruned = train.fit(split, images, labels, recipe, seed=seed, **hooks, **options)
    masks = {n: m.cpu() for n, m in support(split.weights(), counts).items()}
    hooks = {"loss": loss, "after_step": after_step, "masks": masks}
    options["checkpoint"] = _folder(checkpoint, "retrain")
    seed += RETRAINING
    final = train.fit(model, images, labels, retrain, seed=seed, **hooks, **options)
    record = pd.DataFrame(split.record.tolist(), columns=RECORD)
    history = {"admm": pruned.history.join(record), "retrain": final.history}
    return masks, pd.concat(history, names=["phase"]).reset_index("phase")


class _Split(nn.Module):
    """Hold a network with Z, U and ρ, as buffers, so that a checkpoint keeps them."""

    def __init__(self, network: nn.Module, counts: Counts, rhos: list[float]) -> None:
        super().__init__()
        self.network, self.rhos, self.total = network, rhos, 0.0
        self.counts = dict(sorted(counts.items()))  # a file may change their order
        z = project(self.weights(), counts)
        for place, name in enumerate(self.counts):
            self.register_buffer(f"z{place}", z[name])
            self.register_buffer(f"u{place}", torch.zeros_like(z[name]))
        self.register_buffer("rho", torch.tensor(rhos[0]))
        self.register_buffer("record", torch.zeros(len(rhos), len(RECORD)))

    def weights(self) -> Weights:
        found = dict(self.network.named_parameters())
        return {name: found[name] for name in self.counts}

    def held(self, letter: str) -> Weights:
        return {n: getattr(self, f"{letter}{p}") for p, n in enumerate(self.counts)}

    def penalty(self) -> Tensor:
        value = penalty(self.weights(), self.held("z"), self.held("u"), self.rho)
        self.total = self.total + value.detach()
        return value

    @torch.no_grad()
    def update(self, epoch: int, steps: int) -> None:
        following = self.rhos[min(epoch + 1, len(self.rhos) - 1)]
        growth = following / self.rhos[epoch] if following else 1.0
        weights, before = self.weights(), self.held("z")
        z, u = update(weights, self.held("u"), self.counts, growth)
        went = [_distance(weights, z), _distance(z, before)]
        self.record[epoch] = torch.stack([self.rho, self.total / steps, *went])
        self.rho.fill_(following)
        self.total = 0.0
        for name in self.counts:
            self.held("z")[name].copy_(z[name])
            self.held("u")[name].copy_(u[name])


def _distance(a: Weights, b: Weights) -> Tensor:
    return torch.stack([(a[n] - b[n]).square().sum() for n in b]).sum().sqrt()


def _folder(checkpoint: Path | None, name: str) -> Path | None:
    folder = checkpoint and Path(checkpoint) / name
    if folder:
        folder.mkdir(parents=True, exist_ok=True)
    return folder


def _check(counts: Counts, layers: Weights) -> None:
    require(len(counts) > 0, "counts must name at least one layer", counts)
    for name, count in counts.items():
        one_of("layer", name, layers)
        size = layers[name].numel()
        right = type(count) is int and 0 <= count <= size
        what = f"n_i of {name} must be a whole number in [0, {size}]"
        require(right, what, repr(count))
