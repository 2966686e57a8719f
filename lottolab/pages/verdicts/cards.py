"""Every claim's card: what it says, what came of it, and all that this stands on."""

from collections.abc import Iterator, Mapping

from IPython.display import HTML

from lottolab.pages import parameters, show, standing
from lottolab.pages.verdicts import catalogue, origins, status
from lottolab.truth import claims, power, results
from lottolab.truth.claim import WHOSE, Claim
from lottolab.truth.claims_file import CHAPTERS
from lottolab.truth.selection import UnmeasuredError

GONE = "measured no more"  # a withdrawn claim's last verdict, with its rows
UNTOLD = {claims.NOT_RUN, claims.NOT_TESTABLE}  # at a second scale


def table(*scales: str) -> HTML:
    """Show all claims in a table that unfolds, with the verdicts at these scales.

    The first scale's column holds claims that it did not test, too. A verdict of which
    all rows were measured for an earlier scale is `SAME`, as in `claims.headlines`.
    Raises ClaimError as `show.scorecard` does.
    """
    heads = {_head(scale): scale for scale in reversed(scales)}  # the first one stays
    judged = {h: dict(_judged(heads[h])) for h in reversed(heads) if h}
    rows, needed = [], power.table(scales[0]).set_index("claim")["needed"]
    for claim in claims.load():
        states, seen = {}, frozenset[str]()
        more = {"": _about(claim, needed.get(claim.id, 0))}
        for place, (head, cards) in enumerate(judged.items()):
            card = cards[claim.id]
            if place and card["verdict"] in UNTOLD:
                continue
            own = not card["behind"] or not card["behind"] <= seen
            seen |= card["behind"]
            word = card["verdict"] if own else claims.SAME
            linked = card["behind"] and _status_beside()
            link = f"status.html#{claim.id}" if linked else ""
            tags = card["told"].get("data set", "")
            states[head] = catalogue.State(word, link, tags)
            if own:
                more[f"{head}: {word}"] = card["told"]
        rows.append(_row(claim, states, more))
    kinds = {"noun": "claims", "group": "paper", "state": "verdict"}
    kinds["tag"] = "data set"
    return catalogue.table(rows, list(judged), **kinds)


def withdrawn(scale: str) -> HTML:
    """Show the claims that were withdrawn: why, who follows, and their last verdict."""
    rows, gone = [], claims.withdrawn()
    followed = {c.replaces: c.id for c in (*claims.load(), *gone) if c.replaces}
    tables = standing.measured(scale, status.chapters())
    for claim in gone:
        judged = _last(claim, tables)
        told = {"why it was withdrawn": claim.withdrawn or ""}
        told |= {"followed by": followed.get(claim.id, "")}
        told |= {"ours": judged["ours"], "what was asked": judged["note"]}
        states = {"last verdict": catalogue.State(judged["verdict"])}
        rows.append(_row(claim, states, {"": _about(claim, 0) | told}))
    kinds = {"noun": "withdrawn claims", "group": "paper", "state": "last verdict"}
    kinds["tag"] = "data set"
    return catalogue.table(rows, ["last verdict"], **kinds)


def _last(claim: Claim, tables: Mapping) -> dict:
    """Judge a withdrawn claim, where the rows that decide it are still measured."""
    try:
        card = claims.scorecard(tables, [claim], show.own_parameters())
    except UnmeasuredError:
        return {"verdict": GONE, "ours": "", "note": "what decided it is not measured"}
    return card.iloc[0].to_dict()


def _row(claim: Claim, states: Mapping, more: Mapping) -> catalogue.Row:
    linked = claim.chapter in parameters.chapters()
    place = f"{claim.chapter}.html" if linked else ""
    group = origins.numbered(claim.chapter)
    return catalogue.Row(claim.id, group, claim.statement, states, more, place)


def _about(claim: Claim, needed: float) -> dict[str, str]:
    """Return what a claim's card says at any scale; `needed` is 0 if it is decided."""
    headline = claim.headline
    words = f"“{headline.says}” ({headline.place})" if headline else ""
    paper = ", ".join(f"{name} {x}" for name, x in claim.paper.items())
    most = f"more than {power.MOST:,}"
    seeds = most if needed > power.MOST else f"{needed:.0f}" if needed > 0 else ""
    return {
        "claim": claim.id,
        "whose": WHOSE[claim.whose],
        "place": claim.place,
        "headline claim": words,
        "the paper’s numbers": paper,
        "seeds that would decide": seeds,
    }


def _judged(scale: str) -> Iterator[tuple[str, dict]]:
    """Yield each claim's id with verdict, texts and the results that decide it."""
    tables = standing.measured(scale, status.chapters())
    read = standing.beside(scale, tables)
    card = claims.scorecard(tables, None, show.own_parameters(), read)
    card = card.set_index("claim")
    for claim in claims.load() if tables else ():
        row, told, behind = card.loc[claim.id], {}, frozenset[str]()
        if claim.chapter in tables and claim.tests:
            shown = results.shown(claim.chapter, scale)
            found = status.stages(claim.chapter, shown).set_index("stage")
            _, told, behind = origins.origin(claim, tables[claim.chapter], found)
        told = {"ours": row["ours"], "what was asked": row["note"], **told}
        yield claim.id, {"verdict": row["verdict"], "told": told, "behind": behind}


def _head(scale: str) -> str:
    """Return a column's heading: the scales whose results stand for a scale's."""
    at = [(name, results.shown(name, scale)) for name in CHAPTERS]
    return ", ".join(dict.fromkeys(s for name, s in at if results.find(name, s)))


def _status_beside() -> bool:
    return "status" in parameters.chapters() and not show.own_parameters()
