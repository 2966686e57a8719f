"""How many seeds would decide: against published sample sizes and by simulation."""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as distributions

from lottolab.truth import claims, power, stats


@pytest.mark.parametrize(
    ("effect", "size"),
    # one-sample t-test, two-sided 5 %, power 80 %: Cohen's conventions as G*Power
    # tabulates them
    [(0.2, 199), (0.5, 34), (0.8, 15)],
)
def test_published_sample_sizes(effect, size):
    assert power.seeds(effect, 1.0) == size
    assert power.seeds(effect / 7, 1 / 7) == size


@pytest.mark.parametrize("level", [0.9, 0.95])
def test_so_many_seeds_decide_in_four_of_five_draws(level):
    gap, deviation = 0.03, 0.025
    n, random = power.seeds(gap, deviation, level), np.random.default_rng(0)

    def decided(count):
        x = random.normal(gap, deviation, (20_000, count))
        error = x.std(axis=1, ddof=1) / math.sqrt(count)
        low = x.mean(axis=1) - distributions.t.isf((1 - level) / 2, count - 1) * error
        return (low > 0).mean()

    assert decided(n) >= power.POWER - 0.01 > decided(n - 1) - 0.02
    assert decided(n - 1) < power.POWER + 0.01


def test_where_no_number_of_seeds_is_enough_and_where_three_are():
    assert power.seeds(0.0, 1.0) == math.inf
    assert power.seeds(0.001, 1.0) == math.inf
    assert power.seeds(0.1, 0.0) == power.seeds(1.0, 1e-6) == claims.MIN_SEEDS


@pytest.mark.parametrize("given", [(-1, 1), (1, -1), (math.nan, 1), (1, math.inf)])
def test_bad_numbers_are_refused(given):
    with pytest.raises(ValueError, match="must be >= 0 and finite"):
        power.seeds(*given)


