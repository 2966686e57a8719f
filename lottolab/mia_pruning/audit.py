"""Bound from below how private a training is, by attacking it.

Jagielski, Ullman & Oprea (2020), "Auditing differentially private machine learning:
how private is private SGD?", NeurIPS. A canary is an example that the auditor puts
into the training set, or not; a score says how much it looks as if it was there. Any
(ε, δ)-private training obeys, at each threshold,

    TPR <= e^ε · FPR + δ    and    1 − FPR <= e^ε · (1 − TPR) + δ,

so rates that do not are evidence of a larger ε, whatever an accountant says.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from lottolab.checks import numbers, require, whole, within

FEWEST = 4  # scores of a kind: two to choose the threshold with, two to judge it with


def epsilon_lower_bound(
    scores_in: ArrayLike,
    scores_out: ArrayLike,
    delta: float,
    *,
    level: float = 0.95,
    seed: int = 0,
) -> float:
    """Return a number, in nats, that with probability `level` is no more than ε.

    The threshold with the largest bound is found on a random half of the scores; its
    rates on the other half, with exact intervals (Clopper and Pearson, 1934) that hold
    together, give the bound. With n scores of each kind it is never above
    log(n / 2) − 1.3 at the level 0.95, however bad the privacy: against an ε above
    that it cannot fail. `privacy.one_run` says how many canaries it takes.

    The interval wants independent scores: a training of its own for each of them, all
    of the same canary or of canaries alike. Scores of several canaries of one model
    hang together; the bound is then an estimate, not a proof (see Steinke et al., 2023,
    "Privacy auditing with one (1) training run", for one that is).

    Args:
        scores_in: float[n], n >= 4, finite, of canaries that were trained on; larger
            for "more likely a member". scores_out: float[m], m >= 4, of those that
            were not.
        delta: δ in [0, 1), of the guarantee that is audited.
        level: in (0, 1). seed: of the halves.

    Returns 0 where nothing is shown; never below.

    Raises:
        ValueError: anything is not as above.

    >>> round(epsilon_lower_bound(np.ones(500), np.zeros(500), delta=1e-5), 2)
    4.21
    """
    within("delta", delta, "[0, 1)")
    within("level", level, "(0, 1)")
    whole("seed", seed, 0)
    rng = np.random.default_rng(seed)
    inside = rng.permutation(_vector("scores_in", scores_in))
    outside = rng.permutation(_vector("scores_out", scores_out))
    i, o = len(inside) // 2, len(outside) // 2
    choices = np.unique(np.concatenate([inside[:i], outside[:o]]))
    found = _bound(inside[:i], outside[:o], choices, delta, level)
    chosen = choices[[found.argmax()]]
    return float(_bound(inside[i:], outside[o:], chosen, delta, level)[0])


def _bound(inside, outside, thresholds, delta: float, level: float) -> np.ndarray:
    """Return the bound at each threshold; a member scores at least as much."""
    misses = np.searchsorted(np.sort(inside), thresholds)
    alarms = len(outside) - np.searchsorted(np.sort(outside), thresholds)
    fnr = _upper(misses, len(inside), level)
    fpr = _upper(alarms, len(outside), level)
    ratios = [(1 - fnr - delta) / fpr, (1 - fpr - delta) / fnr]
    return np.log(np.maximum(ratios, 1).max(0))


def _upper(count: np.ndarray, trials: int, level: float) -> np.ndarray:
    """Return the upper end of Clopper and Pearson's two-sided interval.

    Two such ends, of FNR and of FPR, fail together with probability 1 − level at most.
    """
    end = stats.beta.ppf((1 + level) / 2, count + 1, trials - count)
    return np.where(count == trials, 1.0, end)


def _vector(name: str, values: ArrayLike) -> np.ndarray:
    x = numbers(name, values)
    right = x.ndim == 1 and len(x) >= FEWEST
    what = f"{name} must have one dimension and at least {FEWEST} scores"
    require(right, what, f"shape {x.shape}")
    odd = x[~np.isfinite(x)]
    require(odd.size == 0, f"{name} must be finite", odd[:1])
    return x
