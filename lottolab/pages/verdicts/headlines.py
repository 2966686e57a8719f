"""The head of the scorecard: what authors say, what we measured, what came of it."""

import html
import re
from typing import Any

import pandas as pd
from IPython.display import HTML, Markdown

from lottolab.pages import parameters, show
from lottolab.truth import claims, results
from lottolab.truth.claim import WHOSE
from lottolab.truth.claims_file import CHAPTERS


def judged(*scales: str) -> pd.DataFrame:
    """Judge the headline claims together by the results at one or more scales.

    The columns are those of `claims.headlines`; chapters that a scale was not run for
    have no rows, but for those without an `edition`, which have the laptop's.
    """
    tables: dict[str, dict[str, pd.DataFrame]] = {}
    for scale in scales:
        for chapter in parameters.chapters():
            shown = results.shown(chapter, scale)
            if (table := results.read(chapter, shown)) is not None:
                tables.setdefault(shown, {})[chapter] = table
    rows = claims.headlines(tables, lenient=show.own_parameters())
    return rows[rows["verdict"] != claims.NOT_RUN].reset_index(drop=True)


def table(rows: pd.DataFrame) -> HTML:
    """Show a line for each claim that `judged` has, in the chapters' order.

    It holds some words of the authors', with the whole sentence as a tip, our number at
    the first scale where there is one, with the number of seeds as a tip, and the
    verdict at each scale; a star marks those that would be others alone.
    """
    known = {claim.id: claim for claim in claims.load() if claim.headline}
    lines = []
    for chapter in CHAPTERS:
        for name in dict.fromkeys(rows["claim"]):
            if known[name].chapter == chapter:
                line = _line(known[name], rows[rows["claim"] == name])
                read = {_column(s, rows): told for s, told in line.pop("by scale")}
                lines.append(line | read)
    columns = ["chapter", "the authors say", "we measured"]
    columns += dict.fromkeys(_column(scale, rows) for scale in rows["scale"])
    frame = pd.DataFrame(lines).reindex(columns=columns, fill_value="").fillna("")
    return show.boxed(frame, "headlines", escape=False)


def _column(scale: str, rows: pd.DataFrame) -> str:
    """Return the column of a scale's verdicts: an edition's chapters and those that
    have none, whose laptop's tables are read, share one."""
    read, scales = (results.EDITION, results.LAPTOP), set(rows["scale"])
    both = scale in read and scales.issuperset(read)
    return f"verdict, {' or '.join(read) if both else scale}"


def _line(claim: claims.Claim, rows: pd.DataFrame) -> dict[str, Any]:
    said, first = claim.headline, rows.iloc[0]
    whole = html.escape(f"{said.says} ({said.place})")
    words = html.escape(said.words)
    number = html.escape(first["ours"])
    short = re.sub(r", (n = \d+|weakest of \d+ tests)", "", number)
    place = str(CHAPTERS.index(claim.chapter) + 1)
    stale = " (stale)" if first["stale"] else ""
    line = {
        "chapter": f'<a href="{claim.chapter}.html">{place}</a>',
        "the authors say": f'<span title="{whole}">“{words}”</span>',
        "we measured": f'<span title="{number}">{said.here}: {short}{stale}</span>',
    }
    verdicts = []
    linked = "status" in parameters.chapters() and not show.own_parameters()
    for row in rows.itertuples():
        told = html.escape(row.verdict)
        if linked:
            told = f'<a href="status.html#{claim.id}">{told}</a>'
        if row.alone != row.verdict and row.verdict != claims.SAME:
            told = f'<span title="alone: {row.alone}">{told}*</span>'
        verdicts.append((row.scale, told))
    return line | {"by scale": verdicts}


def told(rows: pd.DataFrame) -> Markdown:
    """Count the verdicts on the headline claims in a sentence, scale by scale."""
    counts = []
    for scale, group in rows.groupby("scale", sort=False):
        words = group["verdict"].value_counts()
        each = ", ".join(f"{count} {word}" for word, count in words.items())
        counts.append(f"{words.sum()} at `{scale}` scale: {each}")
    return Markdown(f"Headline claims, {'; '.join(counts)}.")


def _headlined() -> list[claims.Claim]:
    return [claim for claim in claims.load() if claim.headline]


def exploratory(card: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of a scorecard that are no headline claims."""
    return card[~card["claim"].isin([c.id for c in _headlined()])]


def whose(card: pd.DataFrame) -> HTML:
    """Count a scorecard's verdicts by whose claim it is."""
    counts = pd.crosstab(card["whose"].map(WHOSE), card["verdict"])
    counts = counts.reindex([w for w in WHOSE.values() if w in counts.index])
    return show.table(counts.rename_axis("whose").reset_index())
