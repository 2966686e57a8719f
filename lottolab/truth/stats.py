"""Say how sure a mean is: intervals, paired differences, equivalence, the bootstrap.

The unit of everything here is the *trained model*, not the test image: images that
one model has seen share its luck, so they tell us about that model and not about the
next one. All functions return an `Interval`; scipy supplies the distributions.

A t interval needs values that are roughly normal over models. It is wrong for rates
so close to 0 or 1 that models agree by chance (three false-positive rates of exactly
0 have no spread, and the t interval then has no width): use `rates` there.
"""

import math
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from numbers import Real

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lottolab.checks import check_seed, held, numbers, require, whole, within

LEVEL = 0.95  # the book's confidence level


@dataclass(frozen=True)
class Interval:
    """Hold an estimate with its interval over `n` trained models (or `n` trials).

    >>> print(Interval(0.913, 0.905, 0.921, n=4))
    0.913 [0.905, 0.921], n = 4
    """

    estimate: float
    low: float
    high: float
    n: int
    level: float = LEVEL

    @property
    def decimals(self) -> int:
        """Return how many decimals to print: three, or up to six if it is narrow."""
        half = (self.high - self.low) / 2
        spread = half if half > 0 else abs(self.estimate)
        return min(max(3, -math.floor(math.log10(spread))), 6) if spread > 1e-9 else 3

    @property
    def deviation(self) -> float:
        """Return the standard deviation behind the t interval of a mean; nan if n = 1.

        >>> round(mean_interval([0.0, 1.0, 2.0]).deviation, 12)
        1.0
        """
        if self.n < 2:
            return math.nan
        half = (self.high - self.low) / 2
        error = half / stats.t.isf((1 - self.level) / 2, self.n - 1)
        return float(error * math.sqrt(self.n))

    @property
    def signed(self) -> str:
        """Write a difference in points: one decimal, with its sign; zero has none.

        >>> Interval(-2.04, -4.5, 0.46, n=3).signed
        '-2.0 [-4.5, +0.5]'
        >>> Interval(-0.01, -0.2, 0.04, n=3).signed
        '0.0 [-0.2, 0.0]'
        """
        told = f"{self.estimate:+z.1f} [{self.low:+z.1f}, {self.high:+z.1f}]"
        return told.replace("+0.0", "0.0")

    def __str__(self) -> str:
        estimate, low, high = (
            f"{x:z.{self.decimals}f}" for x in (self.estimate, self.low, self.high)
        )
        if math.isnan(self.low):
            return f"{estimate} (no interval), n = {self.n}"
        return f"{estimate} [{low}, {high}], n = {self.n}"


def mean_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of float[n], one value per trained model, with its t interval.

    One value gives the estimate with the interval (nan, nan): a number without a
    spread is not a result. Values without any spread give an interval of no width.
    Raises ValueError if `values` is empty, not one-dimensional or not finite.

    >>> print(mean_interval([0.91, 0.92, 0.90]))
    0.910 [0.885, 0.935], n = 3
    """
    x, level = _vector(values), confidence(level)
    mean, n = float(x.mean()), len(x)
    if n == 1:
        return Interval(mean, math.nan, math.nan, 1, level)
    half = float(stats.t.ppf((1 + level) / 2, n - 1)) * _standard_error(x)
    return Interval(mean, mean - half, mean + half, n, level)


def clustered_interval(
    values: ArrayLike, cluster: ArrayLike, level: float = LEVEL
) -> Interval:
    """Return the mean of per-example values, with the interval over trained models.

    `values` is float[examples], `cluster` label[examples] says which trained model
    each belongs to. Every model's examples are averaged, and the t interval is taken
    over those means ("summary measures"): every model weighs the same, however many
    examples it contributes, and `n` counts models. Raises ValueError if the lengths
    differ.

    >>> print(clustered_interval([1, 0, 1, 1, 0, 0], [7, 7, 8, 8, 9, 9]).n)
    3
    """
    x, models = _vector(values), _clusters(values, cluster)
    return mean_interval(np.bincount(models, x) / np.bincount(models), level)


def paired_by(a: Mapping[Hashable, float], b: Mapping[Hashable, float]) -> np.ndarray:
    """Return a − b for each seed, float[n], in the order of `a`.
    Raises ValueError, naming them, if the two do not hold the same seeds.

    >>> paired_by({0: 3.0, 1: 5.0}, {1: 4.0, 0: 1.0})
    array([2., 1.])
    """
    for side in (a, b):
        right = isinstance(side, Mapping)
        right = right and all(isinstance(v, Real) for v in side.values())
        require(right, "both sides must be numbers by seed", side)
    missing = [key for key in (*a, *b) if key not in a or key not in b]
    what = f"both sides must have the same seeds: run or drop {missing}"
    require(not missing, what, f"{[*a]} and {[*b]}")
    return np.array([a[key] - b[key] for key in a], dtype=float)


def paired_difference(a: ArrayLike, b: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of a − b with its t interval, pairing by position.

    Both are float[n] for the same seeds in the same order; where seeds have names,
    `mean_interval(paired_by(a, b))` is safer.
    Raises ValueError if the lengths differ.

    >>> print(paired_difference([0.91, 0.93, 0.92], [0.90, 0.91, 0.92]))
    0.010 [-0.015, 0.035], n = 3
    """
    x, y = _vector(a, "a"), _vector(b, "b")
    same = "a and b must have the same length, one value a seed"
    require(len(x) == len(y), same, f"{len(x)} and {len(y)}")
    return mean_interval(x - y, level)


