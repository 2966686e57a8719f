"""Count how often the intervals before and after contain the truth.

*Before* are those that the book's first editions used, t intervals over models (and
exact ones of counts); *after* those of `crossed`, `maxima` and `rates`.
"""

from collections import defaultdict
from collections.abc import Iterable

import numpy as np
import pandas as pd
from scipy import stats as distributions

from lottolab.truth import rates, stats
from lottolab.truth.intervals import crossed, influence, maxima
from lottolab.truth.intervals.coverage import pools, seeds

COLUMNS = ["measurement", "design", "runs", "before", "after", "width", "low", "high"]
Found = tuple[float, stats.Interval, stats.Interval]  # an estimate, before and after


def row(measurement: str, design: str, found: Iterable[Found], truth=None) -> dict:
    """Count hits; the truth is the mean of all estimates unless it is given.

    `width` is the mean width after by that before; `low` and `high` are the exact 95 %
    interval of `after`.
    """
    estimates, *sides = zip(*found, strict=True)
    truths = [np.mean(estimates)] * len(estimates) if truth is None else truth
    hits, widths = [], []
    for side in sides:
        pairs = zip(side, truths, strict=True)
        hits.append(sum(i.low <= t <= i.high for i, t in pairs))
        widths.append(np.mean([i.high - i.low for i in side]))
    runs = len(estimates)
    share = rates.binomial_interval(hits[1], runs)
    cells = (measurement, design, runs, hits[0] / runs, hits[1] / runs)
    cells += (widths[1] / widths[0], share.low, share.high)
    return dict(zip(COLUMNS, cells, strict=True))


def measured(signals: np.ndarray, member: np.ndarray) -> dict[str, tuple]:
    """Return each measure of LiRA, and what the models' own values are today."""
    s = pools.scored(signals, member)
    hits = s > influence.threshold(s[~member], 0.001)
    today = (hits & member).sum(1) / member.sum(1)
    found = {
        "AUC": influence.auc(s, member),
        "balanced accuracy": influence.balanced(s > 0, member),
        "TPR at 1 %": influence.tpr(s, member, 0.01),
        "TPR at 0.1 %": influence.tpr(s, member, 0.001, common=True),
    }
    own = {k: m.estimate + m.influence.mean(1) for k, m in found.items()}
    own["TPR at 0.1 %"] = today
    return {k: (m, own[k]) for k, m in found.items()}


def families(setting: str, runs: int, seed: int, several: int = 4) -> list[dict]:
    """Return rows for chapter 2's design: 16 models, 4,200 images, LiRA.

    Each measure of the dense networks, its difference to their tickets, and the mean
    AUC over `several` pools.
    """
    pair, found, kept = np.arange(16) // 2, defaultdict(list), []
    for pool in pools.pools(setting, runs, seed):
        first = measured(pool.first, pool.member)
        second = measured(pool.second, pool.member)
        kept.append(first["AUC"])
        for name, (a, own) in first.items():
            b, other = second[name]
            for label, m, today in (
                (name, a, own),
                (f"{name}, paired difference", a - b, own - other),
            ):
                sides = stats.mean_interval(today), crossed.interval(m, pair)
                found[label].append((m.estimate, *sides))
    design = f"{setting}, 16 models × 4,200 images"
    rows = [row(name, design, each) for name, each in found.items()]
    joined = []
    for at in range(0, runs - several + 1, several):
        measures, own = zip(*kept[at : at + several], strict=True)
        after = crossed.interval(measures, pair)
        joined.append((after.estimate, stats.mean_interval(np.concatenate(own)), after))
    if len(joined) > 1:
        rows.append(row("AUC", f"{setting}, {several} such pools", joined))
    return rows


def accuracies(runs: int, seed: int) -> list[dict]:
    """Return rows for accuracy differences of networks on the same test images."""
    rows = []
    for n, images in ((3, 2000), (10, 2000), (10, 10_000)):
        found = []
        for dense, ticket in seeds.pairs(runs, seed, n, images):
            m = influence.share(dense) - influence.share(ticket)
            today = stats.mean_interval(dense.mean(1) - ticket.mean(1))
            found.append((m.estimate, today, crossed.interval(m, range(n))))
        design = f"{n} seeds × the same {images:,} images"
        rows.append(row("accuracy, paired difference", design, found))
    return rows


def worst(runs: int, seed: int) -> list[dict]:
    """Return rows for the share of images that survive all of ten draws."""
    rows = []
    for n, images, shared in ((3, 160, False), (10, 160, False), (10, 160, True)):
        found = []
        for right in seeds.draws(runs, seed, n, images, 10, shared=shared):
            today = stats.mean_interval(right.mean(1))
            m = crossed.interval(influence.share(right), range(n)) if shared else today
            found.append((right.mean(), today, m))
        whose = "the same" if shared else "own"
        design = f"{n} seeds × {whose} {images} images"
        rows.append(row("worst of 10 draws", design, found))
    return rows


def counts(runs: int, seed: int) -> list[dict]:
    """Return rows for counts of networks, averaged over all shares alike."""
    rows, random = [], np.random.default_rng(seed)
    for n in (3, 10, 16, 50):
        truth = random.random(runs)
        hits = random.binomial(n, truth)
        both = [
            (rates.binomial_interval(k, n), rates.jeffreys_interval(k, n))
            for k in range(n + 1)
        ]
        found = [(k / n, *both[k]) for k in hits]
        rows.append(row("count", f"hits of {n} networks", found, truth))
    return rows


def strongest(runs: int, seed: int) -> list[dict]:
    """Return rows for the strongest of six attacks; before: chosen on other seeds."""
    rows = []
    for name, gaps in seeds.ATTACKS.items():
        for n in (3, 10):
            found = []
            for x in seeds.attacks(runs, seed, n, gaps):
                chosen = (x.sum(0) - x).argmax(1)
                today = stats.mean_interval(x[np.arange(n), chosen])
                found.append((0.0, today, maxima.strongest_interval(x)))
            rows.append(row("strongest of 6 attacks", f"{n} seeds, {name}", found))
    return rows


def plausible(hits: float, runs: int, low: float = 0.93, high: float = 0.97) -> bool:
    """Say whether a simulated coverage may be one in [`low`, `high`], at 99.9 %."""
    least = distributions.binom.ppf(0.0005, runs, low)
    most = distributions.binom.ppf(0.9995, runs, high)
    return bool(least <= round(hits * runs) <= most)


def table(runs: int, seed: int = 0) -> pd.DataFrame:
    """Return the coverage of all kinds of measurements, the columns `COLUMNS`.

    The designs of pools take 0.1 s a run and setting, the others a few milliseconds.
    """
    rows = [r for setting in pools.SETTINGS for r in families(setting, runs, seed)]
    for kind in (accuracies, worst, counts, strongest):
        rows += kind(runs, seed)
    return pd.DataFrame(rows, columns=COLUMNS)
