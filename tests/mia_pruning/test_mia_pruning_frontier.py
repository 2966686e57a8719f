"""Leakage at matched accuracy, and the strongest attack chosen elsewhere."""

import itertools
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from sklearn.isotonic import IsotonicRegression

from lottolab.mia_pruning.comparisons import frontier
from lottolab.truth.intervals import strongest

# --- one curve


def test_between_two_settings_the_frontier_is_a_coin_between_their_networks():
    """Answering by one network with probability p has the mean of both measures."""
    for p in (0.0, 0.3, 1.0):
        where = p * 0.7 + (1 - p) * 0.9
        found = frontier.at(where, [0.9, 0.7, 0.95], [0.8, 0.5, 0.99])
        assert found[0] == pytest.approx(p * 0.5 + (1 - p) * 0.8)


def test_a_straight_family_is_met_everywhere_and_nothing_is_extrapolated():
    accuracy = np.random.default_rng(0).uniform(0.6, 0.9, 7)
    asked = np.linspace(0.5, 1.0, 101)
    found = frontier.at(asked, accuracy, 3 * accuracy - 1)
    inside = (asked >= accuracy.min()) & (asked <= accuracy.max())
    np.testing.assert_allclose(found[inside], 3 * asked[inside] - 1)
    assert np.isnan(found[~inside]).all()
    assert inside.sum() not in (0, 101)
    ends = frontier.at(accuracy, accuracy, 3 * accuracy - 1)
    assert not np.isnan(ends).any()


def test_settings_of_one_accuracy_count_as_one_of_their_mean():
    corners, mean = frontier.curve([0.8, 0.7, 0.8], [0.6, 0.5, 0.9])
    assert corners.tolist() == [0.7, 0.8]
    np.testing.assert_allclose(mean, [0.5, 0.75])


def nearest_rising(x, y):
    """Return the nearest rising leakages by trying all ways to pool neighbours."""
    best, kept = math.inf, None
    for cuts in itertools.product((0, 1), repeat=len(x) - 1):
        place = np.concatenate([[0], np.cumsum(cuts)])
        means = np.array([y[place == k].mean() for k in range(place[-1] + 1)])
        if (np.diff(means) >= 0).all():
            fitted = means[place]
            off = ((fitted - y) ** 2).sum()
            if off < best:
                best, kept = off, fitted
    return kept


@pytest.mark.parametrize("seed", range(5))
def test_a_monotone_frontier_is_the_nearest_rising_one(seed):
    rng = np.random.default_rng(seed)
    x, y = rng.uniform(0.6, 0.9, 7), rng.uniform(0.5, 0.9, 7)
    corners, found = frontier.curve(x, y, monotone=True)
    order = x.argsort()
    np.testing.assert_allclose(found, nearest_rising(x[order], y[order]))
    other = IsotonicRegression().fit_transform(x[order], y[order])
    np.testing.assert_allclose(found, other)
    assert (np.diff(found) >= 0).all()
    assert (np.diff(corners) > 0).all()


def test_a_rising_family_is_left_as_it_is():
    x, y = [0.6, 0.7, 0.9], [0.5, 0.5, 0.8]
    for monotone in (False, True):
        np.testing.assert_allclose(frontier.curve(x, y, monotone=monotone)[1], y)


# --- pools


