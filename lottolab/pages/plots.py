"""Draw the book's figures: one style, one colour for one thing."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottolab.checks import require
from lottolab.truth import stats

# Okabe and Ito's palette, which colour-blind readers can tell apart.
COLOURS = {
    "dense": "#000000",
    "ticket": "#0072B2",
    "random mask": "#D55E00",
    "new initialisation": "#009E73",
    "paper": "#CC79A7",
}
MARKERS = {"dense": "s", "ticket": "o", "random mask": "v", "new initialisation": "^"}

CHANCE = {"color": "0.5", "linewidth": 1, "zorder": 0, "label": "chance"}
PAPER = {"color": COLOURS["paper"], "linestyle": "--", "linewidth": 1.5}
PAPER |= {"label": "paper"}


def style() -> None:
    """Set the look of all figures that follow."""
    sns.set_theme(context="notebook", style="ticks", palette=list(COLOURS.values()))
    plt.rcParams.update(
        {
            "figure.figsize": (7.2, 4.2),
            "figure.dpi": 100,
            "figure.facecolor": "white",
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": True,
            "grid.alpha": 0.3,
            "legend.frameon": False,
        }
    )


def samples(images, labels, names: list[str]) -> Figure:
    """Draw the first image of each class, uint8 N×C×H×W, with the class's name."""
    figure, axes = plt.subplots(1, len(names), figsize=(7.2, 1.3))
    for place, (axis, name) in enumerate(zip(axes, names, strict=True)):
        image = images[labels == place][0].permute(1, 2, 0).squeeze(2)
        axis.imshow(image.numpy(), cmap="gray", vmin=0, vmax=255)
        axis.set_title(name, fontsize=7)
        axis.set_axis_off()
    return figure


def against_density(table: pd.DataFrame, *, paper: tuple[float, float]) -> Figure:
    """Draw accuracy minus the dense network's, against density, with 95 % intervals.

    Args:
        table: rows with `arm`, `density`, `seed` and `value`, the test accuracy in
            [0, 1]; the arm `dense` is what the others are compared with, by seed.
        paper: density and difference in percentage points that the paper reports.
    """
    figure, axis = plt.subplots()
    axis.axhspan(-1, 1, color="0.92", zorder=0)
    axis.axhline(0, color=COLOURS["dense"], linewidth=1)
    for arm in [a for a in MARKERS if a != "dense" and a in set(table["arm"])]:
        _arm(axis, table, arm)
    axis.axhline(paper[1], color=COLOURS["paper"], linestyle="--", linewidth=1.2)
    look = {"color": COLOURS["paper"], "markersize": 13, "label": "paper, CIFAR-10"}
    axis.plot(*paper, "*", **look)
    axis.set_xscale("log")
    axis.invert_xaxis()
    ticks = sorted(table["density"].unique())
    axis.set_xticks(ticks, [f"{t:.1%}" if t < 0.1 else f"{t:.0%}" for t in ticks])
    axis.minorticks_off()
    axis.set_xlabel("density: share of the prunable weights that are kept")
    axis.set_ylabel("test accuracy − dense (points)")
    axis.legend(loc="lower left")
    figure.tight_layout()
    return figure


def summary(table: pd.DataFrame) -> pd.DataFrame:
    """Return what `against_density` draws as numbers: a row an arm and density.

    `accuracy` is the mean over the seeds, `minus dense` the mean difference in
    percentage points with its 95 % interval.
    """
    rows = []
    for (arm, density), group in table.groupby(["arm", "density"], sort=False):
        accuracy = group["value"].mean()
        interval = _minus_dense(group, table)
        spread = "" if arm == "dense" else interval.signed
        rows.append((arm, density, accuracy, spread))
        rows[-1] += (interval.n,)
    columns = ["arm", "density", "accuracy", "minus dense, points", "seeds"]
    rows.sort(key=lambda row: (list(COLOURS).index(row[0].split(",")[0]), -row[1]))
    return pd.DataFrame(rows, columns=columns)


def _minus_dense(rows: pd.DataFrame, table: pd.DataFrame) -> stats.Interval:
    """Return the difference to the dense network of the same seed, in points."""
    dense = table[table["arm"] == "dense"].set_index("seed")["value"]
    here = rows.set_index("seed")["value"]
    return stats.mean_interval(100 * stats.paired_by(here.to_dict(), dense.to_dict()))


