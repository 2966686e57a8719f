"""The networks that are compared: one dense parent, and what may become of it.

All treatments but two start from the same dense parent, `tickets.dense`, and train for
the epochs of `second`, a recipe too; so they differ in this second half alone. The two
are trained afresh, as long as both halves together: `private` and its control
`group_norm`, because a guarantee covers no earlier training. `early` stops the parent.

The other arguments are a setting of `lottolab.nets.tickets`, with the sizes of
`partition.halves`; its `val` images are the reference data of the Min-Max game. What
comes back is that of `tickets.judge`.
"""

import torch.nn.functional as F
from torch import nn

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.images import datasets
from lottolab.mia_pruning.defences import admm, control, dp, minmax, ppb
from lottolab.nets import masks as masking
from lottolab.nets import tickets, train

SECOND = 3_000_000  # is added to the seed: the second half shows other batches


def smoothed(strength: float) -> train.Loss:
    """Return cross-entropy with smoothed labels (Szegedy et al., 2016).

    `strength`, in [0, 1), is the probability that is shared out among all classes.
    """
    return lambda model, x, y, index: F.cross_entropy(
        model(x), y, label_smoothing=strength
    )


def plain(strength: float) -> train.Loss:
    """Return cross-entropy, whatever the strength."""
    return train.cross_entropy


LOSSES = {
    "cross-entropy": plain,
    "label smoothing": smoothed,
    "posterior balancing": ppb.loss,
}


@runs.stage("mia_pruning.experiments.treatments.early")
def early(*, stop: int, **setting) -> dict:
    """Train the dense parent, and stop at the end of epoch `stop`."""
    parts = tickets.read(**setting)
    model = tickets.build(parts=parts, **setting)
    recipe, seed = train.recipe(setting["recipe"]), setting["seed"]
    fitted = train.fit(model, *parts["train"], recipe, seed=seed, stop=stop)
    return tickets.judge(model, masking.dense(model), parts, fitted)


@runs.stage("mia_pruning.experiments.treatments.continued")
def continued(
    *, second: dict, prune: str, rate: float, loss: str, strength: float, **setting
) -> dict:
    """Prune the parent's layers, by `magnitude` or at `random`, or not; train on.

    `rate` is the share that every prunable layer loses. `loss` is one of
    LOSSES, of the given `strength`.
    """
    one_of("prune", prune, ("none", "magnitude", "random"))
    one_of("loss", loss, LOSSES)
    model, parts, seed = parent(**setting)
    masks = masking.dense(model)
    if prune == "magnitude":
        masks = masking.magnitude(model.state_dict(), masks, rate, scope="layer")
    elif prune == "random":
        masks = masking.random(masks, rate, seed, scope="layer")
    recipe, chosen = train.recipe(second), LOSSES[loss](strength)
    given = {"seed": seed + SECOND, "masks": masks, "loss": chosen}
    fitted = train.fit(model, *parts["train"], recipe, **given)
    return tickets.judge(model, masks, parts, fitted)


@runs.stage("mia_pruning.experiments.treatments.pruned")
def pruned(
    *,
    second: dict,
    rate: float,
    rho: list[float],
    admm_epochs: int,
    admm_lr: float,
    gamma: float,
    attacker: float,
    **setting,
) -> dict:
    """Prune the parent by ADMM and retrain it: MIA-Pruning (Equation 2).

    With `gamma` > 0 both trainings are against an attacker (Equation 3), whose
    network has `attacker` times the published width.
    """
    model, parts, seed = parent(**setting)
    recipe = train.recipe(second)
    first = {"epochs": admm_epochs, "lr": admm_lr, "schedule": "constant"}
    given = {"rho": rho, "seed": seed + SECOND}
    given["retrain"] = train.recipe(second | {"epochs": recipe.epochs - admm_epochs})
    network, prefix = model, ""
    if gamma:
        network, prefix = (
            game(model, parts, recipe, gamma, attacker, seed),
            minmax.PREFIX,
        )
        given |= {"loss": minmax.Game.loss, "mean_std": network.mean_std}
    layers = {prefix + name: mask for name, mask in wide(model).items()}
    counts = admm.cardinalities(layers, rate)
    penalised = train.recipe(second | first)
    masks, history = admm.admm_prune(
        network, *parts["train"], penalised, counts, **given
    )
    masks = {name.removeprefix(prefix): mask for name, mask in masks.items()}
    return tickets.judge(model, masks, parts, train.Fit(history))


