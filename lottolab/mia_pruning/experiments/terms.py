"""Comparisons at equal terms: the strongest attack, at matched accuracy, over a pool.

The other arguments are those of `leaks.family`, `elsewhere` the numbers of pools at
which an attack is chosen. A row of measurements is of a whole pool, whose number is its
`seed`, and brings the error of `intervals.measured`: models 2k and 2k + 1, which train
on complementary halves, are one cluster, and the images are a sample too.
"""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lottolab import runs
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import thresholds
from lottolab.membership.experiments import attacks
from lottolab.mia_pruning.comparisons import shared
from lottolab.mia_pruning.experiments import leaks
from lottolab.truth.intervals import influence, measured
from lottolab.truth.intervals.influence import Linear

# One that is compared by itself, beside the strongest of all.
ALONE = "lira, online"
STRONGEST = "strongest"
RATES = {"tpr at 1% fpr": (0.01, False), "tpr at 0.1% fpr": (0.001, True)}


@runs.stage("mia_pruning.experiments.terms.compared")
def compared(*, a: dict, b: dict, group: int, elsewhere: list[int], **setting) -> dict:
    """Compare what two treatments of a pool leak: a − b, at their own accuracies.

    `measurements` of online LiRA and of the strongest attack on each (see `chosen`):
    `auc`, `auc, probit` (the difference of Φ⁻¹ of both AUCs) and the true positive
    rates that so many images allow; and `fresh_accuracy`.
    """
    given = {"group": group, "elsewhere": elsewhere} | setting
    one, other = (_points(t, **given) for t in (a, b))
    found = {key: one[key].leakage - other[key].leakage for key in one}
    first = next(iter(one))
    gained = one[first].accuracy - other[first].accuracy
    return _rows(found | {("", "fresh_accuracy"): gained}, group)


@runs.stage("mia_pruning.experiments.terms.matched")
def matched(
    *,
    treatment: dict,
    family: list[dict],
    group: int,
    elsewhere: list[int],
    **setting,
) -> dict:
    """Compare a treatment with a family at the treatment's accuracy: leakage less that.

    See `comparisons.shared.matched`. The measurements are those of `compared`, and
    `inside` says by 1 or 0 whether the family has this accuracy; where it has not, the
    others are from its nearest end, and no comparison at matched accuracy.
    """
    given = {"group": group, "elsewhere": elsewhere} | setting
    mine = _points(treatment, **given)
    theirs = [_points(how, **given) for how in family]
    found, inside = {}, 1.0
    for key in mine:
        corners = [points[key] for points in theirs]
        found[key], room = shared.matched(mine[key], corners)
        inside = float(room >= -shared.SAME)
    rows = _rows(found, group)["measurements"]
    own = {"seed": group, "metric": "inside", "value": inside, "error": 0.0}
    own |= {"freedom": rows["freedom"].min(), "clusters": rows["clusters"].min()}
    return {"measurements": pd.concat([rows, pd.DataFrame([own])], ignore_index=True)}


@runs.stage("mia_pruning.experiments.terms.leaking")
def leaking(*, treatment: dict, group: int, elsewhere: list[int], **setting) -> dict:
    """Say what a treatment leaks, and how accurate it is.

    The measurements are those of `compared`, without a difference. The column `chosen`
    names the attack that is the strongest elsewhere, by AUC, on most models.
    """
    given = {"group": group, "elsewhere": elsewhere} | setting
    found = _points(treatment, **given)
    accuracy = next(iter(found.values())).accuracy
    wanted = {key: p.leakage for key, p in found.items()}
    rows = _rows(wanted | {("", "fresh_accuracy"): accuracy}, group)["measurements"]
    names = chosen("auc", treatment, **given)
    best = max(sorted(set(names)), key=names.count)
    is_best = (rows["attack"] == STRONGEST) & (rows["metric"] == "auc")
    return {"measurements": rows.assign(chosen=np.where(is_best, best, ""))}


