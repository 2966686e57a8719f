"""Check the intervals against simulation and against formulas written out anew.

A simulated coverage is itself random: it must lie inside the central 99.9 % of the
binomial distribution that the nominal coverage implies. Where it matters, the test
also shows that the wrong method fails the very same bound. A thousand simulations see
coverages that are wrong by three points; the long campaign sees half of that.
"""

import doctest
import math

import numpy as np
import pytest
from scipy import integrate, special
from scipy import stats as scipy_stats

from lottolab.truth import stats


@pytest.fixture(params=[1000, pytest.param(3000, marks=pytest.mark.long)])
def runs(request):
    """Return how many simulations a coverage is counted over."""
    return request.param


def plausible(hits: int, runs: int, rate: float) -> bool:
    """Tell whether `hits` of `runs` are what an event of this `rate` can give."""
    low, high = scipy_stats.binom.interval(0.999, runs, rate)
    return low <= hits <= high


def covers(interval: stats.Interval, truth: float) -> bool:
    return interval.low <= truth <= interval.high


def test_examples_in_docstrings_run():
    assert doctest.testmod(stats).failed == 0


# Means


@pytest.mark.parametrize("n", [3, 4, 5])
def test_t_interval_covers_95_percent_and_a_normal_interval_does_not(n, runs):
    truth = 0.9
    x = np.random.default_rng(n).normal(truth, 0.02, (runs, n))
    hits = sum(covers(stats.mean_interval(row), truth) for row in x)
    assert plausible(hits, runs, 0.95), hits / runs
    error = 1.96 * x.std(axis=1, ddof=1) / math.sqrt(n)
    assert not plausible((abs(x.mean(axis=1) - truth) < error).sum(), runs, 0.95)


def test_t_interval_follows_its_level(runs):
    x = np.random.default_rng(1).normal(size=(runs, 4))
    hits = sum(covers(stats.mean_interval(row, level=0.8), 0) for row in x)
    assert plausible(hits, runs, 0.8)


def test_t_interval_equals_scipys_test():
    x = [0.91, 0.93, 0.90, 0.95]
    ours = stats.mean_interval(x, 0.9)
    low, high = scipy_stats.ttest_1samp(x, 0).confidence_interval(0.9)
    assert (ours.low, ours.high) == pytest.approx((low, high), rel=1e-12)
    assert ours.estimate == pytest.approx(0.9225)
    assert (ours.n, ours.level) == (4, 0.9)


def test_one_value_has_no_interval():
    one = stats.mean_interval([0.9])
    assert one.n == 1
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert str(one) == "0.900 (no interval), n = 1"


def test_equal_values_have_an_interval_of_no_width():
    same = stats.mean_interval([0.1, 0.1, 0.1])
    assert same.low == same.high == pytest.approx(0.1)


def test_clustered_interval_covers_where_the_unclustered_one_does_not(runs):
    """Ten models of 20 examples; the model explains two thirds of the variance."""
    models, examples = 10, 20
    rng = np.random.default_rng(0)
    luck = rng.normal(0, math.sqrt(2), (runs, models, 1))
    x = (luck + rng.normal(0, 1, (runs, models, examples))).reshape(runs, -1)
    cluster = np.repeat(np.arange(models), examples)
    hits = sum(covers(stats.clustered_interval(row, cluster), 0) for row in x)
    naive = sum(covers(stats.mean_interval(row), 0) for row in x[:300])
    assert plausible(hits, runs, 0.95), hits / runs
    assert naive / 300 < 0.5


def test_clustered_interval_weighs_models_equally_in_any_order():
    interval = stats.clustered_interval([1, 0, 0, 0, 1, 1], list("abbbac"))
    assert interval.estimate == pytest.approx((1 + 0 + 1) / 3)
    assert interval.n == 3


# Pairs


