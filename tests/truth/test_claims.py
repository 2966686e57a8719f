"""Check verdicts where the right one is known by construction, and their error rates.

Tables are synthetic: seed i of an arm has its centre plus `SPREAD[i]`, or its negative,
so that means, spreads and hence intervals follow from what a test writes down.
"""

import json
import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lottolab.pages.parameters import BOOK
from lottolab.truth import claims, results
from lottolab.truth.claims import Claim, ClaimError, Criterion
from lottolab.truth.claims_file import CHAPTERS
from lottolab.truth.selection import select

SPREAD = np.array([-0.001, 0.0, 0.001, 0.0])  # s.e. 0.0004, half a 95 % interval 0.0013
A, B = {"metric": "accuracy", "arm": "ticket"}, {"metric": "accuracy", "arm": "dense"}


def arm(name, values, **columns) -> pd.DataFrame:
    values = np.asarray(values, dtype=float)
    seeds = range(len(values))
    rows = {"metric": "accuracy", "arm": name, "seed": seeds, "value": values}
    return pd.DataFrame({**rows, **columns})


def pair(difference: float, scale: float = 1.0, n: int = 4) -> pd.DataFrame:
    """Return two arms whose paired difference has this mean and spread."""
    luck = np.array([0.0, 0.05, -0.05, 0.02])  # shared by a seed's two arms
    a = 0.9 + difference + luck + scale * SPREAD
    return pd.concat([arm("ticket", a[:n]), arm("dense", (0.9 + luck)[:n])])


def claim(*tests: Criterion, **changes) -> Claim:
    fields = {"id": "ownership-x", "chapter": "ownership", "place": "Table 1"}
    fields |= {"statement": "It works.", "paper": {"dense": 0.9167}, "tests": tests}
    return Claim(**(fields | changes))


def word(kind: str, table: pd.DataFrame, **line) -> str:
    b = B if kind in ("equal", "greater", "less") else None
    return claims.judge(claim(Criterion(kind, A, b, **line)), table).word


# Verdicts


@pytest.mark.parametrize(
    ("kind", "margin", "difference", "expected"),
    [
        ("equal", 0.01, 0.0, "reproduced"),
        ("equal", 0.01, -0.008, "reproduced"),
        ("equal", 0.01, 0.01, "inconclusive"),
        ("equal", 0.01, 0.02, "refuted"),
        ("equal", 0.01, -0.02, "refuted"),
        ("greater", 0.0, 0.01, "reproduced"),
        ("greater", 0.0, 0.001, "inconclusive"),
        ("greater", 0.0, -0.01, "refuted"),
        ("greater", 0.02, 0.03, "reproduced"),
        ("greater", 0.02, 0.01, "refuted"),
        ("greater", -0.01, -0.005, "reproduced"),
        ("greater", -0.01, -0.02, "refuted"),
        ("less", 0.0, -0.01, "reproduced"),
        ("less", 0.0, -0.001, "inconclusive"),
        ("less", 0.0, 0.01, "refuted"),
        ("less", 0.01, -0.02, "reproduced"),
        ("less", 0.01, -0.005, "refuted"),
        ("less", 0.01, 0.02, "refuted"),
        ("less", -0.01, 0.005, "reproduced"),
    ],
)
def test_pairs_are_judged_in_each_direction(kind, margin, difference, expected):
    assert word(kind, pair(difference), margin=margin) == expected


@pytest.mark.parametrize(
    ("values", "value", "expected"),
    [
        ([1, 1, 1], 1, "reproduced"),
        ([1, 0, 1], 1, "refuted"),
        ([0, 0, 0], 0, "reproduced"),
        ([0, 0, 1], 0, "refuted"),
        ([1, 1], 1, "inconclusive"),
    ],
)
def test_every_asks_each_single_network(values, value, expected):
    test = Criterion("every", A, value=value)
    found = claims.judge(claim(test), arm("ticket", values))
    assert found.word == expected
    hits, n = sum(v == value for v in values), len(values)
    exact = scipy_stats.binomtest(hits, n).proportion_ci(method="exact")
    (interval,) = found.intervals
    assert (interval.low, interval.high) == pytest.approx((exact.low, exact.high))
    assert found.ours.startswith(f"{hits} of {n}; share")


