"""Judge the papers' claims by rules that were written down before the runs.

`load` reads the claims from `data/claims.yaml`, which `claims_file` describes;
`selection` selects the rows that decide, `deciding` decides one test, and `verdicts`
has the rules.
"""

from collections.abc import Mapping, Sequence

import pandas as pd

from lottolab.checks import one_of
from lottolab.truth import percent
from lottolab.truth.claim import Claim, Criterion
from lottolab.truth.claims_file import CHAPTERS, load, withdrawn
from lottolab.truth.deciding import decide
from lottolab.truth.selection import ClaimError, UnmeasuredError
from lottolab.truth.verdicts import (
    ALPHA,
    INCONCLUSIVE,
    MIN_SEEDS,
    NOT_RUN,
    NOT_TESTABLE,
    REFUTED,
    REPRODUCED,
    SAME,
    UNJUDGED,
    Verdict,
    combine,
    holm,
    joined,
)

__all__ = [
    "ALPHA",
    "INCONCLUSIVE",
    "MIN_SEEDS",
    "NOT_RUN",
    "NOT_TESTABLE",
    "REFUTED",
    "REPRODUCED",
    "SAME",
    "UNJUDGED",
    "Claim",
    "ClaimError",
    "Criterion",
    "Verdict",
    "against_paper",
    "combine",
    "decide",
    "headlines",
    "judge",
    "load",
    "scorecard",
    "withdrawn",
]


def judge(
    claim: Claim, table: pd.DataFrame | None, read: pd.DataFrame | None = None
) -> Verdict:
    """Decide a claim from its chapter's results table (None: not run at this scale).

    `read` is the table of the scale that is read, where `table` is of another one, such
    as `cifar`: rows that are there and not here belong to a claim that is younger than
    the run at this scale, which is "not run" as well.

    Raises ClaimError, naming claim and selection, if the rows that decide are missing,
    ambiguous, not finite, or not there for the same seeds on both sides.
    """
    if claim.not_testable:
        return Verdict(NOT_TESTABLE, claim.not_testable)
    if table is None:
        return Verdict(NOT_RUN, "no results table")
    try:
        given = [decide(test, table, claim.id) for test in claim.given]
        return joined([decide(test, table, claim.id) for test in claim.tests], given)
    except UnmeasuredError:
        if read is None:
            raise
        judge(claim, read)  # a wrong selection is an error at every scale
        return Verdict(NOT_RUN, "younger than the run at this scale")


def scorecard(
    tables: Mapping[str, pd.DataFrame],
    claims: Sequence[Claim] | None = None,
    lenient: bool = False,
    read: Mapping[str, pd.DataFrame] | None = None,
) -> pd.DataFrame:
    """Return a row a claim: claim, place, statement, whose, paper, ours, verdict, note.

    `tables` maps chapters to results; claims of a chapter without one were "not run at
    this scale". `claims` defaults to `load()`. `lenient`: what `judge` raises becomes
    the note of a claim that "cannot be judged with these parameters". `read`: the
    results of the scale that is read, for `judge`. Raises ValueError for an unknown
    chapter and, unless lenient, ClaimError as `judge` does.
    """
    for chapter in tables:
        one_of("chapter", chapter, CHAPTERS)
    rows = []
    for claim in load() if claims is None else claims:
        found = (tables.get(claim.chapter), (read or {}).get(claim.chapter))
        verdict = _judged(claim, *found, lenient)
        stale = "; stale: the code has changed since" if verdict.stale else ""
        head = (
            claim.id,
            claim.place,
            claim.statement,
            claim.whose,
            percent.paper(claim),
        )
        rows.append((*head, verdict.ours, verdict.word, verdict.note + stale))
    names = ["claim", "place", "statement", "whose", "paper", "ours", "verdict", "note"]
    return pd.DataFrame(rows, columns=names)


def _judged(
    claim: Claim,
    table: pd.DataFrame | None,
    read: pd.DataFrame | None,
    lenient: bool,
) -> Verdict:
    try:
        return judge(claim, table, read)
    except ClaimError as error:
        if not lenient:
            raise
        return Verdict(UNJUDGED, str(error).removeprefix(f"claim {claim.id}: "))


def headlines(
    tables: Mapping[str, Mapping[str, pd.DataFrame]],
    claims: Sequence[Claim] | None = None,
    lenient: bool = False,
) -> pd.DataFrame:
    """Judge the headline claims at several scales together, by Holm's procedure.

    `tables` maps scales to chapters to results, the scale that is read first, for
    `judge`. Returns a row for each headline claim
    and scale: claim, scale, verdict (of all together), alone (the claim's by itself), p
    (adjusted), ours (in brief) and stale. Where all that decides a claim was measured
    for an earlier scale too, the verdict is `SAME`: it is none of its own. Raises
    ClaimError as `judge` does, unless `lenient`.
    """
    rows, family = [], []
    for claim in load() if claims is None else claims:
        seen: frozenset[str] = frozenset()
        own = (at[claim.chapter] for at in tables.values() if claim.chapter in at)
        read = next(own, None)
        for scale, found in tables.items() if claim.headline else ():
            verdict = _judged(claim, found.get(claim.chapter), read, lenient)
            own = not verdict.stages or not verdict.stages <= seen
            seen |= verdict.stages
            rows.append((claim.id, scale, verdict, own))
            family += [verdict.p] if own and verdict.intervals else []
    adjusted = iter(holm(family) if family else ())
    told = []
    for name, scale, verdict, own in rows:
        p = next(adjusted) if own and verdict.intervals else 1.0
        made = verdict.word in (REPRODUCED, REFUTED) and p >= ALPHA
        word = SAME if not own else INCONCLUSIVE if made else verdict.word
        told.append((name, scale, word, verdict.word, p, verdict.brief, verdict.stale))
    names = ["claim", "scale", "verdict", "alone", "p", "ours", "stale"]
    return pd.DataFrame(told, columns=names)


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