def chosen(
    metric: str, treatment: dict, *, group: int, elsewhere: list[int], **setting
) -> list[str]:
    """Return for each model of a pool the attack that is strongest elsewhere.

    Elsewhere are the pools of that name, each weighing the same or, where there is
    none, the other pairs of this pool, which share images with the model. Of equals the
    first by name. The attacks are all of `families.scored`.
    """

    def of(pool: int) -> pd.DataFrame:
        table = leaks.family(treatment=treatment, group=pool, **setting)["measurements"]
        rows = table[table["metric"] == metric]
        return rows.pivot(index="seed", columns="attack", values="value").sort_index()

    models = setting["sizes"]["models"]
    others = [pool for pool in elsewhere if pool != group]
    if others:
        mean = sum(of(pool).mean() for pool in others)
        return [mean.idxmax()] * models
    values = of(group)
    pair = np.arange(models) // 2
    return [values[pair != own].mean().idxmax() for own in pair]


def _points(treatment: dict, *, group, elsewhere, **setting) -> dict:
    """Return a treatment's point by (attack, metric)."""
    models = setting["sizes"]["models"]
    seeds = [models * group + place for place in range(models)]
    seen = [leaks.answers(treatment=treatment, **setting, seed=s) for s in seeds]
    kept = leaks.family(treatment=treatment, group=group, **setting)
    scores, member = kept["scores"], kept["member"]
    right = [signals.correctness(s["fresh"], s["fresh_labels"]) for s in seen]
    accuracy = influence.share(torch.stack(right).numpy())
    given = {"group": group, "elsewhere": elsewhere} | setting
    found = {}
    for metric, measure in _measures(member).items():
        names = chosen(metric.removesuffix(", probit"), treatment, **given)
        mixed = torch.stack([scores[n][i] for i, n in enumerate(names)])
        for name, rows in ((ALONE, scores[ALONE]), (STRONGEST, mixed)):
            leakage = measure(rows.double().numpy(), member.numpy())
            found[name, metric] = shared.point(leakage, accuracy)
    return found


def _measures(member: Tensor) -> dict[str, Callable[..., Linear]]:
    """Return the measures of leakage that so many non-members allow."""
    found = {"auc": influence.auc}
    found["auc, probit"] = lambda s, m: shared.probit(influence.auc(s, m))
    outside = ~member
    for metric, (rate, common) in RATES.items():
        count = outside.sum() if common else outside.sum(1).min()
        if count >= metrics.needed(rate):
            found[metric] = _at(rate, common)
    return found


def _at(rate: float, common: bool) -> Callable[..., Linear]:
    return lambda s, m: influence.tpr(s, m, rate, common=common)


def _rows(found: dict[tuple[str, str], Linear], group: int) -> dict:
    """Return the measurements of a pool, with their errors over pairs and images."""
    rows = []
    for (attack, metric), value in found.items():
        pairs = np.arange(len(value.influence)) // 2
        own = {"seed": group, "metric": metric} | measured.row(value, pairs)
        rows.append(own | ({"attack": attack} if attack else {}))
    return {"measurements": pd.DataFrame(rows)}


@runs.stage("mia_pruning.experiments.terms.thresholded")
def thresholded(*, treatment: dict, **setting) -> dict:
    """Attack one network by its loss alone (Yeom et al., 2018), as Nasr's attack does.

    `metrics` of the half of the pool that is judged: `auc`, and `accuracy` by the
    threshold that is best on the other half, whose members are known.
    """
    seen = leaks.answers(treatment=treatment, **setting)
    loss, member = signals.loss(seen["pool"], seen["labels"]), seen["member"]
    known, judged = attacks.split(member, setting["seed"])
    limit = thresholds.best(loss[known], member[known])
    found = {"auc": metrics.auc(loss[judged], member[judged])}
    found["accuracy"] = metrics.accuracy(loss[judged], member[judged], limit)
    return {"metrics": found}