@pytest.mark.parametrize(
    ("kind", "margin"), [("equal", 0.01), ("greater", 0.0), ("less", 0.0)]
)
def test_a_wide_spread_is_inconclusive_whatever_the_mean(kind, margin):
    for difference in (-0.02, 0.0, 0.02):
        assert word(kind, pair(difference, 50), margin=margin) == "inconclusive"


@pytest.mark.parametrize(
    ("kind", "value", "expected"),
    [
        ("at_least", 0.89, "reproduced"),
        ("at_least", 0.9, "inconclusive"),
        ("at_least", 0.91, "refuted"),
        ("at_most", 0.91, "reproduced"),
        ("at_most", 0.9, "inconclusive"),
        ("at_most", 0.89, "refuted"),
    ],
)
def test_one_arm_is_judged_against_a_value(kind, value, expected):
    assert word(kind, arm("ticket", 0.9 + SPREAD), value=value) == expected


def test_a_claim_with_two_tests_is_judged_through_both():
    up, down = Criterion("greater", A, B), Criterion("less", A, B)
    verdict = claims.judge(claim(up, down), pair(0.01))
    assert verdict.word == "refuted"
    assert len(verdict.intervals) == 2
    assert claims.judge(claim(up, up), pair(0.01)).word == "reproduced"


@pytest.mark.parametrize(("n", "seeds"), [(1, "only 1 seed"), (2, "only 2 seeds")])
def test_fewer_than_three_seeds_decide_nothing(n, seeds):
    verdict = claims.judge(claim(Criterion("greater", A, B)), pair(0.5, 1e-6, n))
    assert verdict.word == "inconclusive"
    assert verdict.reason.startswith(f"accuracy of ticket > dense: {seeds};")
    assert verdict.n == n
    assert word("greater", pair(0.5, 1e-6, 3)) == "reproduced"


def test_what_was_not_run_or_cannot_be_tested_is_said():
    closed = claim(not_testable="needs ImageNet")
    assert claims.judge(closed, None).word == "not testable here"
    assert claims.judge(closed, pair(0)).reason == "needs ImageNet"
    opened = claim(Criterion("greater", A, B))
    assert claims.judge(opened, None).word == "not run at this scale"


def test_the_reason_gives_question_numbers_and_p():
    verdict = claims.judge(claim(Criterion("equal", A, B, margin=0.01)), pair(0.002))
    p = scipy_stats.ttest_1samp(0.002 + SPREAD, 0.01, alternative="less").pvalue
    assert verdict.reason == (
        f"accuracy of ticket = dense ± 1 point: reproduced (two one-sided tests, "
        f"p = {p:.2g}); 90.7 − 90.5 = 0.2 points [0.1, 0.3], n = 4"
    )
    worse = claims.judge(claim(Criterion("less", A, B, margin=0.01)), pair(0))
    assert worse.note == "accuracy of ticket < dense − 1 point: refuted"
    one = claims.judge(claim(Criterion("at_least", A, value=0.5)), pair(0))
    assert one.note == "accuracy of ticket ≥ 50 %: reproduced"


# Error rates, by simulation


RUNS = 500


def false_reproduced(difference: float, **test) -> int:
    """Count how often a test is reproduced at this true difference, in RUNS tables."""
    rng, count = np.random.default_rng(11), 0
    case, table = claim(Criterion(a=A, b=B, **test)), pair(0)
    for _ in range(RUNS):
        dense = rng.normal(0.9, 0.05, 4)
        ticket = dense + rng.normal(difference, 0.002, 4)
        table["value"] = np.concatenate([ticket, dense])
        count += claims.judge(case, table).word == "reproduced"
    return count