def test_paired_difference_covers_when_seeds_share_their_luck(runs):
    rng = np.random.default_rng(5)
    shared = rng.normal(0, 1, (runs, 4))
    a = shared + rng.normal(0.3, 0.1, (runs, 4))
    b = shared + rng.normal(0.0, 0.1, (runs, 4))
    found = [stats.paired_difference(x, y) for x, y in zip(a, b, strict=True)]
    assert plausible(sum(covers(i, 0.3) for i in found), runs, 0.95)
    unpaired = scipy_stats.ttest_ind(a, b, axis=1).confidence_interval()
    ours = np.median([i.high - i.low for i in found])
    assert ours < np.median(unpaired.high - unpaired.low) / 3


def test_pairing_by_seed_ignores_order_and_names_what_is_missing():
    assert stats.paired_by({1: 5, 2: 7}, {2: 3, 1: 4}).tolist() == [1, 4]
    with pytest.raises(ValueError, match=r"same seeds: run or drop \[2, 9\]"):
        stats.paired_by({1: 0, 2: 0}, {1: 0, 9: 0})


# Equivalence


@pytest.mark.parametrize("side", [-1, 1])
def test_false_equivalence_at_the_margin_stays_below_alpha(side, runs):
    """At the margin with room to spare on the other side, the rate is α itself."""
    margin = 0.01
    x = np.random.default_rng(2 + side).normal(side * margin, 0.002, (runs, 4))
    hits = sum(stats.equivalence(row, margin)[0] < 0.05 for row in x)
    assert hits <= scipy_stats.binom.ppf(0.999, runs, 0.05)
    assert plausible(hits, runs, 0.05), hits / runs


def test_equivalence_has_the_power_that_numerical_integration_predicts(runs):
    """P(|d̄| < margin − t·s/√n), integrated over s with the χ² density."""
    n, margin, sigma = 4, 0.01, 0.005
    x = np.random.default_rng(4).normal(0, sigma, (runs, n))
    hits = sum(stats.equivalence(row, margin)[0] < 0.05 for row in x)
    chi2 = np.linspace(1e-6, 60, 200_001)
    s = sigma * np.sqrt(chi2 / (n - 1))
    room = margin - scipy_stats.t.ppf(0.95, n - 1) * s / math.sqrt(n)
    inside = 2 * special.ndtr(np.maximum(room, 0) * math.sqrt(n) / sigma) - 1
    power = integrate.trapezoid(inside * scipy_stats.chi2.pdf(chi2, n - 1), chi2)
    assert 0.5 < power < 0.95
    assert plausible(hits, runs, power), (hits / runs, power)


def test_equivalence_is_the_larger_of_scipys_two_one_sided_tests():
    rng = np.random.default_rng(6)
    for n in (2, 3, 5, 9):
        x = rng.normal(0.3, 1, n)
        p, interval = stats.equivalence(x, margin=1.2)
        above = scipy_stats.ttest_1samp(x, -1.2, alternative="greater").pvalue
        below = scipy_stats.ttest_1samp(x, +1.2, alternative="less").pvalue
        assert p == pytest.approx(max(above, below), rel=1e-9)
        low, high = scipy_stats.ttest_1samp(x, 0).confidence_interval(0.90)
        assert (interval.low, interval.high) == pytest.approx((low, high))
        assert interval.level == 0.90
        assert (p < 0.05) == (interval.low > -1.2 and interval.high < 1.2)


def test_equivalence_without_spread_or_with_one_seed():
    assert stats.equivalence([0.5, 0.5, 0.5], 1)[0] == 0
    assert stats.equivalence([1.0, 1.0, 1.0], 1)[0] == 1
    assert stats.equivalence([-2.0, -2.0], 1)[0] == 1
    assert math.isnan(stats.equivalence([0.0], 1)[0])


# Bootstrap


def auc(rows: np.ndarray) -> float:
    score, member = rows[:, 0], rows[:, 1] > 0
    u = scipy_stats.mannwhitneyu(score[member], score[~member]).statistic
    return u / (member.sum() * (~member).sum())


