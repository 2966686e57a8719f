"""Two tables of measurements are compared setting by setting, and no row is lost."""

import numpy as np
import pandas as pd
import pytest

from lottolab.reruns import compare
from lottolab.truth import claims

PROVENANCE = {"claim": "", "seconds": 1.0, "fingerprint": "f", "stage": "s/1"}


def rows(values: dict[int, float], **settings) -> list[dict]:
    """Return a row a seed."""
    marks = {"metric": "accuracy", **settings, **PROVENANCE}
    return [marks | {"seed": seed, "value": v} for seed, v in values.items()]


def table(*groups) -> pd.DataFrame:
    return pd.DataFrame([row for group in groups for row in group])


BEFORE = table(
    rows({0: 0.5, 1: 0.7}, arm="dense"),
    rows({0: 0.1, 1: 0.3}, arm="ticket", round=1),
    rows({0: 0.4}, arm="ticket", round=2),
)


def found(now: pd.DataFrame, before=BEFORE) -> pd.DataFrame:
    return compare.measurements(before, now).set_index(["arm", "round"])


def test_who_measured_when_in_what_order_makes_no_difference():
    now = BEFORE.iloc[::-1].assign(seconds=9.0, fingerprint="g", stage="t/2", claim="x")
    result = compare.measurements(BEFORE, now.assign(stale=True))
    assert result["what"].tolist() == ["same"] * 3
    assert result["before"].tolist() == pytest.approx([0.6, 0.2, 0.4])
    assert result["now"].tolist() == result["before"].tolist()
    assert not {"seconds", "fingerprint", "stage", "claim", "stale"} & set(result)


def test_each_kind_of_difference_is_told():
    now = table(
        rows({0: 0.5, 1: 0.9}, arm="dense"),  # another value of one seed
        rows({0: 0.1}, arm="ticket", round=1),  # fewer seeds
        rows({0: 0.4}, arm="ticket", round=3),  # another setting
    )
    result = found(now)
    assert result["what"].to_dict() == {
        ("dense", ""): "changed",
        ("ticket", 1): compare.SEEDS,
        ("ticket", 2): "only before",
        ("ticket", 3): "only now",
    }
    dense, fewer = result.loc[("dense", "")], result.loc[("ticket", 1)]
    assert (dense["before"], dense["now"]) == pytest.approx((0.6, 0.7))
    assert (fewer["seeds before"], fewer["seeds now"]) == (2, 1)
    assert np.isnan(result.loc[("ticket", 3)]["before"])
    assert result.loc[("ticket", 2)]["seeds now"] == 0


@pytest.mark.parametrize(
    ("now", "what"),
    [
        ({0: 0.5, 1: 0.7}, compare.SAME),
        ({1: 0.7, 0: 0.5}, compare.SAME),
        ({0: 0.7, 1: 0.5}, compare.CHANGED),  # the same mean
        ({2: 0.5, 3: 0.7}, compare.CHANGED),  # no seed is shared
        ({0: 0.5}, compare.SEEDS),
        ({0: 0.5, 1: 0.7, 2: 0.6}, compare.SEEDS),
        ({1: 0.7, 2: 0.1}, compare.SEEDS),
        ({1: 0.8, 2: 0.7}, compare.CHANGED),
    ],
)
def test_values_are_compared_seed_by_seed(now, what):
    before = table(rows({0: 0.5, 1: 0.7}, arm="dense"))
    found = compare.measurements(before, table(rows(now, arm="dense")))
    assert found["what"].tolist() == [what]


def test_a_setting_that_one_table_lacks_is_an_empty_one():
    before = table(rows({0: 0.5}, arm="dense"))
    now = table(rows({0: 0.5}, arm="dense", epsilon=np.nan))
    now = pd.concat([now, table(rows({0: 0.6}, arm="dense", epsilon=0.5))])
    result = compare.measurements(before, now)
    assert result["what"].tolist() == ["same", "only now"]


