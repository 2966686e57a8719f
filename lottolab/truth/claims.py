"""Judge the papers' claims by rules that were written down before the runs.

`load` reads the claims from `data/claims.yaml`, which `claims_file` describes, and
`selection` selects the rows that decide.

**Deciding** one test, with 95 % intervals over seeds, a and b paired by seed:

    kind      compares  reproduced                refuted
    equal     a − b     both one-sided p < 5 %    interval outside ±margin
    greater   a − b     interval above  margin    interval below  margin
    less      a − b     interval below −margin    interval above −margin
    at_least  a         interval not below value  interval below value
    at_most   a         interval not above value  interval above value
    every     a         a = value in each         a ≠ value in one

`every` is for what happens or does not, and prints the share of networks with its exact
binomial interval, which says how far three cases reach. Otherwise, or with fewer than
three seeds, it is inconclusive. A negative margin for
greater or less asks for "not worse": greater with −0.01 is reproduced if a is shown to
be at most 0.01 below b.

**A claim** with several tests is reproduced or refuted if all of them are, partly if
at least one is reproduced and one refuted, and inconclusive otherwise.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from lottolab.checks import one_of
from lottolab.truth import rates, stats
from lottolab.truth.claims_file import CHAPTERS, Claim, Criterion, load
from lottolab.truth.selection import ClaimError, select

__all__ = [
    "Claim",
    "ClaimError",
    "Criterion",
    "Verdict",
    "against_paper",
    "combine",
    "decide",
    "judge",
    "load",
    "scorecard",
]

REPRODUCED, PARTLY, REFUTED = "reproduced", "partly", "refuted"
INCONCLUSIVE, NOT_TESTABLE = "inconclusive", "not testable here"
NOT_RUN = "not run at this scale"  # no verdict: there is nothing to judge
UNJUDGED = "cannot be judged with these parameters"  # nor here: rows are missing
MIN_SEEDS = 3
ALPHA = 0.05


@dataclass(frozen=True)
class Verdict:
    """Hold what became of a claim, or of one of its tests.

    `word` is one of the five verdicts, `NOT_RUN` or `UNJUDGED`, `ours` our numbers,
    `note` what was asked of them and how it came out, `n` the (smallest) number of
    seeds.
    """

    word: str
    note: str
    ours: str = ""
    intervals: tuple[stats.Interval, ...] = ()
    n: int = 0
    stale: bool = False

    @property
    def reason(self) -> str:
        """Return one line in words and numbers."""
        return f"{self.note}; {self.ours}" if self.ours else self.note


def judge(claim: Claim, table: pd.DataFrame | None) -> Verdict:
    """Decide a claim from its chapter's results table (None: not run at this scale).

    Raises ClaimError, naming claim and selection, if the rows that decide are missing,
    ambiguous, not finite, or not there for the same seeds on both sides.
    """
    if claim.not_testable:
        return Verdict(NOT_TESTABLE, claim.not_testable)
    if table is None:
        return Verdict(NOT_RUN, "no results table")
    parts = [decide(test, table, claim.id) for test in claim.tests]
    return Verdict(
        combine([part.word for part in parts]),
        "; ".join(part.note for part in parts),
        "; ".join(part.ours for part in parts),
        tuple(interval for part in parts for interval in part.intervals),
        min(part.n for part in parts),
        any(part.stale for part in parts),
    )


def combine(words: Sequence[str]) -> str:
    """Return the verdict on a claim from the verdicts on its tests.

    >>> combine(["reproduced", "refuted"]), combine(["refuted", "inconclusive"])
    ('partly', 'inconclusive')
    """
    if set(words) in ({REPRODUCED}, {REFUTED}):
        return words[0]
    return PARTLY if {REPRODUCED, REFUTED} <= set(words) else INCONCLUSIVE


def scorecard(
    tables: Mapping[str, pd.DataFrame],
    claims: Sequence[Claim] | None = None,
    lenient: bool = False,
) -> pd.DataFrame:
    """Return one row a claim: claim, place, statement, paper, ours, verdict, note.

    `tables` maps chapters to results; claims of a chapter without one were "not run at
    this scale". `claims` defaults to `load()`. `lenient`: what `judge` raises becomes
    the note of a claim that "cannot be judged with these parameters". Raises ValueError
    for an unknown chapter and, unless lenient, ClaimError as `judge` does.
    """
    for chapter in tables:
        one_of("chapter", chapter, CHAPTERS)
    rows = []
    for claim in load() if claims is None else claims:
        try:
            verdict = judge(claim, tables.get(claim.chapter))
        except ClaimError as error:
            if not lenient:
                raise
            verdict = Verdict(UNJUDGED, str(error).removeprefix(f"claim {claim.id}: "))
        paper = ", ".join(f"{name} {x}" for name, x in claim.paper.items())
        stale = "; stale: the code has changed since" if verdict.stale else ""
        head = (claim.id, claim.place, claim.statement, paper)
        rows.append((*head, verdict.ours, verdict.word, verdict.note + stale))
    names = ["claim", "place", "statement", "paper", "ours", "verdict", "note"]
    return pd.DataFrame(rows, columns=names)


def against_paper(
    chapter: str,
    table: pd.DataFrame | None,
    claims: Sequence[Claim] | None = None,
    lenient: bool = False,
) -> pd.DataFrame:
    """Return the scorecard of one chapter's own claims."""
    one_of("chapter", chapter, CHAPTERS)
    own = [c for c in (load() if claims is None else claims) if c.chapter == chapter]
    return scorecard({} if table is None else {chapter: table}, own, lenient)


