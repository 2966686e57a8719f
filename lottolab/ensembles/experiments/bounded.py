"""Bounds of chapter 3: what no law can keep, and what no attack can take.

The arguments are those of `trials`.
"""

import pandas as pd
import torch
from torch import Tensor

from lottolab import runs
from lottolab.ensembles.attacks.arc import arc
from lottolab.ensembles.bounds import benefit, smoothing
from lottolab.ensembles.experiments import libraries, scenes, trials
from lottolab.ensembles.queries import correct
from lottolab.ensembles.sampler import Sampler
from lottolab.nets.device import here


@runs.stage("ensembles.experiments.bounded.law")
def law(*, attacks: list[dict], alone: dict, own: dict, **setting) -> dict:
    """Ask what the best law could gain that draws one ticket of the library a query.

    The examples are those that the attack `alone` made on every ticket and that
    `attacks` made on the paper's ensemble; the attacker shows the one of them that
    fools most of the law. On every other image the best law is found, and the best
    ticket; on the images between they are scored, where ARC with the arguments `own`
    attacks each of them, too. Then the halves change places.

    `metrics` are the expected accuracies, means over all images: of the `best law`, of
    `all alike`, which draws each ticket as often, and of the `best ticket`; the `gain`
    of the first over the last; and the `bound`, what the best law keeps that was found
    on all images, which against these examples no law exceeds on them.
    """
    x, y = scenes.shown(**setting)["test"]
    groups = libraries.networks(**setting)
    networks = [network for group in groups for network in group]
    table = _fooled(networks, y, _examples(groups, attacks, alone, setting))
    kept = []
    for half in (0, 1):
        known, other = table[:, :, half::2], table[:, :, 1 - half :: 2]
        shown = x[1 - half :: 2], y[1 - half :: 2]
        row = {}
        for name, chances in _laws(known).items():
            own_too = other
            if name != "all alike":  # whom ARC attacks already, among the ensemble's
                made = _arc(networks, chances, *shown, own)
                own_too = torch.cat([other, _fooled(networks, shown[1], [made])])
            row[name] = benefit.left(own_too, chances)
        kept.append(row)
    found = {k: float(torch.cat([row[k] for row in kept]).mean()) for k in kept[0]}
    found["gain"] = found["best law"] - found["best ticket"]
    found["bound"] = float(benefit.left(table, benefit.best_law(table)).mean())
    return {"metrics": found}


def _examples(groups, attacks: list[dict], alone: dict, setting: dict) -> list[Tensor]:
    """Return what the attacks made on the ensemble, and `alone` on every ticket."""
    made = [({"name": "theta"}, attack) for attack in attacks]
    for i, group in enumerate(groups):
        made += [
            ({"name": "ticket", "place": i, "rank": j}, alone)
            for j in range(len(group))
        ]
    return [
        here(trials.examples(defence=d, attack=a, **setting)["images"]) for d, a in made
    ]


def _fooled(networks, y: Tensor, shown: list[Tensor]) -> Tensor:
    """Tell who misreads what; bool [examples, networks, images]."""
    rows = [torch.stack([~correct(n, x, y) for n in networks]) for x in shown]
    return torch.stack(rows).cpu()


def _laws(known: Tensor) -> dict[str, Tensor]:
    """Find the best law and the best ticket against known examples."""
    single = torch.eye(known.shape[1]).double()
    kept = torch.stack([benefit.left(known, law).mean() for law in single])
    return {
        "best law": benefit.best_law(known),
        "all alike": single.mean(0),
        "best ticket": single[kept.argmax()],
    }


def _arc(networks, chances: Tensor, x: Tensor, y: Tensor, own: dict) -> Tensor:
    """Attack a law: all networks that it draws, as often as it does."""
    drawn = chances > 1e-6
    members = [n for n, some in zip(networks, drawn.tolist(), strict=True) if some]
    shares = chances[drawn] / chances[drawn].sum()
    return arc(members, x, y, probabilities=shares.tolist(), **own)


@runs.stage("ensembles.experiments.bounded.certified")
def certified(
    *, defence: dict, sigma: float, radii: list[float], draws: int, **setting
) -> dict:
    """Certify a defence, smoothed by noise, on all test images.

    `measurements` have the `certified accuracy` at each `radius`, in l2, and what share
    of the images `abstains`.
    """
    target = libraries.model(defence=defence, **setting)
    if isinstance(target, Sampler):
        target.per = "image"
    given = {"sigma": sigma, "draws": draws, "seed": setting["seed"]}
    images = scenes.shown(**setting)["test"]
    table = smoothing.certify(target, *images, **given)
    shares = smoothing.accuracy(table, radii)
    rows = [
        {"metric": "certified accuracy", "radius": radius, "value": float(share)}
        for radius, share in zip(radii, shares, strict=True)
    ]
    abstains = float((table["label"] == smoothing.ABSTAINS).mean())
    rows.append({"metric": "abstains", "value": abstains})
    return {"measurements": pd.DataFrame(rows)}
