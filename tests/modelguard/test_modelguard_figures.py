"""What chapter 4's figures draw, against the table that they draw it from."""

import pandas as pd
import pytest

from lottolab.modelguard import figures
from lottolab.truth import stats

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("rendered"),
]


def rows(point, metric, values, **marks):
    return [
        marks | {"point": point, "metric": metric, "seed": seed, "value": value}
        for seed, value in enumerate(values)
    ]


def thefts() -> pd.DataFrame:
    found = rows("many", "accuracy", (0.8, 0.7, 0.9), arm="none", attack="naive")
    for shift, arm in enumerate(("ModelGuard-W", "ModelGuard-S")):
        for more, attack in enumerate(figures.ATTACKS):
            values = [0.1 + 0.2 * shift + 0.05 * more + 0.01 * s for s in range(3)]
            found += rows("many", "accuracy", values, arm=arm, attack=attack)
    for more, attack in enumerate(figures.ADAPTIVE):
        values = [0.4 + 0.02 * more + 0.01 * s for s in range(3)]
        found += rows("adaptive", "accuracy", values, arm="ModelGuard-S", attack=attack)
    return pd.DataFrame(found)


def dots(axis, label):
    """Return the means and the ends of the bars of a series, by their height."""
    series = next(c for c in axis.containers if c.get_label() == label)
    line, _, (bars,) = series.lines
    ends = [segment[:, 0] for segment in bars.get_segments()]
    return line.get_xdata(), line.get_ydata(), ends


def test_an_attack_is_a_dot_on_its_defence_with_its_interval():
    (axis,) = figures.attacks(thefts()).axes
    x, y, ends = dots(axis, "partial Bayes")
    told = [t.get_text() for t in axis.get_yticklabels()]
    assert told == ["none", "ModelGuard-W", "ModelGuard-S"]
    wanted = stats.mean_interval([35.0, 36.0, 37.0])
    assert x[0] == pytest.approx(wanted.estimate)
    assert ends[0] == pytest.approx([wanted.low, wanted.high])
    heights = axis.get_yticks()
    assert abs(y[0] - heights[1]) < 0.5
    assert x[1] == pytest.approx(56)
    line = next(n for n in axis.get_lines() if n.get_label() == "no defence")
    assert line.get_xdata()[0] == pytest.approx(80)


def test_attacks_of_both_kinds_stand_side_by_side():
    (axis,) = figures.adaptive(thefts()).axes
    x, y, _ = dots(axis, "ModelGuard-S")
    told = [t.get_text() for t in axis.get_yticklabels()]
    assert told == ["naive", "partial Bayes", *figures.ADAPTIVE]
    assert x[:2] == pytest.approx([31, 56])
    assert x[2:] == pytest.approx([41 + 2 * k for k in range(len(figures.ADAPTIVE))])
    assert list(y) == sorted(y, reverse=True)
    assert len(dots(axis, "none")[0]) == 1


def swept() -> pd.DataFrame:
    found = []
    for level, epsilon in (("half", 0.5), ("paper", 1.0), ("more", 1.5)):
        marks = {"level": level, "epsilon": epsilon}
        for arm in ("MAD", "ModelGuard-S"):
            for attack in ("naive", "partial Bayes"):
                worse = 0.1 if attack == "naive" else 0.3
                value = 0.9 - worse * epsilon
                own = marks | {"arm": arm, "attack": attack}
                found += rows("sweep", "accuracy", [value] * 2, **own)
                found += rows("sweep", "centroids", [100 / epsilon, 80], **own)
                found += rows("sweep", "recovery ℓ2", [epsilon / 10] * 2, **own)
            found += rows("served", "log-loss", [epsilon] * 2, arm=arm, **marks)
            for metric in ("AUROC", "calibration error", "top-5 accuracy"):
                found += rows("served", metric, [0.5 + epsilon / 10], arm=arm, **marks)
        found += rows(
            "grown", "centroids", [10, 12], arm="ModelGuard-S", queries=50, **marks
        )
        found += rows(
            "grown", "centroids", [20, 22], arm="ModelGuard-S", queries=100, **marks
        )
    for metric in figures.UTILITY:
        own = {"arm": "Top-1", "level": "paper", "epsilon": 1.0}
        found += rows("served", metric, [0.25], **own)
    table = pd.DataFrame(found)
    return pd.concat([table, thefts()])


def line(axis, label):
    series = next(c for c in axis.containers if c.get_label() == label)
    return series.lines[0].get_xydata().ravel().tolist()


