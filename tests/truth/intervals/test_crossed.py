"""Check the crossed intervals against independent code; see also test_coverage."""

import doctest
import math

import numpy as np
import pytest
from scipy import stats as scipy_stats
from sklearn.metrics import balanced_accuracy_score, roc_auc_score

from lottolab.membership import metrics
from lottolab.membership.attacks import thresholds
from lottolab.truth import stats
from lottolab.truth.intervals import crossed, influence

RNG = np.random.default_rng(0)
MEMBER = RNG.random((6, 400)) < 0.4
SCORES = RNG.normal(MEMBER * 1.0, 1.0)
TIED = np.round(SCORES)


def test_examples_in_docstrings_run():
    for module in (crossed, influence):
        assert doctest.testmod(module).failed == 0


# Estimates


@pytest.mark.parametrize("scores", [SCORES, TIED])
def test_estimates_are_the_means_of_what_others_compute(scores):
    rows = list(zip(MEMBER, scores, strict=True))
    each = [roc_auc_score(m, s) for m, s in rows]
    found = influence.auc(scores, MEMBER)
    assert found.estimate == pytest.approx(np.mean(each))
    assert found.estimate + found.influence.mean(1) == pytest.approx(each)
    each = [balanced_accuracy_score(m, s > 0.5) for m, s in rows]
    assert influence.balanced(scores > 0.5, MEMBER).estimate == pytest.approx(
        np.mean(each)
    )
    each = [metrics.tpr_at(s, m, 0.1) for m, s in rows]
    assert influence.tpr(scores, MEMBER, 0.1).estimate == pytest.approx(np.mean(each))
    limit = thresholds.at_rate(scores[~MEMBER], 0.02)
    each = [(s[m] > limit).mean() for m, s in rows]
    found = influence.tpr(scores, MEMBER, 0.02, common=True)
    assert found.estimate == pytest.approx(np.mean(each))


# Influence: the derivative by an answer's weight


def weighted_auc(scores, member, weight):
    each = [
        roc_auc_score(m, s, sample_weight=weight)
        for m, s in zip(member, scores, strict=True)
    ]
    return np.mean(each)


def weighted_balanced(scores, member, weight):
    each = [
        balanced_accuracy_score(m, s > 0.5, sample_weight=weight)
        for m, s in zip(member, scores, strict=True)
    ]
    return np.mean(each)


@pytest.mark.parametrize(
    ("measure", "weighted"),
    [
        (influence.auc(SCORES, MEMBER), weighted_auc),
        (influence.auc(TIED, MEMBER), None),
        (influence.balanced(SCORES > 0.5, MEMBER), weighted_balanced),
    ],
)
def test_influence_is_the_derivative_by_an_images_weight(measure, weighted):
    scores = TIED if weighted is None else SCORES
    weighted = weighted or weighted_auc
    for image in (0, 7, 399):
        weight = np.ones(400)
        weight[image] += 1e-4
        step = weighted(scores, MEMBER, weight) - measure.estimate
        expected = measure.influence[:, image].mean() / 400
        assert step / 1e-4 == pytest.approx(expected, rel=1e-3, abs=1e-8)


def test_influences_of_rates_have_mean_zero_and_know_the_threshold():
    """A non-member above the threshold raises it, hence lowers the TPR."""
    found = influence.tpr(SCORES, MEMBER, 0.1)
    assert found.influence.mean() == pytest.approx(0, abs=1e-12)
    limits = [
        influence.threshold(s[~m], 0.1) for s, m in zip(SCORES, MEMBER, strict=True)
    ]
    above = ~MEMBER & (np.array(limits)[:, None] < SCORES)
    below = ~MEMBER & ~above
    own = found.influence - found.influence.mean(1, keepdims=True)
    assert own[above].max() < 0 < own[below].min()


# Parts


def test_parts_are_those_of_a_two_way_analysis_of_variance():
    rng = np.random.default_rng(1)
    rows, columns = 5, 60
    x = rng.normal(size=(rows, 1)) + rng.normal(size=columns)
    x = x + rng.normal(size=(rows, columns))
    grand = x.mean()
    ss_rows = columns * np.square(x.mean(1) - grand).sum()
    ss_columns = rows * np.square(x.mean(0) - grand).sum()
    rest = np.square(x - grand).sum() - ss_rows - ss_columns
    n = rows * columns
    found = crossed.parts(influence.Linear(0.5, x - grand), range(rows))
    assert found.rows == pytest.approx(ss_rows / (rows - 1) / n)
    assert found.columns == pytest.approx(ss_columns / (columns - 1) / n)
    assert found.cells == pytest.approx(rest / ((rows - 1) * (columns - 1)) / n)
    assert found.variance == pytest.approx(found.rows + found.columns - found.cells)


