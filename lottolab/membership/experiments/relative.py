"""RMIA as its published tool runs it, and the strongest of all attacks on a pool."""

from functools import partial

import pandas as pd
import torch
from torch import Tensor

from lottolab import runs
from lottolab.membership import signals
from lottolab.membership.attacks import lira, rmia
from lottolab.membership.experiments import families
from lottolab.truth.intervals import strongest as choosing

METRICS = ("auc", "accuracy", "tpr at 1% fpr", "tpr at 0.1% fpr")


def largest_half(target, references, member, z, references_z) -> Tensor:
    """Score by online RMIA at γ = 1, p(z) from the largest half of z's references."""
    usual = rmia.largest_half(references_z)
    return rmia.online(target, references, member, z, usual, gamma=1.0)


ATTACKS = {
    "rmia, online, gamma 1": partial(rmia.online, gamma=1.0),
    "rmia, online, gamma 1, largest half": largest_half,
    "rmia, offline, gamma 1": partial(rmia.offline, gamma=1.0),
}


@runs.stage("membership.experiments.relative.relative")
def relative(*, treatment: dict, group: int, **setting) -> dict:
    """Attack every model of a pool by RMIA at γ = 1.

    At γ = 2 many scores tie, so that a threshold of one model is none of another.
    As in `families.family` others of the treatment are references, but for the
    partner, and fresh images the population. `measurements` are `families.judged`'s.
    """
    seeds, seen = families.known(treatment, group, **setting)
    labels, fresh_labels = seen[0]["labels"], seen[0]["fresh_labels"]
    known = torch.stack([signals.confidence(s["pool"], labels) for s in seen])
    fresh = torch.stack([signals.confidence(s["fresh"], fresh_labels) for s in seen])
    member = torch.stack([s["member"] for s in seen])
    never = torch.zeros(fresh.shape, dtype=torch.bool)
    both = torch.cat([known, fresh], 1), torch.cat([member, never], 1)
    count = len(labels)

    def cut(attack):
        return lambda p, references, had: attack(
            p[:count],
            references[:, :count],
            had[:, :count],
            p[count:],
            references[:, count:],
        )

    found = {
        name: lira.leave_one_out(*both, cut(attack), paired=True)
        for name, attack in ATTACKS.items()
    }
    return {"measurements": pd.DataFrame(families.judged(found, member, seeds))}


@runs.stage("membership.experiments.relative.strongest")
def strongest(*, treatment: dict, groups: list[int], thorough: bool, **setting) -> dict:
    """Report of all attacks of `families.family` and `relative` the best elsewhere.

    Each metric has its own best. Elsewhere are the other pools of `groups` or, where
    there is one, its other pairs of models: these share images and references with
    the target, so that the choice is not wholly independent. `chosen` names it.
    """
    given = {"treatment": treatment} | setting
    found = []
    for group in groups:
        family = families.family(group=group, thorough=thorough, **given)
        found += [f["measurements"] for f in (family, relative(group=group, **given))]
    table = pd.concat(found).assign(pools="all")
    models = setting["sizes"]["models"] if len(groups) > 1 else 2
    there = [metric for metric in METRICS if (table["metric"] == metric).any()]
    rows = [
        choosing.rows(table, metric, models=models, by=("pools",)) for metric in there
    ]
    return {"measurements": pd.concat(rows).drop(columns="pools")}
