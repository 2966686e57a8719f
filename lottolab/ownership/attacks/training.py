"""Train a stolen network on: under the mask that it has, or under none.

The paper's thief keeps the owner's zeros, as if he had to; then the text cannot be
lost. Nothing forces him: without a mask every weight grows, and what is small again may
be pruned away afterwards, in places that are the thief's and not the owner's.
"""

import copy
from dataclasses import replace

from torch import Tensor, nn

from lottolab.checks import one_of, require, within
from lottolab.nets import masks as masking
from lottolab.nets import train
from lottolab.ownership.attacks import removal
from lottolab.ownership.channels.naming import State

MASKS = ("kept", "dropped")


def recipe(peak: train.Recipe, epochs: int, share: float = 0.2) -> train.Recipe:
    """Return the thief's recipe: a cosine from a `share` of the owner's peak rate on.

    Raises:
        ValueError: share outside (0, 1], or fewer than one epoch.
    """
    within("share", share, "(0, 1]")
    options = {"epochs": epochs, "lr": peak.lr * share, "schedule": "cosine"}
    return replace(peak, **options, warmup=min(peak.warmup, epochs))


def resized(model: nn.Module, state: State) -> nn.Module:
    """Return the model with the tensors of a state dict, of whatever shapes.

    A thief who split or added hidden channels trains what he then has. What computes
    with a module's weights alone, as convolutions, batch norms and linear layers do,
    needs no other change. `model` stays as it is.

    Raises:
        ValueError: the state dict has other names than the model's.
    """
    wide = copy.deepcopy(model)
    other = sorted(wide.state_dict().keys() ^ state.keys())
    require(not other, "the state dict must have the model's names", other[:3])
    for name, tensor in state.items():
        place, _, part = name.rpartition(".")
        module, new = wide.get_submodule(place), tensor.clone()
        kept = isinstance(getattr(module, part), nn.Parameter)
        setattr(module, part, nn.Parameter(new) if kept else new)
    return wide


def fine_tune(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: train.Recipe,
    *,
    seed: int,
    mask: str = "dropped",
    density: float | None = None,
    mean_std: tuple[Tensor, Tensor] | None = None,
    loss: train.Loss = train.cross_entropy,
) -> State:
    """Return the weights after the thief's training; `model` stays as it is.

    Args:
        images, labels: the thief's own, as in `train.fit`.
        mask: `kept`, the zeros stay; `dropped`, all weights are trained.
        density: share of the prunable weights that is kept afterwards, the largest of
            all layers together; all if None.
        mean_std: of the images that the network was trained on; the thief's if None.

    Raises:
        ValueError: as `train.fit`; another mask, a density outside (0, 1], or one after
            a mask that keeps fewer weights already.
    """
    one_of("mask", mask, MASKS)
    stolen = copy.deepcopy(model)
    names = masking.prunable(stolen)
    worn = removal.sparsity(stolen.state_dict(), names)
    left = masking.density(worn) if mask == "kept" else 1.0
    if density is not None:
        within("density", density, "(0, 1]")
        least = f"density must be at most {left:.4f}, what the mask keeps"
        require(density <= left, least, density)
    options = {"mean_std": mean_std, "loss": loss, "seed": seed}
    kept = worn if mask == "kept" else None
    train.fit(stolen, images, labels, recipe, masks=kept, **options)
    state = {k: v.detach().cpu().clone() for k, v in stolen.state_dict().items()}
    if density is None:
        return state
    every = {name: tensor.cpu() | (kept is None) for name, tensor in worn.items()}
    masks = masking.magnitude(state, every, min(max(1 - density / left, 0), 0.999999))
    return state | {name: state[name] * mask for name, mask in masks.items()}