@pytest.mark.parametrize(
    ("test", "difference", "rate"),
    [
        ({"kind": "equal", "margin": 0.01}, 0.01, 0.05),
        ({"kind": "equal", "margin": 0.01}, -0.01, 0.05),
        ({"kind": "greater"}, 0.0, 0.025),
        ({"kind": "less", "margin": 0.01}, -0.01, 0.025),
    ],
)
def test_a_claim_that_is_only_just_false_is_rarely_reproduced(test, difference, rate):
    """At the boundary the rate is α (one side of a 95 % interval: α/2), give or take.

    The count must be what a rate of α gives in all but one of a thousand simulations.
    """
    low, high = scipy_stats.binom.interval(0.999, RUNS, rate)
    assert low <= false_reproduced(difference, **test) <= high


# Selecting rows


def test_pairs_follow_the_seed_and_not_the_row():
    table = pair(0.01)
    shuffled = table.sample(frac=1, random_state=0)
    case = claim(Criterion("greater", A, B))
    assert claims.judge(case, shuffled).ours == claims.judge(case, table).ours


def test_labels_share_a_cell_and_survive_a_csv(tmp_path):
    parts = [arm("ticket", 0.9 + SPREAD, point="fifth;sparsest", density=0.1 + 0.2)]
    parts += [arm("ticket", 0.5 + SPREAD, density=0.5), arm("dense", 0.9 + SPREAD)]
    pd.concat(parts).to_csv(tmp_path / "t.csv", index=False)
    table = pd.read_csv(tmp_path / "t.csv")
    for extra in ({"point": "fifth"}, {"point": "sparsest"}, {"density": 0.3}):
        rows = select(table, A | extra, "x")
        assert rows["value"].tolist() == pytest.approx(0.9 + SPREAD)
        assert rows.index.tolist() == [0, 1, 2, 3]
    with pytest.raises(ClaimError, match="no row has point = 'fif'"):
        select(table, A | {"point": "fif"}, "x")


def test_true_and_false_are_labels_and_not_numbers():
    table = pd.concat([arm("ticket", [1], keyed=True), arm("ticket", [2], keyed=False)])
    assert select(table, A | {"keyed": False}, "x")["value"].tolist() == [2]


@pytest.mark.parametrize(
    ("selection", "message"),
    [
        (
            A | {"arm": "tickets"},
            "claim own-x: .*no row has arm = 'tickets', they have",
        ),
        (A | {"pint": "fifth"}, r"claim own-x: .*no column 'pint' in the table"),
        (A, r"2 rows for seed 0, which differ in .*'density': \[0.2, 0.1\].*apart"),
    ],
)
def test_a_selection_that_does_not_pick_one_row_a_seed_is_refused(selection, message):
    parts = [arm("ticket", SPREAD, density=0.2), arm("ticket", SPREAD, density=0.1)]
    with pytest.raises(ClaimError, match=message):
        select(pd.concat(parts), selection, "own-x")


def test_unmatched_seeds_and_broken_values_are_refused_by_name():
    case = claim(Criterion("greater", A, B))
    table = pair(0.01).iloc[:-1]
    with pytest.raises(ClaimError, match=r"claim ownership-x.*same seeds.*\[3\]"):
        claims.judge(case, table)
    table = pair(0.01)
    table.iloc[0, table.columns.get_loc("value")] = math.nan
    with pytest.raises(ClaimError, match=r"ownership-x.*must be finite"):
        claims.judge(case, table)


@pytest.mark.parametrize("cell", [True, "True"])
def test_only_rows_that_decide_make_a_verdict_stale(cell):
    case = claim(Criterion("greater", A, B))
    old = arm("other", [1.0], stale=cell)
    fresh = pair(0.01).assign(stale=False)
    assert not claims.judge(case, pd.concat([fresh, old])).stale
    fresh.iloc[0, fresh.columns.get_loc("stale")] = True
    assert claims.judge(case, fresh).stale
    assert "stale" in claims.scorecard({"ownership": fresh}, [case])["note"][0]
    assert not claims.judge(case, pair(0.01)).stale


