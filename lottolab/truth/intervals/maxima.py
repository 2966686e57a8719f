"""Say how sure the strongest of several attacks is.

The mean of the attack that is best on the same seeds is too high where several are
close, and the mean of each seed's best is far too high. Chosen on the other seeds
(cross-fitting, as `modelguard.attacks.measures.strongest_rows` does) it is too low: the
second best is sometimes chosen. One bound of each holds on both sides.
"""

import math

import numpy as np
from numpy.typing import ArrayLike

from lottolab.checks import numbers, require
from lottolab.truth.stats import LEVEL, Interval, mean_interval


def strongest_interval(values: ArrayLike, level: float = LEVEL) -> Interval:
    """Return the mean of the attack that is best in the long run, with its interval.

    `values` is float [seeds, attacks], each attack's success on each seed, larger for
    stronger. The estimate and the lower bound are those of the attack that is chosen,
    for each seed, on the others; the upper bound that of the attack whose mean is
    largest. A single attack has the t interval of `stats.mean_interval`. One seed has
    no interval.

    Raises ValueError unless the values are finite and two-dimensional.

    >>> print(strongest_interval([[0.5, 0.6], [0.5, 0.7], [0.6, 0.7]]))
    0.667 [0.523, 0.810], n = 3
    """
    x = numbers("values", values)
    shape = f"shape {x.shape}"
    require(x.ndim == 2 and x.size > 0, "values must be [seeds, attacks]", shape)
    odd = x[~np.isfinite(x)]
    require(odd.size == 0, "values must be finite", odd[:1])
    total = x.sum(0)
    if len(x) == 1:
        return Interval(float(x.max()), math.nan, math.nan, 1, level)
    elsewhere = (total - x).argmax(1)
    fair = mean_interval(x[np.arange(len(x)), elsewhere], level)
    best = mean_interval(x[:, total.argmax()], level)
    high = max(best.high, fair.estimate)
    return Interval(fair.estimate, fair.low, high, len(x), level)
