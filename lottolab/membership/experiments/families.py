"""Attacks that compare a target with the other models of its pool."""

import pandas as pd
import torch
from scipy.stats import spearmanr
from torch import Tensor

from lottolab import runs
from lottolab.membership import metrics, signals
from lottolab.membership.attacks import lira, rmia, thresholds
from lottolab.membership.experiments.targets import answers, robustness

RMIA = ("online", "offline")


@runs.stage("membership.experiments.families.family")
def family(*, treatment: dict, group: int, thorough: bool, **setting) -> dict:
    """Attack every model of a pool; others of its treatment are its references.

    Its partner, which trained on exactly the other images, is none of them
    (see `partition.subsets`).

    `group` is the pool's number. Returns `measurements`, the rows of
    `judged`. If `thorough`, of the label-only attack too, and the AUC of
    the loss and of online LiRA in each class (`class`). `scores` are those
    of online LiRA, models×images.
    """
    seeds, seen = known(treatment, group, **setting)
    found, member = scored(seen)
    if thorough:
        given = [setting | {"seed": seed} for seed in seeds]
        votes = [robustness(treatment=treatment, **g)["score"] for g in given]
        found["label only"] = torch.stack(votes)
    rows = judged(found, member, seeds)
    for name in ("loss", "lira, online") if thorough else ():
        rows += by_class(name, found[name], member, seen[0]["labels"], seeds)
    kept = {"scores": found["lira, online"], "member": member}
    return kept | {"measurements": pd.DataFrame(rows)}


def scored(seen: list[dict]) -> tuple[dict[str, Tensor], Tensor]:
    """Score the images by every signal and every attack with references.

    `seen` are the answers of all models of a pool, as of `targets.answers`. Returns
    the scores by attack, models×images, and who is a member, of the same shape.
    """
    member = torch.stack([s["member"] for s in seen])
    labels = seen[0]["labels"]
    found = {
        name: torch.stack([signal(s["pool"], labels) for s in seen])
        for name, signal in signals.SIGNALS.items()
    }
    scaled = found.pop("scaled confidence")
    name = "modified entropy"
    found[f"{name}, by class"] = by_own_class(found[name], member, labels)
    for name in ("online", "offline_tail", "offline_density"):
        attack = getattr(lira, name)
        scores = lira.leave_one_out(scaled, member, attack, paired=True)
        found[f"lira, {name}"] = scores
    return found | ratios(seen, member), member


def known(treatment: dict, group: int, **setting) -> tuple[list[int], list[dict]]:
    """Return the seeds of a pool's models and their answers."""
    models = setting["sizes"]["models"]
    seeds = [models * group + place for place in range(models)]
    return seeds, [answers(treatment=treatment, **setting, seed=s) for s in seeds]


def by_own_class(scores: Tensor, member: Tensor, labels: Tensor) -> Tensor:
    """Measure scores, models×images, from the best threshold of each image's class.

    The thresholds are those of the references, as Song and Mittal (2021) take them
    from shadow models.
    """
    rows = []
    for place, mine in enumerate(scores):
        rest = others(place, len(scores))
        shape = [int(rest.sum()), 1]
        truth, there = member[rest].flatten(), labels.repeat(shape).flatten()
        count = int(labels.max()) + 1
        limits = thresholds.by_class(scores[rest].flatten(), there, truth, count)
        rows.append(mine - limits[labels])
    return torch.stack(rows)


def ratios(seen: list[dict], member: Tensor) -> dict[str, Tensor]:
    """Score by RMIA, online and offline; the fresh images are its population."""
    labels, fresh_labels = seen[0]["labels"], seen[0]["fresh_labels"]
    known = torch.stack([signals.confidence(s["pool"], labels) for s in seen])
    fresh = torch.stack([signals.confidence(s["fresh"], fresh_labels) for s in seen])
    count, never = len(labels), torch.zeros(fresh.shape, dtype=torch.bool)

    def scores(attack) -> Tensor:
        def cut(p, references, had):
            z, usual = p[count:], references[:, count:]
            return attack(p[:count], references[:, :count], had[:, :count], z, usual)

        both = torch.cat([known, fresh], 1), torch.cat([member, never], 1)
        return lira.leave_one_out(*both, cut, paired=True)

    return {f"rmia, {name}": scores(getattr(rmia, name)) for name in RMIA}


