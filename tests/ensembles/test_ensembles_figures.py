"""Chapter 3's figures draw the numbers of the table, and nothing else."""

import numpy as np
import pandas as pd
import pytest

from lottolab.ensembles import figures

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("rendered"),
]
NAMES = {"first": "cnn4", "second": "resnet8"}


def rows(value, **marks):
    """Return three libraries' rows, whose mean is the value."""
    return [
        marks | {"seed": seed, "value": value + shift}
        for seed, shift in enumerate((-0.01, 0.0, 0.01))
    ]


def drawn(axis):
    """Return the points of each series of an axis with error bars, by its label."""
    return {c.get_label(): c.lines[0].get_xydata() for c in axis.containers}


def test_tickets_have_a_line_a_structure_and_the_paper_s_lowest():
    found = []
    for metric, shift in (("clean_accuracy", 0.2), ("robust_accuracy", 0.0)):
        for place, value in (("first", 0.5), ("second", 0.6)):
            for ratio in (0.1, 0.7):
                marks = {"place": place, "ratio": ratio, "metric": metric}
                marks |= {"point": "transfer", "of": "ticket"}
                found += rows(value + shift + ratio / 10, **marks)
        marks = {"place": "first", "metric": metric, "point": "transfer"}
        found += rows(0.1, of="lowest", **marks)
    clean, robust = figures.tickets(pd.DataFrame(found), NAMES, 0.45).axes
    assert set(drawn(clean)) == set(NAMES.values())
    assert np.allclose(drawn(clean)["cnn4"], [[0.1, 71], [0.7, 77]])
    assert np.allclose(drawn(robust)["resnet8"], [[0.1, 61], [0.7, 67]])
    paper = next(x for x in robust.lines if x.get_label() == "paper, lowest")
    assert np.allclose(paper.get_ydata(), 45)
    assert paper.get_linestyle() == "--"


def test_the_matrix_averages_libraries_target_by_source():
    places = [(0, 0), (0, 1), (1, 0)]
    pairs = [
        {"place": a, "rank": b, "source_place": c, "source_rank": d}
        | {"accuracy": (100 * i + 10 * j + shift) / 1000}
        for i, (a, b) in enumerate(places)
        for j, (c, d) in enumerate(places)
        for shift in (0, 2)
    ]
    mixed = pd.DataFrame(pairs).sample(frac=1, random_state=0)
    axis, bar = figures.matrix(mixed, ["cnn4", "resnet8"]).axes
    wanted = [[10 * i + j + 0.1 for j in range(3)] for i in range(3)]
    assert np.allclose(axis.images[0].get_array(), wanted)
    assert [t.get_text() for t in axis.get_yticklabels()] == ["cnn4", "resnet8"]
    assert np.allclose(axis.get_yticks(), [0.5, 2])
    # A white line between the structures, across and down.
    across, down = axis.lines
    assert np.allclose(across.get_ydata(), 1.5)
    assert np.allclose(down.get_xdata(), 1.5)
    assert "accuracy" in bar.get_ylabel()


def test_curves_are_of_the_first_structure_beside_the_paper():
    found = []
    for arm, place, value in (
        ("dense", "first", 0.5),
        ("dense", "second", 0.1),
        ("ensemble", "all", 0.6),
    ):
        for size in (0, 8):
            marks = {"arm": arm, "place": place, "epsilon": size, "point": "curve"}
            found += rows(value - size / 100, metric="accuracy", **marks)
            found += rows(0.0, metric="worst", **marks)
    (axis,) = figures.curves(pd.DataFrame(found), {0: 0.87, 8: 0.677}).axes
    assert set(drawn(axis)) == {"dense", "ensemble"}
    assert np.allclose(drawn(axis)["dense"], [[0, 50], [8, 42]])
    paper = next(x for x in axis.lines if "paper" in x.get_label())
    assert np.allclose(paper.get_xydata(), [[0, 87], [8, 67.7]])
    assert paper.get_linestyle() == "--"


def test_attacks_have_a_row_each_and_an_arm_only_what_it_met():
    found = []
    for arm, attack, value in (
        ("dense", "clean", 0.8),
        ("dense", "PGD", 0.5),
        ("R2S", "PGD", 0.6),
    ):
        marks = {"arm": arm, "attack": attack, "place": "first", "point": "main"}
        found += rows(value, metric="accuracy", **marks)
    (axis,) = figures.attacks(pd.DataFrame(found), ["clean", "PGD"]).axes
    places = drawn(axis)
    assert np.allclose(places["dense"][:, 0], [80, 50])
    assert np.allclose(places["dense"][:, 1].round(), [0, 1])
    assert len(places["R2S"]) == 1
    assert places["R2S"][0, 0] == pytest.approx(60)
    assert [t.get_text() for t in axis.get_yticklabels()] == ["clean", "PGD"]
    low, high = axis.get_ylim()
    assert low > high  # the first attack is above


