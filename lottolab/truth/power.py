"""Say how many seeds would decide what is inconclusive, to plan the next run.

A claim needs as many seeds as the hardest of its undecided tests. The mean over seeds
and their spread are taken as they are now; of three seeds the spread is hardly known.

A spread between seeds is made of *networks*, *draws* of a random defence and *images*:
more of one level help no more than its share. The committed tables hold a value a seed,
so that of the lower levels only images are known, where the value is a share of them:
then they explain at most the binomial part, and half or more of a spread that images
explain is cheaper to mend by images. What the tables do not hold is said.
"""

import json
import math

import numpy as np
import pandas as pd
from scipy import stats as distributions

from lottolab.checks import within
from lottolab.truth import claims, results, stats
from lottolab.truth.claim import COUNTS
from lottolab.truth.claims_file import CHAPTERS
from lottolab.truth.selection import select

POWER = 0.8  # how often the test should decide
MOST = 1000  # seeds; beyond it, a claim is as good as undecidable
COLUMNS = ["claim", "seeds", "needed", "minutes", "images", "draws", "next"]
# Shares of the test images, by metric and the beginning of the stage's name.
SHARES = {
    "test_accuracy": "",
    "fresh_accuracy": "",
    "accuracy": ("ensembles.", "modelguard."),
    "robust_accuracy": ("ensembles.",),
    "worst": ("ensembles.",),
}


def seeds(gap: float, deviation: float, level: float = stats.LEVEL) -> float:
    """Return how many seeds a t interval needs to clear a bound with power `POWER`.

    Args:
        gap: from the true mean to the bound, >= 0.
        deviation: standard deviation over seeds, >= 0.
        level: of the two-sided interval, in (0, 1).

    Returns the smallest whole number from `claims.MIN_SEEDS` to `MOST` that is enough
    (by the noncentral t distribution), or infinity.

    Raises:
        ValueError: gap or deviation is negative or not finite.

    >>> seeds(gap=0.5, deviation=1.0), seeds(gap=0.01, deviation=1.0)
    (34, inf)
    """
    for name, value in (("gap", gap), ("deviation", deviation)):
        within(name, value, "[0, inf)")
    within("level", level, "(0, 1)")
    if gap == 0 or deviation == 0:
        return claims.MIN_SEEDS if gap else math.inf
    n = np.arange(claims.MIN_SEEDS, MOST + 1)
    bound = distributions.t.isf((1 - level) / 2, n - 1)
    power = distributions.nct.sf(bound, n - 1, gap * np.sqrt(n) / deviation)
    enough = n[power >= POWER]
    return int(enough[0]) if len(enough) else math.inf


def needed(claim: claims.Claim, table: pd.DataFrame) -> float:
    """Return how many seeds would decide an inconclusive claim, as `seeds` does.

    It is nan if a test that is undecided has fewer than two seeds, hence no spread.
    Raises `claims.ClaimError` as `claims.judge` does.
    """
    most = 0.0
    for test in (*claim.given, *claim.tests):
        verdict = claims.decide(test, table, claim.id)
        if verdict.word != claims.INCONCLUSIVE:
            continue
        if test.kind in COUNTS:  # decided as soon as there are enough
            most = max(most, claims.MIN_SEEDS)
            continue
        (interval,) = verdict.intervals
        if interval.n < 2:
            return math.nan
        gap, level = _gap(test, interval.estimate)
        most = max(most, seeds(gap, interval.deviation, level))
    return most


def _gap(test: claims.Criterion, mean: float) -> tuple[float, float]:
    """Return how far the mean is from the nearest bound, and the interval's level."""
    if test.kind == "equal":
        room = test.margin - abs(mean)  # equal by two one-sided tests, or different
        return abs(room), 2 * stats.LEVEL - 1 if room > 0 else stats.LEVEL
    bounds = {"greater": test.margin, "less": -test.margin}
    return abs(mean - bounds.get(test.kind, test.value)), stats.LEVEL


