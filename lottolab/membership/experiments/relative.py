"""RMIA as its published tool runs it, and the strongest of all attacks on a pool."""

from functools import partial

import numpy as np
import pandas as pd
import torch
from scipy.stats import norm
from torch import Tensor

from lottolab import runs
from lottolab.checks import require
from lottolab.membership import signals
from lottolab.membership.attacks import lira, rmia
from lottolab.membership.experiments import borrowed, families, targets
from lottolab.truth.intervals import influence, measured
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


def known(treatment: dict, group: int, **setting) -> tuple[list[int], list[dict]]:
    """Return the seeds of a pool's models and their answers, also of `borrowed`."""
    stage = borrowed.answers if treatment["name"] == "borrowed" else targets.answers
    models = setting["sizes"]["models"]
    seeds = [models * group + place for place in range(models)]
    return seeds, [stage(treatment=treatment, **setting, seed=s) for s in seeds]


@runs.stage("membership.experiments.relative.relative")
def relative(*, treatment: dict, group: int, **setting) -> dict:
    """Attack every model of a pool by RMIA at γ = 1.

    At γ = 2 many scores tie, so that a threshold of one model is none of another.
    As in `families.family` others of the treatment are references, but for the
    partner, and fresh images the population. `measurements` are `families.judged`'s.
    """
    seeds, seen = known(treatment, group, **setting)
    member = torch.stack([s["member"] for s in seen])
    rows = families.judged(at_one(seen, member), member, seeds)
    return {"measurements": pd.DataFrame(rows)}


def at_one(seen: list[dict], member: Tensor) -> dict[str, Tensor]:
    """Score by RMIA at γ = 1, models×images; `seen` is that of `families.scored`."""
    labels, fresh_labels = seen[0]["labels"], seen[0]["fresh_labels"]
    known = torch.stack([signals.confidence(s["pool"], labels) for s in seen])
    fresh = torch.stack([signals.confidence(s["fresh"], fresh_labels) for s in seen])
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

    return {
        name: lira.leave_one_out(*both, cut(attack), paired=True)
        for name, attack in ATTACKS.items()
    }


@runs.stage("membership.experiments.relative.strongest")
def strongest(*, treatment: dict, groups: list[int], **setting) -> dict:
    """Report, of all attacks that see confidences of a whole pool, the best elsewhere.

    These are the attacks of `families.scored` and `at_one`. Each metric has its own
    best. Elsewhere are the other pools of `groups` or, where there is one, its other
    pairs of models: these share images and references with the target, so that the
    choice is not wholly independent. `chosen` names it; `auc scores` and so on hold its
    scores, (pools · models)×images, and `member` who is a member.
    """
    found, scores, members = [], [], []
    for group in groups:
        seeds, seen = known(treatment, group, **setting)
        given, member = families.scored(seen)
        given |= at_one(seen, member)
        found += families.judged(given, member, seeds)
        scores += [given]
        members += [member]
    table = pd.DataFrame(found).assign(pools="all")
    models = setting["sizes"]["models"]
    apart = models if len(groups) > 1 else 2
    kept: dict = {"member": torch.cat(members)}
    rows = []
    for metric in (m for m in METRICS if (table["metric"] == m).any()):
        best = choosing.rows(table, metric, models=apart, by=("pools",))
        named = list(best.sort_values("seed")["chosen"])
        kept[f"{metric} scores"] = torch.stack(
            [scores[k // models][name][k % models] for k, name in enumerate(named)]
        )
        rows.append(best.drop(columns="pools"))
    return kept | {"measurements": pd.concat(rows)}


@runs.stage("membership.experiments.relative.compared")
def compared(*, first: dict, second: dict, groups: list[int], **setting) -> dict:
    """Compare the strongest attacks on two treatments: the second's minus the first's.

    Models of a pool share images and references, and pairs of them complementary
    halves. So `measurements` hold no model's difference but a row a pool, which brings
    its error over pairs of models and over images (`intervals.measured`); its seed is
    the pool's number. `auc difference, probit` is Φ⁻¹ of one minus that of the other.
    """
    sides = [strongest(treatment=t, groups=groups, **setting) for t in (first, second)]
    member = sides[0]["member"].numpy()
    models = setting["sizes"]["models"]
    pools = [slice(k, k + models) for k in range(0, len(member), models)]
    rows = []
    for name, (metric, measure) in MEASURES.items():
        chosen = f"{metric} scores"
        if chosen not in sides[0]:
            continue
        one, other = (
            [measure(side[chosen].numpy()[p], member[p]) for p in pools]
            for side in sides
        )
        pairs = np.arange(models) // 2
        rows += [
            {"metric": name, "seed": group} | measured.row(b - a, pairs)
            for group, a, b in zip(groups, one, other, strict=True)
        ]
    return {"measurements": pd.DataFrame(rows)}


def probit_auc(scores: np.ndarray, member: np.ndarray) -> influence.Linear:
    """Return Φ⁻¹ of the AUC; its influence is the AUC's, divided by the density there.

    Raises ValueError for an AUC of 0 or 1.
    """
    found = influence.auc(scores, member)
    inside = 0 < found.estimate < 1
    require(inside, "probit takes an AUC in (0, 1), no other", found.estimate)
    place = norm.ppf(found.estimate)
    return influence.Linear(float(place), found.influence / norm.pdf(place))


MEASURES = {
    "auc difference": ("auc", influence.auc),
    "auc difference, probit": ("auc", probit_auc),
    "tpr at 1% fpr difference": ("tpr at 1% fpr", partial(influence.tpr, rate=0.01)),
}
