"""One threshold for all: whom an attack accuses as it moves, with intervals."""

from collections.abc import Callable

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lottolab import runs
from lottolab.checks import one_of, whole
from lottolab.membership import signals
from lottolab.membership.attacks import lira
from lottolab.membership.experiments.families import known
from lottolab.truth.intervals import crossed, influence
from lottolab.truth.intervals.influence import ALARMS, Linear

RATES = ("tpr", "fpr", "accuracy", "precision")
EDGES = (0.03, 0.99)  # quantiles of all scores; what lies beyond joins the last bins


def by_confidence(scaled: Tensor, member: Tensor) -> Tensor:
    """Score by the scaled confidence, which ranks images as the loss does."""
    return scaled


def by_lira(scaled: Tensor, member: Tensor) -> Tensor:
    """Score by online LiRA, without the target's partner (see `families.family`)."""
    return lira.leave_one_out(scaled, member, lira.online, paired=True)


SCORES: dict[str, Callable] = {
    "scaled confidence": by_confidence,
    "lira, online": by_lira,
}


@runs.stage("membership.experiments.cuts.swept")
def swept(
    *,
    score: str,
    treatments: dict[str, dict],
    group: int,
    cuts: int,
    bins: int,
    **given,
) -> dict:
    """Move one threshold over the scores of all models of a pool.

    Args:
        score: of SCORES. treatments: by name, A of them; all models of the pool each.
        group: the pool's number.
        cuts: thresholds at most, falling rates apart as the steps of a logarithm.
        bins: of the histograms.

    Returns:
        `cuts`, float64 [T], rising, each with ten false alarms at least; `rates`,
        [A, T, 4, 3], those in RATES with the ends of their 95 % intervals over models
        and images, in [0, 1]; `edges` [bins + 1], and `members` and `others`, the share
        of them in each bin, [A, bins]. `measurements` are the `auc` by `treatment`.
    """
    one_of("score", score, SCORES)
    whole("cuts", cuts, 2)
    whole("bins", bins, 2)
    found = {}
    for name, treatment in treatments.items():
        seen = known(treatment, group, **given)[1]
        scaled = [signals.scaled_confidence(s["pool"], s["labels"]) for s in seen]
        member = torch.stack([s["member"] for s in seen])
        scores = SCORES[score](torch.stack(scaled), member)
        found[name] = scores.double().numpy(), member.numpy()
    limits = thresholds(list(found.values()), cuts)
    edges = np.quantile(np.stack([s for s, _ in found.values()]), EDGES)
    edges = np.linspace(*edges, bins + 1)
    rates = [[rated(s > limit, m) for limit in limits] for s, m in found.values()]
    kinds = {"members": lambda m: m, "others": lambda m: ~m}
    shares = {
        kind: np.stack([_histogram(s[of(m)], edges) for s, m in found.values()])
        for kind, of in kinds.items()
    }
    rows = [
        {"treatment": n, "metric": "auc", "value": influence.auc(*pair).estimate}
        for n, pair in found.items()
    ]
    table = pd.DataFrame(rows).assign(seed=group)
    arrays = {"cuts": limits, "edges": edges, "rates": np.array(rates)} | shares
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    return tensors | {"measurements": table}


def thresholds(found: list[tuple[np.ndarray, np.ndarray]], cuts: int) -> np.ndarray:
    """Return thresholds whose false positive rates fall by equal factors, rising.

    `found` are scores and who is a member, [models, images] each. The rates are those
    of all non-members together, from nearly all of them to ten; a threshold at which
    one of the found has fewer than ten false alarms is left out.
    """
    outside = [np.sort(scores[~member]) for scores, member in found]
    pooled = np.sort(np.concatenate(outside))
    rates = np.geomspace(0.99, min(0.9, ALARMS / len(pooled)), cuts)
    limits = np.unique([influence.threshold(pooled, rate) for rate in rates])
    fewest = [
        min(len(s) - np.searchsorted(s, limit, "right") for s in outside)
        for limit in limits
    ]
    return limits[np.array(fewest) >= ALARMS]


def rated(guesses: np.ndarray, member: np.ndarray) -> np.ndarray:
    """Return the rates of guesses with their intervals, float64 [4, 3].

    `guesses` and `member` are bool [models, images], models 2k and 2k + 1 partners. The
    precision is that of as many members as non-members.
    """
    tpr, fpr = among(guesses, member), among(guesses, ~member)
    both = tpr.estimate + fpr.estimate
    moves = fpr.estimate * tpr.influence - tpr.estimate * fpr.influence
    precision = Linear(tpr.estimate / both, moves / both**2)
    pairs = np.arange(len(member)) // 2
    found = (tpr, fpr, influence.balanced(guesses, member), precision)
    rows = [crossed.interval(linear, pairs) for linear in found]
    return np.clip([(i.estimate, i.low, i.high) for i in rows], 0, 1)


def among(guesses: np.ndarray, kind: np.ndarray) -> Linear:
    """Return the mean share of guesses among one kind of answers: TPR or FPR.

    >>> among(np.array([[True, False], [True, True]]), np.eye(2, dtype=bool)).estimate
    1.0
    """
    count = kind.sum(1, keepdims=True)
    each = (guesses & kind).sum(1, keepdims=True) / count
    own = np.where(kind, (guesses - each) * kind.shape[1] / count, 0.0)
    return Linear(float(each.mean()), own + each - each.mean())


def _histogram(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    inside = np.clip(values, edges[0], edges[-1])
    return np.histogram(inside, edges)[0] / len(values)