def decide(test: Criterion, table: pd.DataFrame, claim: str) -> Verdict:
    """Return the verdict on one test, by the table at the head of this module.

    Raises ClaimError as `judge` does.
    """
    rows = [select(table, s, claim) for s in (test.a, test.b) if s is not None]
    try:
        arms = [row["value"].astype(float).to_dict() for row in rows]
        x = stats.paired_by(*arms) if len(arms) == 2 else [*arms[0].values()]
        interval = _interval(test, x)
        word, detail = _word(test, x, interval)
    except ValueError as error:
        raise ClaimError(f"claim {claim}: {_asked(test)}: {error}") from error
    means = [f"{np.mean([*arm.values()]):.{interval.decimals}f}" for arm in arms]
    ours = f"{' − '.join(means)} = {interval}" if len(arms) == 2 else str(interval)
    if test.kind == "every":
        ours = f"{round(interval.estimate * len(x))} of {len(x)}; share {interval}"
    stale = any(str(cell) == "True" for row in rows for cell in row.get("stale", ()))
    return Verdict(word, f"{_asked(test)}: {detail}", ours, (interval,), len(x), stale)


def _interval(test: Criterion, x: Sequence[float]) -> stats.Interval:
    """Return the mean of x with its interval or, for `every`, the share of hits."""
    if test.kind != "every":
        return stats.mean_interval(x)
    return rates.binomial_interval(sum(v == test.value for v in x), len(x))


def _word(test: Criterion, x: Sequence[float], ci: stats.Interval) -> tuple[str, str]:
    """Return verdict and its wording for differences, or for one arm's values, x."""
    if len(x) < MIN_SEEDS:
        return INCONCLUSIVE, f"only {len(x)} seed{'s' * (len(x) > 1)}"
    margin, value, equal, detail = test.margin, test.value, False, ""
    if test.kind == "equal":
        p, _ = stats.equivalence(x, margin, 1 - ALPHA)
        equal, detail = p < ALPHA, f" (two one-sided tests, p = {p:.2g})"
    holds, fails = {
        "equal": (equal, ci.low > margin or ci.high < -margin),
        "greater": (ci.low > margin, ci.high < margin),
        "less": (ci.high < -margin, ci.low > -margin),
        "at_least": (ci.low >= value, ci.high < value),
        "at_most": (ci.high <= value, ci.low > value),
        "every": (ci.estimate == 1, ci.estimate < 1),
    }[test.kind]
    word = REPRODUCED if holds else REFUTED if fails else INCONCLUSIVE
    return word, word + detail


def _asked(test: Criterion) -> str:
    """Return the question of a test, as "ticket, sparsest > dense − 0.01"."""
    same = test.b is not None and test.a["metric"] == test.b["metric"]
    a, b = _label(test.a, False), _label(test.b or {}, same)
    size = f" {'+' if test.margin > 0 else '−'} {abs(test.margin):g}"
    back = f" {'−' if test.margin > 0 else '+'} {abs(test.margin):g}"
    return {
        "equal": f"{a} = {b} ± {test.margin:g}",
        "greater": f"{a} > {b}{size if test.margin else ''}",
        "less": f"{a} < {b}{back if test.margin else ''}",
        "at_least": f"{a} ≥ {test.value:g}",
        "at_most": f"{a} ≤ {test.value:g}",
        "every": f"{a} = {test.value:g} in every network",
    }[test.kind]


def _label(selection: Mapping[str, Any], without_metric: bool) -> str:
    names = ", ".join(str(x) for key, x in selection.items() if key != "metric")
    metric = selection.get("metric", "")
    if not names:
        return metric
    return names if without_metric else f"{metric} of {names}"
