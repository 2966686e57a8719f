"""Chapter 5's figures draw the numbers of the table, and nothing else."""

import numpy as np
import pandas as pd
import pytest
from scipy.stats import t

from lottolab.mia_pruning import figures, tables

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("rendered"),
]


def rows(arm, level, attack, metric, values, point="family", **more):
    return [
        {"arm": arm, "level": level, "attack": attack, "metric": metric}
        | {"point": point, "seed": seed, "value": value}
        | more
        for seed, value in enumerate(values)
    ]


@pytest.fixture
def table():
    found = []
    for arm, level, shift in (
        ("no defence", "none", 0.0),
        ("ADMM", "first", 0.1),
        ("ADMM", "second", 0.2),
    ):
        fresh = [0.8 - shift, 0.82 - shift, 0.81 - shift]
        found += rows(arm, level, np.nan, "fresh_accuracy", fresh)
        found += rows(arm, level, np.nan, "member_accuracy", [1.0, 1.0, 0.99])
        found += rows(arm, level, np.nan, "nonmember_accuracy", [0.8, 0.7, 0.79])
        leak = [0.7 - shift, 0.72 - shift, 0.71 - shift]
        found += rows(arm, level, "nasr", "accuracy", leak)
        found += rows(arm, level, "lira, online", "auc", leak)
    return pd.DataFrame(found)


def drawn(axis):
    """Return the points of each labelled series of an axis with error bars."""
    return {c.get_label(): c.lines[0].get_xydata() for c in axis.containers}


def leaking(arm, level, fresh, leak, metric="auc", **more):
    """Return rows of two pools that bring their errors."""
    brought = {"point": "leaking", "error": 0.01, "freedom": 7.0, "clusters": 8}
    own = {"attack": "strongest", "chosen": "lira, online"} | more
    found = rows(arm, level, np.nan, "fresh_accuracy", fresh, **brought)
    return found + rows(arm, level, own.pop("attack"), metric, leak, **brought | own)


@pytest.fixture
def pools():
    found = []
    for arm, level, shift in (
        ("no defence", "none", 0.0),
        ("ADMM", "first", 0.1),
        ("ADMM", "second", 0.2),
    ):
        fresh, leak = [0.8 - shift, 0.82 - shift], [0.7 - shift, 0.72 - shift]
        found += leaking(arm, level, fresh, leak)
        found += leaking(arm, level, fresh, leak, "tpr at 1% fpr")[2:]
        found += leaking(arm, level, fresh, [0.9] * 2, attack="lira, online")[2:]
    return pd.DataFrame(found)


def test_frontier_has_a_point_a_level_at_the_means(pools):
    above, below = figures.frontier(pools).axes
    for axis in (above, below):
        found = drawn(axis)
        assert set(found) == {"no defence", "ADMM"}
        assert np.allclose(found["no defence"], [[81, 71]])
        assert np.allclose(found["ADMM"], [[71, 61], [61, 51]])
    assert above.get_ylabel() != below.get_ylabel()


def test_frontier_has_one_axis_where_low_rates_were_not_measured(pools):
    assert len(figures.frontier(pools[pools["metric"] != "tpr at 1% fpr"]).axes) == 1


def test_tables_tell_the_interval_that_the_pools_bring(pools):
    names = {("no defence", "none"): "none", ("ADMM", "second"): "ADMM, 90%"}
    family = pd.DataFrame(
        rows("ADMM", "second", "nasr", "accuracy", [0.6, 0.61])
        + rows("no defence", "none", "nasr", "accuracy", [0.7, 0.71])
    )
    told = tables.leaking(pd.concat([pools, family]), names)
    assert told["treatment"].tolist() == ["ADMM, 90%", "none"]
    half = 100 * t.ppf(0.975, 14) * 0.01 / np.sqrt(2)
    assert told["AUC"].iloc[0] == f"51.0 [{51 - half:.1f}, {51 + half:.1f}]"
    assert told["Nasr, accuracy"].tolist() == ["60.5", "70.5"]
    assert set(told["chosen"]) == {"lira, online"}


