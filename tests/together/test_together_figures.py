"""What the figures of `together` draw, against the table that they draw it from."""

import pandas as pd
import pytest

from lottolab.together import echoes, figures

pytestmark = [
    pytest.mark.filterwarnings("error"),
    pytest.mark.usefixtures("rendered"),
]


def rows(values, **marks):
    return [marks | {"seed": s, "value": v} for s, v in enumerate(values)]


def test_every_way_to_use_a_mask_has_a_line():
    found = []
    for place, (kind, start) in enumerate(figures.MASK):
        values = [0.5 + 0.05 * place, 0.52 + 0.05 * place, 0.54 + 0.05 * place]
        marks = {"question": "mask", "metric": "auc", "kind": kind, "start": start}
        found += rows(values, **marks, attack="lira, online")
        found += rows([0.9] * 3, **marks, attack="score")  # not drawn
        if kind not in echoes.KINDS:
            marks |= {"metric": "pool auc", "freedom": 7, "clusters": 8}
            marks |= {"attack": "lira, online", "error": 0.01}
            found += rows([0.52 + 0.05 * place], **marks)
    table = pd.DataFrame(found)
    (axis,) = figures.mask_alone(table).axes
    told = [t.get_text() for t in axis.get_yticklabels()]
    assert told == list(figures.MASK.values())
    assert axis.yaxis_inverted()  # the first is on top
    (drawn,) = axis.containers
    means = drawn.lines[0].get_xdata()
    assert means == pytest.approx([52 + 5 * place for place in range(len(means))])
    networks = [c.get_offsets()[:, 0] for c in axis.collections if len(c.get_offsets())]
    assert [len(dots) for dots in networks[: len(means)]] == [3] * len(means)
    bars = drawn.lines[2][0].get_segments()
    half = [(b[1, 0] - b[0, 0]) / 2 for b in bars]
    over_networks = 4.3027 * 2 / 3**0.5  # t, 2 degrees of freedom
    of_pool = 2.3646 * 1  # t, 7 degrees of freedom
    own = [kind in echoes.KINDS for kind, _ in figures.MASK]
    wanted = [over_networks if o else of_pool for o in own]
    assert half == pytest.approx(wanted, rel=1e-4)


def test_the_numbers_of_masks_have_a_row_a_use_and_attack():
    marks = {"question": "mask", "metric": "auc", "start": None}
    found = rows([0.5, 0.6], **marks, kind="weights", attack="score")
    found += rows([0.7, 0.8], **marks, kind="weights", attack="lira, online")
    found += rows([0.1], question="guard", metric="auc", attack="score")
    table = figures.masks(pd.DataFrame(found))
    assert table["attack"].tolist() == ["score", "lira, online"]
    assert table["estimate"].tolist() == pytest.approx([55, 75])
    assert set(table["use"]) == {"the trained weights"}


def levels(question, metric, **marks):
    found = []
    for shift, guard in enumerate(figures.GUARDS):
        for epsilon in (0.5, 1.0):
            values = [0.7 - 0.1 * epsilon - 0.05 * shift + 0.01 * s for s in range(3)]
            marks |= {"question": question, "metric": metric, "guard": guard}
            found += rows(values, **marks, epsilon=epsilon)
    marks |= {"guard": "none"}
    return found + rows([0.7, 0.71, 0.72], **marks)


def line(axis, label):
    (series,) = [c for c in axis.containers if c.get_label() == label]
    return series.lines[0].get_xdata().tolist(), series.lines[0].get_ydata().tolist()


def test_a_copy_is_drawn_by_epsilon_from_no_defence_on():
    found = levels("evidence", "auc", suspect="copy")
    found += levels("evidence", "accuracy", suspect="copy")
    marks = {"question": "evidence", "suspect": "copy", "guard": "Top-1"}
    found += rows([0.6, 0.6, 0.6], **marks, metric="auc")
    left, right = figures.copies(pd.DataFrame(found)).axes
    x, y = line(left, "ModelGuard-S")
    assert x == [0, 0.5, 1.0]
    assert y == pytest.approx([71, 66, 61])
    assert line(right, "ModelGuard-W")[1] == pytest.approx([71, 61, 56])
    (labels,) = [n for n in left.get_lines() if n.get_label() == "labels alone"]
    assert labels.get_ydata()[0] == pytest.approx(60)


def test_guards_are_drawn_for_who_knows_and_who_does_not():
    found = []
    for attacker in ("aware", "unaware"):
        marks = {"attacker": attacker, "attack": "lira, online"}
        found += levels("guard", "auc", **marks)
    marks = {"question": "guard", "metric": "auc", "attacker": "aware"}
    found += rows([0.58] * 3, **marks, guard="none", attack="label only")
    axes = figures.guards(pd.DataFrame(found)).axes
    assert [a.get_title() for a in axes] == [
        "aware of the defence",
        "unaware of the defence",
    ]
    assert line(axes[0], "ModelGuard-S")[1] == pytest.approx([71, 66, 61])


def test_each_network_has_its_own_path():
    found = []
    for sparsity in (0.0, 0.9):
        for epoch in (1, 5):
            marks = {"question": "trajectory", "sparsity": sparsity, "epoch": epoch}
            found += rows([0.1 * epoch, 0.1 * epoch + 0.01], **marks, metric="gap")
            found += rows([0.5 + 0.02 * epoch] * 2, **marks, metric="auc")
    (axis,) = figures.gaps(pd.DataFrame(found)).axes
    paths = [n for n in axis.get_lines() if len(n.get_xdata()) == 2]
    assert sum(n.get_label() in ("dense", "90% pruned") for n in paths) == 2
    drawn = [n.get_xdata().tolist() for n in paths if n.get_label() == "dense"]
    assert drawn == [pytest.approx([10, 50])]


def stacked():
    found = []
    names = list(figures.WORTH)
    systems = [[]] + [[n] for n in names]
    systems += [[a, b] for i, a in enumerate(names) for b in names[i + 1 :]]
    for place, chosen in enumerate(systems):
        name = " + ".join(chosen) or figures.NONE
        for metric, _, _ in figures.WORTH.values():
            values = [0.01 * place, 0.01 * place + 0.02, 0.01 * place + 0.04]
            marks = {"question": "stack", "system": name, "metric": metric}
            if metric in ("signature", "triggers") and metric not in chosen:
                continue
            found += rows(values, **marks)
    return pd.DataFrame(found), systems


def test_every_pair_of_defences_has_a_cell():
    table, systems = stacked()
    cells = figures.stacked(table)
    assert set(cells.groupby("defence")["with"].nunique()) == {5, 6}
    for (defence, other), group in cells.groupby(["defence", "with"]):
        chosen = {defence, other} - {"alone", figures.NONE}
        if other == figures.NONE:
            chosen = set()
        (place,) = [i for i, s in enumerate(systems) if set(s) == chosen]
        assert group["value"].mean() == pytest.approx(0.01 * place + 0.02)
    axis = figures.stack(table).axes[0]
    told = [t.get_text() for t in axis.texts]
    assert len(told) == 5 + 3 + 20
    assert sum("±" in t for t in told) == 20
    first = figures.paired("team", "signature")
    assert first == "signature + team"
