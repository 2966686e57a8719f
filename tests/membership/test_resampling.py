"""Resampled AUC and TPR, against scipy's bootstrap of scikit-learn's numbers."""

import time

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import roc_auc_score

from lottolab.membership import metrics, resampling


def scored(n: int, decimals: int = 9, share: float = 0.5, seed: int = 0):
    rng = np.random.default_rng(seed)
    member = rng.random(n) < share
    return np.round(rng.normal(size=n) + member, decimals), member


def auc(inside, outside):
    truth = np.repeat([1, 0], [len(inside), len(outside)])
    return roc_auc_score(truth, np.concatenate([inside, outside]))


def tpr(inside, outside):
    """Return the largest TPR of any threshold with an FPR of at most 2 %."""
    limits = [np.inf, *np.unique(np.concatenate([inside, outside]))]
    allowed = [limit for limit in limits if (outside >= limit).mean() <= 0.02]
    return max((inside >= limit).mean() for limit in allowed)


@pytest.mark.parametrize("decimals", [9, 1, 0])
@pytest.mark.parametrize("share", [0.3, 0.8])
def test_draws_are_those_of_scipys_bootstrap(decimals, share):
    scores, member = scored(250, decimals, share, seed=decimals)
    ours = resampling.drawn([scores], member, [0.02], draws=130, seed=5)[0].T
    for values, statistic in zip(ours, (auc, tpr), strict=True):
        theirs = stats.bootstrap(
            (scores[member], scores[~member]),
            statistic,
            vectorized=False,
            n_resamples=130,
            batch=resampling.BATCH,
            method="percentile",
            rng=np.random.default_rng(5),
        )
        assert values == pytest.approx(theirs.bootstrap_distribution, abs=1e-12)
        found = resampling.interval(0.5, values, 250)
        ends = theirs.confidence_interval
        assert (found.low, found.high) == pytest.approx(tuple(ends), abs=1e-12)


def test_several_scores_share_the_draws_that_each_has_alone():
    one, member = scored(300, seed=1)
    other = one**3 - np.roll(one, 1)
    both = resampling.drawn([one, other], member, [0.1], draws=20, seed=0)
    for scores, values in zip((one, other), both, strict=True):
        alone = resampling.drawn([scores], member, [0.1], draws=20, seed=0)
        assert (values == alone[0]).all()


def test_an_increasing_function_of_scores_changes_no_draw():
    scores, member = scored(400, 1)
    two = resampling.drawn([scores, np.exp(scores)], member, [0.05], draws=20, seed=0)
    assert (two[0] == two[1]).all()


def test_numbers_that_no_draw_changes_have_no_interval():
    _, member = scored(60)
    values = resampling.drawn([member * 1.0], member, [0.1], draws=20, seed=0)[0]
    assert (values == 1).all()
    assert np.isnan(resampling.interval(1.0, values[:, 0], 60).low)


@pytest.mark.long
def test_a_report_on_100_000_scores_takes_seconds():
    scores, member = scored(100_000)
    before = time.process_time()
    metrics.report(scores, member)
    assert time.process_time() - before < 8  # 2.3 s where it took over 25