def _arm(axis: Axes, table: pd.DataFrame, arm: str) -> None:
    """Draw one line of means with its intervals."""
    groups = table[table["arm"] == arm].groupby("density")
    points = [(density, _minus_dense(rows, table)) for density, rows in groups]
    x = [density for density, _ in points]
    y = [interval.estimate for _, interval in points]
    error = [
        [i.estimate - i.low for _, i in points],
        [i.high - i.estimate for _, i in points],
    ]
    look = {"color": COLOURS[arm], "marker": MARKERS[arm], "capsize": 3, "label": arm}
    axis.errorbar(x, y, yerr=error, linestyle="-" if len(x) > 2 else ":", **look)


def where(table: pd.DataFrame, **marks: str | int) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    return table[np.logical_and.reduce([table[c] == v for c, v in marks.items()])]


def panels(lines: int, columns: int, height: float, **ratios):
    """Return a figure with axes lines × columns, which share the y axis of a line."""
    more = {"sharey": "row", "sharex": "col", "layout": "constrained"}
    size = {"figsize": (7.2, height), "dpi": 90, "squeeze": False}
    return plt.subplots(lines, columns, **size, **more, **ratios)


def pair(height: float):
    """Return a figure and two axes that share nothing."""
    return plt.subplots(1, 2, figsize=(7.2, height), dpi=90, layout="constrained")


def means(axis: Axes, found: list, look: dict, unit: int = 100, flat=False) -> None:
    """Draw the mean of each (place, rows) with its interval; `flat`: across."""
    found = [(place, rows) for place, rows in found if len(rows)]
    if not found:
        return
    for _, rows in found:
        again = rows["seed"][rows["seed"].duplicated()]
        require(again.empty, "a point must have one value a seed", list(again[:3]))
    intervals = [stats.mean_interval(unit * rows["value"]) for _, rows in found]
    mean = np.array([i.estimate for i in intervals])
    error = [mean - [i.low for i in intervals], [i.high for i in intervals] - mean]
    places = [place for place, _ in found]
    x, y = (mean, places) if flat else (places, mean)
    axis.errorbar(x, y, **{"xerr" if flat else "yerr": error}, capsize=2, **look)


def finished(figure: Figure, columns: int = 4) -> Figure:
    """Say which axes are empty, and put one legend under all of them."""
    named = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        named |= dict(zip(labels, handles, strict=True))
        if not axis.containers:
            where = {"transform": axis.transAxes, "ha": "center", "va": "center"}
            axis.text(0.5, 0.5, "not measured", backgroundcolor="white", **where)
    place = {"loc": "outside lower center", "ncols": columns, "fontsize": 10}
    figure.legend(named.values(), named.keys(), **place)
    return figure


def verdicts(counts: pd.DataFrame) -> Figure:
    """Draw how many claims of each chapter (row) came to which verdict (column)."""
    looks = {
        "reproduced": {"color": "#0072B2"},
        "inconclusive": {"color": "0.75"},
        "refuted": {"color": "#D55E00"},
    }
    figure, axis = plt.subplots(figsize=(7.2, 0.45 * len(counts) + 1.1), dpi=90)
    left = pd.Series(0, counts.index)
    others = {word: {"color": "0.92"} for word in counts if word not in looks}
    for word, look in (looks | others).items():
        found = counts.get(word, left * 0)
        bars = axis.barh(counts.index, found, left=left, label=word, **look)
        shown = [str(n) if n else "" for n in found]
        dark = word in ("reproduced", "refuted")
        axis.bar_label(bars, shown, label_type="center", color="w" if dark else "k")
        left = left + found
    axis.invert_yaxis()
    axis.set_xlabel("claims")
    axis.grid(False)
    axis.legend(ncols=3, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    return figure


def coverage(held: pd.DataFrame) -> Figure:
    """Draw how often intervals hold: rows of `coverage.table`, before and after.

    A line a kind of measurement, a dot a design; the band is what may be called 95 %.
    """
    kinds = list(dict.fromkeys(held["measurement"]))
    figure, axis = plt.subplots(figsize=(7.2, 0.4 * len(kinds) + 1.2), dpi=90)
    axis.axvspan(0.93, 0.97, color="0.9", zorder=0)
    axis.axvline(0.95, color="0.6", linewidth=1, zorder=0)
    places = held["measurement"].map(kinds.index)
    looks = {"before": {"color": "#D55E00", "marker": "v"}}
    looks["after"] = {"color": COLOURS["ticket"], "marker": "o"}
    for shift, (side, look) in zip((-0.15, 0.15), looks.items(), strict=True):
        dots = {"linestyle": "none", "alpha": 0.8, "label": side}
        axis.plot(held[side], places + shift, **look, **dots)
    axis.set_yticks(range(len(kinds)), kinds)
    axis.invert_yaxis()
    axis.set_xlabel("share of 95 % intervals that contain the truth")
    axis.xaxis.set_major_formatter("{x:.0%}")
    axis.legend(ncols=2, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    figure.tight_layout()
    return figure
