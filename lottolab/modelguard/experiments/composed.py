"""Attacks that are put together: ask, undo, label, train.

The arguments are those of `attackers`, but

attack: a dict of names. `ask`, in ASK: which versions of his images the attacker asks
    about. `undo`, in UNDO: how he undoes each version's answers, of which he takes the
    mean. `label`: `soft`, what he has recovered, or `hard`, its largest class. `train`:
    a strategy of `extraction`.
"""

from dataclasses import replace

import torch
from torch import Tensor

from lottolab import runs
from lottolab.checks import one_of
from lottolab.modelguard import (
    AdaptiveMisinformation,
    ModelGuardS,
    ModelGuardW,
    ReverseSigmoid,
    Rounding,
)
from lottolab.modelguard.attacks import adaptive, averaging, bayes, inverses
from lottolab.modelguard.defences import noise
from lottolab.modelguard.experiments import attackers, rules
from lottolab.modelguard.experiments.attackers import Theft
from lottolab.modelguard.queries import Service
from lottolab.nets import predict
from lottolab.nets.device import back, here

COMPOSED = {"ask": "once", "undo": "none", "label": "soft", "train": "naive"}
LABELS = ("soft", "hard")
SHIFTS, TOUCHES = 3, 16


def once(theft: Theft) -> list[Tensor]:
    """Ask about the images as they are."""
    return [theft.images]


def shifts(theft: Theft) -> list[Tensor]:
    """Ask about three shifted versions, as smoothing does."""
    given = attackers.augmented(theft)
    generator = torch.Generator().manual_seed(given["seed"])
    how = given["crop"], given["flip"], generator
    return [averaging.shifted(theft.images, *how) for _ in range(SHIFTS)]


def touches(theft: Theft) -> list[Tensor]:
    """Ask about sixteen copies with one pixel changed by one level of 255."""
    generator = torch.Generator().manual_seed(theft.seed)
    return [averaging.touched(theft.images, generator) for _ in range(TOUCHES)]


ASK = {"once": once, "shifts": shifts, "touches": touches}


@runs.stage("modelguard.experiments.composed.stolen")
def stolen(*, attack: dict, defence: dict, **given) -> dict:
    """Steal a service by a composed attack; `metrics` are those of `thefts.stolen`."""
    how = COMPOSED | attack
    for key in attack:
        one_of("a choice of an attack", key, COMPOSED)
    for key, names in {"ask": ASK, "undo": UNDO, "label": LABELS}.items():
        one_of(f"the attack's {key}", how[key], names)
    theft, parts = rules.begun({}, defence, **given)
    strategy = "top1" if how["label"] == "hard" else how["train"]
    theft = replace(theft, how=theft.how | {"train": strategy})
    targets = recovered(theft, ASK[how["ask"]](theft), how["undo"])
    return {"metrics": rules.judged(theft, parts, theft.images, targets)}


def recovered(theft: Theft, versions: list[Tensor], undo: str) -> Tensor:
    """Ask about all versions; return the mean of what is recovered of each, N×C."""
    answers = [theft.service(images) for images in versions]
    exact = [torch.zeros(len(a), dtype=torch.bool) for a in answers]
    if isinstance(theft.service.defence, ModelGuardS):
        found = adaptive.first_seen(torch.cat(answers))
        exact = list(found.split(len(theft.images)))
        theft.exact = torch.stack(exact).any(0)
    if undo in AFTERWARDS:
        return AFTERWARDS[undo](theft, sum(answers) / len(answers))
    begin, apply = UNDO[undo]
    ready = begin(theft, answers[0])
    parts = zip(versions, answers, exact, strict=True)
    return sum(apply(theft, *part, ready) for part in parts) / len(answers)


def denoised(theft: Theft, answers: Tensor) -> Tensor:
    """Return the predictions of which these are the mean noisy answers."""
    return noise.denoised(answers, theft.service.defence.epsilon)


def nothing(theft: Theft, answers: Tensor) -> Tensor:
    """Return the answers."""
    return answers


