"""Tickets that were found on images of nobody, with and without the network's own."""

import torch
from torch import Tensor

from lottolab import runs
from lottolab.checks import require
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train
from lottolab.nets.device import back

ELSEWHERE = 6_000_000  # is added to the seed: other images come in another order


@runs.stage("mia_pruning.experiments.controls.borrowed")
def borrowed(*, rates: list[float], **setting) -> dict:
    """Find a ticket on images outside the pool, and train it on the network's own.

    A control of `tickets.iterative`: the same initialisation, pruned as often and as
    much, but each training before the last sees the `val` images, which are nobody's.
    What pruning remembers of them is nothing about the pool.
    """
    parts = tickets.read(**setting)
    given = {"rates": rates, "epochs": setting["recipe"]["epochs"]}
    return _found(parts, *parts["val"], **given, **setting)


@runs.stage("mia_pruning.experiments.controls.joint")
def joint(*, rates: list[float], **setting) -> dict:
    """Find a ticket on the network's own images and on those of nobody alike.

    A control of `borrowed`, whose mask has learned from images that `tickets.iterative`
    never sees: this one has learned from the same `val` images and reuses the network's
    own besides, in as many steps.
    """
    parts = tickets.read(**setting)
    x, y = (torch.cat(both) for both in zip(parts["train"], parts["val"], strict=True))
    share = len(parts["val"][0]) / len(x)
    given = {"rates": rates, "epochs": round(share * setting["recipe"]["epochs"])}
    return _found(parts, x, y, **given, **setting)


def _found(
    parts: dict,
    images: Tensor,
    labels: Tensor,
    *,
    rates: list[float],
    epochs: int,
    **setting,
) -> dict:
    """Prune after training on these images, once a rate; then retrain on `train`."""
    require(len(rates) >= 1, "rates must hold at least one pruning rate", rates)
    recipe = train.recipe(setting["recipe"] | {"epochs": max(1, epochs)})
    model = tickets.build(parts=parts, **setting)
    start = {k: v.clone() for k, v in back(model.state_dict()).items()}
    masks = masking.dense(model)
    for rate in rates:
        model.load_state_dict(start)
        given = {"seed": setting["seed"] + ELSEWHERE, "masks": masks}
        train.fit(model, images, labels, recipe, **given)
        state = back(model.state_dict())
        masks = masking.magnitude(state, back(masks), rate)
    return tickets.retrain(start, masks, **setting)
