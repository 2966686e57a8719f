"""Judge measures that bring an error of their own, as models that share images have.

`intervals.crossed` says how sure a measure of a whole pool is, from what each answer of
each model moves it by. Such a measure is one row a pool, whose columns ERRORS hold its
standard error, the degrees of freedom and how many clusters of models it is of; its
`seed` is the pool's number. Pools are independent: the estimate is their mean.
"""

import math
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats as distributions

from lottolab.checks import require
from lottolab.truth.intervals import crossed
from lottolab.truth.intervals.influence import Linear
from lottolab.truth.stats import LEVEL, Interval

ERRORS = ("error", "freedom", "clusters")
KINDS = ("at_least", "at_most")  # that a row of this kind can decide, or be given for


class Measure(NamedTuple):
    """Hold an estimate, its standard error >= 0, degrees of freedom, and clusters."""

    estimate: float
    error: float
    freedom: float
    clusters: int

    def interval(self, level: float = LEVEL) -> Interval:
        """Return the t interval; n are the clusters of models."""
        reach = distributions.t.isf((1 - level) / 2, self.freedom)
        half = float(reach) * self.error
        ends = self.estimate - half, self.estimate + half
        return Interval(self.estimate, *ends, self.clusters, level)

    def above(self, bound: float) -> float:
        """Return one minus the level at which the interval lies above the bound."""
        gap = self.estimate - bound
        if self.error == 0:
            return 0.0 if gap > 0 else 1.0
        return min(1.0, 2 * float(distributions.t.sf(gap / self.error, self.freedom)))


def row(measured: Linear, clusters: np.ndarray) -> dict[str, float]:
    """Return a pool's measure as columns of a results table: `value` and ERRORS.

    `clusters` are as `intervals.crossed.parts` wants them, which says what it refuses.
    """
    found = crossed.parts(measured, clusters)
    own = math.sqrt(found.variance), found.freedom, found.clusters
    return {"value": measured.estimate} | dict(zip(ERRORS, own, strict=True))


def brought(rows: pd.DataFrame) -> bool:
    """Say whether all of these rows of a table bring an error of their own."""
    return set(ERRORS) <= set(rows) and bool(rows[list(ERRORS)].notna().all(axis=None))


def pooled(rows: pd.DataFrame) -> Measure:
    """Return the mean of independent pools' measures, a row a pool.

    The variances add up, the degrees of freedom are Satterthwaite's (1946). Raises
    ValueError where a value or an error is no number.

    >>> rows = pd.DataFrame({"value": [0.1, 0.3], "error": [0.1, 0.1]})
    >>> found = pooled(rows.assign(freedom=[7, 7], clusters=[8, 8]))
    >>> round(found.estimate, 3), round(found.error, 3), round(found.freedom, 1)
    (0.2, 0.071, 14.0)
    """
    names = ["value", *ERRORS]
    value, error, freedom, clusters = rows[names].astype(float).to_numpy().T
    odd = rows.loc[~np.isfinite(value) | ~np.isfinite(error), "value"].tolist()
    require(not odd, "values and their errors must be finite", odd[:3])
    parts = (error / len(rows)) ** 2
    total, squares = parts.sum(), (parts**2 / freedom).sum()
    free = total**2 / squares if squares else freedom.min()
    mean = float(value.mean())
    return Measure(mean, math.sqrt(total), float(free), int(clusters.sum()))


def points(rows: pd.DataFrame) -> str:
    """Write such a mean of differences of shares in points, with its interval.

    >>> rows = pd.DataFrame({"value": [-0.02], "error": [0.004], "freedom": [7]})
    >>> points(rows.assign(clusters=8))
    '-2.0 [-2.9, -1.1]'
    """
    found = pooled(rows)
    own = {"estimate": 100 * found.estimate, "error": 100 * found.error}
    return found._replace(**own).interval().signed
