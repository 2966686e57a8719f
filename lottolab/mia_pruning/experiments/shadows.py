"""Yuan and Zhang's attack, as they made it: trained on an attacker's own networks."""

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lottolab import runs
from lottolab.checks import require
from lottolab.images import datasets
from lottolab.membership import metrics
from lottolab.mia_pruning.attacks import class_tokens, samia
from lottolab.mia_pruning.experiments import leaks
from lottolab.truth.intervals import measured
from lottolab.truth.intervals.influence import Linear


@runs.stage("mia_pruning.experiments.shadows.attended")
def attended(
    *,
    treatment: dict,
    group: int,
    shadows: list[int],
    epochs: int,
    attack: dict,
    **setting,
) -> dict:
    """Attack all models of a pool by SAMIA, beside the attack of Nasr et al.

    SAMIA learns from the answers of `shadows`, seeds of another pool, made by the same
    treatment. Both are judged on the half of the target's pool that Nasr's attack (of
    the arguments `attack`) has not learned from. A row a model has the numbers of
    `metrics.rates`; one row the `accuracy gained`, that of SAMIA less that of Nasr's,
    with the error that `intervals.measured` reads.

    The study has five shadow models, trained on splits of an attacker's half of the
    images, 100 epochs, and judges the whole of the target's members and non-members.
    """
    models = setting["sizes"]["models"]
    pools = sorted({shadow // models for shadow in shadows})
    require(group not in pools, f"shadows must not be of pool {group}", pools)
    known = [_felt(treatment, seed, **setting) for seed in shadows]
    given = [tuple(s[k] for k in ("pool", "labels", "felt", "member")) for s in known]
    mine = class_tokens.fit(given, epochs=epochs, seed=group)
    rows, gained = [], []
    for seed in range(models * group, models * (group + 1)):
        seen = _felt(treatment, seed, **setting)
        nasr, judged = leaks.tried(seen, attack, seed)
        truth = seen["member"][judged]
        own = mine(*(seen[k][judged] for k in ("pool", "labels", "felt")))
        both = {"samia": own, "nasr": nasr}
        for name, scores in both.items():
            marks = {"seed": seed, "attack": name}
            found = metrics.rates(scores, truth).items()
            rows += [marks | {"metric": m, "value": v} for m, v in found]
        right = [((scores > 0.5) == truth).double() for scores in both.values()]
        gained.append(_placed(right[0] - right[1], judged, len(seen["member"])))
    pairs = np.arange(models) // 2
    marks = {"seed": group, "metric": "accuracy gained"}
    rows.append(marks | measured.row(_mean(torch.stack(gained)), pairs))
    return {"measurements": pd.DataFrame(rows)}


def _felt(treatment: dict, seed: int, **setting) -> dict:
    """Return a network's answers, and how its confidences feel slight noise: `felt`."""
    given = setting | {"seed": seed}
    model, parts = leaks.trained(treatment, **given)
    scale = datasets.normalisation(parts["train"][0])
    felt = samia.sensitivity(model, parts["pool"][0], scale, seed=seed)
    return leaks.answers(treatment=treatment, **given) | {"felt": felt}


def _placed(values: Tensor, places: Tensor, images: int) -> Tensor:
    """Return values at their places among all images, NaN elsewhere."""
    return torch.full((images,), torch.nan).double().index_copy(0, places, values)


def _mean(values: Tensor) -> Linear:
    """Return the mean over models of the mean over the images that were judged."""
    x = values.numpy()
    there = ~np.isnan(x)
    each = np.nanmean(x, 1, keepdims=True)
    weight = x.shape[1] / there.sum(1, keepdims=True)
    psi = np.where(there, (x - each) * weight, 0.0)
    mean = float(each.mean())
    return Linear(mean, psi + each - mean)
