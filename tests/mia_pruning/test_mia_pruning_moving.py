"""Chapter 5's figure that moves holds what the table says, and offers nothing else."""

import json
import re

import numpy as np
import pandas as pd
import pytest
from bs4 import BeautifulSoup
from scipy.stats import t

from lottolab.mia_pruning import figures, moving
from lottolab.pages import moving as frame

pytestmark = pytest.mark.usefixtures("rendered")
STOPPED = {
    "3 epochs": ("early stopping", "first"),
    "10 epochs": ("early stopping", "second"),
    "20 epochs": ("parent", "none"),
    "40 epochs": ("no defence", "none"),
}
PRUNED = {"0 %": ("no defence", "none"), "60 %": ("ADMM", "first")}
PRUNED |= {"99 %": ("ADMM", "second")}
BESIDE = [("Min-Max", "weak"), ("DP", "none"), ("weight decay", "weak")]
BESIDE += [("random + fine-tune", "second"), ("dropout", "weak")]
NAMES = {
    key: ", ".join(key) for key in dict.fromkeys([*STOPPED.values(), *PRUNED.values()])
} | {key: f"{key[0]} ({key[1]})" for key in BESIDE}
METRICS = ("fresh_accuracy", "auc", "tpr at 1% fpr", "tpr at 0.1% fpr")


def measured(keys=NAMES) -> pd.DataFrame:
    """Make another number for each row; one treatment is of a single pool."""
    rng, rows = np.random.default_rng(0), []
    for arm, level in keys:
        marks = {"arm": arm, "level": level, "point": "leaking"}
        for pool in range(1 if arm == "DP" else 2):
            for attack in ("strongest", "lira, online"):
                for metric in METRICS:
                    fresh = metric == "fresh_accuracy"
                    if fresh and attack != "strongest":
                        continue
                    row = {
                        "metric": metric,
                        "seed": pool,
                        "value": rng.uniform(0.3, 0.9),
                    }
                    row |= {"error": rng.uniform(0.001, 0.01), "freedom": 7.0}
                    row |= {"clusters": 8, "attack": np.nan if fresh else attack}
                    named = metric == "auc" and attack == "strongest"
                    row["chosen"] = f"attack on {arm}" if named else ""
                    rows.append(marks | row)
        # Another point's rows of the same treatment are not in the plane.
        other = {"metric": "fresh_accuracy", "seed": 0, "value": 0.01}
        rows.append(marks | other | {"point": "family"})
    return pd.DataFrame(rows)


def wanted(table, key, metric, attack="strongest"):
    """Return mean and interval of a treatment's pools, by the formula."""
    own = table[(table["arm"] == key[0]) & (table["level"] == key[1])]
    own = own[(own["point"] == "leaking") & (own["metric"] == metric)]
    if metric != "fresh_accuracy":
        own = own[own["attack"] == attack]
    mean, variances = own["value"].mean(), own["error"].to_numpy() ** 2
    freedom = 7 * variances.sum() ** 2 / (variances**2).sum()
    half = t.ppf(0.975, freedom) * np.sqrt(variances.sum()) / len(own)
    return [mean, mean - half, mean + half]


def page_of(table, stopped=STOPPED, pruned=PRUNED, names=NAMES):
    page = moving.plane(table, stopped, pruned, names).data
    found = json.loads(re.search(r"json\">(.*?)</script>", page, re.DOTALL)[1])
    return page, found


@pytest.fixture
def table(monkeypatch):
    monkeypatch.setattr(frame, "display", lambda figure: figure.canvas.draw())
    return measured()


def test_sliders_offer_what_was_measured_and_nothing_between(table):
    _, found = page_of(table)
    offered = {c["name"]: c["options"] for c in found["controls"]}
    assert offered == {moving.STOP: list(STOPPED), moving.PRUNE: list(PRUNED)}
    assert all(c["slider"] for c in found["controls"])


def test_each_state_tells_two_treatments_with_their_intervals(table):
    _, found = page_of(table)
    rows = list(found["readout"]["rows"])
    assert found["readout"]["columns"] == ["stopped", "pruned"]
    told = {moving.FRESH: "fresh_accuracy", "AUC": "auc"}
    told |= {"TPR at 1 %": "tpr at 1% fpr", "TPR at 0.1 %": "tpr at 0.1% fpr"}
    cells = found["readout"]["cells"]["values"]
    assert found["readout"]["cells"]["names"] == [moving.STOP, moving.PRUNE]
    for i, first in enumerate(STOPPED.values()):
        for j, second in enumerate(PRUNED.values()):
            state = dict(zip(rows, cells[i][j], strict=True))
            for column, key in enumerate((first, second)):
                for name, metric in told.items():
                    given = state[name][column]
                    assert given == pytest.approx(wanted(table, key, metric), rel=1e-4)
                alone = state["AUC of LiRA alone"][column]
                own = wanted(table, key, "auc", "lira, online")
                assert alone == pytest.approx(own, rel=1e-4)
                assert state[moving.CHOSEN][column] == f"attack on {key[0]}"


