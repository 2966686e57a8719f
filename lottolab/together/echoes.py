"""Does the mask alone leak its training data? Attacks that do not have the weights."""

import numpy as np
import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from lottolab import runs
from lottolab.checks import one_of
from lottolab.images import datasets
from lottolab.images.batches import normalise
from lottolab.membership import signals
from lottolab.nets import masks as masking
from lottolab.nets import predict, tickets, train
from lottolab.nets.device import back, here
from lottolab.together import leaks
from lottolab.truth.intervals import influence, measured

OTHER = 9_000_000  # is added to the seed: an initialisation that the owner did not have


@runs.stage("together.echoes.echo")
def echo(*, kind: str, rates: list[float], images: int, **setting) -> dict:
    """Score a pool's images by a ticket's mask, without its weights.

    kind: what the attacker does with the mask. "untrained": he lays it over the
        initialisation, which he knows, and asks for the log odds. "retrained": he
        trains it on `images` of his own, from an initialisation of his own. "aligned":
        he knows the initialisation and asks how much a step on the image would enlarge
        the weights that were kept, and shrink those that were not. "weights", the
        control, has the trained weights.

    `score`, float64 [N], larger for "more likely a member".
    """
    one_of("kind", kind, KINDS)
    parts = tickets.read(**setting)
    found = tickets.iterative(rates=rates, **setting)
    given = {"outcome": found, "parts": parts, "images": images}
    return {"score": KINDS[kind](**given, **setting)}


def _weights(outcome: dict, parts: dict, images: int, **setting) -> Tensor:
    return _log_odds(outcome["weights"], parts, **setting)


def _untrained(outcome: dict, parts: dict, images: int, **setting) -> Tensor:
    model = tickets.build(parts=parts, **setting)
    masking.apply_(model, outcome["masks"])
    settle(model, leaks.strangers(images, **setting)[0])
    return _log_odds(model.state_dict(), parts, **setting)


def _retrained(outcome: dict, parts: dict, images: int, **setting) -> Tensor:
    seed = setting["seed"] + OTHER
    model = tickets.build(parts=parts, **setting | {"seed": seed})
    recipe = train.recipe(setting["recipe"])
    own, masks = leaks.strangers(images, **setting), outcome["masks"]
    train.fit(model, *own, recipe, seed=seed, masks=masks)
    return _log_odds(model.state_dict(), parts, **setting)


def _aligned(outcome: dict, parts: dict, images: int, **setting) -> Tensor:
    """Sum sign(w) ∂(−loss)/∂w over kept weights, less the mean over pruned ones."""
    model = tickets.build(parts=parts, **setting)
    settle(model, leaks.strangers(images, **setting)[0])
    state = {k: v.detach() for k, v in model.state_dict().items()}
    towards = {}
    for name, mask in here(outcome["masks"]).items():
        share = mask.double().mean()
        sign = state[name].sign() * (mask / share - ~mask / (1 - share)).float()
        towards[name] = sign / mask.numel()
    rest = {k: v for k, v in state.items() if k not in towards}

    def loss(weights: dict, x: Tensor, y: Tensor) -> Tensor:
        output = functional_call(model.eval(), rest | weights, (x[None],))
        return F.cross_entropy(output, y[None])

    slopes = vmap(grad(loss), in_dims=(None, 0, 0))
    scale, scores = datasets.normalisation(parts["train"][0]), []
    for images, labels in zip(*(p.split(100) for p in parts["pool"]), strict=True):
        found = slopes(
            {n: state[n] for n in towards},
            here(normalise(images, *scale)),
            here(labels),
        )
        each = [(g.flatten(1) @ towards[n].flatten()) for n, g in found.items()]
        scores.append(back(-torch.stack(each).sum(0)))
    return torch.cat(scores).double()


KINDS = {
    "weights": _weights,
    "retrained": _retrained,
    "untrained": _untrained,
    "aligned": _aligned,
}