def judged(
    found: dict[str, Tensor], member: Tensor, seeds: list[int]
) -> list[dict[str, float]]:
    """Return a row for each attack, metric and model of a pool.

    `found` and `member` are those of `scored`. A row holds `attack`, `metric`, `value`
    and the model's `seed`. The metrics are `auc`; `accuracy`, by the threshold that is
    best on the references; `tpr at 1% fpr`; and `tpr at 0.1% fpr`, by the threshold
    that has that rate over the non-members of all models together.
    """
    rows = []
    for name, scores in found.items():
        common = thresholds.at_rate(scores[~member], 0.001)
        for place, seed in enumerate(seeds):
            mine, truth = scores[place], member[place]
            rest = others(place, len(seeds))
            limit = thresholds.best(scores[rest].flatten(), member[rest].flatten())
            values = {"auc": metrics.auc(mine, truth)}
            values["accuracy"] = metrics.accuracy(mine, truth, limit)
            if (~truth).sum() >= metrics.needed(0.01):
                values["tpr at 1% fpr"] = metrics.tpr_at(mine, truth, 0.01)
            if (~member).sum() >= metrics.needed(0.001):
                share = (mine[truth] > common).double().mean()
                values["tpr at 0.1% fpr"] = float(share)
            marks = {"attack": name, "seed": seed}
            rows += [marks | {"metric": m, "value": v} for m, v in values.items()]
    return rows


def others(place: int, models: int) -> Tensor:
    """Mark a model's references: all but itself and its partner; bool [models]."""
    return torch.arange(models) // 2 != place // 2


def by_class(
    name: str, scores: Tensor, member: Tensor, labels: Tensor, seeds: list[int]
) -> list[dict]:
    """Return the AUC of one attack within each class; none for classes of one kind."""
    rows = []
    for place, seed in enumerate(seeds):
        for number in labels.unique().tolist():
            here = labels == number
            truth = member[place][here]
            if truth.all() or not truth.any():
                continue
            value = metrics.auc(scores[place][here], truth)
            marks = {"attack": name, "seed": seed, "class": number}
            rows.append(marks | {"metric": "auc in class", "value": value})
    return rows


@runs.stage("membership.experiments.families.exposed")
def exposed(*, first: dict, second: dict, group: int, **setting) -> dict:
    """Compare which images two treatments expose.

    An image's `exposure` is taken over all models of a treatment. The
    measurements are rank correlations of exposures over disjoint models:
    `between`, by even models of the first treatment and odd ones of the
    second; `within`, by even and odd models of the first, which is the most
    that `between` could reach with so few models.
    """
    pair = [known(treatment, group, **setting)[1] for treatment in (first, second)]
    member = torch.stack([seen["member"] for seen in pair[0]])
    one, other = (
        torch.stack([signals.scaled_confidence(s["pool"], s["labels"]) for s in seen])
        for seen in pair
    )
    even, odd = slice(0, None, 2), slice(1, None, 2)
    a = exposure(one[even], member[even])
    rows = [
        {"metric": name, "value": correlation(a, exposure(x[odd], member[odd]))}
        for name, x in {"within": one, "between": other}.items()
    ]
    table = pd.DataFrame(rows).assign(seed=group)
    found = {"first": exposure(one, member), "second": exposure(other, member)}
    return found | {"measurements": table}


def correlation(a: Tensor, b: Tensor) -> float:
    """Return Spearman's rank correlation over the images that both have."""
    both = ~(a.isnan() | b.isnan())
    return float(spearmanr(a[both], b[both]).statistic)


def exposure(scaled: Tensor, member: Tensor) -> Tensor:
    """Return mean in minus mean out for each image, NaN where one kind is missing."""
    inside = torch.where(member, scaled, torch.nan).nanmean(0)
    return inside - torch.where(member, torch.nan, scaled).nanmean(0)
