"""Check the rules of judging against oracles that know nothing of them.

What a claim comes to is compared with an enumeration of possible worlds, Holm's
procedure with the closed test that it abbreviates, and p with the intervals and tests
that it summarises.
"""

import doctest
import itertools
import math
from statistics import NormalDist

import numpy as np
import pandas as pd
import pytest
from scipy import stats as scipy_stats

from lottolab.truth import claims, deciding, stats, verdicts
from lottolab.truth.claim import Claim, Criterion, Headline
from lottolab.truth.verdicts import (
    INCONCLUSIVE,
    NOT_TESTABLE,
    REFUTED,
    REPRODUCED,
    Verdict,
    combine,
    holm,
)

WORDS = (REPRODUCED, INCONCLUSIVE, REFUTED)
A, B = {"metric": "m", "arm": "a"}, {"metric": "m", "arm": "b"}


def test_examples_in_docstrings_run():
    assert doctest.testmod(verdicts).failed == 0


# A claim from its tests


def by_worlds(tests, given) -> str:
    """Ask every world that the words allow whether the claim holds there.

    In a world each test is true or false; an inconclusive one is true in some. Where a
    precondition is false the question does not arise.
    """
    possible = {REPRODUCED: [True], REFUTED: [False], INCONCLUSIVE: [True, False]}
    found = set()
    for world in itertools.product(*(possible[w] for w in (*given, *tests))):
        arises = all(world[: len(given)])
        found.add(all(world[len(given) :]) if arises else None)
    if len(found) > 1:
        return INCONCLUSIVE
    return {True: REPRODUCED, False: REFUTED, None: NOT_TESTABLE}[found.pop()]


def test_a_claim_is_what_all_worlds_agree_on():
    """With an open precondition some worlds have no answer, so that none is given."""
    for n, m in itertools.product((1, 2, 3), (0, 1, 2)):
        for words in itertools.product(WORDS, repeat=n + m):
            tests, given = words[:n], words[n:]
            assert combine(tests, given) == by_worlds(tests, given), (tests, given)


def test_one_refuted_test_refutes_whatever_the_others_say():
    for others in itertools.product(WORDS, repeat=3):
        for place in range(4):
            tests = [*others[:place], REFUTED, *others[place:]]
            assert combine(tests) == REFUTED


def test_a_precondition_carries_no_vote():
    """On CIFAR-10 the premise held, equality failed by 12 points, and the verdict was
    "partly"."""
    assert combine([REFUTED], [REPRODUCED]) == combine([REFUTED]) == REFUTED
    assert combine([INCONCLUSIVE], [REPRODUCED]) == INCONCLUSIVE
    assert combine([REPRODUCED], [REFUTED, REPRODUCED]) == NOT_TESTABLE


# Tests of one kind


def table(**arms) -> pd.DataFrame:
    rows = [
        {"metric": "m", "arm": arm, "seed": seed, "value": value, "stage": f"{arm}/s"}
        for arm, values in arms.items()
        for seed, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def claim(*tests: Criterion, **changes) -> Claim:
    fields = {"id": "ownership-x", "chapter": "ownership", "place": "§1"}
    fields |= {"statement": "It works.", "paper": {}, "tests": tests}
    return Claim(**(fields | changes))


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("every_at_most", [1.0, 0.99, 1.0], REPRODUCED),
        ("every_at_most", [1.0, 1.01, 0.2], REFUTED),
        ("every_at_least", [1.0, 1.5, 7.0], REPRODUCED),
        ("every_at_least", [1.0, 0.99, 7.0], REFUTED),
        ("every_at_most", [0.5, 0.5], INCONCLUSIVE),
    ],
)
def test_counts_ask_each_network_and_print_the_exact_bounds(kind, values, expected):
    verdict = deciding.decide(Criterion(kind, A, value=1.0), table(a=values), "x")
    assert verdict.word == expected
    hits = sum(v <= 1 if kind == "every_at_most" else v >= 1 for v in values)
    ci = scipy_stats.binomtest(hits, len(values)).proportion_ci(method="exact")
    (interval,) = verdict.intervals
    assert (interval.low, interval.high) == pytest.approx((ci.low, ci.high))
    assert verdict.brief == f"{hits} of {len(values)}"
    assert "in every network" in verdict.note


