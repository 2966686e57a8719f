"""The rules by which a claim is judged, in one place.

**One test**, with 95 % intervals over seeds, a and b paired by seed:

    kind            compares  reproduced                refuted
    equal           a − b     both one-sided p < 5 %    interval outside ±margin
    greater         a − b     interval above  margin    interval below  margin
    less            a − b     interval below −margin    interval above −margin
    at_least        a         interval not below value  interval below value
    at_most         a         interval not above value  interval above value
    every           a         a = value in each         not so in one
    every_at_least  a         a ≥ value in each         not so in one
    every_at_most   a         a ≤ value in each         not so in one

Otherwise, or with fewer than three seeds, it is inconclusive. A negative margin for
greater or less asks for "not worse": greater with −0.01 is reproduced if a is shown to
be at most 0.01 below b.

`every` and its like are for statements about every network, or about every answer of
every network. They are counts: one exception refutes them, and what so many networks
without an exception prove is the exact bound of the share that is printed with them.

Rows that bring an error of their own, such as a pool of models that share images has,
are not replicates whose spread is taken: `at_least` and `at_most` read their interval
(`intervals.measured`), over clusters of models and over images.

With `scale: probit`, a and b are shares strictly between 0 and 1 (an AUC, an accuracy),
and Φ⁻¹(a) is compared with Φ⁻¹(b): a margin of 0.05 is two percentage points near one
half, and less near 0 and 1, where two points are the difference between few errors and
none.

**A claim** holds if all its tests do, given what it presupposes:

    given                     tests                  verdict
    one refuted               whatever they say      not testable here
    one inconclusive          whatever they say      inconclusive
    all reproduced, or none   one refuted            refuted
                              none refuted, one
                              inconclusive           inconclusive
                              all reproduced         reproduced

A precondition carries no vote: no verdict but "not testable here" comes from it.

**p.** Of a test and of a claim, p is the smallest error rate at which the verdict would
still be made: for an interval one minus its level, for equality that of the two
one-sided tests. That a count holds in every network is set against "in half of them at
most": p is 2^−n; an exception refutes it with p = 0. A claim of k tests is reproduced
at the largest of their p, refuted at k times the smallest (Bonferroni).

**Headline claims** are judged together: p goes through Holm's procedure over all of
them and all data sets at once, at 5 %, so that the chance of a single false verdict
among them is at most that. All other claims are exploratory: each has its own 5 %.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lottolab.checks import require, within
from lottolab.truth import stats

REPRODUCED, REFUTED, INCONCLUSIVE = "reproduced", "refuted", "inconclusive"
NOT_TESTABLE = "not testable here"
NOT_RUN = "not run at this scale"  # no verdict: there is nothing to judge
UNJUDGED = "cannot be judged with these parameters"  # nor here: rows are missing
SAME = "the same measurements"  # as at another scale: no verdict of its own
MIN_SEEDS = 3
ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """Hold what became of a claim, or of one of its tests.

    `word` is one of the four verdicts, `NOT_RUN` or `UNJUDGED`, `ours` our numbers,
    `note` what was asked of them and how it came out, `n` the (smallest) number of
    seeds. `brief` is the number of ours that stands for all in one line: of several
    tests it is that of the weakest, or of what was given and is not so. `holds` and
    `fails` are the p of "reproduced" and of "refuted", and `stages` names the results
    that decide.
    """

    word: str
    note: str
    ours: str = ""
    intervals: tuple[stats.Interval, ...] = ()
    n: int = 0
    stale: bool = False
    holds: float = 1.0
    fails: float = 1.0
    stages: frozenset[str] = frozenset()
    brief: str = ""

    @property
    def reason(self) -> str:
        """Return one line in words and numbers."""
        return f"{self.note}; {self.ours}" if self.ours else self.note

    @property
    def p(self) -> float:
        """Return the p of the verdict that is nearer; only one of both can be small."""
        return min(self.holds, self.fails)


def combine(tests: Sequence[str], given: Sequence[str] = ()) -> str:
    """Return the verdict on a claim from those on its tests and its preconditions.

    >>> combine(["reproduced", "refuted"]), combine(["reproduced", "inconclusive"])
    ('refuted', 'inconclusive')
    >>> combine(["refuted"], given=["refuted"])
    'not testable here'
    """
    if REFUTED in given:
        return NOT_TESTABLE
    if INCONCLUSIVE in given:
        return INCONCLUSIVE
    if REFUTED in tests:
        return REFUTED
    return INCONCLUSIVE if INCONCLUSIVE in tests else REPRODUCED


def joined(tests: Sequence[Verdict], given: Sequence[Verdict] = ()) -> Verdict:
    """Return the verdict on a claim from those on its tests and its preconditions.

    Our numbers, the intervals and p are those of the tests; the note says first what
    was given, and how that came out.
    """
    every = (*given, *tests)
    word = combine([v.word for v in tests], [v.word for v in given])
    given_too = all(v.word == REPRODUCED for v in given)
    notes = [f"given {v.note} ({v.ours})" for v in given] + [v.note for v in tests]
    return Verdict(
        word,
        "; ".join(notes),
        "; ".join(v.ours for v in tests),
        tuple(interval for v in tests for interval in v.intervals),
        min(v.n for v in every),
        any(v.stale for v in every),
        max(v.holds for v in tests) if given_too else 1.0,
        min(1.0, len(tests) * min(v.fails for v in tests)) if given_too else 1.0,
        frozenset[str]().union(*(v.stages for v in every)),
        _brief(tests, given),
    )


def _brief(tests: Sequence[Verdict], given: Sequence[Verdict]) -> str:
    """Return our number of the test that decides, or is furthest from deciding."""
    unmet = [v for v in given if v.word != REPRODUCED]
    if unmet:
        return f"given: {unmet[0].brief}"
    failed = [v for v in tests if v.word == REFUTED]
    one = min(failed, key=lambda v: v.fails, default=max(tests, key=lambda v: v.holds))
    return one.brief + (f", weakest of {len(tests)} tests" if len(tests) > 1 else "")


def holm(p: Sequence[float]) -> list[float]:
    """Return p-values adjusted for the number of them (Holm, 1979), in their order.

    An adjusted p below α belongs to a finding that stands when the chance of a single
    false one among all is to be at most α. Raises ValueError unless all are in [0, 1].

    >>> holm([0.01, 0.04, 0.5])
    [0.03, 0.08, 0.5]
    """
    require(len(p) > 0, "p must hold at least one p-value", "none")
    for value in p:
        within("p", value, "[0, 1]")
    adjusted, least = [0.0] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        least = max(least, min(1.0, (len(p) - rank) * p[place]))
        adjusted[place] = least
    return adjusted