# The scorecard


def test_the_scorecard_has_a_row_for_every_claim():
    cases = [
        claim(Criterion("greater", A, B)),
        claim(id="membership-y", chapter="membership", not_testable="no"),
        claim(Criterion("less", A, B), id="together-z", chapter="together"),
    ]
    card = claims.scorecard({"ownership": pair(0.01)}, cases)
    assert card["claim"].tolist() == ["ownership-x", "membership-y", "together-z"]
    expected = ["reproduced", "not testable here", "not run at this scale"]
    assert card["verdict"].tolist() == expected
    assert card["paper"][0] == "dense 91.67 %"
    assert card["ours"][0] == "91.5 − 90.5 = 1.0 points [0.9, 1.1], n = 4"
    own = claims.against_paper("ownership", pair(0.01), cases)
    pd.testing.assert_frame_equal(own, card.iloc[:1])
    assert claims.against_paper("together", None, cases)["verdict"].tolist() == [
        "not run at this scale"
    ]


def test_a_claim_whose_rows_are_missing_is_no_crash_where_that_is_allowed():
    lost = claim(Criterion("greater", A, B | {"metric": "nowhere"}), id="ownership-y")
    cases = [claim(Criterion("greater", A, B)), lost]
    with pytest.raises(claims.ClaimError, match="ownership-y"):
        claims.scorecard({"ownership": pair(0.01)}, cases)
    card = claims.against_paper("ownership", pair(0.01), cases, lenient=True)
    assert card["verdict"].tolist() == ["reproduced", claims.UNJUDGED]
    assert "no row has metric = 'nowhere'" in card["note"][1]
    assert not card["note"][1].startswith("claim")


def test_an_unknown_chapter_is_refused_with_the_closest():
    with pytest.raises(ValueError, match="got 'ownershp'; did you mean ownership"):
        claims.scorecard({"ownershp": pair(0)}, [])
    with pytest.raises(ValueError, match="did you mean together"):
        claims.against_paper("togeter", None, [])


# The file


def test_the_books_own_claims_are_valid_and_judged_as_they_were_meant():
    found = {c.id: c for c in claims.load()}
    assert {c.chapter for c in found.values()} <= set(CHAPTERS)
    points = {"ticket": 0.893, "random mask": 0.85, "new initialisation": 0.88}
    parts = [arm(a, v + SPREAD, point="sparsest") for a, v in points.items()]
    parts += [arm("ticket", 0.918 - SPREAD, point="fifth"), arm("dense", 0.92 + SPREAD)]
    table = pd.concat(parts).replace({"metric": {"accuracy": "test_accuracy"}})
    for name in ("ticket-matches", "mask-matters", "init-matters", "extreme-exists"):
        verdict = claims.judge(found[f"ownership-{name}"], table)
        assert verdict.word == "reproduced", verdict.reason
    for name, dense in (("ticket-matches", 0.95), ("extreme-exists", 0.89)):
        other = table.assign(value=table["value"].where(table["arm"] != "dense", dense))
        assert claims.judge(found[f"ownership-{name}"], other).word == "refuted"


GOOD = """
- id: mia-pruning-leaks
  chapter: mia_pruning
  place: Table 2
  statement: Pruning leaks.
  whose: paper
  paper: {auc: 0.7}
  test:
    - {kind: equal, a: {metric: auc, arm: x}, b: {metric: auc, arm: y}, margin: 0.01}
"""


def written(folder, text: str):
    path = folder / "claims.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_a_good_file_is_read(tmp_path):
    (one,) = claims.load(written(tmp_path, GOOD))
    assert one.tests[0].margin == 0.01
    assert one.paper == {"auc": 0.7}
    skipped = GOOD[: GOOD.index("  test:")] + "  not_testable: no GPU\n"
    assert claims.load(written(tmp_path, skipped))[0].not_testable == "no GPU"
    for key in ("given: []", "headline: {}"):
        with pytest.raises(ValueError, match="given and headline need a test"):
            claims.load(written(tmp_path, f"{skipped}  {key}\n"))


