"""Attack what answers queries, and score it over fresh draws.

The arguments are a setting of `libraries`, the `defence`, as for `libraries.model`, and
the `attack`: a dict of its `name`, its `epsilon` and what is its own (see `ATTACKS`).
"""

import torch
from torch import Tensor, nn

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.ensembles.attacks import autoattack
from lottolab.ensembles.attacks.arc import arc
from lottolab.ensembles.attacks.gradient import pgd, universal
from lottolab.ensembles.experiments import libraries, scenes
from lottolab.ensembles.queries import correct
from lottolab.ensembles.sampler import Ensemble, Sampler, repeated
from lottolab.nets.device import here
from lottolab.truth import results

CHOICE, SCORE = 1_000_000, 2_000_000  # are added to a seed: no attack has these draws
ROUNDS = 10  # of draws that score: one round says little about the worst of its draws


def asked(
    setting: dict, seeds: list[int], defence: dict, attacks: dict, draws: int, **marks
) -> list[results.Asked]:
    """Ask for a defence's scores under attacks, by name; `marks` are the columns."""
    given = [setting | {"defence": defence, "seed": s, "draws": draws} for s in seeds]
    found = []
    for name, attack in attacks.items():
        columns = {"attack": name, "epsilon": 255 * attack["epsilon"]} | marks
        found += results.cross(scored, [g | {"attack": attack} for g in given], columns)
    return found


@runs.stage("ensembles.experiments.trials.examples")
def examples(*, defence: dict, attack: dict, **setting) -> dict:
    """Make adversarial examples of the test images: `images`, float32 in [0, 1]."""
    one_of("attack", attack["name"], ATTACKS)
    own = {k: v for k, v in attack.items() if k != "name"}
    given = {"setting": setting, "seed": setting["seed"]}
    target = libraries.model(defence=defence, **setting)
    x, y = scenes.shown(**setting)["test"]
    return {"images": ATTACKS[attack["name"]](target, x, y, **own, **given)}


@runs.stage("ensembles.experiments.trials.scored")
def scored(*, defence: dict, attack: dict, draws: int, **setting) -> dict:
    """Score a defence on the examples that were made on it.

    Each image is a query with a draw of its own. `metrics`, all shares of the images:

    accuracy: the mean over `ROUNDS` × `draws` draws.
    worst: right in all of `draws` draws, the mean over the rounds.
    drop, worst drop: what the attack takes from each, that is their value on the clean
        images less their value here. The worst of several draws is below their mean
        without any attack; only a drop is the attacker's work.
    share, worst share: the drops as shares of the values on the clean images.
    """
    x = here(examples(defence=defence, attack=attack, **setting)["images"])
    return {"metrics": _judged(x, defence, draws, setting)}


@runs.stage("ensembles.experiments.trials.averaged")
def averaged(*, defences: list[dict], **given) -> dict:
    """Average what `strongest` finds of each of several defences, each for itself."""
    require(len(defences) > 0, "defences must hold at least one", 0)
    found = [strongest(defence=defence, **given)["metrics"] for defence in defences]
    return {"metrics": {k: sum(f[k] for f in found) / len(found) for k in found[0]}}


@runs.stage("ensembles.experiments.trials.strongest")
def strongest(*, defence: dict, attacks: list[dict], draws: int, **setting) -> dict:
    """Score a defence on the worst of several attacks, image by image.

    Which is the worst is chosen on `ROUNDS` × `draws` draws; the `metrics` are those of
    `scored`, on as many others. One choice serves all of them: draws are independent,
    so an image that a draw gets right with probability p is right in all of k draws
    with p^k, and who has the lowest mean is also the least often right in all.
    """
    require(len(attacks) > 0, "attacks must hold at least one", 0)
    found = [
        here(examples(defence=defence, attack=a, **setting)["images"]) for a in attacks
    ]
    target = libraries.model(defence=defence, **setting)
    y, seed = scenes.shown(**setting)["test"][1], setting["seed"] + CHOICE
    means = [hits(target, x, y, ROUNDS * draws, seed).double().mean(0) for x in found]
    chosen, rows = torch.stack(means).argmin(0), here(torch.arange(len(y)))
    x = torch.stack(found)[chosen, rows]
    return {"metrics": _judged(x, defence, draws, setting)}