def test_sweeps_run_over_the_budget():
    left, right = figures.sweep(swept()).axes
    assert line(left, "MAD") == pytest.approx([0.5, 85, 1, 80, 1.5, 75])
    assert line(right, "MAD") == pytest.approx([0.5, 75, 1, 60, 1.5, 45])


def test_centroids_are_paired_with_what_they_cost():
    left, right = figures.centroids(swept()).axes
    wanted = [200, 75, 100, 60, 100 / 1.5, 45]
    assert line(left, "target 0") == pytest.approx(wanted)
    assert line(right, "target 1")[1::2] == pytest.approx([0.05, 0.1, 0.15])


def test_what_has_no_budget_is_a_line_across():
    axes = figures.utility(swept()).axes
    assert axes[0].get_ylabel() == "AUROC, foreign images (%)"
    assert line(axes[0], "ModelGuard-S") == pytest.approx([0.5, 55, 1, 60, 1.5, 65])
    assert line(axes[2], "ModelGuard-S") == pytest.approx([0.5, 0.5, 1, 1, 1.5, 1.5])
    flat = next(n for n in axes[3].get_lines() if n.get_label() == "Top-1")
    assert list(flat.get_ydata()) == [25, 25]
    assert flat.get_linestyle() == "--"


def test_the_frontier_takes_the_better_attack_and_marks_the_paper():
    (axis,) = figures.frontier(swept()).axes
    assert line(axis, "MAD") == pytest.approx([0.5, 85, 1, 80, 1.5, 75])
    drawn = [c.lines[0] for c in axis.containers]
    large = [n.get_xydata().ravel() for n in drawn if n.get_markersize() == 11]
    assert [list(place) for place in large] == [[1, 80], [1, 80]]


def test_labels_and_votes_are_on_the_frontier():
    more = rows("many", "accuracy", [0.5, 0.6], arm="Top-1", attack="naive")
    more += rows("many", "accuracy", [0.6, 0.7], arm="Top-1", attack="smoothing")
    more += rows("adaptive", "accuracy", [0.7, 0.72], arm="none", attack="votes")
    table = pd.concat([swept(), pd.DataFrame(more)])
    (axis,) = figures.frontier(table).axes
    assert line(axis, "Top-1") == pytest.approx([0.25, 65])
    votes = next(n for n in axis.get_lines() if n.get_label() == "votes over labels")
    assert list(votes.get_ydata()) == pytest.approx([71, 71])


def test_centroids_grow_with_queries():
    (axis,) = figures.growth(swept()).axes
    assert line(axis, "ε = 0.5") == pytest.approx([50, 11, 100, 21])


def test_the_slowest_defence_is_to_the_right():
    table = pd.DataFrame(
        rows("timed", "response", (1.0, 1.2), arm="none")
        + rows("timed", "response", (5.0, 7.0), arm="MAD")
    )
    axis = figures.latency(table).axes[0]
    told = [t.get_text() for t in axis.get_yticklabels()]
    means = [c.lines[0].get_xdata()[0] for c in axis.containers]
    assert told == ["none", "MAD"]
    assert means == pytest.approx([1.1, 6.0])


def test_times_over_http_are_hollow_below_those_in_process():
    late = "response, 95th percentile"
    table = pd.DataFrame(
        rows("timed", "response", (9.0, 9.0), arm="none")  # at another time
        + rows("over HTTP", "response", (2.0, 3.0), arm="none", via="HTTP")
        + rows("over HTTP", "response", (1.0, 1.2), arm="none", via="in process")
        + rows("over HTTP", late, (4.0, 6.0), arm="none", via="HTTP")
        + rows("over HTTP", late, (1.5, 1.7), arm="none", via="in process")
    )
    axis = figures.latency(table).axes[0]
    inside, outside = [c.lines[0] for c in axis.containers]
    assert inside.get_xdata()[0] == pytest.approx(1.1)
    assert outside.get_xdata()[0] == pytest.approx(2.5)
    assert outside.get_ydata()[0] < inside.get_ydata()[0]
    assert outside.get_markerfacecolor() == "white"
    ticks = {
        float(n.get_ydata()[0]): n.get_xdata()[0]
        for n in axis.lines
        if n.get_marker() == "|" and n.get_markersize() == 11
    }
    heights = [float(n.get_ydata()[0]) for n in (inside, outside)]
    assert [ticks[y] for y in heights] == pytest.approx([1.6, 5.0])