def test_cluster_bootstrap_of_a_mean_covers_at_twenty_models(runs):
    """The bootstrap is only asymptotically right: 90 % is asked for, not 95 %."""
    runs, models, examples = runs // 10, 20, 5
    rng = np.random.default_rng(8)
    luck = rng.normal(0, 1, (runs, models, 1))
    x = (luck + rng.normal(0, 0.5, (runs, models, examples))).reshape(runs, -1)
    cluster, own = np.repeat(np.arange(models), examples), np.arange(models * examples)
    found = [stats.bootstrap_interval(r, cluster, np.mean, draws=400) for r in x]
    hits = sum(covers(i, 0) for i in found)
    assert hits >= scipy_stats.binom.ppf(0.001, runs, 0.90), hits / runs
    naive = [stats.bootstrap_interval(r, own, np.mean, draws=400) for r in x[:50]]
    assert sum(covers(i, 0) for i in naive) / 50 < 0.75


def test_bootstrap_takes_rows_and_repeats_with_its_seed():
    rng = np.random.default_rng(9)
    member = np.tile([0.0, 1.0], 60)
    rows = np.column_stack([rng.normal(member, 1), member])
    cluster = np.repeat(np.arange(12), 10)
    one = stats.bootstrap_interval(rows, cluster, auc, draws=300, seed=1)
    assert one == stats.bootstrap_interval(rows, cluster, auc, draws=300, seed=1)
    assert one != stats.bootstrap_interval(rows, cluster, auc, draws=300, seed=2)
    assert one.estimate == pytest.approx(auc(rows))
    assert one.low < one.estimate < one.high
    assert one.n == 12


def test_bootstrap_of_one_model_has_no_interval():
    one = stats.bootstrap_interval([1.0, 2.0], [0, 0], np.mean)
    assert (one.estimate, one.n) == (1.5, 1)
    assert math.isnan(one.low)


# Bad input and printing


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: stats.mean_interval([]), "at least one number, got none"),
        (lambda: stats.mean_interval([1, math.nan]), r"finite .*got \[nan\]"),
        (lambda: stats.mean_interval([1, math.inf]), r"finite .*got \[inf\]"),
        (lambda: stats.mean_interval([[1, 2]]), r"one dimension, got shape \(1, 2\)"),
        (lambda: stats.mean_interval([1, 2], 95), r"level must be in \(0, 1\).*got 95"),
        (lambda: stats.clustered_interval([1, 2], [0]), r"2 labels.*got \(1,\)"),
        (lambda: stats.paired_difference([1, 2], [1]), "same length.*got 2 and 1"),
        (
            lambda: stats.equivalence([1, 2], -1),
            "margin must be > 0 and finite, got -1",
        ),
        (lambda: stats.equivalence([1, 2], 0), "margin must be > 0 and finite, got 0"),
        (lambda: stats.equivalence([1, 2], 1, 0.3), r"level must be in \(0.5, 1\)"),
        (
            lambda: stats.bootstrap_interval([1, 2], [0, 1], np.mean, draws=9),
            "draws must be a whole number >= 100, got 9",
        ),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(
    ("interval", "text"),
    [
        (stats.Interval(0.913, 0.905, 0.921, 4), "0.913 [0.905, 0.921], n = 4"),
        (stats.Interval(-1e-5, -8e-4, 8e-4, 3), "0.0000 [-0.0008, 0.0008], n = 3"),
        (stats.Interval(0.0, 0.0, 0.0, 3), "0.000 [0.000, 0.000], n = 3"),
        (
            stats.Interval(1.0, 1 - 1e-8, 1 + 1e-8, 3),
            "1.000000 [1.000000, 1.000000], n = 3",
        ),
        (stats.Interval(120.0, 80.0, 160.0, 5), "120.000 [80.000, 160.000], n = 5"),
    ],
)
def test_an_interval_prints_with_decimals_that_fit(interval, text):
    assert str(interval) == text