def test_the_variance_is_unbiased():
    """Over many tables, the mean variance is that of the mean: σ_A²/a + σ_B²/b + …."""
    rng, found = np.random.default_rng(2), []
    a, b = 8, 50
    for _ in range(2000):
        x = 0.5 * rng.normal(size=(a, 1)) + rng.normal(size=b)
        x = x + rng.normal(size=(a, b))
        found.append(
            crossed.parts(influence.Linear(0.0, x - x.mean()), range(a)).variance
        )
    assert np.mean(found) == pytest.approx(0.25 / a + 1 / b + 1 / (a * b), rel=0.03)


def test_models_of_a_cluster_are_averaged_wherever_they_stand():
    found = influence.share(SCORES > 0)
    pairs = crossed.parts(found, ["a", "b", "c", "c", "a", "b"])
    means = [found.influence[[i, j]].mean(0) for i, j in ((0, 4), (1, 5), (2, 3))]
    assert pairs == crossed.parts(influence.Linear(0.0, np.stack(means)), range(3))
    assert pairs.clusters == 3


def test_many_images_leave_the_t_interval_over_models():
    """Where images vary by nothing, rows decide: the t interval with n − 1 degrees."""
    x = np.repeat([[0.1], [0.3], [0.2], [0.4]], 500, axis=1)
    found = crossed.interval(influence.Linear(0.25, x - x.mean()), range(4))
    t = stats.mean_interval(x[:, 0])
    assert (found.low, found.high) == pytest.approx((t.low, t.high))


def test_several_pools_are_averaged_and_their_variances_add():
    one = influence.share(SCORES > 0)
    four = crossed.interval([one] * 4, range(6))
    single = crossed.interval(one, range(6))
    assert four.estimate == pytest.approx(single.estimate)
    assert four.n == 24
    ratio = (four.high - four.low) / (single.high - single.low)
    assert ratio < 0.5 + 1e-9  # half, and more degrees of freedom
    assert ratio > 0.4


def test_a_difference_subtracts_what_both_share():
    a, b = influence.share(SCORES > 0), influence.share(SCORES > 0)
    none = crossed.interval(a - b, range(6))
    assert (none.estimate, none.low, none.high) == (0, 0, 0)


def test_satterthwaite_lies_between_rows_and_everything():
    found = crossed.parts(influence.auc(SCORES, MEMBER), range(6))
    assert 5 <= found.freedom <= 6 * 400
    half = scipy_stats.t.isf(0.025, found.freedom) * math.sqrt(found.variance)
    interval = crossed.interval(influence.auc(SCORES, MEMBER), range(6))
    assert interval.high - interval.estimate == pytest.approx(half)


# Bad input


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: influence.share([1, 0]), r"must be \[models, images\], got shape"),
        (lambda: influence.share([[1, 2]]), r"hits must be 0 or 1, got \[2.\]"),
        (lambda: influence.auc([[1, math.nan]], [[0, 1]]), "finite, got"),
        (lambda: influence.auc([[1, 2]], [[0, 1], [1, 0]]), r"member must be \(1, 2\)"),
        (lambda: influence.auc([[1, 2]], [[1, 1]]), "members and non-members"),
        (lambda: influence.auc([[1, 2]], [[0, 2]]), "member must be 0 or 1"),
        (lambda: influence.balanced([[0.5, 1]], [[0, 1]]), "guesses must be 0 or 1"),
        (lambda: influence.tpr(SCORES, MEMBER, 0.001), "at least 10000 non-members"),
        (lambda: influence.tpr(SCORES, MEMBER, 0.7), r"rate must be in \(0, 0.5\]"),
        (
            lambda: crossed.parts(influence.share(SCORES > 0), [0] * 6),
            "two clusters and two images, got 1 and 400",
        ),
        (
            lambda: crossed.parts(influence.share(SCORES > 0), [0, 0, 0, 0, 1, 1]),
            "clusters must be of one size",
        ),
        (
            lambda: crossed.interval(influence.share(SCORES > 0), range(5)),
            r"6 labels, one a model, got \(5,\)",
        ),
        (lambda: crossed.interval([], range(5)), "at least one pool"),
        (
            lambda: influence.share([[1, 0]]) - influence.share([[1, 0, 1]]),
            "same models and images",
        ),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