def measured(**arms):
    rows = [
        {"metric": "m", "arm": arm, "seed": seed, "value": value, "stage": "s"}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def claim(*tests):
    return claims.Claim("ownership-a", "ownership", "here", "It is.", {}, tests)


A, B = {"metric": "m", "arm": "a"}, {"metric": "m", "arm": "b"}
X = [0.02, -0.05, 0.09]  # mean 0.02


@pytest.mark.parametrize(
    ("test", "gap", "level"),
    [
        (claims.Criterion("greater", A, B), 0.02, 0.95),
        (claims.Criterion("greater", A, B, margin=-0.01), 0.03, 0.95),
        (claims.Criterion("less", A, B, margin=0.01), 0.03, 0.95),
        (claims.Criterion("equal", A, B, margin=0.05), 0.03, 0.9),
        (claims.Criterion("equal", A, B, margin=0.005), 0.015, 0.95),
        (claims.Criterion("at_least", A, value=0.06), 0.04, 0.95),
    ],
)
def test_the_gap_is_to_the_bound_that_would_decide(test, gap, level):
    table = measured(a=X, b=[0.0, 0.0, 0.0])
    assert claims.judge(claim(test), table).word == claims.INCONCLUSIVE
    expected = power.seeds(gap, np.std(X, ddof=1), level)
    assert power.needed(claim(test), table) == expected


def test_the_hardest_undecided_test_counts_and_a_decided_one_does_not():
    easy = claims.Criterion("at_most", A, value=0.06)
    hard = claims.Criterion("at_most", A, value=0.03)
    sure = claims.Criterion("at_most", A, value=0.9)
    table = measured(a=X)
    single = [power.needed(claim(test), table) for test in (easy, hard, sure)]
    assert single[0] < single[1]
    assert single[2] == 0
    assert power.needed(claim(sure, easy, hard), table) == single[1]


def test_of_one_seed_nothing_is_known():
    test = claims.Criterion("at_most", A, value=0.03)
    assert math.isnan(power.needed(claim(test), measured(a=[0.0])))


def test_the_more_seeds_it_says_the_interval_is_about_right():
    """A sample of that size, with this mean and spread, has a bound near the margin."""
    test = claims.Criterion("at_least", A, value=0.06)
    n = power.needed(claim(test), measured(a=X))
    z = np.linspace(-1, 1, n)
    again = np.mean(X) + np.std(X, ddof=1) * z / z.std(ddof=1)
    assert stats.mean_interval(again).high < 0.06


# Where the next minute is best spent


def staged(values, images=100, function="tickets.dense", **more):
    """Return a table of one arm and its stages, of `images` test images each."""
    table = measured(a=values).assign(metric="test_accuracy")
    table["stage"] = [f"s/{seed}" for seed in table["seed"]]
    given = json.dumps({"sizes": {"test": images}} | more)
    stages = pd.DataFrame({"stage": table["stage"], "function": function})
    stages = stages.assign(seconds=120.0, arguments=given).set_index("stage")
    return table, stages


def test_images_explain_what_the_binomial_distribution_gives_them():
    rng = np.random.default_rng(0)
    x = rng.binomial(100, 0.8, 3000) / 100  # networks that differ in nothing
    table, stages = staged(x)
    assert power._by_images([table], stages, x.std(ddof=1)) > 0.9
    x = np.clip(x + rng.normal(0, 0.04, 3000), 0, 1)  # as much again by networks
    table, stages = staged(x)
    share = power._by_images([table], stages, x.std(ddof=1))
    assert share == pytest.approx(0.5, abs=0.06)


def test_what_the_tables_do_not_hold_is_not_made_up():
    table, stages = staged([0.7, 0.8, 0.75])
    assert math.isnan(power._by_images([table.assign(metric="auc")], stages, 0.1))
    other = stages.assign(function="membership.experiments.attacks.attacked")
    attack = table.assign(metric="accuracy")
    assert math.isnan(power._by_images([attack], other, 0.1))
    assert "not in the tables" in power._next(7, math.nan)
    assert power._next(7, 0.1) == "7 networks"
    assert power._next(7, 0.6).startswith("more images")
    assert power._next(math.inf, 0.1).startswith("another design")


def test_the_missing_seeds_cost_what_the_present_ones_took():
    values = [0.70, 0.80, 0.75]
    test = claims.Criterion("at_least", A | {"metric": "test_accuracy"}, value=0.72)
    table, stages = staged(values, images=10_000, draws=20)
    row = dict(
        zip(
            power.COLUMNS,
            power._planned(test, table, stages, "ownership-a"),
            strict=True,
        )
    )
    assert row["needed"] == power.seeds(0.03, 0.05)
    assert row["minutes"] == pytest.approx((row["needed"] - 3) * 2)
    assert (row["seeds"], row["draws"]) == (3, 20)
    decided = claims.Criterion("at_least", test.a, value=0.1)
    assert power._planned(decided, table, stages, "ownership-a") is None


def test_the_plan_has_a_row_for_each_open_claim(monkeypatch):
    table, stages = staged([0.70, 0.80, 0.75])
    open_, sure = (
        claims.Claim(f"ownership-{name}", "ownership", "here", "It is.", {}, (t,))
        for name, t in {
            "open": claims.Criterion(
                "at_least", A | {"metric": "test_accuracy"}, value=0.72
            ),
            "sure": claims.Criterion(
                "at_least", A | {"metric": "test_accuracy"}, value=0.1
            ),
        }.items()
    )
    monkeypatch.setattr(claims, "load", lambda: [open_, sure])
    monkeypatch.setattr(
        power.results, "find", lambda c, s: c if c == "ownership" else None
    )
    monkeypatch.setattr(power.results, "load", lambda path: table)
    monkeypatch.setattr(power.results, "read_stages", lambda c, s: stages.reset_index())
    found = power.plan("laptop")
    assert found["claim"].tolist() == ["ownership-open"]
    assert list(found.columns) == power.COLUMNS
    assert 0 < found["images"].iloc[0] <= 1