def results(models=4, pools=3, noise=0.0, seed=0):
    """Draw a table of two families and a treatment that leaks 0.05 more than one.

    Each pool's models are all luckier, or all less, in both measures.
    """
    rng, rows = np.random.default_rng(seed), []
    for seed_ in range(models * pools):
        luck = 0.02 * (seed_ // models)
        for arm, level, accuracy, more in (
            ("stop", "first", 0.70, 0.0),
            ("stop", "second", 0.80, 0.0),
            ("stop", "third", 0.90, 0.0),
            ("ADMM", "first", 0.72, 0.05),
            ("ADMM", "second", 0.85, 0.05),
        ):
            own = accuracy + luck + noise * rng.normal()
            leak = own - 0.2 + more
            marks = {"seed": seed_, "arm": arm, "level": level}
            rows.append(marks | {"metric": "fresh_accuracy", "value": own})
            rows.append(
                marks | {"metric": "auc", "attack": "lira, online", "value": leak}
            )
    return pd.DataFrame(rows)


ACCURACY = {"metric": "fresh_accuracy"}
LEAKAGE = {"metric": "auc", "attack": "lira, online"}
STOP = {k: {"arm": "stop", "level": k} for k in ("first", "second", "third")}
ADMM = {k: {"arm": "ADMM", "level": k} for k in ("first", "second")}


def points(table, settings, models=4):
    return frontier.points(table, settings, ACCURACY, LEAKAGE, models=models)


def test_points_are_the_means_of_a_pools_models():
    table = results(noise=0.01)
    found = points(table, STOP)
    assert len(found) == 9
    assert set(found["models"]) == {4}
    row = found[(found["pool"] == 1) & (found["setting"] == "second")].iloc[0]
    kept = table[(table["arm"] == "stop") & (table["level"] == "second")]
    kept = kept[kept["seed"].between(4, 7)]
    for name, metric in (("accuracy", "fresh_accuracy"), ("leakage", "auc")):
        mean = kept.loc[kept["metric"] == metric, "value"].mean()
        assert row[name] == pytest.approx(mean)


def test_a_treatment_is_compared_at_its_own_accuracy_and_paired_by_pool():
    table = results(noise=0.01)
    family = points(table, STOP)
    treatment = points(table, {"second": ADMM["second"]})
    found = frontier.matched(treatment, family)
    np.testing.assert_allclose(found["difference"], 0.05)
    interval = frontier.over_pools(found)
    assert interval.estimate == pytest.approx(0.05)
    assert interval.n == 3
    assert interval.high - interval.low < 1e-9  # the pools' luck has gone
    # At the settings as they come, the same treatments are 0.10 apart, or −0.00.
    means = treatment["leakage"].mean() - family.groupby("setting")["leakage"].mean()
    assert (means - 0.05).abs().min() > 0.04


def test_two_families_are_compared_where_both_have_networks():
    table = results()
    stop, admm = points(table, STOP), points(table, ADMM)
    low, high = frontier.common(stop, admm)
    assert (low, high) == pytest.approx((0.76, 0.85))
    found = frontier.between(admm, stop, np.linspace(low, high, 5))
    assert len(found) == 15
    np.testing.assert_allclose(found["difference"], 0.05)
    assert frontier.over_pools(found).n == 3


def test_the_interval_is_over_pools_not_over_models_or_accuracies():
    compared = pd.DataFrame(
        {
            "pool": [0, 0, 1, 1, 2, 2],
            "accuracy": [0.7, 0.8] * 3,
            "difference": [0.1, 0.3, 0.0, 0.2, 0.5, 0.1],
        }
    )
    found = frontier.over_pools(compared)
    means = [0.2, 0.1, 0.3]
    half = stats.t.ppf(0.975, 2) * np.std(means, ddof=1) / math.sqrt(3)
    assert found.estimate == pytest.approx(0.2)
    assert found.high == pytest.approx(0.2 + half)


def test_where_a_pool_has_no_such_accuracy_no_number_is_made_of_the_others():
    table = results()
    family = points(table, STOP)
    outside = family[family["setting"] == "third"].assign(accuracy=[0.9, 0.97, 0.9])
    found = frontier.matched(outside, family)
    assert found["difference"].isna().tolist() == [False, True, False]
    with pytest.raises(ValueError, match=r"extrapolated, got none for pool 1 at 0.97"):
        frontier.over_pools(found)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda t: points(t, {}), "settings must name at least one"),
        (lambda t: points(t, {"x": {"arm": "none"}}), "no row has arm = 'none'"),
        (lambda t: points(t, {"x": {"arm": "stop"}}), "3 rows for seed 0"),
        (lambda t: points(t.iloc[:-1], ADMM), "second must have accuracy and leakage"),
        (
            lambda t: frontier.matched(points(t, ADMM), points(t, STOP)),
            "treatment must have one point a pool, got",
        ),
        (
            lambda t: frontier.between(
                points(t, ADMM), points(results(pools=2), STOP), 0.8
            ),
            r"both sides must have the same pools, got \[2\] in one",
        ),
        (
            lambda t: frontier.common(
                points(t, STOP), points(t, STOP).assign(accuracy=0.1)
            ),
            "families must share an accuracy, got",
        ),
        (lambda t: frontier.at(0.5, [], []), "accuracy must have one dimension"),
        (lambda t: frontier.at(0.5, [0.1], [math.nan]), "leakage must be finite"),
        (lambda t: frontier.at(0.5, [0.1], [0.1, 0.2]), "a leakage for each accuracy"),
    ],
)
def test_a_frontier_refuses_bad_input(call, message):
    with pytest.raises(ValueError, match=message):
        call(results())


