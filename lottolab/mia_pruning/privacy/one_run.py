"""Bound from below how private a training is, by attacking a single run of it.

Steinke, Nasr & Jagielski (2023), "Privacy auditing with one (1) training run", NeurIPS.
Each of m canaries is in the training set or not, by a fair coin of its own. Who sees
what was trained guesses some of the coins and abstains from the others. If the training
is (ε, δ)-private, the number of right guesses among r is at most as large as that of
r coins that are right with probability e^ε / (1 + e^ε), but for a term in δ (Theorem
5.2), so that too many right guesses are evidence of a larger ε.

**What is audited.** A coin changes one canary from absent to present: neighbours that
differ by one example, added or removed, all else equal. "All else" holds the rate q of
the batches, the number of steps and the expected batch by which the noisy sum is
divided: all are constants that must not follow the number of canaries that are in (see
`canaries.Trapdoor`, where an absent one leaves an empty place). Where each coin
chooses between two examples, the guarantee is that of a replacement, which by
add/remove costs up to 2ε.

**What it can show.** Also perfect guesses prove only so much: `cap`. An audit whose cap
is below the ε that is claimed cannot fail, and proves nothing; `canaries_needed` says
how many it takes.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from scipy.special import expit

from lottolab.checks import numbers, require, whole, within

LARGEST = 40.0  # an ε beyond which coins are right for certain in float64
NEAR = 1e-7  # to which a bound is searched


class Found(NamedTuple):
    """What an audit shows: the lower bound of ε, and the guesses that it rests on.

    `cap` is what as many guesses would have shown, had all been right.
    """

    epsilon: float
    guesses: int
    correct: int
    cap: float


def p_value(
    correct: int, guesses: int, canaries: int, epsilon: float, delta: float
) -> float:
    """Return a bound of the chance of so many right guesses or more, in (0, 1].

    Of `guesses` = r of m = `canaries` coins, v = `correct` are right, and the training
    is (ε, δ)-private. With W of the binomial distribution of r trials and e^ε / (1 +
    e^ε) it is P(W ≥ v) + 2mδ · max over i of P(v > W ≥ v − i) / i (Theorem 5.2).

    Raises ValueError unless 0 <= v <= r <= m, with m >= 1, ε in [0, 40], δ in [0, 1).

    >>> round(p_value(10, 10, 10, 0.0, 0.0) * 2**10, 6)
    1.0
    """
    _checked(guesses, canaries, delta)
    within("epsilon", epsilon, f"[0, {LARGEST:g}]")
    whole("correct", correct, 0)
    require(correct <= guesses, f"correct must be at most {guesses}", correct)
    right = expit(epsilon)
    tail = float(stats.binom.sf(correct - 1, guesses, right))
    if delta == 0 or correct == 0:
        return min(tail, 1.0)
    below = stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, right)
    worst = float((below.cumsum() / np.arange(1, correct + 1)).max())
    return min(tail + 2 * canaries * delta * worst, 1.0)


def epsilon_lower_bound(
    correct: int,
    guesses: int,
    canaries: int,
    delta: float,
    *,
    level: float = 0.95,
) -> float:
    """Return a number, in nats, that with probability `level` is no more than ε.

    It is the largest ε whose `p_value` is at most 1 − level, or 0 where nothing is
    shown; never above `cap`. How many guesses are made must not follow the coins.

    Raises ValueError as `p_value` does, or for a level outside (0, 1).

    >>> round(epsilon_lower_bound(100, 100, 100, 0.0), 3)  # log of q / (1 − q)
    3.493
    """
    within("level", level, "(0, 1)")
    alpha = 1 - level

    def shown(epsilon: float) -> bool:
        return p_value(correct, guesses, canaries, epsilon, delta) <= alpha

    if not shown(0.0):
        return 0.0
    low, high = 0.0, LARGEST
    while high - low > NEAR:
        middle = (low + high) / 2
        low, high = (middle, high) if shown(middle) else (low, middle)
    # Private with less is private with `low`, so that one rejection rejects all below.
    return low


def cap(
    canaries: int, delta: float, *, guesses: int | None = None, level: float = 0.95
) -> float:
    """Return the largest ε that so many canaries can show: that of right guesses alone.

    `guesses` of them are guessed, all if None. With δ = 0 it is log q / (1 − q) with q
    the r-th root of 1 − level, about log(r / 3) at the level 0.95. A δ > 0 limits it
    however many there are: with ever more it tends to log((1 − level) / 2δ − 1).

    >>> [round(cap(m, 1e-5), 2) for m in (500, 2000)]
    [5.1, 6.45]
    """
    count = canaries if guesses is None else guesses
    return epsilon_lower_bound(count, count, canaries, delta, level=level)


def canaries_needed(
    epsilon: float, delta: float, *, share: float = 1.0, level: float = 0.95
) -> int:
    """Return the fewest canaries of which a `share`, all guessed right, shows an ε.

    A share of less than one is what an audit needs: of m fair coins some √m more or
    fewer than half fall "in", so that a guess of all is not all right.

    Raises ValueError for an ε outside (0, 40], a δ outside [0, 1) or a share outside
    (0, 1], and where no number does, since the bound allows for mδ of chance.

    >>> canaries_needed(6.28, 1e-5), canaries_needed(6.28, 1e-5, share=0.9)
    (1674, 1870)
    """
    within("epsilon", epsilon, f"(0, {LARGEST:g}]")
    within("delta", delta, "[0, 1)")
    within("share", share, "(0, 1]")
    within("level", level, "(0, 1)")
    alpha = 1 - level

    def short(count: int) -> bool:
        made = round(share * count)
        return p_value(made, made, count, epsilon, delta) > alpha

    # Without δ it takes so many; with δ more, if any number does.
    fewest = math.log(alpha) / -np.logaddexp(0, -epsilon) / share
    count = fewest = max(math.floor(fewest - 0.5 / share), 1)
    while short(count):
        count += max(count // 1000, 1)
        what = f"no number of canaries shows an epsilon of {epsilon}: audit a smaller δ"
        require(count <= 50 * fewest, what, f"delta = {delta}")
    while count > fewest and not short(count - 1):
        count -= 1
    return count


def guess(scores: ArrayLike, present: int, absent: int) -> np.ndarray:
    """Guess the coins from scores, and abstain where they say least: int8[m].

    The `present` largest scores are guessed in (1), the `absent` smallest out (−1), all
    between are 0. Equal scores go by their place.

    Args:
        scores: float[m], finite; larger for "more likely in".
        present, absent: >= 0, together in [1, m].

    Raises ValueError for anything else.

    >>> guess([0.1, 3.0, -2.0, 0.3], 1, 2).tolist()
    [-1, 1, -1, 0]
    """
    x = _vector(scores)
    whole("present", present, 0)
    whole("absent", absent, 0)
    total = present + absent
    within_m = f"present + absent must be in [1, {len(x)}], the canaries"
    require(1 <= total <= len(x), within_m, total)
    rising = np.argsort(x, kind="stable")
    found = np.zeros(len(x), dtype=np.int8)
    found[rising[:absent]] = -1
    found[rising[len(x) - present :]] = 1
    return found


def audit(
    scores: ArrayLike,
    present: ArrayLike,
    delta: float,
    *,
    shares: Sequence[float] = (1.0,),
    level: float = 0.95,
) -> Found:
    """Bound ε from below by the scores of one run's canaries.

    Half of the guesses are "in", half "out". For each of `shares`, that part of the
    canaries is guessed, the surest ones; the largest bound counts, each held at the
    level 1 − (1 − level) / so many shares (Bonferroni), so that the choice costs.

    Args:
        scores: float[m], finite; larger for "more likely in".
        present: bool[m] (or 0 and 1), how the coins fell: fair, each independent.
        delta: δ in [0, 1), of the guarantee that is audited. shares: in (0, 1], fixed
            before the run. level: in (0, 1).

    Raises ValueError for anything else.
    """
    x = _vector(scores)
    coins = numbers("present", present)
    right = coins.shape == x.shape and bool(np.isin(coins, (0, 1)).all())
    require(right, f"present must be 0 or 1 of shape {x.shape}", coins.shape)
    require(len(shares) > 0, "shares must hold at least one", shares)
    within("level", level, "(0, 1)")
    each, found = 1 - (1 - level) / len(shares), []
    for share in shares:
        within("a share", share, "(0, 1]")
        count = max(round(share * len(x)), 1)
        made = guess(x, count // 2, count - count // 2)
        hits = int(((made == 1) & (coins == 1) | (made == -1) & (coins == 0)).sum())
        given = {"canaries": len(x), "delta": delta, "level": each}
        bound = epsilon_lower_bound(hits, count, **given)
        found.append(Found(bound, count, hits, cap(guesses=count, **given)))
    return max(found, key=lambda one: one.epsilon)


def _checked(guesses: int, canaries: int, delta: float) -> None:
    whole("canaries", canaries, 1)
    whole("guesses", guesses, 0)
    require(guesses <= canaries, f"guesses must be at most {canaries}", guesses)
    within("delta", delta, "[0, 1)")


def _vector(scores: ArrayLike) -> np.ndarray:
    x = numbers("scores", scores)
    right = x.ndim == 1 and len(x) > 0
    require(right, "scores must have one dimension and an entry", f"shape {x.shape}")
    odd = x[~np.isfinite(x)]
    require(odd.size == 0, "scores must be finite", odd[:1])
    return x
