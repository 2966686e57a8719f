"""Intervals hold at the book's sizes, by simulation; those before must fail here.

The short form asks that a coverage may be one of 93 to 97 % (99.9 % binomial bounds of
its few runs); the long form does so with ten times the runs.
"""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats as distributions

from lottolab.membership.attacks import lira
from lottolab.truth import rates, stats
from lottolab.truth.intervals import maxima
from lottolab.truth.intervals.coverage import pools, seeds, table

COMMITTED = Path(__file__).parents[3] / "data" / "results" / "coverage.csv"
FAMILIES = ["clothes", "photographs", "no leak"]


def covers(rows, low=0.93, high=0.97):
    """Return the rows whose coverage cannot be from `low` to `high`."""
    return [
        (r["measurement"], r["design"], r["after"])
        for r in rows
        if not table.plausible(r["after"], r["runs"], low, high)
    ]


# What is simulated


def test_lira_of_the_simulation_is_chapter_2s():
    pool = next(pools.pools("clothes", 1, seed=3, models=8, images=300))
    told = torch.tensor(pool.first), torch.tensor(pool.member)
    theirs = lira.leave_one_out(*told, lira.online, paired=True)
    ours = pools.scored(pool.first, pool.member)
    np.testing.assert_allclose(ours, theirs.numpy(), rtol=1e-9, atol=1e-9)


def test_pairs_train_on_complementary_halves():
    pool = next(pools.pools("no leak", 1, seed=0, models=6, images=100))
    assert (pool.member[::2] ^ pool.member[1::2]).all()
    assert (pool.member.sum(1) == 50).all()
    assert pool.first.shape == pool.second.shape == (6, 100)


@pytest.mark.parametrize(
    ("setting", "scale"), [("clothes", "laptop"), ("photographs", "cifar")]
)
def test_settings_look_like_the_chapters_measurements(setting, scale):
    """AUC and TPRs of LiRA on dense networks, and their spread over sixteen models."""
    path = COMMITTED.parent / "membership" / f"{scale}.csv"
    rows = pd.read_csv(path, low_memory=False)
    rows = rows[(rows["point"] == "family") & (rows["arm"] == "dense")]
    rows = rows[rows["attack"] == "lira, online"]
    names = ["auc", "accuracy", "tpr at 1% fpr", "tpr at 0.1% fpr"]
    real = rows.groupby("metric")["value"].agg(["mean", "std"]).loc[names]
    found = []
    for pool in pools.pools(setting, 3, seed=9):
        values = table.measured(pool.first, pool.member).values()
        found.append([(own.mean(), own.std(ddof=1)) for _, own in values])
    mean, spread = np.mean(found, 0).T
    odds = np.log(mean / (1 - mean)) - np.log(real["mean"] / (1 - real["mean"]))
    assert abs(odds).max() < 0.7
    assert (abs(np.log(spread / real["std"])) < np.log(2.5)).all()


# Whether intervals hold


def test_a_pools_measures_are_covered_and_were_not():
    rows = table.families("clothes", 48, seed=11)
    assert covers(rows) == []
    before = {r["measurement"]: r["before"] for r in rows}
    for name in ("AUC", "TPR at 0.1 %"):
        assert not table.plausible(before[name], 48), before[name]


@pytest.mark.parametrize("kind", [table.accuracies, table.worst, table.counts])
def test_shares_and_counts_are_covered(kind):
    assert covers(kind(120, seed=12)) == []


def test_the_share_of_shared_images_was_not_covered():
    before = [r["before"] for r in table.worst(100, seed=13)]
    assert not table.plausible(before[2], 100)


def test_the_strongest_attack_is_covered_and_was_not():
    rows = table.strongest(400, seed=14)
    assert covers(rows) == []
    before = {r["design"]: r["before"] for r in rows}
    assert not table.plausible(before["10 seeds, six alike"], 400, 0.95, 0.95)


def test_a_bound_on_coverage_can_be_missed():
    assert table.plausible(0.95, 100)
    assert not table.plausible(0.80, 100)
    assert not table.plausible(1.0, 1000)


@pytest.mark.long
@pytest.mark.parametrize("setting", FAMILIES)
def test_a_pools_measures_are_covered_in_many_runs(setting):
    assert covers(table.families(setting, 400, seed=21)) == []


@pytest.mark.long
@pytest.mark.parametrize(
    "kind", [table.accuracies, table.worst, table.counts, table.strongest]
)
def test_the_others_are_covered_in_many_runs(kind):
    assert covers(kind(2000, seed=22)) == []


def test_the_committed_table_says_what_the_page_says():
    found = pd.read_csv(COMMITTED)
    assert list(found.columns) == table.COLUMNS
    ours = found[~found["design"].str.startswith("unlike networks")]
    assert covers(ours.to_dict("records")) == []
    again = pd.DataFrame(table.counts(int(found["runs"].max()), 0))
    kept = found[found["measurement"] == "count"].reset_index(drop=True)
    pd.testing.assert_frame_equal(again.round(4), kept, check_dtype=False)


# The single intervals


def test_jeffreys_interval_is_the_posteriors_and_exact_at_the_ends():
    found = rates.jeffreys_interval(3, 20)
    tails = distributions.beta(3.5, 17.5).cdf([found.low, found.high])
    assert tails == pytest.approx([0.025, 0.975])
    assert rates.jeffreys_interval(0, 3).low == 0
    assert rates.jeffreys_interval(3, 3).high == 1
    exact = rates.binomial_interval(3, 20)
    assert exact.low < found.low < found.high < exact.high


def test_jeffreys_is_right_on_the_average_by_enumeration():
    for n in (10, 16, 50):
        p = np.linspace(0.0005, 0.9995, 1000)[:, None]
        k = np.arange(n + 1)
        ci = [rates.jeffreys_interval(int(i), n) for i in k]
        inside = (p >= [i.low for i in ci]) & (p <= [i.high for i in ci])
        share = (distributions.binom.pmf(k, n, p) * inside).sum(1).mean()
        assert 0.945 < share < 0.96


def test_the_strongest_of_one_attack_has_its_t_interval():
    x = [0.2, 0.4, 0.3]
    one = maxima.strongest_interval(np.array(x)[:, None])
    t = stats.mean_interval(x)
    assert (one.estimate, one.low, one.high) == (t.estimate, t.low, t.high)
    clear = maxima.strongest_interval(np.stack([x, np.array(x) - 9], 1))
    assert (clear.low, clear.high) == (t.low, t.high)


def test_the_strongest_is_chosen_on_the_other_seeds():
    x = np.array([[1.0, 0.0], [0.0, 0.9], [0.0, 0.3]])
    # without seed 0 the second leads, without seed 1 the first, without 2 the first
    assert maxima.strongest_interval(x).estimate == pytest.approx(0.0)
    assert maxima.strongest_interval(x[:1]).estimate == 1.0
    assert np.isnan(maxima.strongest_interval(x[:1]).low)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: maxima.strongest_interval([1, 2]), r"\[seeds, attacks\]"),
        (lambda: maxima.strongest_interval([[1, np.inf]]), "finite"),
        (lambda: rates.jeffreys_interval(4, 3), r"integer in \[0, 3\], got 4"),
        (lambda: next(pools.pools("clothez", 1, 0)), "clothes"),
        (lambda: next(pools.pools("clothes", 1, 0, models=7)), "even"),
        (lambda: next(seeds.pairs(1, 0, 1, 10)), ">= 2, got 1"),
        (lambda: seeds.attacks(1, 0, 3, np.array([-1.0])), "gap must be 0"),
    ],
)
def test_bad_input_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