def test_what_stands_beside_the_tests_is_read(tmp_path):
    more = """
  changed: A precondition was a test.
  headline: {says: It leaks badly., words: leaks badly, place: abstract, here: AUC}
  given:
    - {kind: at_least, a: {metric: auc, arm: y}, value: 0.54}
  test:
"""
    (one,) = claims.load(written(tmp_path, GOOD.replace("\n  test:\n", more)))
    assert (one.whose, one.changed) == ("paper", "A precondition was a test.")
    assert one.headline.words in one.headline.says
    assert one.given[0].value == 0.54
    assert one.tests[0].scale == "plain"
    probit = GOOD.replace("margin: 0.01", "margin: 0.01, scale: probit")
    assert claims.load(written(tmp_path, probit))[0].tests[0].scale == "probit"


def test_a_withdrawn_claim_is_kept_apart_and_its_successor_names_it(tmp_path):
    old = GOOD.replace("  test:\n", "  withdrawn: It had no margin.\n  test:\n")
    new = GOOD.replace("pruning-leaks", "pruning-leaks-more")
    new = new.replace("  test:\n", "  replaces: mia-pruning-leaks\n  test:\n")
    path = written(tmp_path, old + new)
    assert [c.id for c in claims.load(path)] == ["mia-pruning-leaks-more"]
    (gone,) = claims.withdrawn(path)
    assert (gone.id, gone.withdrawn) == ("mia-pruning-leaks", "It had no margin.")
    assert gone.tests


def test_every_withdrawn_claim_of_the_book_has_one_successor():
    """One that was withdrawn itself has one in turn, and the last of them stands."""
    gone = {c.id for c in claims.withdrawn()}
    every = (*claims.load(), *claims.withdrawn())
    after = {c.replaces: c.id for c in every if c.replaces}
    assert sorted(c.replaces for c in every if c.replaces) == sorted(gone)
    for name in gone:
        for _ in gone:
            name = after.get(name, name)
        assert name not in gone


def test_every_paper_has_three_or_four_headlines_and_chapter_six_has_five():
    """The sentences of chapter 6 stand on its page, to the letter."""
    said = [c for c in claims.load() if c.headline]
    counts = {name: sum(c.chapter == name for c in said) for name in CHAPTERS}
    assert counts.pop("together") == 5
    assert set(counts.values()) <= {3, 4}
    page = json.loads((BOOK / "together.ipynb").read_text(encoding="utf-8"))
    text = " ".join("".join(cell["source"]) for cell in page["cells"])
    for one in said:
        if one.chapter == "together":
            assert one.headline.says in text
            assert one.whose == "ours"
        else:
            assert one.whose in ("paper", "table"), one.id


def test_a_claim_of_equal_leakage_says_first_that_there_is_a_leak():
    """Where nothing leaks, equality says nothing."""
    leaks = ("auc", "tpr at 1% fpr")
    for one in claims.load():
        asked = {t.a["metric"] for t in one.tests if t.kind == "equal"}
        if asked & set(leaks):
            assert one.given, one.id