@runs.stage("mia_pruning.experiments.treatments.guarded")
def guarded(*, second: dict, gamma: float, attacker: float, **setting) -> dict:
    """Train on against an attacker: the Min-Max game (Nasr et al., 2018)."""
    model, parts, seed = parent(**setting)
    played = {"gamma": gamma, "width": attacker, "seed": seed + SECOND}
    given = *parts["train"], *parts["val"], train.recipe(second)
    fitted = minmax.minmax_train(model, *given, **played)
    return tickets.judge(model, masking.dense(model), parts, fitted)


@runs.stage("mia_pruning.experiments.treatments.private")
def private(*, second: dict, budget: dict, **setting) -> dict:
    """Train a fresh network with differential privacy (Abadi et al., 2016).

    `budget` are arguments of `dp_train`: `epsilon`, `delta`, `clip`, `lr` …
    """
    model, parts = fresh(**setting)
    given = {"epochs": both(second, **setting), "seed": setting["seed"]}
    spent = dp.dp_train(model, *parts["train"], **budget, **given)
    fitted = train.Fit(spent.history)
    found = tickets.judge(model, masking.dense(model), parts, fitted)
    return found | {"epsilon": spent.epsilon, "sigma": spent.noise_multiplier}


@runs.stage("mia_pruning.experiments.treatments.group_norm")
def group_norm(*, second: dict, budget: dict | None = None, **setting) -> dict:
    """Control of `private`: its network, as long, without noise.

    With its `budget` it is the same run with σ = 0, and not clipped where `clip` is
    None. Without one the recipe is everybody's: optimiser, batches and rate are others.
    """
    model, parts = fresh(**setting)
    epochs, seed = both(second, **setting), setting["seed"]
    if budget:
        own = {k: v for k, v in budget.items() if k != "epsilon"}
        given = own | {"epochs": epochs, "seed": seed, "sigma": 0.0}
        history = control.dp_control(model, *parts["train"], **given).history
        fitted = train.Fit(history)
    else:
        recipe = train.recipe(setting["recipe"] | {"epochs": epochs})
        fitted = train.fit(model, *parts["train"], recipe, seed=seed)
    return tickets.judge(model, masking.dense(model), parts, fitted)


def check(
    sparsities: list[float],
    gammas: list[float],
    epsilons: list[float],
    stops: list[int],
    rho: list[float],
    **setting,
) -> None:
    """Raise ValueError now if the chapter would raise it later.

    `setting` as for `tickets.check`, with reference images in `val`.
    """
    lists = {"sparsities": (sparsities, 4), "gammas": (gammas, 3)}
    lists |= {"epsilons": (epsilons, 3), "stops": (stops, 3)}
    for name, (values, count) in lists.items():
        rising = len(values) == count and sorted(set(values)) == list(values)
        require(rising, f"{name} must be {count} different, rising values", values)
    epochs = setting["recipe"]["epochs"]
    require(stops[-1] < epochs, f"stops must be below epochs = {epochs}", stops)
    admm.schedule(rho, epochs)
    tickets.check(**setting)


def parent(**setting) -> tuple[nn.Module, dict, int]:
    """Return the dense parent, its parts and its seed."""
    parts = tickets.read(**setting)
    model = tickets.build(parts=parts, **setting)
    model.load_state_dict(tickets.dense(**setting)["weights"])
    return model, parts, setting["seed"]


def wide(model: nn.Module) -> masking.Masks:
    """Return the layers that ADMM prunes: all prunable ones but depthwise convolutions.

    These hold few weights, and a channel that loses its last one is dead: with a tenth
    left in every layer MobileNetV2 diverges.
    """
    dense = masking.dense(model)
    return {n: m for n, m in dense.items() if m.ndim == 2 or m.shape[1] > 1}


def both(second: dict, *, recipe: dict, **_) -> int:
    """Return the epochs of both halves together."""
    return recipe["epochs"] + second["epochs"]


def fresh(**setting) -> tuple[nn.Module, dict]:
    """Return a new network with group norm, and its parts."""
    parts = tickets.read(**setting)
    return dp.group_norm(tickets.build(parts=parts, **setting)), parts


def game(
    model: nn.Module,
    parts: dict,
    recipe: train.Recipe,
    gamma: float,
    attacker: float,
    seed: int,
) -> minmax.Game:
    """Set up the Min-Max game of a network, its members and the reference data."""
    return minmax.Game(
        model,
        parts["train"],
        parts["val"],
        gamma=gamma,
        batch=recipe.batch,
        width=attacker,
        seed=seed + SECOND,
        mean_std=datasets.normalisation(parts["train"][0]),
    )
