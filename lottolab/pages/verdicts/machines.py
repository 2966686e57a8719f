"""Say how far two machines agree on the measurements that decide claims.

`lottolab machines` computes the same stages with the same seeds in two arithmetics, as
CPUs with other instructions have, or takes another machine's table of them, and keeps
both beside a chapter's results. Trainings
part ways after the first other last bit, so that the two are alike as two runs are that
share their seeds.
"""

import math

import numpy as np
import pandas as pd
from IPython.display import Markdown
from scipy import stats as distributions

from lottolab.checks import within
from lottolab.truth import claims, results, stats
from lottolab.truth.selection import ClaimError, select

SUFFIX = ".machines.csv"
HERE, THERE = "native", "other"
# What two machines' rows of one measurement need not share.
MEASURED = ("value", "error", "freedom", "chosen", "seconds", "fingerprint", "stale")
COLUMNS = ["chapter", "claim", "n", "here", "there", "held"]


def read(chapter: str, scale: str) -> pd.DataFrame | None:
    """Return the measurements of both machines, told apart by the column `machine`
    (`native` or `other`); `arithmetic` says which one that was. None: not computed."""
    path = results.find(chapter, scale, SUFFIX)
    if path is None:
        return None
    return pd.read_csv(path, keep_default_na=False, na_values=[""])


def agreement(chapter: str, scale: str) -> pd.DataFrame:
    """Return two rows for each test of the chapter that both machines have decided.

    The columns are `chapter`, `claim`, `n` (of the interval), `here` and `there` (the
    estimate that has the interval, and the other machine's), `held` (the interval holds
    it), and `x` and `y`, their values by seed. Shares that are 0 or 1 in each network
    are counts and take no part.
    """
    table, rows = read(chapter, scale), []
    stated = claims.load() if table is not None else []
    for claim in (c for c in stated if c.chapter == chapter):
        for test in claim.tests:
            try:
                pair = [_decided(test, table, claim.id, m) for m in (HERE, THERE)]
            except ClaimError:
                continue
            if np.isin(np.concatenate([x for _, x in pair]), (-1, 0, 1)).all():
                continue
            for (one, x), (other, y) in (pair, pair[::-1]):
                held = one.low <= other.estimate <= one.high
                found = (chapter, claim.id, one.n, one.estimate, other.estimate)
                rows.append((*found, held, x, y))
    return pd.DataFrame(rows, columns=[*COLUMNS, "x", "y"])


def _others(chapter: str, scale: str) -> set[str]:
    """Return how the other machine computed: "in avx2", or "on cpu AMD EPYC"."""
    table = read(chapter, scale)
    if table is None:
        return set()
    names = table.loc[table["machine"] == THERE, "arithmetic"].unique()
    known = {"avx2", "sse41"}
    return {f"in {n}" if n in known else f"on {n}" for n in names}


def _decided(test, table: pd.DataFrame, claim: str, machine: str):
    """Return a test's interval on one machine, and its values in the order of seeds."""
    own = table[table["machine"] == machine]
    (interval,) = claims.decide(test, own, claim).intervals
    arms = [select(own, s, claim)["value"] for s in (test.a, test.b) if s is not None]
    values = arms[0] - arms[1] if len(arms) == 2 else arms[0]
    return interval, values.sort_index().to_numpy(dtype=float)


def expected(n: int, shared: float = 0.0) -> float:
    """Return how often a 95 % interval over `n` seeds holds another machine's estimate.

    Both estimates vary, so it is not 95 %. Each is a mean of `n` normal values, which
    correlate by `shared` between the machines, seed by seed: their difference has the
    variance 2 (1 − shared) σ²/n and is independent of the interval's own σ, so that it
    is within t σ/√n as often as a t variable of n − 1 degrees of freedom is within
    t / √(2 (1 − shared)). For many seeds that is 83 % if nothing is shared, 95 % if
    half of the variance is, and 100 % if all is.

    >>> [round(expected(n), 3) for n in (3, 10, 10_000)]
    [0.907, 0.856, 0.834]
    >>> round(expected(10, shared=0.5), 3)
    0.95

    Raises:
        ValueError: there are fewer than two seeds, or `shared` is not in [-1, 1].
    """
    within("n", n, "[2, inf)")
    within("shared", shared, "[-1, 1]")
    if shared == 1:
        return 1.0
    bound = distributions.t.isf((1 - stats.LEVEL) / 2, n - 1)
    bound /= math.sqrt(2 * (1 - shared))
    return float(1 - 2 * distributions.t.sf(bound, n - 1))


def shared(found: pd.DataFrame) -> float:
    """Return the correlation over seeds between machines, pooled over all tests."""
    products = squares = 0.0
    for x, y in zip(found["x"], found["y"], strict=True):
        x, y = x - x.mean(), y - y.mean()
        size = (x @ x + y @ y) / 2
        if size > 0:
            products, squares = products + x @ y / size, squares + 1
    return float(np.clip(products / squares, -1, 1)) if squares else 0.0


def told(chapters: list[str], scale: str) -> Markdown:
    """Say which share of intervals hold the other machine's estimate, and which share
    of 95 % intervals should."""
    found = pd.concat([agreement(c, results.shown(c, scale)) for c in chapters])
    found = found[found["n"] >= 2]
    if found.empty:
        return Markdown(
            "No chapter has been computed in two arithmetics yet: "
            "`lottolab machines <chapter>` does it."
        )
    r = shared(found)
    alone, expects = (
        np.mean([expected(n, max(0.0, of)) for n in found["n"]]) for of in (0.0, r)
    )
    names = ", ".join(found["chapter"].unique())
    ways = " and ".join(
        sorted({how for c in chapters for how in _others(c, results.shown(c, scale))})
    )
    share = (
        f"{found['held'].sum()} of {len(found)} intervals ({found['held'].mean():.0%})"
    )
    return Markdown(
        f"Computed twice, on this machine and {ways}: {names}. {share} hold the "
        f"estimate of the other machine. That is not 95 % for 95 % intervals, because "
        f"both estimates vary: "
        f"with these numbers of seeds it is {alone:.0%} if the machines share nothing, "
        f"and more if what a seed fixes (its data, its first weights) moves both. Over "
        f"seeds the machines' values correlate by {r:.2f}, and with that {expects:.0%} "
        f"are expected. Many fewer would say that the intervals are too narrow. "
        f"Tests of one chapter share networks, so they are not independent of each "
        f"other."
    )


def noise(table: pd.DataFrame) -> dict[str, tuple[float, int]]:
    """Return for each metric the root mean square of what a seed's value differs by
    between the machines, and of how many pairs that is."""
    apart = {*MEASURED, "machine", "arithmetic", "stage"}
    where = [c for c in table if c not in apart]
    text = table[where].astype(object).where(table[where].notna(), "")
    wide = text.assign(value=table["value"].astype(float), machine=table["machine"])
    wide = wide.pivot_table(index=where, columns="machine", values="value").dropna()
    square = ((wide[THERE] - wide[HERE]) ** 2).groupby(level="metric")
    return {m: (math.sqrt(s.mean()), len(s)) for m, s in square}


def bound(rms: float, pairs: int, seeds: int) -> float:
    """Return how far a mean over `seeds` moves on another machine, 19 times of 20.

    `rms` and `pairs` as `noise` has them; seeds are taken to move independently.
    """
    wide = distributions.t.isf((1 - stats.LEVEL) / 2, pairs)
    return float(wide * rms / math.sqrt(seeds))