@pytest.mark.parametrize(("place", "metric"), [(0, "auc"), (1, "tpr at 1% fpr")])
def test_points_move_along_their_paths_and_the_others_stand(table, place, metric):
    _, found = page_of(table)
    panel = found["panels"][place]
    series = {s["name"]: s for s in panel["series"]}
    for name, steps, control in (
        ("early stopping", STOPPED, moving.STOP),
        ("ADMM", PRUNED, moving.PRUNE),
    ):
        one = series.pop(name)
        assert one["kind"] == "joined"
        assert one["dot"]["names"] == one["reach"]["names"] == [control]
        for step, key in enumerate(steps.values()):
            x, left, right = wanted(table, key, "fresh_accuracy")
            y, low, high = wanted(table, key, metric)
            assert one["dot"]["values"][step] == pytest.approx([x, y], rel=1e-3)
            reach = one["reach"]["values"][step]
            assert reach == pytest.approx([left, right, low, high], rel=1e-3)
            drawn = one["x"]["values"][step], one["y"]["values"][step]
            assert list(drawn) == one["dot"]["values"][step]
    standing = {}
    for name, one in series.items():
        assert (one["kind"], one["dot"]) == ("points", None)
        parts = (one[part]["values"] for part in ("names", "x", "y"))
        standing |= {told: (name, x, y) for told, x, y in zip(*parts, strict=True)}
    assert set(standing) == {NAMES[key] for key in BESIDE}
    for key in BESIDE:
        _, x, y = standing[NAMES[key]]
        assert x == pytest.approx(wanted(table, key, "fresh_accuracy")[0], rel=1e-3)
        assert y == pytest.approx(wanted(table, key, metric)[0], rel=1e-3)
    groups = {key[0]: standing[NAMES[key]][0] for key in BESIDE}
    assert groups["random + fine-tune"] == "other pruning"
    assert groups["weight decay"] == groups["dropout"] == "regularisers"
    assert panel["level"] == (0.5 if metric == "auc" else 0.01)


def test_axes_hold_every_interval(table):
    _, found = page_of(table)
    for panel, metric in zip(found["panels"], ("auc", "tpr at 1% fpr"), strict=True):
        for axis, name in (("xs", "fresh_accuracy"), ("ys", metric)):
            low, high = panel[axis][2:]
            ends = [wanted(table, key, name) for key in NAMES]
            assert low < min(map(min, ends)) < max(map(max, ends)) < high


def test_all_known_arms_but_the_regularisers_prune_or_are_named():
    known = {arm: moving._group(arm) for arm in figures.LOOKS}
    rest = {arm for arm, group in known.items() if group == moving.OTHER}
    assert rest == {"weight decay", "label smoothing", "early stopping"}
    pruning = {arm for arm, group in known.items() if group == moving.PRUNED}
    told = ("prun", "ticket", "ADMM", "fine-tune", "rewind", "balancing")
    # The two that train on, or as they are, stand on the paths.
    unpruned = {arm for arm in pruning if not any(word in arm for word in told)}
    assert unpruned == {"parent", "no defence"}


def test_the_folded_table_has_every_treatment_by_rising_auc(table):
    folded = BeautifulSoup(page_of(table)[0], "html.parser").find("table")
    head = [cell.text for cell in folded.find("thead").find_all("th")]
    lines = [tr.find_all(["th", "td"]) for tr in folded.find("tbody").find_all("tr")]
    rows = [dict(zip(head, (c.text for c in line), strict=True)) for line in lines]
    told = {row["treatment"]: row["AUC"] for row in rows}
    assert set(told) == set(NAMES.values())
    keys = {name: key for key, name in NAMES.items()}
    order = [wanted(table, keys[name], "auc")[0] for name in told]
    assert order == sorted(order)
    mean, low, high = (100 * x for x in wanted(table, ("DP", "none"), "auc"))
    said = f"{mean:.1f} % ({low:.1f} to {high:.1f} %)"
    assert told["DP (none)"] == said


def test_the_still_picture_is_the_frontier(table, monkeypatch):
    seen = []
    monkeypatch.setattr(frame, "display", seen.append)
    page_of(table)
    (still,) = seen
    drawn = {c.get_label(): c.lines[0].get_xydata() for c in still.axes[0].containers}
    key = ("Min-Max", "weak")
    x, y = wanted(table, key, "fresh_accuracy")[0], wanted(table, key, "auc")[0]
    assert drawn["Min-Max"] == pytest.approx(np.array([[100 * x, 100 * y]]))


def test_rates_that_were_not_measured_have_no_panel_and_no_row(table):
    few = table[~table["metric"].str.startswith("tpr")]
    _, found = page_of(few)
    assert [p["title"] for p in found["panels"]] == ["AUC of the strongest attack"]
    rows = set(found["readout"]["rows"])
    assert rows == {moving.FRESH, "AUC", "AUC of LiRA alone", moving.CHOSEN}


def test_where_nothing_was_learned_the_axes_still_have_a_width(table):
    _, found = page_of(table.assign(value=0.1, error=0.0))
    for panel in found["panels"]:
        for axis in ("xs", "ys"):
            low, high = panel[axis][2:]
            assert low < 0.1 < high


def test_a_treatment_that_was_not_measured_is_refused(table):
    admm = table["arm"].eq("ADMM") & table["level"].eq("second")
    with pytest.raises(ValueError, match=r"must be named and measured.*ADMM.*second"):
        page_of(table[~admm])
    with pytest.raises(ValueError, match="must be named and measured"):
        page_of(table, pruned=PRUNED | {"97 %": ("ADMM", "third")})


def test_a_page_of_the_chapters_size_stays_small(table):
    arm = "random + fine-tune"
    more = {(arm, str(k)): f"a treatment, number {k}" for k in range(21)}
    names = NAMES | more
    steps = [STOPPED | {"30 epochs": (arm, "0")}]
    steps += [PRUNED | {"90 %": (arm, "1"), "97 %": (arm, "2")}]
    page, found = page_of(measured(names), *steps, names)
    assert [c["count"] for c in found["controls"]] == [5, 5]
    assert len(names) == 32
    assert len(page.encode()) < 60_000
