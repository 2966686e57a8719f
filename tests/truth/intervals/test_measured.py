"""Measures that bring an error of their own, and the verdicts on them."""

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from lottolab.truth import claims
from lottolab.truth.claim import Criterion
from lottolab.truth.intervals import crossed, influence, measured


def answers(seed=0, models=8, images=60):
    rng = np.random.default_rng(seed)
    member = np.tile(np.arange(images) % 2 == 0, (models, 1))
    return rng.normal(size=(models, images)) + 0.8 * member, member


def table(value, error=0.01, pools=1, **more):
    own = {"seed": range(pools), "metric": "less", "value": value, "error": error}
    return pd.DataFrame(own | {"freedom": 7.0, "clusters": 8, "stage": "s"} | more)


def test_rows_of_pools_give_the_interval_of_crossed():
    pools = [influence.auc(*answers(seed)) for seed in (0, 1, 2)]
    pairs = np.arange(8) // 2
    for found in (pools, pools[:1]):
        rows = pd.DataFrame([measured.row(pool, pairs) for pool in found])
        ours = measured.pooled(rows).interval()
        theirs = crossed.interval(found, pairs)
        for name in ("estimate", "low", "high", "n"):
            assert getattr(ours, name) == pytest.approx(getattr(theirs, name))


@pytest.mark.parametrize(
    ("kind", "value", "word"),
    [
        ("at_least", 0.05, claims.REPRODUCED),
        ("at_least", 0.1, claims.INCONCLUSIVE),
        ("at_least", 0.15, claims.REFUTED),
        ("at_most", 0.05, claims.REFUTED),
        ("at_most", 0.1, claims.INCONCLUSIVE),
        ("at_most", 0.15, claims.REPRODUCED),
    ],
)
def test_a_verdict_follows_the_interval_that_the_row_brings(kind, value, word):
    test = Criterion(kind, {"metric": "less"}, value=value)
    verdict = claims.decide(test, table([0.1]), "a-claim")
    assert verdict.word == word
    assert verdict.n == 8
    (interval,) = verdict.intervals
    half = distributions.t.ppf(0.975, 7) * 0.01
    assert interval.high == pytest.approx(0.1 + half)
    sign = 1 if kind == "at_least" else -1
    p = distributions.t.sf(sign * (0.1 - value) / 0.01, 7)
    assert verdict.holds == pytest.approx(min(1, 2 * p))
    assert verdict.fails == pytest.approx(min(1, 2 * (1 - p)))


@pytest.mark.parametrize(("value", "word"), [(1.0, "reproduced"), (0.0, "refuted")])
def test_a_yes_or_no_without_error_is_decided(value, word):
    test = Criterion("at_least", {"metric": "less"}, value=1.0)
    verdict = claims.decide(test, table([value], error=0.0), "a-claim")
    assert verdict.word == word
    assert verdict.p == 0


def test_more_pools_are_surer():
    test = Criterion("at_least", {"metric": "less"}, value=0.0)
    one, four = (
        claims.decide(test, table([0.1] * k, pools=k), "a-claim").intervals[0]
        for k in (1, 4)
    )
    assert four.high - 0.1 < 0.6 * (one.high - 0.1)
    assert four.n == 32


def test_rows_without_errors_are_judged_by_their_spread():
    rows = table([0.1, 0.2, 0.3], pools=3)
    rows.loc[1, "error"] = np.nan
    test = Criterion("at_least", {"metric": "less"}, value=0.0)
    verdict = claims.decide(test, rows, "a-claim")
    assert verdict.n == 3
    assert verdict.word == claims.INCONCLUSIVE


def test_a_measure_that_is_no_number_is_refused():
    test = Criterion("at_least", {"metric": "less"}, value=0.0)
    with pytest.raises(claims.ClaimError, match=r"a-claim.* must be finite"):
        claims.decide(test, table([np.nan]), "a-claim")
