"""Compare leakage at matched accuracy, by interpolation along a family of treatments.

A defence has a knob: γ of the Min-Max game, the sparsity, ε, the epoch to stop at.
Each setting buys privacy with accuracy, so that one setting of one against one of
another compares two prices. Here the settings of a family make its *frontier*, leakage
as a function of accuracy, straight between neighbours. That is a defence too: to
answer by one of two networks, by a coin, has the mean of both accuracies, and of the
rates at which both are found out at a threshold each.

Nothing is extrapolated: where a family has no setting as accurate, or as inaccurate,
there is no number. Pools of images are the replicates, since the models of a pool refer
to each other and share its images.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike
from scipy.optimize import isotonic_regression

from lottolab.checks import numbers, require, whole
from lottolab.mia_pruning.divergence import vector
from lottolab.truth.selection import select
from lottolab.truth.stats import LEVEL, Interval, mean_interval

Selection = Mapping[str, Any]
NEAR = 1e-12  # a rounding error outside is inside


def points(
    table: pd.DataFrame,
    settings: Mapping[str, Selection],
    accuracy: Selection,
    leakage: Selection,
    *,
    models: int,
) -> pd.DataFrame:
    """Return a family's points: `pool`, `setting`, `accuracy`, `leakage`, `models`.

    Each is the mean over the models of a pool, that of seed // `models`. `accuracy` and
    `leakage` select rows of the results table by its columns, as a claim's `a` does;
    each of `settings` adds what selects one setting of the family (`arm`, `level`).

    Raises ValueError where a selection finds nothing or a seed twice, and where the
    accuracies and the leakages of a setting are not of the same seeds.
    """
    whole("models", models, 1)
    require(len(settings) > 0, "settings must name at least one", "none")
    rows = []
    for name, setting in settings.items():
        found = [
            select(table, {**kind, **setting}, f"frontier, {name}")["value"]
            for kind in (accuracy, leakage)
        ]
        seeds = [sorted(series.index) for series in found]
        same = f"{name} must have accuracy and leakage of the same seeds"
        require(seeds[0] == seeds[1], same, f"{seeds[0]} and {seeds[1]}")
        both = pd.DataFrame(dict(zip(("accuracy", "leakage"), found, strict=True)))
        pools = both.index.to_numpy().astype(int) // models
        for pool, part in both.groupby(pools):
            mean = part.mean().to_dict()
            rows.append({"pool": pool, "setting": name, **mean, "models": len(part)})
    return pd.DataFrame(rows)


def curve(
    accuracy: ArrayLike, leakage: ArrayLike, *, monotone: bool = False
) -> tuple[np.ndarray, np.ndarray]:
    """Return a frontier's corners, by rising accuracy: accuracies and leakages.

    Settings of one accuracy become one corner, of their mean leakage. With `monotone`
    the leakage must not fall where the accuracy rises: of corners that break this the
    mean stands in for each (isotonic regression, the nearest in least squares), which
    is what noise of few models asks for. Both are float[n], finite, n >= 1.

    >>> curve([0.8, 0.7, 0.9], [0.6, 0.5, 0.5], monotone=True)[1].tolist()
    [0.5, 0.55, 0.55]
    """
    x, y = vector("accuracy", accuracy), vector("leakage", leakage)
    require(len(x) == len(y), "there must be a leakage for each accuracy", len(y))
    corners, place, count = np.unique(x, return_inverse=True, return_counts=True)
    mean = np.bincount(place, y) / count
    if monotone:
        mean = isotonic_regression(mean, weights=count).x
    return corners, mean


def at(
    where: ArrayLike,
    accuracy: ArrayLike,
    leakage: ArrayLike,
    *,
    monotone: bool = False,
) -> np.ndarray:
    """Return a family's leakage at other accuracies, float[k]; NaN outside its own.

    >>> at([0.75, 0.95], [0.7, 0.8, 0.9], [0.5, 0.6, 0.9]).tolist()
    [0.55, nan]
    """
    corners, mean = curve(accuracy, leakage, monotone=monotone)
    asked = np.atleast_1d(numbers("where", where))
    inside = (asked >= corners[0] - NEAR) & (asked <= corners[-1] + NEAR)
    return np.where(inside, np.interp(asked, corners, mean), np.nan)


def matched(
    treatment: pd.DataFrame, family: pd.DataFrame, *, monotone: bool = False
) -> pd.DataFrame:
    """Compare a treatment with a family at its own accuracy, in each pool.

    Both are tables as `points` returns them; the treatment has one row a pool, and
    both have the same pools.

    Returns a row a pool: `pool`, `accuracy`, `leakage` of the treatment, `frontier` of
    the family there, and `difference`, the former less the latter. The last two are NaN
    where the family has no such accuracy.

    Raises ValueError where pools are missing, or the treatment has two points in one.
    """
    twice = treatment.loc[treatment["pool"].duplicated(), "pool"].tolist()
    require(not twice, "treatment must have one point a pool", twice)
    _same_pools(treatment, family)
    rows = []
    for pool, where, leakage in zip(
        *(treatment[name] for name in ("pool", "accuracy", "leakage")), strict=True
    ):
        part = family[family["pool"] == pool]
        given = part["accuracy"], part["leakage"]
        there = float(at(where, *given, monotone=monotone)[0])
        rows.append((pool, where, leakage, there, leakage - there))
    columns = ["pool", "accuracy", "leakage", "frontier", "difference"]
    return pd.DataFrame(rows, columns=columns)


def common(*families: pd.DataFrame) -> tuple[float, float]:
    """Return the lowest and the highest accuracy that every family has in every pool.

    Raises ValueError where there is none, or a family lacks a pool.

    >>> one = pd.DataFrame({"pool": [0, 0], "accuracy": [0.7, 0.9]})
    >>> common(one, one.assign(accuracy=[0.8, 0.95]))
    (0.8, 0.9)
    """
    require(len(families) > 0, "there must be a family", "none")
    for other in families:
        _same_pools(families[0], other)
    ends = [f.groupby("pool")["accuracy"].agg(["min", "max"]) for f in families]
    low = max(float(e["min"].max()) for e in ends)
    high = min(float(e["max"].min()) for e in ends)
    require(low <= high, "families must share an accuracy", f"{low:.4f} > {high:.4f}")
    return low, high


def between(
    a: pd.DataFrame,
    b: pd.DataFrame,
    accuracies: ArrayLike,
    *,
    monotone: bool = False,
) -> pd.DataFrame:
    """Compare two families' frontiers at each of some accuracies, in each pool.

    Returns a row a pool and accuracy: `pool`, `accuracy`, `a`, `b` and `difference`,
    a − b, NaN where one of them has no such accuracy. See `common`.

    Raises ValueError where a family lacks a pool.
    """
    _same_pools(a, b)
    asked, rows = np.atleast_1d(numbers("accuracies", accuracies)), []
    for pool in sorted(set(a["pool"])):
        sides = [f[f["pool"] == pool] for f in (a, b)]
        x, y = (
            at(asked, f["accuracy"], f["leakage"], monotone=monotone) for f in sides
        )
        rows += list(zip([pool] * len(asked), asked, x, y, x - y, strict=True))
    return pd.DataFrame(rows, columns=["pool", "accuracy", "a", "b", "difference"])


def over_pools(compared: pd.DataFrame, level: float = LEVEL) -> Interval:
    """Return the mean difference with its t interval over pools.

    `compared` is what `matched` returns, or `between`: the differences of a pool are
    averaged first, over its accuracies. Two pools or more have an interval.

    Raises ValueError, naming them, where a pool has no difference at an accuracy: the
    others alone would be a choice of what suits.
    """
    odd = compared.loc[compared["difference"].isna(), ["pool", "accuracy"]]
    gone = ", ".join(f"{p:g} at {x:.4f}" for p, x in odd.itertuples(index=False))
    what = "every pool must have a difference: nothing is extrapolated"
    require(odd.empty, what, f"none for pool {gone}")
    return mean_interval(compared.groupby("pool")["difference"].mean(), level)


def _same_pools(a: pd.DataFrame, b: pd.DataFrame) -> None:
    missing = sorted(set(a["pool"]) ^ set(b["pool"]))
    require(not missing, "both sides must have the same pools", f"{missing} in one")