# --- the strongest attack


def attacked(values, models=2, **marks):
    """Return rows of {attack: value a seed}; two treatments where `marks` say so."""
    return [
        {"seed": s, "attack": attack, "metric": "auc", "value": v} | marks
        for attack, row in values.items()
        for s, v in enumerate(row)
    ]


NONE = {"a": [0.9, 0.9, 0.5, 0.5, 0.6, 0.6], "b": [0.6, 0.7, 0.7, 0.7, 0.6, 0.6]}
PRUNED = {"a": [0.8] * 6, "b": [0.6] * 6}


def table():
    rows = attacked(NONE, arm="no defence", level=None)
    return pd.DataFrame(rows + attacked(PRUNED, arm="ADMM", level="second"))


def test_the_attack_is_chosen_on_the_other_pools_for_each_treatment():
    found = strongest.rows(table(), "auc", models=2)
    none = found[found["arm"] == "no defence"].set_index("seed")
    # Without pool 0, b is better (0.65 to 0.55); else a (0.75 to 0.625, 0.7 to 0.675).
    assert none["chosen"].tolist() == ["b", "b", "a", "a", "a", "a"]
    assert none["value"].tolist() == [0.6, 0.7, 0.5, 0.5, 0.6, 0.6]
    assert set(found.loc[found["arm"] == "ADMM", "chosen"]) == {"a"}
    assert set(found["attack"]) == {"strongest"}
    assert len(found) == 12


def test_by_brute_force_it_is_the_best_mean_of_pools_elsewhere():
    rng = np.random.default_rng(0)
    values = {k: rng.random(11) for k in "abcd"}
    given = pd.DataFrame(attacked(values, arm="x", level="y"))
    found = strongest.rows(given, "auc", models=3).set_index("seed")
    pools = [range(0, 3), range(3, 6), range(6, 9), range(9, 11)]
    for pool in pools:
        others = [p for p in pools if p is not pool]
        means = {
            k: np.mean([np.mean([v[s] for s in p]) for p in others])
            for k, v in values.items()
        }
        best = max(means, key=means.get)
        assert set(found.loc[list(pool), "chosen"]) == {best}
        assert found.loc[list(pool), "value"].tolist() == [
            values[best][s] for s in pool
        ]


def test_choosing_elsewhere_is_not_too_good_where_attacks_are_alike():
    """Of ten attacks of one strength the best on the same pool looks far better."""
    rng = np.random.default_rng(0)
    noise = {str(k): 0.6 + 0.05 * rng.normal(size=40) for k in range(10)}
    given = pd.DataFrame(attacked(noise, arm="x", level="y"))
    found = strongest.rows(given, "auc", models=2)["value"].mean()
    assert found == pytest.approx(0.6, abs=0.03)
    assert np.max(list(noise.values()), axis=0).mean() > 0.65


def test_without_pools_the_other_seeds_choose_and_attacks_may_be_named():
    given = table()[lambda t: t["arm"] == "no defence"]
    found = strongest.rows(given, "auc", attacks=["b"])
    assert found["value"].tolist() == NONE["b"]
    found = strongest.rows(given, "auc").set_index("seed")
    a, b = (np.array(NONE[k]) for k in "ab")
    expected = np.where(a.sum() - a > b.sum() - b, a, b)
    assert found["value"].tolist() == expected.tolist()


def test_its_interval_is_that_of_pools():
    found = strongest.interval(table(), "auc", ("ADMM", "second"), models=2)
    assert (found.estimate, found.n) == (pytest.approx(0.8), 3)
    none = strongest.interval(table(), "auc", ("no defence", None), models=2)
    assert none.estimate == pytest.approx((0.65 + 0.5 + 0.6) / 3)
    assert none.high > 2 / 3  # of a, whose mean is the largest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.drop(columns="level"), r"must have the columns .*, got \['level"),
        (lambda t: t.iloc[1:], r"every attack must be run on every seed of .*'a': 1"),
        (lambda t: pd.concat([t, t[:1]]), "must have one value a seed and attack"),
        (lambda t: t[t["seed"] < 2], "must have two pools or more"),
        (lambda t: t.assign(metric="tpr"), "metric must be one of tpr, got 'auc'"),
    ],
)
def test_a_choice_refuses_bad_tables(change, message):
    with pytest.raises(ValueError, match=message):
        strongest.rows(change(table()), "auc", models=2)