def test_a_bound_that_each_network_keeps_needs_no_interval_of_the_largest():
    """Distortions just below 1 whose t interval reaches above it were inconclusive."""
    values = [0.99976, 0.99995, 0.99994]
    mean = deciding.decide(Criterion("at_most", A, value=1.00001), table(a=values), "x")
    count = Criterion("every_at_most", A, value=1.00001)
    assert mean.word == INCONCLUSIVE
    assert deciding.decide(count, table(a=values), "x").word == REPRODUCED


def test_near_the_ceiling_two_points_are_no_margin():
    high = table(a=[0.9725, 0.9715, 0.972], b=[0.9832, 0.9828, 0.983])
    low = table(a=[0.7125, 0.7115, 0.712], b=[0.7232, 0.7228, 0.723])
    plain = Criterion("equal", A, B, margin=0.02)
    probit = Criterion("equal", A, B, margin=0.05, scale="probit")
    for found in (high, low):
        assert deciding.decide(plain, found, "x").word == REPRODUCED
    assert deciding.decide(probit, low, "x").word == REPRODUCED
    verdict = deciding.decide(probit, high, "x")
    assert verdict.word == REFUTED
    quantile = NormalDist().inv_cdf
    pairs = zip((0.9725, 0.9715, 0.972), (0.9832, 0.9828, 0.983), strict=True)
    differences = [quantile(a) - quantile(b) for a, b in pairs]
    (found,), expected = verdict.intervals, stats.mean_interval(differences)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    assert verdict.note.startswith("Φ⁻¹ of m of a = Φ⁻¹ of b ± 0.05")


@pytest.mark.parametrize("share", [0.0, 1.0, 1.2, math.nan])
def test_a_share_without_a_quantile_is_refused(share):
    test = Criterion("less", A, B, scale="probit")
    with pytest.raises(claims.ClaimError, match=r"claim x: .*probit takes shares in"):
        deciding.decide(test, table(a=[0.5, 0.5, share], b=[0.4, 0.5, 0.6]), "x")


# p


@pytest.mark.parametrize("kind", ["equal", "greater", "less", "at_least", "at_most"])
def test_p_is_below_five_percent_exactly_where_the_interval_decides(kind):
    rng, seen = np.random.default_rng(5), set()
    pair = kind in ("equal", "greater", "less")
    bound = {"margin": 0.02} if pair else {"value": 0.02}
    test = Criterion(kind, A, B if pair else None, **bound)
    for _ in range(300):
        n = int(rng.integers(3, 9))
        x = rng.normal(rng.uniform(-0.06, 0.06), rng.choice([0.002, 0.02]), n)
        arms = {"a": x + 0.5, "b": [0.5] * n} if pair else {"a": x}
        verdict = deciding.decide(test, table(**arms), "x")
        assert (verdict.holds < 0.05) == (verdict.word == REPRODUCED)
        assert (verdict.fails < 0.05) == (verdict.word == REFUTED)
        seen.add(verdict.word)
    assert len(seen) == 3


def test_p_is_that_of_the_tests_it_names():
    x = [0.012, 0.02, 0.031, 0.024]
    test = Criterion("greater", A, B, margin=0.01)
    two_sided = scipy_stats.ttest_1samp(x, 0.01).pvalue
    assert deciding.p_values(test, x)[0] == pytest.approx(two_sided)
    sides = [
        scipy_stats.ttest_1samp(x, edge, alternative=way).pvalue
        for edge, way in ((-0.03, "greater"), (0.03, "less"))
    ]
    test = Criterion("equal", A, B, margin=0.03)
    assert deciding.p_values(test, x)[0] == pytest.approx(max(sides))
    wide = scipy_stats.ttest_1samp(x, 0.001).pvalue
    assert deciding.p_values(Criterion("equal", A, B, margin=0.001), x)[1] == (
        pytest.approx(wide)
    )


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        ("at_least", [1.0] * 3, (0.0, 1.0)),
        ("at_most", [1.0] * 3, (0.0, 1.0)),
        ("greater", [1.0] * 3, (1.0, 1.0)),
        ("greater", [2.0] * 3, (0.0, 1.0)),
        ("less", [2.0] * 3, (1.0, 0.0)),
        ("every", [1.0] * 5, (1 / 32, 1.0)),
        ("every", [1.0] * 4 + [0.0], (1.0, 0.0)),
    ],
)
def test_p_without_a_spread_and_of_counts(kind, values, expected):
    sign = -1 if kind == "less" else 1
    test = Criterion(kind, A, B, margin=sign * 1.0, value=1.0)
    assert deciding.p_values(test, values) == expected