def hits(target: nn.Module, x: Tensor, y: Tensor, draws: int, seed: int) -> Tensor:
    """Tell which answers were right, bool [draws, n]; [1, n] if nothing is drawn."""
    if not isinstance(target, Sampler):
        return correct(target, x, y)[None]
    target.per = "image"
    return repeated(target, x, y, draws=draws, seed=seed)


def _judged(x: Tensor, defence: dict, draws: int, setting: dict) -> dict[str, float]:
    """Score images beside the clean ones, under the same draws."""
    target = libraries.model(defence=defence, **setting)
    clean, y = scenes.shown(**setting)["test"]
    given = (y, ROUNDS * draws, setting["seed"] + SCORE)
    found = rates(hits(target, x, *given), draws)
    before = rates(hits(target, clean, *given), draws)
    drops = {"drop": "accuracy", "worst drop": "worst"}
    taken = {name: before[of] - found[of] for name, of in drops.items()}
    shares = {"share": "drop", "worst share": "worst drop"}
    for name, of in shares.items():  # of nothing, nothing can be taken
        taken[name] = taken[of] / max(before[drops[of]], 1e-9)
    return found | taken


def rates(right: Tensor, draws: int) -> dict[str, float]:
    """Return the share that is right, and in all of `draws` draws.

    right: bool [rounds × draws, n], or [1, n] if nothing is drawn.
    """
    rounds = right.view(-1, min(draws, len(right)), right.shape[1])
    return {
        "accuracy": float(right.double().mean()),
        "worst": float(rounds.all(1).double().mean()),
    }


def _none(target, x, y, *, epsilon, setting, seed) -> Tensor:
    return x


def _pgd(target, x, y, *, setting, eot=1, stop=True, **own) -> Tensor:
    """Leave an image once it is fooled, if `stop` and nothing is drawn, to save time.

    Who is fooled without it is fooled with it, but stands nearer to the boundary: what
    is shown to others should not stop.
    """
    drawn = isinstance(target, Sampler)
    eot, stop = eot if drawn else 1, stop and not drawn
    return pgd(target, x, y, **own, eot=eot, stop=stop)


def _candidates(target, x, y, *, setting, **own) -> Tensor:
    """Follow the mean gradient of all networks that may answer, however they are drawn.

    The other reading of the paper's "expectations of the gradients from all candidate
    robust lottery subnetworks"; where nothing is drawn it is PGD.
    """
    drawn = isinstance(target, Sampler)
    return pgd(Ensemble(list(target.networks)) if drawn else target, x, y, **own)


def _apgd(target, x, y, *, setting, eot, **own) -> Tensor:
    eot = eot if isinstance(target, Sampler) else 1
    return autoattack.apgd(target, x, y, **own, eot=eot)


def _square(target, x, y, *, setting, eot, **own) -> Tensor:
    eot = eot if isinstance(target, Sampler) else 1
    return autoattack.square(target, x, y, **own, eot=eot)


def _arc(target, x, y, *, setting, seed, teams=0, **own) -> Tensor:
    """Attack all networks that may answer, or `teams` that are drawn of them."""
    if not isinstance(target, Sampler):
        return arc([target], x, y, **own)
    members = target.teams(teams, seed) if teams else list(target.networks)
    return arc(members, x, y, **own)


def _universal(target, x, y, *, setting, seed, eot, **own) -> Tensor:
    """Add one perturbation to all images, which was made on those of `val`."""
    known = scenes.shown(**setting)["val"]
    eot = eot if isinstance(target, Sampler) else 1
    return (x + universal(target, *known, **own, eot=eot, seed=seed)).clamp(0, 1)


ATTACKS = {
    "none": _none,
    "pgd": _pgd,
    "candidates": _candidates,
    "apgd": _apgd,
    "square": _square,
    "arc": _arc,
    "universal": _universal,
}
