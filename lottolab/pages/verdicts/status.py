"""Say what was run: when, on what, for how long; what is stale, and what is missing.

All of it is read from the tables of stages and the claims; nothing is typed by hand.
"""

import functools
import re
from collections.abc import Iterator
from importlib.metadata import version

import matplotlib.pyplot as plt
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from lottolab import jobs
from lottolab.pages import parameters, plots, show
from lottolab.pages.parameters import SCALES
from lottolab.truth import results
from lottolab.truth.claims_file import CHAPTERS
from lottolab.units import duration

CHANGED = "its code has changed since"
GONE = "the code has no such stage any more"


def chapters() -> list[str]:
    """Return the chapters that measure, in the order of the book."""
    return [name for name in parameters.chapters() if name in CHAPTERS]


@functools.cache
def stages(chapter: str, scale: str) -> pd.DataFrame:
    """Return the stages behind the measurements and what these asked for.

    `kind` is the stage's name in short, `direct` whether measurements come from it,
    and `stale` why it is stale, or "".
    """
    found = results.read_stages(chapter, scale)
    path = results.find(chapter, scale)
    measured = [] if path is None else results.load(path)["stage"]
    kinds = found["function"].map(lambda name: ".".join(name.split(".")[-2:]))
    why = [_why(stage) for _, stage in found.iterrows()]
    return found.assign(kind=kinds, direct=found["stage"].isin(measured), stale=why)


def overview() -> HTML:
    """Show a row for each chapter and scale that has results."""
    rows = []
    for chapter, scale in _run():
        found = stages(chapter, scale)
        seconds = found["seconds"].sum()
        rows.append(
            {
                "chapter": chapter,
                "scale": scale,
                "measurements": f"{len(results.load(results.find(chapter, scale))):,}",
                "stages": f"{found['direct'].sum():,}",
                "nested": f"{(~found['direct']).sum():,}",
                "stale": f"{(found['stale'] != '').sum():,}",
                "computing time": duration(seconds),
                f"÷ {jobs.processes()}": duration(seconds / jobs.processes()),
                "peak MB": f"{found['peak_mb'].max():,}",
                "first": minute(found["finished"].min()),
                "last": minute(found["finished"].max()),
            }
        )
    return show.table(pd.DataFrame(rows))


def missing() -> Markdown:
    """Say which chapters have no results at which scale."""
    done, lines = set(_run()), []
    for scale in SCALES:
        absent = [c for c in chapters() if (c, scale) not in done]
        names = "all chapters" if absent == chapters() else ", ".join(absent)
        lines += [f"- `{scale}`: {names}"] if absent else []
    text = "\n".join(lines) or "- nothing: all chapters have results at all scales"
    return Markdown(f"Not run, or run without keeping the results:\n\n{text}")


def kinds(scale: str) -> pd.DataFrame:
    """Return a row for each kind of stage of each chapter, the slowest first.

    At `edition` a chapter that was not run yet counts at `laptop`, here and below. The
    columns are `chapter`, `kind`, `runs`, `seconds a run`, `minutes`, `peak MB`.
    """
    found = [stages(c, s).assign(chapter=c) for c, s in _shown(scale)]
    frame = pd.concat(found) if found else stages("", scale).assign(chapter="")
    grouped = frame.groupby(["chapter", "kind"], sort=False)
    shown = grouped.agg(
        **{
            "runs": ("seconds", "size"),
            "seconds a run": ("seconds", "mean"),
            "minutes": ("seconds", lambda seconds: seconds.sum() / 60),
            "peak MB": ("peak_mb", "max"),
        }
    )
    return shown.reset_index().sort_values("minutes", ascending=False)


def times(frame: pd.DataFrame, most: int = 4) -> Figure:
    """Draw the computing time of each chapter's slowest kinds of stage, in minutes.

    `frame` is what `kinds` returns; what is not among the `most` slowest is one bar.
    """
    figure, axis = plt.subplots(figsize=(7.2, 6.4), dpi=90, layout="constrained")
    colours, labels = list(plots.COLOURS.values()), []
    for place, (chapter, rows) in enumerate(frame.groupby("chapter", sort=False)):
        bars = dict(zip(rows["kind"][:most], rows["minutes"][:most], strict=True))
        if len(rows) > most:
            bars[f"{len(rows) - most} others"] = rows["minutes"][most:].sum()
        spots = range(len(labels), len(labels) + len(bars))
        axis.barh(spots, bars.values(), color=colours[place % len(colours)])
        labels += [f"{chapter}: {kind}" for kind in bars]
    axis.set_yticks(range(len(labels)), labels, fontsize=9)
    axis.invert_yaxis()
    axis.set_xlabel("computing time (minutes, one thread)")
    axis.grid(axis="y", visible=False)
    return figure


def surroundings(scale: str) -> HTML:
    """Show on which devices and with which versions the stages were computed.

    Another torch than the one that is installed here computes other bits.
    """
    found = [stages(c, s).assign(chapter=c) for c, s in _shown(scale)]
    frame = pd.concat(found) if found else stages("", scale).assign(chapter="")
    rows = [
        (device, versions, _torch(versions), f"{len(group):,}", _listed(group))
        for (device, versions), group in frame.groupby(["device", "versions"])
    ]
    columns = ["device", "versions", "torch here", "stages", "chapters"]
    return show.table(pd.DataFrame(rows, columns=columns))


def _torch(versions: str) -> str:
    """Say whether the torch among a record's versions is the one that is installed."""
    then = re.search(r"\btorch ([^\s,+]+)", versions)
    now = version("torch").partition("+")[0]
    return "the same" if then and then[1] == now else f"another: {now}"


def _listed(stages: pd.DataFrame) -> str:
    return ", ".join(stages["chapter"].unique())


def stale(scale: str) -> HTML | Markdown:
    """Show which kinds of stage are stale, how many runs of each, and why."""
    rows = []
    for chapter, of in _shown(scale):
        found = stages(chapter, of)
        groups = found[found["stale"] != ""].groupby(["kind", "stale"])
        rows += [(chapter, kind, len(g), why) for (kind, why), g in groups]
    if not rows:
        return Markdown(f"Nothing is stale at `{scale}` scale.")
    return show.table(pd.DataFrame(rows, columns=["chapter", "kind", "stages", "why"]))


def _run() -> Iterator[tuple[str, str]]:
    """Yield chapter and scale where there are results."""
    for scale in SCALES:
        for chapter in chapters():
            if results.find(chapter, scale) is not None:
                yield chapter, scale


def _shown(scale: str) -> Iterator[tuple[str, str]]:
    """Yield the chapters that a page of `scale` is about, and whose results stand."""
    for chapter in chapters():
        shown = results.shown(chapter, scale)
        if results.find(chapter, shown) is not None:
            yield chapter, shown


def _why(stage: pd.Series) -> str:
    now = results.current(stage)
    if now is None:
        return GONE
    return "" if now == stage["fingerprint"] else CHANGED


def minute(text: str) -> str:
    """Return a record's time to the minute, to be read."""
    return text[:16].replace("T", " ")
