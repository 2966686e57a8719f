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
from lottolab.ensembles.experiments import libraries
from lottolab.ensembles.queries import correct
from lottolab.ensembles.sampler import Sampler, repeated
from lottolab.nets.device import here
from lottolab.truth import results

CHOICE, SCORE = 1_000_000, 2_000_000  # are added to a seed: no attack has these draws


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
    x, y = libraries.test(libraries.read(**setting))
    return {"images": ATTACKS[attack["name"]](target, x, y, **own, **given)}


@runs.stage("ensembles.experiments.trials.scored")
def scored(*, defence: dict, attack: dict, draws: int, **setting) -> dict:
    """Score a defence on the examples that were made on it.

    `metrics` are `accuracy`, the mean over `draws`, and `worst`, the share of images
    that no draw got wrong. Each image is a query with a draw of its own.
    """
    x = here(examples(defence=defence, attack=attack, **setting)["images"])
    target = libraries.model(defence=defence, **setting)
    y = libraries.test(libraries.read(**setting))[1]
    return {"metrics": _rates(hits(target, x, y, draws, setting["seed"] + SCORE))}


@runs.stage("ensembles.experiments.trials.strongest")
def strongest(*, defence: dict, attacks: list[dict], draws: int, **setting) -> dict:
    """Score a defence on the worst of several attacks, image by image.

    Which is the worst is chosen on `draws` draws; the `metrics` are those of as many
    others.
    """
    require(len(attacks) > 0, "attacks must hold at least one", 0)
    found = [
        here(examples(defence=defence, attack=a, **setting)["images"]) for a in attacks
    ]
    target = libraries.model(defence=defence, **setting)
    y, seed = libraries.test(libraries.read(**setting))[1], setting["seed"]
    means = [hits(target, x, y, draws, seed + CHOICE).double().mean(0) for x in found]
    chosen, rows = torch.stack(means).argmin(0), here(torch.arange(len(y)))
    x = torch.stack(found)[chosen, rows]
    return {"metrics": _rates(hits(target, x, y, draws, seed + SCORE))}


def hits(target: nn.Module, x: Tensor, y: Tensor, draws: int, seed: int) -> Tensor:
    """Tell which answers were right, bool [draws, n]; [1, n] if nothing is drawn."""
    if not isinstance(target, Sampler):
        return correct(target, x, y)[None]
    target.per = "image"
    return repeated(target, x, y, draws=draws, seed=seed)


def _rates(right: Tensor) -> dict[str, float]:
    return {
        "accuracy": float(right.double().mean()),
        "worst": float(right.all(0).double().mean()),
    }


def _none(target, x, y, *, epsilon, setting, seed) -> Tensor:
    return x


def _pgd(target, x, y, *, setting, eot=1, **own) -> Tensor:
    drawn = isinstance(target, Sampler)
    return pgd(target, x, y, **own, eot=eot if drawn else 1, stop=not drawn)


def _apgd(target, x, y, *, setting, eot, **own) -> Tensor:
    eot = eot if isinstance(target, Sampler) else 1
    return autoattack.apgd(target, x, y, **own, eot=eot)


def _square(target, x, y, *, setting, eot, **own) -> Tensor:
    eot = eot if isinstance(target, Sampler) else 1
    return autoattack.square(target, x, y, **own, eot=eot)


def _arc(target, x, y, *, setting, seed, teams, **own) -> Tensor:
    """Attack all networks that may answer, or a sample of the teams."""
    if not isinstance(target, Sampler):
        return arc([target], x, y, **own)
    alone = target.law is libraries.one
    members = list(target.networks) if alone else target.teams(teams, seed)
    return arc(members, x, y, **own)


def _universal(target, x, y, *, setting, seed, eot, **own) -> Tensor:
    """Add one perturbation to all images, which was made on those of `val`."""
    known = libraries.pixels(libraries.read(**setting)["val"])
    eot = eot if isinstance(target, Sampler) else 1
    return (x + universal(target, *known, **own, eot=eot, seed=seed)).clamp(0, 1)


ATTACKS = {
    "none": _none,
    "pgd": _pgd,
    "apgd": _apgd,
    "square": _square,
    "arc": _arc,
    "universal": _universal,
}
