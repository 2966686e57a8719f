"""Find lottery tickets: sparse networks that train as well as the dense one.

The stages share these arguments, called a `setting` where they are handed on whole:

dataset: a name for `data.get`, or a dict of name and options.
sizes: how many images `train`, `val` and `test` hold, as `partition.splits` wants them;
    or `pool`, `models`, `val` and `test`, as `partition.halves` does.
network: arguments of `models.build` (`name`, `width`, `stem`).
recipe: arguments of `train.Recipe`.
rewind_at: the epoch whose end tickets are rewound to; 0 is the initialisation.
seed: of the splits, the initialisation, the order and the augmentation.

Each returns `weights` and `masks`, the `history` of the training, the `density` of the
prunable weights, and `accuracy` on `val` and `test`, in [0, 1], where they hold images.
"""

import math

import pandas as pd
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import require
from lottolab.images import datasets, partition
from lottolab.images.batches import normalise
from lottolab.nets import foresight as pruning
from lottolab.nets import masks as masking
from lottolab.nets import models, predict, train
from lottolab.nets.device import here


@runs.stage("tickets.dense")
def dense(*, dataset, sizes, network, recipe, rewind_at, seed) -> dict:
    """Train the dense network; `rewind` is what its tickets start from."""
    parts = read(dataset=dataset, sizes=sizes, seed=seed)
    model = build(network=network, parts=parts, seed=seed)
    fitted = train.fit(
        model, *parts["train"], train.recipe(recipe), seed=seed, rewind_at=rewind_at
    )
    outcome = judge(model, masking.dense(model), parts, fitted)
    return outcome | {"rewind": fitted.rewind}


@runs.stage("tickets.iterative")
def iterative(*, rates: list[float], **setting) -> dict:
    """Prune a rate of what is left, rewind, retrain; do that for each of `rates`.

    Iterative magnitude pruning with late rewinding (Frankle & Carbin
    2019; Frankle et al. 2020), one threshold for all prunable layers.
    One rate is one-shot pruning.
    """
    require(len(rates) >= 1, "rates must hold at least one pruning rate", rates)
    start = parent = dense(**setting)
    if len(rates) > 1:
        parent = iterative(rates=rates[:-1], **setting)
    masks = masking.magnitude(parent["weights"], parent["masks"], rates[-1])
    return retrain(start["rewind"], masks, **setting)


@runs.stage("tickets.extreme")
def extreme(
    *, rates: list[float], tolerance: float, least: float, limit: int, **setting
) -> dict:
    """Search the sparsest ticket that matches: when one does not, prune more gently.

    Prune by the first of `rates` until a ticket's validation accuracy is
    more than `tolerance` below the dense network's, go back one step and
    on with the next rate (Chen et al. 2021, section 4.1). At most `limit`
    tickets are trained, none of them sparser than the density `least`.

    Returns `rates`, those that lead from the dense network to the extreme
    ticket (the first alone where not even that one matches, and `found` is
    False then), and `steps`, a row for each ticket that was tried.
    """
    floor = dense(**setting)["accuracy"]["val"] - tolerance
    taken, steps = [], []
    for rate in rates:
        left = math.prod(1 - r for r in taken) * (1 - rate)
        while len(steps) < limit and left >= least:
            ticket = iterative(rates=[*taken, rate], **setting)
            value = ticket["accuracy"]["val"]
            steps.append((rate, ticket["density"], value, value >= floor))
            if value < floor:
                break
            taken.append(rate)
            left *= 1 - rate
    columns = ["rate", "density", "val_accuracy", "matches"]
    table = pd.DataFrame(steps, columns=columns)
    return {"rates": taken or rates[:1], "found": bool(taken), "steps": table}


@runs.stage("tickets.random_mask")
def random_mask(*, rates: list[float], **setting) -> dict:
    """Control: the ticket's rewound weights under a mask drawn at random.

    The mask keeps as many weights in each layer as the ticket's.
    """
    ticket = iterative(rates=rates, **setting)
    masks = masking.shuffled(ticket["masks"], setting["seed"])
    return retrain(dense(**setting)["rewind"], masks, **setting)