def test_a_count_that_holds_in_all_is_set_against_half():
    for n in (3, 10):
        null = scipy_stats.binomtest(n, n, 0.5, alternative="greater").pvalue
        test = Criterion("every", A, value=1.0)
        assert deciding.p_values(test, [1.0] * n)[0] == pytest.approx(null)


def test_of_several_tests_the_weakest_counts_and_refuting_is_paid_for():
    parts = [
        Verdict(REPRODUCED, "", "", (), 3, holds=0.01, fails=1.0, brief="one"),
        Verdict(REPRODUCED, "", "", (), 3, holds=0.03, fails=1.0, brief="two"),
    ]
    whole = verdicts.joined(parts)
    assert (whole.holds, whole.fails, whole.word) == (0.03, 1.0, REPRODUCED)
    assert whole.brief == "two, weakest of 2 tests"
    failed = Verdict(REFUTED, "", "", (), 3, holds=1.0, fails=0.02, brief="three")
    whole = verdicts.joined([*parts, failed])
    assert (whole.holds, whole.fails, whole.word) == (1.0, 0.06, REFUTED)
    assert whole.brief == "three, weakest of 3 tests"
    unmet = verdicts.joined(parts, [failed])
    assert (unmet.holds, unmet.fails, unmet.word) == (1.0, 1.0, NOT_TESTABLE)
    assert unmet.brief == "given: three"


def test_what_was_given_is_said_first_and_counts_neither_as_number_nor_interval():
    given = Criterion("at_least", B, value=0.2)
    one = claim(Criterion("at_least", A, value=0.2), given=(given,))
    found = table(a=[0.5, 0.51, 0.52], b=[0.3, 0.31, 0.32])
    verdict = claims.judge(one, found)
    assert verdict.word == REPRODUCED
    assert verdict.note.startswith("given m of b ≥ 0.2: reproduced (0.310 [")
    assert len(verdict.intervals) == 1
    assert verdict.stages == {"a/s", "b/s"}
    poor = found.assign(value=found["value"].where(found["arm"] != "b", 0.01))
    assert claims.judge(one, poor).word == NOT_TESTABLE


# Holm


def by_closure(p, alpha) -> list[bool]:
    """Reject what every intersection with it rejects, by Bonferroni (Marcus 1976)."""
    places = range(len(p))
    subsets = [
        set(s) for k in range(1, len(p) + 1) for s in itertools.combinations(places, k)
    ]
    out = [s for s in subsets if min(p[i] for i in s) * len(s) < alpha]
    return [all(s in out for s in subsets if i in s) for i in places]


def test_holm_is_the_closed_test_that_it_abbreviates():
    rng = np.random.default_rng(3)
    for _ in range(200):
        p = rng.uniform(0, rng.choice([0.02, 0.1, 1.0]), rng.integers(1, 7)).tolist()
        for alpha in (0.01, 0.05, 0.2):
            assert [q < alpha for q in holm(p)] == by_closure(p, alpha)


def test_holm_agrees_with_a_worked_example():
    """Holm (1979) on p of 0.01, 0.04, 0.03, 0.005: 0.03, 0.06, 0.06, 0.02."""
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])


def test_holm_keeps_a_single_false_finding_below_five_percent():
    rng, family, runs = np.random.default_rng(0), 20, 2000
    false = sum(
        min(holm(rng.uniform(size=family).tolist())) < 0.05 for _ in range(runs)
    )
    assert false <= scipy_stats.binom.ppf(0.999, runs, 0.05)
    alone = 1 - 0.95**family
    assert alone > 0.6  # what it would be if each had its own 5 %


@pytest.mark.parametrize("p", [[], [0.5, 1.5], [-0.1], [math.nan]])
def test_holm_refuses_what_are_no_p_values(p):
    with pytest.raises(ValueError, match="p must"):
        holm(p)


