"""Decide one test of a claim from a results table; `verdicts` has the rules."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats as distributions

from lottolab.checks import require
from lottolab.truth import percent, rates, stats
from lottolab.truth.claim import COUNTS, Criterion
from lottolab.truth.intervals import measured
from lottolab.truth.selection import ClaimError, select
from lottolab.truth.verdicts import (
    ALPHA,
    INCONCLUSIVE,
    MIN_SEEDS,
    REFUTED,
    REPRODUCED,
    Verdict,
)


def decide(test: Criterion, table: pd.DataFrame, claim: str) -> Verdict:
    """Return the verdict on one test, by the table at the head of `verdicts`.

    Raises ClaimError, naming claim and selection, if the rows that decide are missing,
    ambiguous, not finite, or not there for the same seeds on both sides.
    """
    rows = [select(table, s, claim) for s in (test.a, test.b) if s is not None]
    if test.kind in measured.KINDS and measured.brought(rows[0]):
        return _measured(test, rows[0], claim)
    try:
        arms = [row["value"].astype(float).to_dict() for row in rows]
        if test.scale == "probit":
            arms = [_probit(arm) for arm in arms]
        x = stats.paired_by(*arms) if len(arms) == 2 else np.array([*arms[0].values()])
        interval = _interval(test, x)
        word, detail = _word(test, x, interval)
    except ValueError as error:
        raise ClaimError(f"claim {claim}: {asked(test)}: {error}") from error
    unit = percent.unit(test, [v for arm in arms for v in arm.values()])
    means = [unit.mean(np.mean([*arm.values()]), interval.decimals) for arm in arms]
    brief = unit.interval(interval, unit.difference if len(arms) == 2 else unit.share)
    ours = f"{' − '.join(means)} = {brief}" if len(arms) == 2 else brief
    if test.kind in COUNTS:
        brief = f"{_hits(test, x).sum()} of {len(x)}"
        ours = f"{brief}; share {percent.PERCENT.interval(interval, ' %')}"
    stale, stages = _origin(rows)
    holds, fails = (1.0, 1.0) if len(x) < MIN_SEEDS else p_values(test, x)
    note = f"{asked(test, unit)}: {detail}"
    found = (ours, (interval,), len(x), stale, holds, fails, stages, brief)
    return Verdict(word, note, *found)


def _measured(test: Criterion, rows: pd.DataFrame, claim: str) -> Verdict:
    """Return the verdict on pools' measures that bring their errors; see `measured`."""
    try:
        found = measured.pooled(rows)
    except ValueError as error:
        raise ClaimError(f"claim {claim}: {asked(test)}: {error}") from error
    interval, value = found.interval(), test.value
    up, down = found.above(value), found._replace(estimate=2 * value - found.estimate)
    least, ends = test.kind == "at_least", (up, down.above(value))
    holds, fails = ends if least else ends[::-1]
    kept = interval.low >= value if least else interval.high <= value
    broken = interval.high < value if least else interval.low > value
    word = REPRODUCED if kept else REFUTED if broken else INCONCLUSIVE
    if kept and found.error == 0:
        holds, fails = 0.0, 1.0
    unit = percent.unit(test, rows["value"])
    (stale, stages), note = _origin([rows]), f"{asked(test, unit)}: {word}"
    ours = unit.interval(interval, unit.share)
    own = (ours, (interval,), interval.n, stale, holds, fails, stages)
    return Verdict(word, note, *own, ours)


def _origin(sides: list[pd.DataFrame]) -> tuple[bool, frozenset[str]]:
    """Return whether a row is stale, and the stages that the rows are of."""
    stale = any(str(cell) == "True" for rows in sides for cell in rows.get("stale", ()))
    return stale, frozenset(str(s) for rows in sides for s in rows.get("stage", ()))


def _probit(arm: Mapping[Any, float]) -> dict[Any, float]:
    for share in arm.values():
        inside = 0 < share < 1
        require(inside, "scale: probit takes shares in (0, 1), no others", share)
    return {seed: float(distributions.norm.ppf(share)) for seed, share in arm.items()}


def _hits(test: Criterion, x: np.ndarray) -> np.ndarray:
    """Say of each network whether it does what a count asks: bool[n]."""
    return {
        "every": x == test.value,
        "every_at_least": x >= test.value,
        "every_at_most": x <= test.value,
    }[test.kind]