@torch.no_grad()
def settle(model: nn.Module, images: Tensor) -> None:
    """Set batch norm's statistics to those of the images, uint8; nothing else moves."""
    for norm in (m for m in model.modules() if isinstance(m, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # the mean over all batches
    scale = datasets.normalisation(images)
    model.train()
    for batch in images.split(500):
        model(here(normalise(batch, *scale)))
    model.eval()


def _log_odds(state: dict[str, Tensor], parts: dict, **setting) -> Tensor:
    model = tickets.build(parts=parts, **setting)
    model.load_state_dict(state)
    images, labels = parts["pool"]
    logits = predict.logits(model, images, datasets.normalisation(parts["train"][0]))
    return signals.scaled_confidence(logits, labels)


@runs.stage("together.echoes.echoed")
def echoed(
    *, kind: str, rates: list[float], images: int, group: int, **setting
) -> dict:
    """Attack all masks of a pool by each other: `measurements` of each model.

    `auc` of the scores alone (attack "score") and of online LiRA on them.
    """
    models = setting["sizes"]["models"]
    seeds = [models * group + place for place in range(models)]
    given = {"kind": kind, "rates": rates, "images": images} | setting
    scores = torch.stack([echo(**given, seed=seed)["score"] for seed in seeds])
    member = torch.stack([leaks.members(**setting, seed=seed)[1] for seed in seeds])
    found = {"score": scores, "lira, online": leaks.lira_online(scores, member)}
    return {"measurements": pd.DataFrame(leaks.aucs(found, member, seeds))}


@runs.stage("together.echoes.begun")
def begun(*, start: int, own: bool, rate: float, images: int, **setting) -> dict:
    """Find a mask from the initialisation of the seed `start`; score the pool by it.

    The network trains on the seed's own half of the pool or, unless `own`, on `images`
    outside the pool, and loses a `rate` of its weights. `score`, as of `echo`: the log
    odds of the initialisation under the mask.
    """
    parts, seed = tickets.read(**setting), setting["seed"]
    model = tickets.build(parts=parts, **setting | {"seed": start})
    first = {k: v.clone() for k, v in back(model.state_dict()).items()}
    others = leaks.strangers(images, **setting)
    shown = parts["train"] if own else others
    train.fit(model, *shown, train.recipe(setting["recipe"]), seed=seed)
    trained, dense = back(model.state_dict()), back(masking.dense(model))
    masks = masking.magnitude(trained, dense, rate)
    model.load_state_dict(first)
    masking.apply_(model, masks)
    settle(model, others[0])
    return {"score": _log_odds(model.state_dict(), parts, **setting)}


@runs.stage("together.echoes.together_begun")
def together_begun(
    *, start: int, own: bool, rate: float, images: int, group: int, **setting
) -> dict:
    """Attack the masks of a pool by others that began where they began.

    He who knows the owner's initialisation trains his references from it. Unless `own`,
    the masks that are attacked were found on images of nobody: a control, in which
    nothing is to be found. `measurements` by attack: the `auc` of each model, and `pool
    auc` with the error of `intervals.measured`, where pairs on complementary halves are
    one cluster and the images a sample.
    """
    models = setting["sizes"]["models"]
    seeds = [models * group + place for place in range(models)]
    given = {"start": start, "rate": rate, "images": images} | setting
    known, asked = (
        torch.stack([begun(own=how, **given, seed=s)["score"] for s in seeds])
        for how in (True, own)
    )
    member = torch.stack([leaks.members(**setting, seed=seed)[1] for seed in seeds])
    found = {"score": asked, "lira, online": leaks.lira_online(asked, member, known)}
    rows = leaks.aucs(found, member, seeds)
    for name, scores in found.items():
        whole = influence.auc(scores.numpy(), member.numpy())
        marks = {"attack": name, "seed": group, "metric": "pool auc"}
        rows.append(marks | measured.row(whole, np.arange(models) // 2))
    return {"measurements": pd.DataFrame(rows)}
