"""Draw the table of a sweep: one metric against the parameter with the most values."""

import itertools
from pathlib import Path

import pandas as pd
import seaborn as sns
import yaml
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottolab.checks import one_of
from lottolab.pages import parameters, plots

PREFIX = "p_"  # of the columns that hold a point's parameters
PANELS = 6
MARKERS = "osD^v<>hP*"


def shown(chapter: str) -> dict | None:
    """Return what the figure of a chapter shows, its entry in `book/sweeps.yaml`.

    `metric`; `where`, the values that columns of its rows may have; `panels` and
    `lines`, the columns whose values get one each.
    """
    path = Path(parameters.BOOK, "sweeps.yaml")
    return yaml.safe_load(path.read_bytes()).get(chapter) if path.exists() else None


def draw(
    table: pd.DataFrame,
    grid: list[dict],
    look: dict | None = None,
    *,
    metric: str | None = None,
    where: dict[str, list] | None = None,
) -> Figure:
    """Draw one metric against the parameter with the most values, seeds apart.

    Rows that share a point, a seed, a panel and a line are averaged, whatever else
    differs between them. Each dot is the mean over points and seeds, with a 95 % t
    interval where there are several.

    Args:
        table: rows of results after the point's parameters (`p_…`).
        grid: the points.
        look: as `shown` returns it; used where `metric` is its metric, or None, and
            there are such rows. Else the metric is that of most rows, and each `arm`
            has a panel.
        where: which rows; of a column that `look` chooses by as well, instead.

    Raises:
        ValueError: a metric, a column or a value that no row has.
    """
    plots.style()
    there = table[table["metric"].notna()].reset_index(drop=True)
    rows, look = _chosen(there, look or {}, metric, where or {})
    across, *others = _axes(grid)
    named = [f"{name}=" + rows[PREFIX + name].astype(str) for name in others]
    named += [rows[look["lines"]].astype(str)] if "lines" in look else []
    lines = pd.concat(named, axis=1).agg(", ".join, axis=1) if named else ""
    column = look.get("panels")
    names = rows[column].astype(str) if column in rows else ""
    places = rows.assign(x=rows[PREFIX + across], panel=names, line=lines)
    places["seed"] = _units(rows)
    key = ["x", "panel", "line", "seed"]
    figure = _panels(places.groupby(key, sort=False)["value"].mean().reset_index())
    for axis in figure.axes:
        axis.set(xlabel=across, ylabel=rows["metric"].iloc[0])
        if pd.api.types.is_numeric_dtype(places["x"]):
            axis.set_xticks(places["x"].unique())
        axis.label_outer()
    return figure


def _chosen(
    rows: pd.DataFrame, look: dict, metric: str | None, where: dict[str, list]
) -> tuple[pd.DataFrame, dict]:
    """Return the rows to draw, and how: by the look, unless it has no such rows."""
    usual = {"metric": [look.get("metric")]} | look.get("where", {})
    usual = {column: values for column, values in usual.items() if column not in where}
    found = _usual(rows, usual)
    if found.empty or metric not in (None, look["metric"]):
        look, found = {"panels": "arm"}, rows
        where = {"metric": [metric or rows["metric"].mode()[0]]} | where
    for column, values in where.items():
        found = _only(found, column, values)
    return found, look


def _usual(rows: pd.DataFrame, marks: dict[str, list]) -> pd.DataFrame:
    """Keep the rows that have one of the values in each column."""
    for column, values in marks.items():
        there = column in rows
        rows = rows[rows[column].isin(values)] if there else rows.iloc[:0]
    return rows


def _only(rows: pd.DataFrame, column: str, values: list) -> pd.DataFrame:
    one_of("a column of the table", column, rows.columns)
    there = rows[column].astype(str)
    for value in values:
        one_of(column, str(value), sorted(there.unique()))
    return rows[there.isin([str(value) for value in values])]


def _axes(grid: list[dict]) -> list[str]:
    """Return the parameters that vary, the one with the most values first."""
    counts = {name: len({str(point[name]) for point in grid}) for name in grid[0]}
    varied = [n for n in counts if counts[n] > 1 and n not in ("seed", "seeds")]
    return sorted(varied or counts, key=lambda name: -counts[name])


def _units(rows: pd.DataFrame) -> pd.Series:
    """Number what was drawn independently: points and seeds."""
    names = [c for c in rows if c.startswith(PREFIX)]
    names += ["seed"] if "seed" in rows else []
    return rows[names].astype(str).groupby(names, sort=False).ngroup()


def _panels(rows: pd.DataFrame) -> Figure:
    """Draw a panel for each `panel` and a line for each `line`, over `x`."""
    every = rows["panel"].unique()
    names = every[:PANELS]
    columns = min(3, len(names))
    down = -(-len(names) // columns)
    lines = list(rows["line"].unique())
    abreast = max(1, min(4, 90 // (max(map(len, lines)) + 9)))  # in the legend
    height = 2.8 * down + 0.5 + 0.22 * -(-len(lines) // abreast)
    figure, axes = plots.panels(down, columns, height)
    for axis, name in itertools.zip_longest(axes.flat, names):
        if name is None:
            axis.remove()
        else:
            _lines(axis, plots.where(rows, panel=name), lines)
            axis.set_title(name)
    if len(names) < len(every):
        figure.suptitle(f"the first {PANELS} of {len(every)}", fontsize=10)
    if len(lines) > 1:
        plots.finished(figure, abreast)
    return figure


def _lines(axis: Axes, rows: pd.DataFrame, names: list[str]) -> None:
    colours = itertools.cycle(sns.color_palette("colorblind"))
    looks = zip(names, colours, itertools.cycle(MARKERS), strict=False)
    for name, colour, marker in looks:
        own = rows[rows["line"] == name].groupby("x", sort=False)
        look = {"color": colour, "marker": marker, "label": name}
        plots.means(axis, list(own), look, 1)
