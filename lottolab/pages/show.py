"""What a chapter shows beside its own figures: code, tables, verdicts, provenance."""

import functools
import html
import inspect
import os
import re
import textwrap
from collections.abc import Callable

import pandas as pd
import yaml
from IPython.display import HTML, Markdown

from lottolab.pages import parameters, standing
from lottolab.truth import claims, results, stats
from lottolab.truth.claims_file import CHAPTERS
from lottolab.truth.selection import ClaimError, select
from lottolab.units import duration

UNTRAINED = """\
:::{warning}
This page was run at `smoke` scale, which only shows that it runs: no network here has
been trained far enough for its numbers or verdicts to mean anything.
:::"""

EDITION = """\
:::{{note}}
This page was run at `edition` scale: with the parameters above, but {changed}.
:::"""


def code(*functions: Callable) -> Markdown:
    """Show the source of functions, highlighted: what is read is what runs."""
    sources = [inspect.getsource(inspect.unwrap(f)) for f in functions]
    code = "\n\n".join(textwrap.dedent(source).rstrip() for source in sources)
    return Markdown(f"```python\n{code}\n```")


def table(frame: pd.DataFrame, **formats: str) -> HTML:
    """Show a data frame, with a format such as `.1%` for the columns that are named.

    Headings are the columns of the results in words: `test_accuracy` is the test
    accuracy, an `arm` of the experiment a treatment, and `auc` the AUC, in cells too.

    Raises:
        KeyError: a format names a column that the frame does not have.
    """
    frame = frame.copy()
    for column, form in formats.items():
        form = re.sub(r"^([+ -]?)(?=[.,])", r"\1z", form)  # of what is rounded to −0
        cells = [("" if pd.isna(v) else format(v, form)) for v in frame[column]]
        frame[column] = cells
    frame = frame.map(_cell)
    frame = frame.rename(columns=lambda name: _heading(str(name)))
    return boxed(frame.rename_axis(columns=None))  # a pivoted one's would be a column


def _cell(cell):
    same = cell + 0.0 if isinstance(cell, float) else cell  # −0.0 is 0.0
    return _capitals(same) if isinstance(same, str) else same


def _heading(name: str) -> str:
    words = re.sub("_(accuracy|fpr)$", r" \1", name).replace("nonmember", "non-member")
    return _capitals("treatment" if name == "arm" else words)


def _capitals(text: str) -> str:
    rates = r"(?<![\w-])(auc|tpr|fpr)(?![\w-])"  # not inside a claim's id
    return re.sub(rates, lambda found: found[0].upper(), text)


def boxed(frame: pd.DataFrame, classes: str | None = None, escape: bool = True) -> HTML:
    """Show a data frame in a box that scrolls.

    Args:
        classes: more of them, for the style.
        escape: the cells are text; otherwise they are HTML already.
    """
    shape = {"index": False, "border": 0, "justify": "left", "na_rep": ""}
    shown = frame.to_html(**shape, classes=classes, escape=escape)
    return HTML(f'<div class="table-scroll">{shown}</div>')


def claims_table(judged: pd.DataFrame, *columns: str) -> HTML:
    """Show these columns of a scorecard; verdicts link to where their rows come from.

    That is on the status page, which a run of a reader's own does not have beside it.
    """
    shown = judged[list(columns)].map(lambda cell: html.escape(str(cell)))
    if "status" in parameters.chapters() and not own_parameters():
        tested = judged["verdict"] != claims.NOT_TESTABLE
        links = '<a href="status.html#' + judged["claim"] + '">' + shown["verdict"]
        shown["verdict"] = (links + "</a>").where(tested, shown["verdict"])
    return boxed(shown, "claims", escape=False)


def scorecard(scale: str, chapters: list[str] | None = None) -> pd.DataFrame:
    """Return a row for each claim of the book, judged by the results at a scale.

    At `edition` a chapter without results is judged by the laptop's, as `verdicts`
    says. With `chapters` only their results are read; all other claims are not run.
    """
    names = chapters or parameters.chapters()
    told = {"lenient": own_parameters(), "read": standing.beside(scale, names)}
    return claims.scorecard(standing.measured(scale, names), **told)


def two_scales(scale: str, other: str, chapter: str | None = None) -> pd.DataFrame:
    """Return a row for each tested claim of the chapters that both scales have results
    of, or of one chapter: the columns `claim` and `statement`, then `ours` and
    `verdict` at each of the scales (or at the one), such as `verdict, laptop`."""
    cards = []
    for name in dict.fromkeys((scale, other)):
        card = scorecard(name, [chapter] if chapter else None)
        card = card[~card["verdict"].isin({claims.NOT_RUN, claims.NOT_TESTABLE})]
        told = {column: f"{column}, {name}" for column in ("ours", "verdict")}
        cards.append(card.rename(columns=told)[["claim", "statement", *told.values()]])
    return functools.reduce(pd.merge, cards)


def against_paper(chapter: str, scale: str) -> HTML:
    """Show the chapter's claims: the paper's number, ours and the verdict."""
    measured = results.read(chapter, scale)
    judged = claims.against_paper(chapter, measured, lenient=own_parameters())
    shown = ("statement", "place", "paper", "ours", "verdict")
    told = f"<p>{len(judged)} claims: {_counted(judged)}.</p>"
    return HTML(told + claims_table(judged, *shown).data)


