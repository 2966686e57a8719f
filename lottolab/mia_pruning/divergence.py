"""The gain of an attack, and of the best there is (section 3.1 and 4.2).

Natural logarithms throughout. The gain is 0 for an attack that is always right and
sure, −log 4 for one that always says ½, which is the best where members and
non-members look alike.
"""

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import rel_entr

from lottolab.checks import check_seed, numbers, require, whole, within

SUM = 1e-6  # by which shares that were counted in float32 may miss 1
FLOOR = 1e-6  # a probability of 0 would cost an infinity for one example


def gain(members: ArrayLike, non_members: ArrayLike, floor: float = FLOOR) -> float:
    """Return the mean log f of members plus the mean log(1 − f) of non-members.

    Equation 1, with D' in the second expectation, where the paper prints D again.
    Both are the attack's probabilities of membership, float[n] in [0, 1]; they are
    clipped to [floor, 1 − floor], with `floor` in (0, ½).

    Raises ValueError for anything else, also for no examples at all.

    >>> round(gain([0.9, 0.8], [0.1, 0.5]), 3)
    -0.564
    """
    within("floor", floor, "(0, 0.5)")
    f, g = vector("members", members), vector("non_members", non_members)
    for name, x in (("members", f), ("non_members", g)):
        odd = x[(x < 0) | (x > 1)]
        require(odd.size == 0, f"{name} must be probabilities in [0, 1]", odd[:1])
    f, g = np.clip(f, floor, 1 - floor), np.clip(g, floor, 1 - floor)
    return float(np.log(f).mean() + np.log1p(-g).mean())


def best_gain(p: ArrayLike, q: ArrayLike) -> float:
    """Return −log 4 + 2·JS(p‖q), the gain of the best attack (Equations 9 and 10).

    `p` and `q` are the distributions of what the attack sees of members and of
    non-members, over the same cells: float[cells], each >= 0 with the sum 1. The best
    attack says p / (p + q) in each cell.

    Raises ValueError for anything else.

    >>> [round(best_gain([0.5, 0.5], q), 3) for q in ([0.5, 0.5], [1, 0])]
    [-1.386, -0.955]
    """
    x, y = vector("p", p), vector("q", q)
    require(x.shape == y.shape, "p and q must have as many cells", (len(x), len(y)))
    for name, d in (("p", x), ("q", y)):
        right = d.min() >= 0 and abs(d.sum() - 1) < SUM
        require(right, f"{name} must be >= 0 with the sum 1", d)
    return float(-np.log(4) + 2 * _divergence(x, y))


def jensen_shannon(
    scores_in: ArrayLike,
    scores_out: ArrayLike,
    *,
    bins: int = 20,
    draws: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """Estimate JS between the scores of members and of non-members; and its bias.

    The bins hold equally many of all scores together (fewer where scores are equal),
    so that only the order of the scores matters. With them the divergence is that of
    the binned distributions, which is never the larger one.

    A finite sample has JS > 0 even of equal distributions: of n members and m
    non-members about (bins − 1)(1/n + 1/m)/8. The second number is that bias, the mean
    estimate over `draws` random exchanges of members and non-members; estimate − bias
    may be below 0. To first order it is right for unequal distributions too, but too
    large where bins hold only members or only non-members.

    Args:
        scores_in, scores_out: float[n] and float[m], finite.
        bins: >= 2. draws: >= 1. seed: of the exchanges.

    Returns the estimate, in [0, log 2], and the bias.

    Raises:
        ValueError: anything is not as above.
    """
    whole("bins", bins, 2)
    whole("draws", draws, 1)
    check_seed(seed)
    inside, outside = vector("scores_in", scores_in), vector("scores_out", scores_out)
    both = np.concatenate([inside, outside])
    edges = np.quantile(both, np.arange(1, bins) / bins)
    place = np.searchsorted(edges, both, side="right")
    total = np.bincount(place, minlength=bins)
    found = np.bincount(place[: len(inside)], minlength=bins)
    rng = np.random.default_rng(seed)
    drawn = rng.multivariate_hypergeometric(total, len(inside), size=draws)
    estimate, *null = _divergence(
        np.vstack([found, drawn]) / len(inside),
        (total - np.vstack([found, drawn])) / len(outside),
    )
    return float(estimate), float(np.mean(null))


def _divergence(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    """Return JS over the last axis.

    Not scipy's `jensenshannon`, its root, which is NaN where rounding makes it < 0.
    """
    middle = (p + q) / 2
    twice = (rel_entr(p, middle) + rel_entr(q, middle)).sum(-1)
    return np.maximum(twice / 2, 0)


def vector(name: str, values: ArrayLike) -> np.ndarray:
    """Return finite numbers in one dimension, float64 [n >= 1], or raise ValueError."""
    x = numbers(name, values)
    right = x.ndim == 1 and len(x) > 0
    require(right, f"{name} must have one dimension and an entry", f"shape {x.shape}")
    odd = x[~np.isfinite(x)]
    require(odd.size == 0, f"{name} must be finite", odd[:1])
    return x
