"""Say where the rows that decide each claim come from."""

import html
import json
from collections.abc import Iterator

import pandas as pd
from IPython.display import HTML

from lottolab.pages.verdicts import catalogue, status
from lottolab.truth import claims, results
from lottolab.truth.claims_file import CHAPTERS
from lottolab.truth.selection import ClaimError, select

CURRENT, STALE, UNMEASURED = "current", "stale", "not measured"


def provenance(scale: str) -> HTML:
    """Show where the rows that decide each claim come from, in a table that unfolds.

    Each row has the claim's id as its anchor, to which the scorecard and the chapters'
    own tables of claims link. Above stand links to the files with the rows.
    """
    rows, files, columns = [], [], []
    for chapter in status.chapters():
        shown = results.shown(chapter, scale)
        files.append(f"<li>{_files(chapter, shown)}</li>")
        found = list(_rows(chapter, shown))
        columns += [shown] if found and shown not in columns else []
        rows += found
    told = {"noun": "claims", "group": "paper", "state": "state", "tag": "data set"}
    return HTML(
        f"<ul>{''.join(files)}</ul>{catalogue.table(rows, columns, **told).data}"
    )


def _files(chapter: str, scale: str) -> str:
    """Return a line with links to the tables of a chapter's results, if there are."""
    path = results.find(chapter, scale)
    name = html.escape(numbered(chapter))
    if path is None:
        return f"{name}: not run at {scale} scale"
    behind = results.find(chapter, scale, ".stages.csv")
    there = f"../_static/results/{chapter}"
    links = f"<a href='{there}/{path.name}'>measurements of {chapter}</a>, "
    links += f"<a href='{there}/{behind.name}'>stages of {chapter}</a> (CSV)"
    return f"{name} at {scale} scale: {links}"


def _rows(chapter: str, scale: str) -> Iterator[catalogue.Row]:
    if (path := results.find(chapter, scale)) is None:
        return
    measured = results.load(path)
    found = status.stages(chapter, scale).set_index("stage")
    for claim in claims.load():
        if claim.chapter == chapter and claim.tests:
            state, told, _ = origin(claim, measured, found)
            more = {"": {"claim": claim.statement, **told}}
            states = {scale: catalogue.State(state, tags=told.get("data set", ""))}
            yield catalogue.Row(claim.id, numbered(chapter), claim.id, states, more)


def origin(
    claim: claims.Claim, measured: pd.DataFrame, found: pd.DataFrame
) -> tuple[str, dict[str, str], frozenset[str]]:
    """Return the state of what decides a claim, what there is to say, and the stages.

    Args:
        measured: the chapter's measurements.
        found: its stages, as `status.stages` returns them, by `stage`.
    """
    tests = (*claim.given, *claim.tests)
    asked = [s for test in tests for s in (test.a, test.b) if s is not None]
    words = [", ".join(f"{k} {v}" for k, v in selection.items()) for selection in asked]
    told = {"rows that decide it": "; ".join(dict.fromkeys(words))}
    try:
        rows = [select(measured, selection, claim.id) for selection in asked]
    except ClaimError:
        return UNMEASURED, told, frozenset()
    seeds = sorted({seed for row in rows for seed in row.index})
    names = list(dict.fromkeys(s for row in rows for s in row["stage"]))
    behind = found.loc[names]
    ends = [status.minute(behind["finished"].agg(f)) for f in ("min", "max")]
    codes = [code[:8] for code in behind["fingerprint"].unique()]
    many = f"{len(codes)} fingerprints, such as {codes[0]}"
    told |= {
        "data set": ", ".join(_datasets(behind)),
        "seeds": ", ".join(map(str, seeds)),
        "stages": ", ".join(behind["kind"].unique()),
        "code": ", ".join(codes) if len(codes) <= 4 else many,
        "finished": " to ".join(dict.fromkeys(ends)),
        "stale": "; ".join(why for why in behind["stale"].unique() if why),
    }
    return STALE if told["stale"] else CURRENT, told, frozenset(names)


def _datasets(stages: pd.DataFrame) -> list[str]:
    """Return the names of the data sets that stages were run on."""
    given = [json.loads(text).get("dataset", "") for text in stages["arguments"]]
    names = [g.get("name", "") if isinstance(g, dict) else g for g in given]
    return list(dict.fromkeys(filter(None, names)))


def numbered(chapter: str) -> str:
    """Return a chapter's name behind its number, such as `1 ownership`."""
    return f"{CHAPTERS.index(chapter) + 1} {chapter}"