def beside_tables(chapter: str, scale: str) -> HTML:
    """Show the entries of the paper's tables beside ours, in percent.

    `data/papers/<chapter>.csv` says in its column `ours` which of our measurements is
    the counterpart; entries without one are not shown. Ours is a mean with its 95 %
    interval over seeds or, where a network either does something or does not, a count.

    Raises:
        ClaimError: a counterpart is not among the results, though no parameter of
            the reader's own is a reason for that.
    """
    entries, measured = results.paper(chapter), results.read(chapter, scale)
    rows = []
    for entry in entries[entries["ours"].notna()].itertuples():
        where = f"{entry.place}, {entry.quantity}"
        there = f"{entry.network}, {entry.dataset}"
        ours = _ours(measured, yaml.safe_load(entry.ours), where)
        rows.append((entry.place, there, entry.quantity, 100 * entry.value, ours))
    columns = ["place", "paper's network", "quantity", "paper (%)", "ours (%)"]
    return table(pd.DataFrame(rows, columns=columns), **{"paper (%)": ".1f"})


def _ours(measured: pd.DataFrame, selection: dict, where: str) -> str:
    try:
        rows = select(measured, selection, where)
    except ClaimError:
        if not own_parameters():
            raise
        return "not measured"
    if rows["value"].isin([0, 1]).all() and "accuracy" not in where:
        return f"{rows['value'].sum():.0f} of {len(rows)}"
    i = stats.mean_interval(100 * rows["value"])
    return f"{i.estimate:.1f} [{i.low:.1f}, {i.high:.1f}]"


def own_parameters() -> bool:
    """Say whether this is a reader's own run, which may leave rows out."""
    return bool(os.environ.get(results.OWN))


def caution(scale: str, chapter: str | None = None) -> Markdown | None:
    """Warn at the head of a page whose numbers mean nothing, or are not of the
    parameters that stand there: the edition is published in the laptop's notebook."""
    if scale != results.EDITION or chapter is None:
        return Markdown(UNTRAINED) if scale == "smoke" else None
    values = parameters.resolve(chapter, scale, {})
    changed = ", ".join(f"`{k} = {v}`" for k, v in values.items() if k != "scale")
    return Markdown(EDITION.format(changed=changed))


def verdict_counts(card: pd.DataFrame) -> pd.DataFrame:
    """Count a scorecard's claims of each chapter (row) by their verdict (column)."""
    chapter = {claim.id: claim.chapter for claim in claims.load()}
    counts = pd.crosstab(card["claim"].map(chapter), card["verdict"])
    return counts.loc[[c for c in CHAPTERS if c in counts.index]]


def _counted(card: pd.DataFrame) -> str:
    words = card["verdict"].value_counts()
    return ", ".join(f"{count} {word}" for word, count in words.items())


def verdicts(card: pd.DataFrame, scale: str) -> Markdown:
    """Count the verdicts of a scale's scorecard in a sentence; say whose they are."""
    whose = {name: results.shown(name, scale) for name in CHAPTERS}
    other = [name for name, shown in whose.items() if shown != scale]
    all_other = len(other) == len(CHAPTERS)
    at = "laptop" if all_other else scale
    told = f"{len(card)} claims at `{at}` scale: {_counted(card)}."
    if other:
        names = "all chapters" if all_other else ", ".join(other)
        told += f" Not run at `{scale}` yet, so at `laptop`: {names}."
    if absent := [n for n, shown in whose.items() if results.find(n, shown) is None]:
        told += f" Without results, failed or not run: {', '.join(absent)}."
    return Markdown(told)


def provenance(chapter: str, scale: str) -> HTML:
    """Show where the chapter's numbers come from: what ran, when, on what, how long.

    The seconds are those of the stages behind the measurements and of what these asked
    for, as they were recorded when each was computed; the wall time runs from the start
    of the first of them to the end of the last; the memory is that of the largest
    process.
    """
    stages = results.read_stages(chapter, scale)
    measured = results.read(chapter, scale)
    direct = measured["stage"].nunique()
    asked = len(stages) - direct
    nested = f", which asked {asked} more" if asked else ""
    arguments = stages["arguments"].map(pd.io.json.ujson_loads)
    ends = pd.to_datetime(stages["finished"])
    wall = ends.max() - (ends - pd.to_timedelta(stages["seconds"], unit="s")).min()
    facts = {
        "data set": _values(a["dataset"] for a in arguments if "dataset" in a),
        "its sha256": _values(d[:16] + " …" for d in stages["data"] if d),
        "seeds": _values(sorted({a["seed"] for a in arguments if "seed" in a})),
        "measurements": f"{len(measured)}, on the results of {direct} stages{nested}",
        "stale": f"{int(measured['stale'].sum())} of {len(measured)} measurements",
        "computing time": f"{duration(stages['seconds'].sum())}, one thread each",
        "wall time": duration(wall.total_seconds()),
        "peak memory": f"{stages['peak_mb'].max():,} MB in the largest process",
        "device": _values(stages["device"]),
        "versions": _values(stages["versions"]),
        "finished": f"{stages['finished'].min()} to {stages['finished'].max()}",
        "code": f"{stages['fingerprint'].nunique()} fingerprints, one a kind of stage",
        "tables": ", ".join(_files(chapter, scale)),
    }
    frame = pd.DataFrame({"what": list(facts), "value": list(facts.values())})
    return table(frame)


def _files(chapter: str, scale: str) -> list[str]:
    paths = [results.find(chapter, scale, suffix) for suffix in results.SUFFIXES]
    return [f"data/results/{chapter}/{path.name}" for path in paths]


def _values(values) -> str:
    return ", ".join(dict.fromkeys(str(v) for v in values))