def test_the_largest_share_comes_first():
    now = table(
        rows({0: 0.5, 1: 0.71}, arm="dense"),
        rows({0: 0.0, 1: 0.1}, arm="ticket", round=1),
        rows({0: 0.4, 1: 0.8}, arm="ticket", round=2),
    )
    ordered = compare.largest_first(compare.measurements(BEFORE, now))
    assert ordered["arm"].tolist() == ["ticket", "dense"]
    zero = table(rows({0: 0.0}, arm="dense"), rows({0: 1.0}, arm="ticket"))
    other = table(rows({0: 0.0}, arm="dense"), rows({0: -1.0}, arm="ticket"))
    ordered = compare.largest_first(compare.measurements(zero, other))
    assert ordered["arm"].tolist() == ["ticket"]


def test_a_label_has_what_tells_measurements_apart():
    now = table(
        rows({0: 1.0}, arm="dense", on=True, target="many"),
        rows({0: 1.0}, arm="ticket", round=1, epsilon=0.5, on=True, target="many"),
    )
    labels = compare.labels(compare.measurements(now, now))
    assert labels.tolist() == [
        "accuracy: dense",
        "accuracy: ticket, round 1, epsilon 0.5",
    ]


def test_only_verdicts_that_differ_are_told_and_a_missing_row_is_no_crash(monkeypatch):
    def claim(name, arm):
        test = {"metric": "accuracy", "arm": arm}
        tests = (claims.Criterion("at_least", test, value=0.5),)
        return claims.Claim(f"ownership-{name}", "ownership", "§1", "It.", {}, tests)

    known = [claim("same", "a"), claim("falls", "b"), claim("gone", "c")]
    monkeypatch.setattr(claims, "load", lambda: known)
    high, low = {0: 0.9, 1: 0.91, 2: 0.92}, {0: 0.1, 1: 0.11, 2: 0.12}
    before = table(*(rows(high, arm=arm) for arm in "abc"))
    now = table(rows(high, arm="a"), rows(low, arm="b"))
    result = compare.verdicts("ownership", before, now)
    assert result["claim"].tolist() == ["ownership-falls", "ownership-gone"]
    assert result["before"].tolist() == ["reproduced", "reproduced"]
    assert result["now"].tolist() == ["refuted", claims.UNJUDGED]
    assert "no row has arm = 'c'" in result["note"][1]
    assert result["ours now"][0].startswith("11.0 %")
    assert compare.verdicts("ownership", before, before).empty


def test_a_change_is_held_against_what_another_machine_does():
    seeds = range(4)
    apart = {s: 0.5 + 0.01 * (-1) ** s for s in seeds}
    twice = pd.concat(
        [
            table(rows(dict.fromkeys(seeds, 0.5), arm="dense")).assign(
                machine="native"
            ),
            table(rows(apart, arm="dense")).assign(machine="other"),
        ]
    ).drop(columns=list(PROVENANCE))
    # Four pairs 0.01 apart: t of 4 degrees is 2.776, so a mean of two moves 0.0196.
    moved = {"little": 0.019, "much": 0.021, "none": 0.0}
    before = [rows({0: 0.5, 1: 0.5}, arm=arm) for arm in [*moved, "grown"]]
    now = [rows({0: 0.5 + x, 1: 0.5 + x}, arm=arm) for arm, x in moved.items()]
    now.append(rows({0: 0.6, 1: 0.6, 2: 0.6}, arm="grown"))  # another number of seeds
    other = [[r | {"metric": "auc"} for r in group] for group in (before[0], now[1])]
    found = compare.measurements(table(*before, other[0]), table(*now, other[1]))
    found["machine"] = compare.beside_machines(found, twice)
    said = found.set_index(["metric", "arm"])["machine"].to_dict()
    assert said.pop(("accuracy", "little")) == "within"
    assert said.pop(("accuracy", "much")) == "beyond"
    assert set(said.values()) == {""}
    assert ("accuracy", "grown") in said
    assert compare.beside_machines(found[:0], twice).empty
