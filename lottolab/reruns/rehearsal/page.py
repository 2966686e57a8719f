"""Draw the page on the papers' scale from the committed tables."""

from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from IPython.display import HTML, Markdown
from matplotlib.figure import Figure

from lottolab.images import folders, sources
from lottolab.pages import parameters, plots, show
from lottolab.reruns.rehearsal import cost, report, throughput
from lottolab.truth import results
from lottolab.truth.claims_file import CHAPTERS

SCALES = [s for s in parameters.SCALES if s != "smoke"]  # whose results are kept
PARTS = dict(zip(cost.WORK, ("trainings", "predictions", "the rest"), strict=True))
FORMATS = report.FORMATS | dict.fromkeys([*cost.WORK, "TFLOP/s", "GB"], ",.1f")
FORMATS |= {"images/s": ",.0f"}
LOOPS = ["work", "network", "width", "batch", "processes", "images/s", "TFLOP/s", "GB"]


def shown(frame: pd.DataFrame) -> HTML:
    """Show a table, its numbers as the page writes them."""
    return show.table(frame, **{k: f for k, f in FORMATS.items() if k in frame})


def ran(table: pd.DataFrame) -> pd.DataFrame:
    """Say of each chapter at each scale whether it was run, rehearsed or neither.

    A dash stands where the chapter has no such scale.
    """
    rehearsed = set(zip(table["chapter"], table["scale"], strict=True))

    def how(chapter: str, scale: str) -> str:
        if scale not in parameters.scales(chapter):
            return "–"
        if results.find(chapter, scale):
            return "run"
        return "rehearsed" if (chapter, scale) in rehearsed else "not run"

    names = [name for name in parameters.chapters() if name in CHAPTERS]
    rows = [{"chapter": n} | {s: how(n, s) for s in SCALES} for n in names]
    return pd.DataFrame(rows)


def costs(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a chapter, and one of all: what running it would take."""
    summed = ["runs", "PFLOP", "GPU-hours", "CPU-hours", "hours here", "disk GB"]
    groups = [*table.groupby("chapter", sort=False), ("all", table)]
    rows = []
    for chapter, own in groups:
        row = {"chapter": chapter} | own[summed].sum().to_dict()
        row["GPU GB"] = own["GPU GB"].max()
        row["failed"] = int(own["error"].astype(bool).sum())
        rows.append(row | {"data sets": ", ".join(_sets(own))})
    return pd.DataFrame(rows)


def files(table: pd.DataFrame) -> pd.DataFrame:
    """Return a row a data set that the chapters read from disk: its files, and by whom.

    `read` says whether the rehearsal had the real files or archives of noise.
    """
    rows = []
    for name in _sets(table):
        if name in sources.TORCHVISION:
            there = sources.files(name)
        elif name in folders.FORMS:
            there = [f"{folders.folder(name).relative_to(sources.root())}/"]
        else:
            continue
        own = table[table["dataset"] == name]
        tiny = own["tiny"].str.split().map(lambda names, name=name: name in names)
        rows.append(
            {"data set": name, "in `LOTTOLAB_DATA`": ", ".join(there)}
            | {"read by": ", ".join(own["chapter"].unique())}
            | {"rehearsed with": "noise" if tiny.any() else "the real files"}
        )
    return pd.DataFrame(rows)


def loops(path: Path | None = None) -> pd.DataFrame:
    """Return what was measured on a GPU, a row a loop; empty if nothing was."""
    path = path or throughput.PATH
    if not path.is_file():
        return pd.DataFrame(columns=LOOPS)
    table = pd.read_csv(path, keep_default_na=False, na_values={"width": ["0"]})
    for name in ("images/s", "TFLOP/s", "GB"):
        table[name] = pd.to_numeric(table[name], errors="coerce")
    return table[[*LOOPS, "error"]]


def settings(chapter: str, scale: str = "paper") -> Markdown:
    """Show a chapter's parameters at a scale, with what their comments say."""
    text = (parameters.BOOK / "scales" / scale / f"{chapter}.yaml").read_text("utf-8")
    return Markdown(f"`{chapter}`\n\n```yaml\n{text}```")


def draw(table: pd.DataFrame, speeds: pd.DataFrame) -> Figure:
    """Draw each chapter's GPU-hours, by what they are spent on."""
    hours = throughput.hours(table, speeds).groupby(table["chapter"], sort=False)
    hours = hours.sum().rename(columns=PARTS)
    figure, axis = plt.subplots(figsize=(7.2, 4.2))
    colours = list(plots.COLOURS.values())
    for place, (name, values) in enumerate(hours.items()):
        at = np.arange(len(values)) + 0.27 * (place - 1)
        bars = axis.barh(at, values, 0.25, color=colours[place], label=name)
        axis.bar_label(bars, [f" {v:,.0f}" if v >= 1 else "" for v in values])
    axis.set_yticks(np.arange(len(hours)), hours.index)
    axis.set(xscale="log", xlabel="GPU-hours", xlim=(0.1, 5 * hours.max().max()))
    axis.invert_yaxis()
    axis.grid(axis="y", visible=False)
    axis.legend(loc="lower right")
    return figure


def _sets(table: pd.DataFrame) -> list[str]:
    return sorted(set(table["dataset"]) - {""})