# The headline claims together


def headline(name: str, arm: str, *given: Criterion) -> Claim:
    test = Criterion("at_least", {"metric": "m", "arm": arm}, value=0.5)
    said = Headline("It works well.", "works", "abstract", "how well")
    return claim(test, id=f"ownership-{name}", headline=said, given=given)


def test_headline_claims_pay_for_each_other_and_for_all_data_sets():
    close, clear = [0.51, 0.53, 0.55, 0.52], [0.9, 0.9001, 0.8999, 0.9]
    cases = [headline("close", "c"), headline("clear", "k"), claim(id="ownership-z")]
    one = {"ownership": table(c=close, k=clear)}
    alone = claims.headlines({"laptop": one}, cases[:1])
    assert alone["verdict"].tolist() == [REPRODUCED]
    other = {"ownership": table(c=[0.4, 0.6, 0.5, 0.45], k=clear).assign(stage="o/s")}
    both = claims.headlines({"laptop": one, "cifar": other}, cases)
    assert both["claim"].tolist() == ["ownership-close"] * 2 + ["ownership-clear"] * 2
    assert both["scale"].tolist() == ["laptop", "cifar"] * 2
    assert both["alone"].tolist() == [REPRODUCED, INCONCLUSIVE, REPRODUCED, REPRODUCED]
    p = [claims.judge(c, t["ownership"]).p for c in cases[:2] for t in (one, other)]
    assert both["p"].tolist() == pytest.approx(holm(p))
    assert both["p"][0] > 0.05 > p[0]
    assert both["verdict"].tolist()[0] == INCONCLUSIVE
    assert both["verdict"].tolist()[2:] == [REPRODUCED, REPRODUCED]


def test_the_same_measurements_are_no_second_data_set():
    cases = [headline("close", "c")]
    one = {"ownership": table(c=[0.9, 0.91, 0.92])}
    found = claims.headlines({"laptop": one, "cifar": one}, cases)
    assert found["verdict"].tolist() == [REPRODUCED, verdicts.SAME]
    assert found["p"][0] == claims.judge(cases[0], one["ownership"]).p


def test_a_claim_younger_than_another_scales_run_was_not_run_there():
    cases = [headline("old", "c"), headline("young", "k")]
    both = {"ownership": table(c=[0.9, 0.91, 0.92], k=[0.1, 0.11, 0.12])}
    old = {"ownership": table(c=[0.8, 0.81, 0.82]).assign(stage="o/s")}
    found = claims.headlines({"laptop": both, "cifar": old}, cases)
    assert found["verdict"].tolist() == [REPRODUCED] * 2 + [REFUTED, claims.NOT_RUN]
    card = claims.scorecard(old, cases, read=both)
    assert card["verdict"].tolist() == [REPRODUCED, claims.NOT_RUN]
    with pytest.raises(claims.ClaimError, match="ownership-young"):
        claims.scorecard(old, cases)


@pytest.mark.parametrize("read", [None, "same", "other"])
def test_a_selection_that_no_table_has_is_an_error_at_every_scale(read):
    tables = {"same": table(c=[0.9, 0.91]), "other": table(d=[0.9, 0.91])}
    with pytest.raises(claims.ClaimError, match="no row has arm = 'nowhere'"):
        claims.judge(headline("lost", "nowhere"), tables["same"], tables.get(read))


def test_what_was_not_run_or_not_testable_stays_so_among_headlines():
    unmet = Criterion("at_least", {"metric": "m", "arm": "low"}, value=0.5)
    cases = [headline("unmet", "c", unmet), headline("lost", "nowhere")]
    one = {"ownership": table(c=[0.9, 0.91, 0.92], low=[0.1, 0.11, 0.12])}
    with pytest.raises(claims.ClaimError, match="ownership-lost"):
        claims.headlines({"laptop": one}, cases)
    found = claims.headlines({"laptop": one, "cifar": {}}, cases, lenient=True)
    assert found["verdict"].tolist() == [
        NOT_TESTABLE,
        claims.NOT_RUN,
        claims.UNJUDGED,
        claims.NOT_RUN,
    ]
    assert claims.headlines({"cifar": {}}, cases)["p"].tolist() == [1.0, 1.0]
