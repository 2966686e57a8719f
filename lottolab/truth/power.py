"""Say how many seeds would decide what is inconclusive, to plan the next run.

A claim needs as many seeds as the hardest of its undecided tests. The mean over seeds
and their spread are taken as they are now; of three seeds the spread is hardly known.
"""

import math

import numpy as np
import pandas as pd
from scipy import stats as distributions

from lottolab.checks import within
from lottolab.runs import results
from lottolab.truth import claims, stats
from lottolab.truth.claims_file import CHAPTERS

POWER = 0.8  # how often the test should decide
MOST = 1000  # seeds; beyond it, a claim is as good as undecidable


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
    for test in claim.tests:
        verdict = claims.decide(test, table, claim.id)
        if verdict.word != claims.INCONCLUSIVE:
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

    The claims that need fewest come first.
    """
    rows, stated = [], claims.load()
    for chapter in CHAPTERS:
        measured = results.read(chapter, scale)
        own = [c for c in stated if c.chapter == chapter and c.tests]
        for claim in own if measured is not None else []:
            verdict = claims.judge(claim, measured)
            if verdict.word == claims.INCONCLUSIVE:
                rows.append((claim.id, verdict.n, needed(claim, measured)))
    return pd.DataFrame(rows, columns=["claim", "seeds", "needed"]).sort_values(
        "needed", kind="stable", ignore_index=True
    )
