"""Check exact bounds of rates against the binomial distribution, term by term."""

import math

import numpy as np
import pytest
from scipy import stats

from lottolab.truth import rates as exact


def tail(k: int, n: int, p: float) -> float:
    """Return P(X ≤ k) for X ~ Binomial(n, p), term by term."""
    return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))


def inverse(f, target: float) -> float:
    """Return p with f(p) = target, for f falling in p, by bisection."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if f(middle) > target else (low, middle)
    return low


@pytest.mark.parametrize("n", [1, 2, 7, 30])
def test_clopper_pearson_inverts_the_binomial_tail(n):
    for k in range(n + 1):
        ours = exact.binomial_interval(k, n)
        high = 1.0 if k == n else inverse(lambda p, k=k: tail(k, n, p), 0.025)
        low = 0.0 if k == 0 else inverse(lambda p, k=k: tail(k - 1, n, p), 0.975)
        assert (ours.low, ours.high) == pytest.approx((low, high), abs=1e-9)
        upper = 1.0 if k == n else inverse(lambda p, k=k: tail(k, n, p), 0.05)
        assert exact.binomial_upper(k, n) == pytest.approx(upper, abs=1e-9)
        assert (ours.estimate, ours.n) == (k / n, n)


@pytest.mark.parametrize("n", [5, 20, 100])
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_exact_bounds_cover_at_least_their_level_for_every_rate(n, level):
    """The coverage here is computed, not simulated: a sum over all outcomes."""
    rates = np.linspace(0.001, 0.999, 499)
    chance = stats.binom.pmf(np.arange(n + 1)[:, None], n, rates)
    both = [exact.binomial_interval(k, n, level) for k in range(n + 1)]
    inside = np.array([(i.low <= rates) & (rates <= i.high) for i in both])
    assert (chance * inside).sum(axis=0).min() >= level - 1e-12
    upper = np.array([exact.binomial_upper(k, n, level) for k in range(n + 1)])
    below = rates <= upper[:, None]
    assert (chance * below).sum(axis=0).min() >= level - 1e-12


def test_rule_of_three():
    assert exact.binomial_upper(0, 1000) == pytest.approx(1 - 0.05 ** (1 / 1000))
    assert round(exact.binomial_upper(0, 1000), 5) == 0.00299
    assert exact.binomial_upper(0, 10_000) == pytest.approx(3 / 10_000, rel=2e-3)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: exact.binomial_interval(11, 10), r"integer in \[0, 10\], got 11"),
        (lambda: exact.binomial_interval(-1, 10), r"integer in \[0, 10\], got -1"),
        (lambda: exact.binomial_upper(0.5, 10), r"integer in \[0, 10\], got 0.5"),
        (lambda: exact.binomial_upper(0, 0), "trials must be an integer >= 1, got 0"),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