AFTERWARDS = {"none": nothing, "mean": denoised}


def oracle(theft: Theft, images: Tensor, answers: Tensor, exact: Tensor, _) -> Tensor:
    """Undo by the paper's table, around the target's predictions of these images."""
    return read(answers, attackers.oracle(theft, images, answers))


def kept(theft: Theft, images: Tensor, answers: Tensor, exact: Tensor, _) -> Tensor:
    """Undo by the paper's table what is not exact already."""
    found = oracle(theft, images, answers, exact, _)
    return torch.where(exact[:, None], answers, found)


def own(theft: Theft, images: Tensor, answers: Tensor, exact: Tensor, first) -> Tensor:
    """Undo by a table around his own substitute what is not exact already."""
    given = {"draws": theft.plan["means"]["draws"], "seed": theft.seed}
    defence = attackers.known(theft)
    table = bayes.own_table(first, images, theft.scale, defence, **given)
    return torch.where(exact[:, None], answers, read(answers, table))


def read(answers: Tensor, table: bayes.Table) -> Tensor:
    """Average the predictions whose answers are near."""
    return back(bayes.recover_partial_bayes(here(answers), table))


def labelled(theft: Theft, answers: Tensor):
    """Train a substitute on labels alone, which most defences leave as they are."""
    how = theft.how | {"train": "top1"}
    return attackers.learn(replace(theft, how=how), theft.images, answers)


def guesses(theft: Theft, answers: Tensor) -> list[Service]:
    """Train two substitutes on labels, each on half of the images.

    Each image is guessed by the one that has not seen it. Behind Adaptive
    Misinformation, whose lies have no labels, they learn what is exact.
    """
    guard = theft.service.defence
    if isinstance(guard, ReverseSigmoid):
        return []
    places, strategy = torch.arange(len(answers)), "top1"
    if isinstance(guard, AdaptiveMisinformation):
        places, strategy = places[~_lies(theft, theft.images, answers)], "naive"
        if len(places) < _batch(theft):
            places, strategy = torch.arange(len(answers)), "top1"
    half = replace(theft, how=theft.how | {"train": strategy})
    found = []
    for fold in (0, 1):
        mine = places[places % 2 != fold]
        model = attackers.learn(half, theft.images[mine], answers[mine])
        found.append(Service(model, theft.scale))
    return found


def _batch(theft: Theft) -> int:
    return 2 * theft.plan["substitute"]["recipe"]["batch"]


def inverse(theft: Theft, images: Tensor, answers: Tensor, exact: Tensor, by) -> Tensor:
    """Undo by the defence's own formula."""
    guard = theft.service.defence
    if isinstance(guard, ReverseSigmoid):
        return inverses.reverse_sigmoid(answers, guard.beta, guard.gamma)
    guess = torch.stack([one(images) for one in by])
    places = torch.arange(len(images))
    guess = guess[places % 2, places]
    if isinstance(guard, ModelGuardW):
        return inverses.modelguard_w(answers, guess, guard.epsilon)
    if isinstance(guard, Rounding):
        return inverses.rounding(answers, guess, guard.decimals)
    if isinstance(guard, AdaptiveMisinformation):
        lies = _lies(theft, images, answers)
        return torch.where(lies[:, None], guess, answers)
    one_of("a defence with an inverse", type(guard).__name__, ("MAD",))
    seen = guard.guessed(guess, images)
    return inverses.mad(answers, seen, guess, guard.epsilon, guard.aim)


def _lies(theft: Theft, images: Tensor, answers: Tensor) -> Tensor:
    guard = theft.service.defence
    wrong = predict.logits(guard.model, images, guard.mean_std).softmax(1)
    return inverses.lied(answers, wrong)


def _no(theft: Theft, answers: Tensor) -> None:
    return None


UNDO = {
    "oracle": (_no, oracle),
    "oracle, exact kept": (_no, kept),
    "own, exact kept": (labelled, own),
    "inverse": (guesses, inverse),
    **dict.fromkeys(AFTERWARDS),
}