def _interval(test: Criterion, x: np.ndarray) -> stats.Interval:
    """Return the mean of x with its interval or, for a count, the share of hits."""
    if test.kind not in COUNTS:
        return stats.mean_interval(x)
    return rates.binomial_interval(int(_hits(test, x).sum()), len(x))


def _word(test: Criterion, x: np.ndarray, ci: stats.Interval) -> tuple[str, str]:
    """Return verdict and its wording for differences, or for one arm's values, x."""
    if len(x) < MIN_SEEDS:
        return INCONCLUSIVE, f"only {len(x)} seed{'s' * (len(x) > 1)}"
    margin, value, equal, detail = test.margin, test.value, False, ""
    if test.kind == "equal":
        p, _ = stats.equivalence(x, margin, 1 - ALPHA)
        equal, detail = p < ALPHA, f" (two one-sided tests, p = {p:.2g})"
    if test.kind in COUNTS:
        return (word := REPRODUCED if ci.estimate == 1 else REFUTED), word
    holds, fails = {
        "equal": (equal, ci.low > margin or ci.high < -margin),
        "greater": (ci.low > margin, ci.high < margin),
        "less": (ci.high < -margin, ci.low > -margin),
        "at_least": (ci.low >= value, ci.high < value),
        "at_most": (ci.high <= value, ci.low > value),
    }[test.kind]
    word = REPRODUCED if holds else REFUTED if fails else INCONCLUSIVE
    return word, word + detail


def p_values(test: Criterion, x: Sequence[float]) -> tuple[float, float]:
    """Return the p of "reproduced" and of "refuted" for float[n >= 2] values, or
    differences, one a seed."""
    x = np.asarray(x, dtype=float)
    if test.kind in COUNTS:
        hits = _hits(test, x)
        return (0.5 ** len(x), 1.0) if hits.all() else (1.0, 0.0)
    if test.kind == "equal":
        p, _ = stats.equivalence(x, test.margin, 1 - ALPHA)
        outside = (_above(x, test.margin), _above(-x, test.margin))
        return p, min(outside)
    bound = {"greater": test.margin, "less": -test.margin}.get(test.kind, test.value)
    up, down = _above(x, bound), _above(-x, -bound)
    if test.kind in ("at_least", "at_most") and np.ptp(x) == 0 and x[0] == bound:
        return 0.0, 1.0  # a bound that is kept to the letter
    return (up, down) if test.kind in ("greater", "at_least") else (down, up)


def _above(x: np.ndarray, bound: float) -> float:
    """Return one minus the level at which a two-sided interval lies above a bound."""
    gap, error = float(x.mean()) - bound, float(x.std(ddof=1)) / math.sqrt(len(x))
    if np.ptp(x) == 0:
        return 0.0 if gap > 0 else 1.0
    return min(1.0, 2 * float(distributions.t.sf(gap / error, len(x) - 1)))


def asked(test: Criterion, unit: percent.Unit | None = None) -> str:
    """Return the question of a test, as "ticket, sparsest > dense − 1 point"; the unit
    is that of `percent.unit` unless it is given."""
    unit = unit or percent.unit(test)
    same = test.b is not None and test.a["metric"] == test.b["metric"]
    a, b = _label(test.a, False), _label(test.b or {}, same)
    if test.scale == "probit":
        a, b = f"Φ⁻¹ of {a}", f"Φ⁻¹ of {b}"
    margin = unit.bound(abs(test.margin), unit.difference)
    value = unit.bound(test.value, unit.share)
    size = f" {'+' if test.margin > 0 else '−'} {margin}"
    back = f" {'−' if test.margin > 0 else '+'} {margin}"
    return {
        "equal": f"{a} = {b} ± {margin}",
        "greater": f"{a} > {b}{size if test.margin else ''}",
        "less": f"{a} < {b}{back if test.margin else ''}",
        "at_least": f"{a} ≥ {value}",
        "at_most": f"{a} ≤ {value}",
        "every": f"{a} = {value} in every network",
        "every_at_least": f"{a} ≥ {value} in every network",
        "every_at_most": f"{a} ≤ {value} in every network",
    }[test.kind]


def _label(selection: Mapping[str, Any], without_metric: bool) -> str:
    names = ", ".join(str(x) for key, x in selection.items() if key != "metric")
    metric = selection.get("metric", "")
    if not names:
        return metric
    return names if without_metric else f"{metric} of {names}"