def table(scale: str) -> pd.DataFrame:
    """Return a row for each inconclusive claim: `claim`, `seeds` that it has, `needed`.

    The claims that need fewest come first. At `edition` a chapter that was not run yet
    counts at `laptop`, here and in `plan`.
    """
    rows, stated = [], claims.load()
    for chapter in CHAPTERS:
        measured = results.read(chapter, results.shown(chapter, scale))
        own = [c for c in stated if c.chapter == chapter and c.tests]
        for claim in own if measured is not None else []:
            verdict = claims.judge(claim, measured)
            if verdict.word == claims.INCONCLUSIVE:
                rows.append((claim.id, verdict.n, needed(claim, measured)))
    return pd.DataFrame(rows, columns=["claim", "seeds", "needed"]).sort_values(
        "needed", kind="stable", ignore_index=True
    )


def plan(scale: str) -> pd.DataFrame:
    """Return where the next minute of computing is best spent, a row an open claim.

    The columns: `claim`; `seeds` that it has and those `needed`; `minutes` that the
    missing ones take, of the stages that the rows come from, without what these ask
    for; the share of the spread between seeds that `images` explain at most, nan where
    the tables do not tell; `draws`, how many each value is a mean over, 0 for none;
    and `next`, what to do. Of each claim its hardest test. Those that need fewest come
    first: the records do not tell which trainings a row asked for, so that `minutes`
    are too few where a stage only judges what others trained.
    """
    rows, stated = [], claims.load()
    for chapter in CHAPTERS:
        shown = results.shown(chapter, scale)
        path = results.find(chapter, shown)
        if path is None:
            continue
        measured = results.load(path)
        stages = results.read_stages(chapter, shown).set_index("stage")
        for claim in (c for c in stated if c.chapter == chapter and c.tests):
            tests = (*claim.given, *claim.tests)
            planned = [_planned(test, measured, stages, claim.id) for test in tests]
            open_tests = [row for row in planned if row is not None]
            whole = claims.judge(claim, measured)
            if open_tests and whole.word == claims.INCONCLUSIVE:
                rows.append(max(open_tests, key=lambda row: row[2]))
    found = pd.DataFrame(rows, columns=COLUMNS)
    return found.sort_values(["needed", "minutes"], kind="stable", ignore_index=True)


def _planned(test: claims.Criterion, table, stages, claim: str) -> tuple | None:
    """Return a row of `plan` for one test, or None if it is decided."""
    verdict = claims.decide(test, table, claim)
    if verdict.word != claims.INCONCLUSIVE or test.kind in COUNTS:
        return None
    (interval,) = verdict.intervals
    gap, level = _gap(test, interval.estimate)
    deviation = interval.deviation
    count = seeds(gap, deviation, level) if interval.n > 1 else math.nan
    arms = [select(table, s, claim) for s in (test.a, test.b) if s is not None]
    own = stages.loc[list(dict.fromkeys(s for arm in arms for s in arm["stage"]))]
    seconds = own["seconds"].astype(float).sum() / interval.n
    minutes = max(count - interval.n, 0) * seconds / 60
    given = [json.loads(text) for text in own["arguments"]]
    draws = max((g.get("draws", 0) for g in given), default=0)
    images = _by_images(arms, stages, deviation)
    told = _next(count, images)
    return (claim, interval.n, count, minutes, images, draws, told)


def _by_images(arms: list[pd.DataFrame], stages, deviation: float) -> float:
    """Return the share of the variance between seeds that images explain at most."""
    binomial = 0.0
    for arm in arms:
        for value, metric, stage in zip(
            arm["value"].astype(float), arm["metric"], arm["stage"], strict=True
        ):
            row = stages.loc[stage]
            images = json.loads(row["arguments"]).get("sizes", {}).get("test")
            known = metric in SHARES and row["function"].startswith(SHARES[metric])
            if not known or not images or not 0 <= value <= 1:
                return math.nan
            binomial += value * (1 - value) / images / len(arm)
    return min(binomial / deviation**2, 1.0) if deviation > 0 else math.nan


def _next(needed: float, images: float) -> str:
    """Return what to do about an open test."""
    if images >= 0.5:
        return "more images: they may explain half of the spread or more"
    told = "" if images < 0.5 else "; what images explain is not in the tables"
    if math.isinf(needed):
        return "another design: no number of networks is enough" + told
    if math.isnan(needed):
        return "three seeds at least" + told
    return f"{needed:.0f} networks" + told