@runs.stage("tickets.new_initialisation")
def new_initialisation(*, rates: list[float], **setting) -> dict:
    """Control: the ticket's mask on weights of another initialisation.

    These train densely up to epoch `rewind_at` too, so that only their
    origin differs.
    """
    ticket = iterative(rates=rates, **setting)
    parts, seed = read(**setting), setting["seed"]
    other = build(parts=parts, **setting | {"seed": seed + 1_000_000})
    recipe, stop = train.recipe(setting["recipe"]), setting["rewind_at"]
    train.fit(other, *parts["train"], recipe, seed=seed, stop=stop)
    return retrain(other.state_dict(), ticket["masks"], **setting)


@runs.stage("tickets.foresight")
def foresight(*, method: str, rate: float, **setting) -> dict:
    """Prune before training, by `snip`, `grasp` or `synflow`, then train.

    The scores are taken at the state that a ticket is rewound to, on the
    first training images, ten a class and at least 128.
    """
    parts = read(**setting)
    model = build(parts=parts, **setting)
    start = dense(**setting)["rewind"]
    model.load_state_dict(start)
    images, labels = parts["train"]
    count = max(128, 10 * parts["classes"])
    x = here(normalise(images[:count], *datasets.normalisation(images)))
    masks = pruning.prune(method, model, x, here(labels[:count]), rate)
    return retrain(start, masks, **setting)


def retrain(
    state: dict[str, Tensor],
    masks: dict[str, Tensor],
    *,
    loss: train.Loss = train.cross_entropy,
    **setting,
) -> dict:
    """Train from `state`, the end of epoch `rewind_at`, under `masks`."""
    parts = read(**setting)
    model = build(parts=parts, **setting)
    model.load_state_dict(state)
    masking.apply_(model, masks)
    fitted = train.fit(
        model,
        *parts["train"],
        train.recipe(setting["recipe"]),
        seed=setting["seed"],
        masks=masks,
        loss=loss,
        start=setting["rewind_at"],
    )
    return judge(model, masks, parts, fitted)


def check(*, dataset, sizes, network, recipe, rewind_at) -> None:
    """Raise ValueError now if a stage would raise it later, before anything runs."""
    settings = train.recipe(recipe)
    require(
        type(rewind_at) is int and 0 <= rewind_at < settings.epochs,
        f"rewind_at must be a whole number in [0, epochs = {settings.epochs})",
        rewind_at,
    )
    parts = read(dataset=dataset, sizes=sizes, seed=0)
    count = len(parts["train"][0])
    most = f"batch must be at most the training images, {count}"
    require(settings.batch <= count, most, settings.batch)
    build(network=network, parts=parts, seed=0)


def read(*, dataset, sizes: dict[str, int], seed: int, **_) -> dict:
    """Return the splits by name, each as (images, labels), and how many `classes`."""
    source = datasets.get(dataset)
    draw = partition.halves if "pool" in sizes else partition.splits
    places = draw(source, **sizes, seed=seed)
    parts = {n: (source.images[p], source.labels[p]) for n, p in places.items()}
    return parts | {"classes": source.classes}


def build(*, network: dict, parts: dict, seed: int, **_) -> nn.Module:
    """Build the network that fits the images of the parts, initialised by `seed`."""
    channels, size = parts["train"][0].shape[1:3]
    shape = {"channels": channels, "classes": parts["classes"], "size": size}
    return models.build(**network, **shape, seed=seed)


def judge(model: nn.Module, masks: dict, parts: dict, fitted: train.Fit) -> dict:
    """Return what the stages return of a trained network."""
    judged = [part for part in ("val", "test") if len(parts[part][0])]
    return {
        "weights": {k: v.cpu() for k, v in model.state_dict().items()},
        "masks": masks,
        "history": fitted.history,
        "accuracy": {part: accuracy(model, parts, part) for part in judged},
        "density": masking.density(masks),
    }


def accuracy(model: nn.Module, parts: dict, part: str = "test") -> float:
    """Return a network's accuracy on one of the parts, in [0, 1]."""
    images, labels = parts[part]
    scale = datasets.normalisation(parts["train"][0])
    return predict.accuracy(predict.logits(model, images, scale), labels)