def test_no_claim_about_every_network_rests_on_an_interval_without_width():
    """What is the same in all networks by construction is counted."""
    for chapter in CHAPTERS:
        table = results.load(results.find(chapter, "laptop"))
        for one in (c for c in claims.load() if c.chapter == chapter):
            for test in one.tests:
                if test.kind in ("at_least", "at_most"):
                    (ci,) = claims.decide(test, table, one.id).intervals
                    assert ci.low < ci.high, one.id


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("  place:", "  plaice:", "key must be one of .*'plaice'; did you mean place"),
        ("  place: Table 2\n", "", "must also have place"),
        ("place: Table 2", "place: ' '", "place must be a text"),
        (
            "statement: Pruning leaks.",
            "statement: 3",
            "statement must be a text, got 3",
        ),
        ("mia_pruning", "mia_prunning", "chapter must be .* did you mean mia_pruning"),
        ("mia-pruning-leaks", "mia_pruning-leaks", "must be kebab-case and start with"),
        ("mia-pruning-leaks", "membership-leaks", "start with 'mia-pruning-'"),
        ("{auc: 0.7}", "{auc: {a: 1}}", "paper must be a flat mapping"),
        ("kind: equal", "kind: equals", "kind must be one of .* did you mean equal"),
        ("kind: equal, ", "", "must have a kind: equal, greater"),
        (", margin: 0.01", "", "test 1 must also have margin"),
        ("margin: 0.01", "margin: -1", "margin must be > 0, got -1"),
        (
            "margin: 0.01",
            "margin: 1e-2",
            "margin must be a finite number, written like",
        ),
        ("margin: 0.01", "margin: .nan", "margin must be a finite number"),
        ("margin: 0.01", "margn: 0.01", "did you mean margin"),
        ("kind: equal", "kind: at_most", "key must be one of a, kind, value, got 'b'"),
        ("a: {metric: auc, ", "a: {", "a must name a metric"),
        ("arm: x", "seed: 1", "must select arms, not seeds or values"),
        ("arm: y", "arm: x", "a and b must differ"),
        ("arm: x", "arm: [x]", "test 1: a must be a flat mapping"),
        ("  test:\n", "  not_testable: no\n  test:\n", "not_testable must be a text"),
        ("  test:\n", "  not_testable: x\n  test:\n", "either test or not_testable"),
        ("  place:", "  id: twice\n  place:", r"must not repeat.*id, line 4"),
        ("margin: 0.01", "margin: 1, margin: 2", r"must not repeat.*margin, line 9"),
        ("{auc: 0.7}", "{auc: 0.7", "is not YAML"),
        ("  whose: paper\n", "", "must also have whose"),
        ("whose: paper", "whose: papers", "whose must be one of .* did you mean paper"),
        ("  test:\n", "  given: []\n  test:\n", "given must be a list of tests"),
        ("  test:\n", "  given: [{kind: odd}]\n  test:\n", "given 1: kind must be one"),
        ("  test:\n", "  replaces: mia-x\n  test:\n", "must name a withdrawn claim"),
        ("  test:\n", "  withdrawn: ''\n  test:\n", "withdrawn must be a text"),
        ("  test:\n", "  headline: {says: It}\n  test:\n", "headline must also have"),
        (
            "  test:\n",
            "  headline: {says: It leaks, words: It drips, place: abstract, "
            "here: AUC}\n  test:\n",
            "words must stand in says, got It drips",
        ),
        ("margin: 0.01", "margin: 0.01, scale: logit", "scale must be one of probit"),
    ],
)
def test_a_bad_file_is_refused_with_file_claim_and_fix(tmp_path, old, new, message):
    assert GOOD.count(old) >= 1
    path = written(tmp_path, GOOD.replace(old, new))
    with pytest.raises(ValueError, match=message) as error:
        claims.load(path)
    assert str(path) in str(error.value)
    if "repeat" not in message and "YAML" not in message and "-leaks" not in old:
        assert "claim mia-pruning-leaks" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (GOOD + GOOD, r"ids must be unique.*mia-pruning-leaks"),
        ("id: x", "must be a list of claims"),
        ("- x", "a claim must be a mapping, got x"),
        ("- {place: x}", "claim without an id"),
        (GOOD[: GOOD.index("    - {")] + "    []\n", "must be a list of tests"),
        (GOOD[: GOOD.index("    - {")] + "    - x\n", "test 1 must be a mapping"),
    ],
)
def test_a_file_of_another_shape_is_refused(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        claims.load(written(tmp_path, text))