def test_tables_say_where_a_line_does_not_reach(pools):
    own = pools[pools["arm"] == "ADMM"].assign(point="matched", against="DP")
    inside = rows("ADMM", "second", np.nan, "inside", [1, 0], point="matched")
    inside += rows("ADMM", "first", np.nan, "inside", [1, 1], point="matched")
    table = pd.concat([own, pd.DataFrame(inside).assign(against="DP")])
    names = {("ADMM", "first"): "60%", ("ADMM", "second"): "90%"}
    pairs = [("ADMM", level, "DP") for level in ("first", "second")]
    told = tables.differences(table, "matched", names, pairs)
    assert told["AUC"].iloc[0].startswith("61.0 [")
    assert told["AUC"].iloc[1] == tables.NOWHERE
    assert "accuracy" not in told
    plain = tables.differences(table.assign(point="compared"), "compared", names, pairs)
    assert plain["accuracy"].iloc[0].startswith("71.0 [")


def test_gap_has_a_dot_a_network(table):
    left, right = figures.against_gap(table).axes
    dots = drawn(left)
    assert np.allclose(dots["no defence"], [[20, 70], [30, 72], [20, 71]])
    assert len(dots["ADMM"]) == 6
    assert np.allclose(drawn(right)["no defence"][:, 1], [70, 72, 71])
    dashed = next(line for line in left.lines if line.get_label() == "gap attack")
    x, y = dashed.get_xydata().T
    assert np.allclose(y, 50 + x / 2)  # a gap of 20 points is an accuracy of 60 %


def test_gap_pairs_by_network_and_not_by_row(table):
    mixed = table.sample(frac=1, random_state=0)
    for a, b in zip(
        figures.against_gap(table).axes, figures.against_gap(mixed).axes, strict=True
    ):
        one, other = drawn(a)["ADMM"], drawn(b)["ADMM"]
        assert np.allclose(one[np.lexsort(one.T)], other[np.lexsort(other.T)])


def test_learning_shows_losses_above_and_means_below():
    found = [
        row
        for epoch, value in ((1, 0.5), (4, 0.6))
        for row in rows(
            "ADMM",
            "first",
            np.nan,
            "accuracy",
            [value, value + 0.02, value + 0.04],
            point="learning",
            attack_epoch=epoch,
        )
    ]
    history = {"ADMM": pd.DataFrame({"epoch": [1, 2], "loss": [2.0, -0.5]})}
    above, below = figures.learning(history, pd.DataFrame(found)).axes
    assert above.lines[0].get_xydata().tolist() == [[1, 2.0], [2, -0.5]]
    assert np.allclose(below.containers[0].lines[0].get_xydata(), [[1, 52], [4, 62]])
    low, high = above.get_ylim()
    assert low < -0.5  # a loss below 0 is drawn too
    assert high > 2


def test_weights_counts_zeros_and_draws_the_rest():
    found = {"ADMM": np.array([0, 0, 0, 0.5, -0.5] * 20, float)}
    (axis,) = figures.weights(found).axes
    assert "60 % zeros" in axis.get_title()
    assert sum(bar.get_height() for bar in axis.patches) == 40


def test_classes_are_averaged_over_networks_and_named():
    inside = pd.DataFrame(
        [
            {"class": k, "metric": f"{name} in class", "value": 0.1 * k + shift}
            for k in (0, 1)
            for name in ("gap", "accuracy")
            for shift in (0.1, 0.3)
        ]
    )
    (axis,) = figures.in_classes({"ADMM": inside}, ["top", "boot"]).axes
    assert np.allclose(axis.lines[0].get_xydata(), [[20, 20], [30, 30]])
    assert [text.get_text() for text in axis.texts] == ["top", "boot"]


def test_privacy_rises_with_epsilon_beside_its_controls():
    found = []
    for epsilon, value in ((1.0, 0.4), (30.0, 0.7)):
        given = {"point": "privacy", "epsilon": epsilon}
        values = [value, value + 0.02, value + 0.01]
        found += rows("DP", "none", np.nan, "fresh_accuracy", values, **given)
        found += rows("DP", "none", "nasr", "accuracy", values, **given)
    for attack, metric in ((np.nan, "fresh_accuracy"), ("nasr", "accuracy")):
        for place, (arm, _) in enumerate(figures.CONTROLS):
            values = [0.8 + 0.01 * place, 0.9 + 0.01 * place]
            found += rows(arm, "", attack, metric, values, point="privacy")
    for axis in figures.privacy(pd.DataFrame(found)).axes:
        points = axis.containers[0].lines[0].get_xydata()
        assert np.allclose(points, [[1, 41], [30, 71]])
        lines = {x.get_label(): x.get_ydata() for x in axis.lines}
        for place, (_, label) in enumerate(figures.CONTROLS):
            assert np.allclose(lines[label], 85 + place)


def test_an_empty_table_says_so(table):
    for axis in figures.frontier(table[:0]).axes:
        assert [text.get_text() for text in axis.texts] == ["not measured"]