def equivalence(
    differences: ArrayLike, margin: float, level: float = LEVEL
) -> tuple[float, Interval]:
    """Test with two one-sided t-tests whether a mean difference lies within ±margin.

    Schuirmann (1987). `differences` is float[n], one a seed; `margin` > 0 is the
    largest difference that still counts as equal; `level` is 1 − α, in (0.5, 1).
    Returns p, the larger of the two one-sided p-values (nan when n = 1), and the
    interval at 1 − 2α: p < α exactly when that interval lies within ±margin.
    Raises ValueError if `margin` or `level` is out of range.

    >>> p, interval = equivalence([0.001, -0.002, 0.000], margin=0.01)
    >>> round(p, 4), interval.level
    (0.0041, 0.9)
    """
    within("margin", margin, "(0, inf)")
    within("level", level, "(0.5, 1)")
    x = _vector(differences)
    interval = mean_interval(x, round(2 * level - 1, 12))
    if len(x) == 1:
        return math.nan, interval
    error, room = _standard_error(x), margin - abs(interval.estimate)
    if error == 0:
        return (0.0 if room > 0 else 1.0), interval
    return float(stats.t.sf(room / error, len(x) - 1)), interval


def points(differences: ArrayLike) -> str:
    """Write the mean of differences between shares in percentage points, with interval.

    >>> points([-0.01, -0.02, -0.03])
    '-2.0 [-4.5, +0.5]'
    """
    return mean_interval(100 * numbers("differences", differences)).signed


def bootstrap_interval(
    values: ArrayLike,
    cluster: ArrayLike,
    statistic: Callable[[np.ndarray], float],
    level: float = LEVEL,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return any statistic with a BCa bootstrap interval that resamples whole models.

    For numbers that are no mean, such as an AUC over pooled rows (score, is_member):
    `values` is float[examples, ...], `cluster` label[examples], and `statistic` maps
    the rows of the drawn models to one number. Too narrow with few models (of
    nominal 95 %, about 93 at twenty and 86 at five): where a number per model makes
    sense, prefer `mean_interval`.
    One model, or a statistic that no resample changes, gives (nan, nan). Raises
    ValueError if lengths differ, `values` is not finite, or draws < 100.
    """
    x, level, models = _finite(values), confidence(level), _clusters(values, cluster)
    check_seed(seed)
    whole("draws", draws, 100)
    rows = [np.flatnonzero(models == m) for m in range(models.max() + 1)]
    low = high = math.nan
    if len(rows) > 1:
        low, high = stats.bootstrap(
            (np.arange(len(rows)),),
            lambda drawn: statistic(x[np.concatenate([rows[m] for m in drawn])]),
            vectorized=False,
            n_resamples=draws,
            confidence_level=level,
            rng=np.random.default_rng(seed),
        ).confidence_interval
    return Interval(float(statistic(x)), float(low), float(high), len(rows), level)


def _standard_error(x: np.ndarray) -> float:
    return 0.0 if np.ptp(x) == 0 else float(x.std(ddof=1)) / math.sqrt(len(x))


def _finite(values: ArrayLike, name: str = "values") -> np.ndarray:
    x = numbers(name, values)
    require(x.size > 0, f"{name} must hold at least one number", "none")
    odd = x[~np.isfinite(x)]
    require(odd.size == 0, f"{name} must be finite (rerun what failed)", odd[:1])
    return x


def _vector(values: ArrayLike, name: str = "values") -> np.ndarray:
    x = _finite(values, name)
    require(x.ndim == 1, f"{name} must have one dimension", f"shape {x.shape}")
    return x


def _clusters(values: ArrayLike, cluster: ArrayLike) -> np.ndarray:
    require(hasattr(cluster, "__len__"), "cluster must be labels", type(cluster))
    held("cluster", cluster)
    n, shape = len(np.atleast_1d(numbers("values", values))), np.shape(cluster)
    require(shape == (n,), f"cluster must hold {n} labels, one a value", shape)
    return np.unique(np.asarray(cluster), return_inverse=True)[1]


def confidence(level: float) -> float:
    """Return a level of confidence; raise ValueError unless it is in (0, 1)."""
    within("level", level, "(0, 1)")
    return level
