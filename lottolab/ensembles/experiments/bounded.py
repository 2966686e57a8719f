"""Bounds of chapter 3: what no law can keep, and what no attack can take.

The arguments are those of `trials`.
"""

import pandas as pd
import torch

from lottolab import runs
from lottolab.ensembles.bounds import benefit, smoothing
from lottolab.ensembles.experiments import libraries, trials
from lottolab.ensembles.queries import correct
from lottolab.ensembles.sampler import Sampler
from lottolab.nets.device import here


@runs.stage("ensembles.experiments.bounded.law")
def law(*, attacks: list[dict], alone: dict, **setting) -> dict:
    """Ask what the best law could gain that draws one ticket of the library a query.

    The examples are those that the attack `alone` made on every ticket and that
    `attacks` made on the paper's ensemble; the attacker shows the one of them that
    fools most of the law. On every other image the best law is found, and the best
    ticket. `metrics` are the expected accuracies on the images between: of the `best
    law`, of `all alike`, which draws each ticket as often, and of the `best ticket`;
    and the `gain` of the first over the last.
    """
    y = libraries.test(libraries.read(**setting))[1]
    networks = [n for group in libraries.networks(**setting) for n in group]
    made = [({"name": "theta"}, attack) for attack in attacks]
    for i, group in enumerate(libraries.networks(**setting)):
        made += [
            ({"name": "ticket", "place": i, "rank": j}, alone)
            for j in range(len(group))
        ]
    fooled = []
    for defence, attack in made:
        x = trials.examples(defence=defence, attack=attack, **setting)["images"]
        fooled.append(torch.stack([~correct(n, here(x), y) for n in networks]))
    table = torch.stack(fooled).cpu()
    known, other = table[:, :, ::2], table[:, :, 1::2]
    alike = torch.ones(len(networks)).double() / len(networks)
    kept = torch.stack(
        [benefit.left(known, law).mean() for law in torch.eye(len(networks))]
    )
    laws = {
        "best law": benefit.best_law(known),
        "all alike": alike,
        "best ticket": torch.eye(len(networks))[kept.argmax()],
    }
    found = {k: float(benefit.left(other, law).mean()) for k, law in laws.items()}
    gain = found["best law"] - found["best ticket"]
    return {"metrics": found | {"gain": gain}}


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
    images = libraries.test(libraries.read(**setting))
    table = smoothing.certify(target, *images, **given)
    shares = smoothing.accuracy(table, radii)
    rows = [
        {"metric": "certified accuracy", "radius": radius, "value": float(share)}
        for radius, share in zip(radii, shares, strict=True)
    ]
    abstains = float((table["label"] == smoothing.ABSTAINS).mean())
    rows.append({"metric": "abstains", "value": abstains})
    return {"measurements": pd.DataFrame(rows)}
