"""What the chapter's figures share: looks, means with intervals, legends."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottolab import stats
from lottolab.checks import require
from lottolab.plots import COLOURS

# More of Okabe and Ito's colours: sky blue and orange.
LOOKS = {
    "dense": {"color": COLOURS["dense"], "marker": "s"},
    "one-shot": {"color": COLOURS["ticket"], "marker": "o"},
    "sparser": {"color": "#56B4E9", "marker": "D"},
    "random mask": {"color": COLOURS["random mask"], "marker": "v"},
    "late": {"color": "#E69F00", "marker": "^"},
}
CHANCE = {"color": "0.5", "linewidth": 1, "zorder": 0, "label": "chance"}
PAPER = {"color": COLOURS["paper"], "linestyle": "--", "linewidth": 1.5}
PAPER |= {"label": "paper"}


def where(table: pd.DataFrame, **marks: str | int) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    return table[np.logical_and.reduce([table[c] == v for c, v in marks.items()])]


def percent(rows: pd.DataFrame) -> str:
    return f"{100 * rows['sparsity'].iloc[0]:g} %"


def panels(lines: int, columns: int, height: float, **ratios):
    """Return a figure with axes lines × columns, which share the y axis of a line."""
    more = {"sharey": "row", "sharex": "col", "layout": "constrained"}
    size = {"figsize": (7.2, height), "dpi": 90, "squeeze": False}
    return plt.subplots(lines, columns, **size, **more, **ratios)


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