def test_the_strongest_attack_shows_mean_and_worst_and_what_both_were():
    found = []
    for point, size in (("strongest", 0.0), ("hard", 0.1)):
        for arm, place, value in (("ensemble", "all", 0.6), ("dense", "first", 0.5)):
            marks = {"arm": arm, "place": place, "point": point}
            found += rows(value - size, metric="accuracy", **marks)
            found += rows((value - size) / 2, metric="worst", **marks)
            for metric, drop in (("drop", 0.2), ("worst drop", 0.3)):
                drops = [{"seed": s, "value": drop} for s in range(3)]
                found += [marks | {"metric": metric} | d for d in drops]
    titles = {"strongest": "8/255", "hard": "20/255"}
    near, far = figures.strongest(pd.DataFrame(found), NAMES, titles).axes
    assert [near.get_title(), far.get_title()] == ["8/255", "20/255"]
    told = [t.get_text() for t in near.get_yticklabels()]
    assert told == ["dense, cnn4", "ensemble"]
    for axis, taken in ((near, 0), (far, 10)):
        points = drawn(axis)
        mean, worst = np.array([50.0, 60.0]) - taken, np.array([25.0, 30.0]) - taken / 2
        for label, wanted in {
            "mean of the draws": mean,
            "mean of the draws, clean": mean + 20,
            "right in all draws": worst,
            "right in all draws, clean": worst + 30,
        }.items():
            assert np.allclose(points[label][:, 0], wanted)


def test_training_has_a_panel_an_attack_and_both_kinds_side_by_side():
    found = []
    for kind, attack, size, value in (
        ("adversarial", "clean", 0.0, 0.7),
        ("adversarial", "PGD", 8.000000000000002, 0.6),
        ("standard", "clean", 0.0, 0.8),
        ("standard", "PGD", 8.0, 0.2),
        ("standard", "PGD", 20.0, 0.1),
        ("standard", "strongest", 20.0, 0.05),
    ):
        for arm, place in (("dense", "first"), ("ensemble", "all")):
            marks = {"arm": arm, "place": place, "epsilon": size, "training": kind}
            marks |= {"attack": attack, "point": "training"}
            found += rows(value, metric="accuracy", **marks)
            found += rows(0.0, metric="worst", **marks)
    panels = {("clean", 0): "clean", ("PGD", 8.0): "near", ("strongest", 20): "far"}
    axes = figures.training(pd.DataFrame(found), NAMES, panels).axes
    assert [axis.get_title() for axis in axes] == ["clean", "near", "far"]
    clean, near, far = map(drawn, axes)
    assert np.allclose(clean["adversarial training"], [[70, 0], [70, 1]])
    assert np.allclose(near["standard training"], [[20, 0], [20, 1]])
    assert np.allclose(far["standard training"], [[5, 0], [5, 1]])
    assert "adversarial training" not in far
    told = [t.get_text() for t in axes[0].get_yticklabels()]
    assert told == ["dense, cnn4", "ensemble"]


def test_draws_are_on_a_scale_of_powers_of_two():
    found = []
    for count, value in ((1, 0.7), (16, 0.6)):
        for metric, shift in (("accuracy", 0.0), ("worst", 0.1)):
            marks = {"arm": "ensemble", "point": "draws", "drawn": count}
            found += rows(value - shift, metric=metric, **marks)
    (axis,) = figures.draws(pd.DataFrame(found)).axes
    assert np.allclose(drawn(axis)["mean of the draws"], [[1, 70], [16, 60]])
    assert np.allclose(drawn(axis)["in all draws"], [[1, 60], [16, 50]])
    assert axis.get_xscale() == "log"
    assert [t.get_text() for t in axis.get_xticklabels()] == ["1", "16"]


def test_bars_are_t_intervals_over_libraries():
    found = []
    for size in (0, 8):
        marks = {"arm": "ensemble", "place": "all", "epsilon": size, "point": "curve"}
        found += rows(0.5, metric="accuracy", **marks)
    (axis,) = figures.curves(pd.DataFrame(found), {0: 0.87}).axes
    (bars,) = axis.containers[0].lines[2]
    low, high = bars.get_segments()[0][:, 1]
    # Three values, a point apart: 4.3027 × 1 / √3.
    assert (high - low) / 2 == pytest.approx(4.3027 / 3**0.5, rel=1e-4)
