"""Say how sure a rate is: exact intervals and bounds of so many hits in so many trials.

Where three models agree by chance, so that their rates have no spread, these hold and
the t interval of `stats` does not.
"""

from scipy import stats

from lottolab.checks import number, require, whole, within
from lottolab.truth.stats import LEVEL, Interval, confidence


def binomial_interval(successes: int, trials: int, level: float = LEVEL) -> Interval:
    """Return a rate with its exact two-sided interval (Clopper and Pearson, 1934).

    The trials must be independent, as false alarms over unrelated keys are; answers
    of one model to many images are not (see `stats.clustered_interval`). Raises
    ValueError if `successes` is no integer in [0, trials], or `trials` none >= 1.

    >>> print(binomial_interval(3, 20))
    0.150 [0.032, 0.379], n = 20
    """
    k, n = _counts(successes, trials)
    ci = stats.binomtest(k, n).proportion_ci(confidence(level), method="exact")
    return Interval(k / n, float(ci.low), float(ci.high), n, level)


def jeffreys_interval(hits: int, trials: int, level: float = LEVEL) -> Interval:
    """Return a rate with Jeffreys' interval, which is right on the average over rates.

    The exact interval holds for every rate, hence for most rates more often than it
    says: of three trials in 99 % of cases. This one, the equal-tailed posterior of
    Jeffreys' prior (Brown, Cai and DasGupta, 2001, "Interval estimation for a binomial
    proportion"), is for a rate that is compared with a value; a statement about *every*
    network takes the exact one. Raises ValueError as `binomial_interval` does.

    >>> print(jeffreys_interval(3, 20))
    0.150 [0.044, 0.349], n = 20
    """
    k, n = _counts(hits, trials)
    tail = (1 - confidence(level)) / 2
    posterior = stats.beta(k + 0.5, n - k + 0.5)
    low = float(posterior.ppf(tail)) if k else 0.0
    high = float(posterior.isf(tail)) if k < n else 1.0
    return Interval(k / n, low, high, n, level)


def binomial_upper(successes: int, trials: int, level: float = LEVEL) -> float:
    """Return the exact one-sided upper bound of a rate, as `binomial_interval` does.

    Without a success the bound at 95 % is 1 − 0.05^(1/trials), close to 3/trials.

    >>> round(binomial_upper(0, 1000), 5)
    0.00299
    """
    k, n = _counts(successes, trials)
    test = stats.binomtest(k, n, alternative="less")
    return float(test.proportion_ci(confidence(level), method="exact").high)


def at_most(share: float, n: int) -> int:
    """Return the largest whole number k with k / n <= `share`, in [0, 1]; n >= 1.

    A product may be rounded over the next whole number: int(0.29 * 100) is 28.

    >>> at_most(0.29, 100)
    29
    """
    whole("n", n, 1)
    within("share", share, "[0, 1]")
    k = int(share * n)
    return k - (k / n > share) + ((k + 1) / n <= share)


def _counts(successes: int, trials: int) -> tuple[int, int]:
    for name, count in (("trials", trials), ("successes", successes)):
        number(name, count, -(2**53), 2**53)
    even = float(trials).is_integer() and trials >= 1
    require(even, "trials must be an integer >= 1", trials)
    inside = float(successes).is_integer() and 0 <= successes <= trials
    require(inside, f"successes must be an integer in [0, {trials}]", successes)
    return int(successes), int(trials)
