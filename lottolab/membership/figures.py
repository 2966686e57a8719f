"""Draw chapter 2's figures; look and colours are those of `lottolab.plots`.

Numbers are means over seeds, one value a trained model, with 95 % t intervals; rows
that hold two values for one model are refused. An axis whose rows the table lacks, as
at smoke scale, says "not measured". A `table` is that of the chapter's results, with
the columns `arm`, `level`, `sparsity`, `network`, `point`, `attack`, `metric`, `seed`,
`value` and those that a function names; values are in [0, 1].
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

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
NETWORKS = ("small", "larger")
KINDS = {
    "members": {"linestyle": "-"},
    "non-members": {"linestyle": ":", "markerfacecolor": "white"},
}
DESIGNS = {
    "fixed total": "as many images\nin all",
    "fixed per class": "as many images\na class",
    "same images": "the same\nimages",
}
ATTACKS = {
    "mlp": "MLP (the paper's)",
    "correctness": "gap (correctness)",
    "lira, online": "LiRA, online",
    "lira, offline_tail": "LiRA, offline (tail)",
    "lira, offline_density": "LiRA, offline (density)",
    "rmia, online": "RMIA, online",
    "rmia, offline": "RMIA, offline",
}
WAYS = {"iterative": "iterative", "snip": "SNIP", "grasp": "GraSP"}
WAYS |= {"synflow": "SynFlow", "random mask": "random mask"}
TPR = "true positive rate (%) at\na false positive rate of 1 %"
# Metric to the name of its axis, its unit and what chance gives.
METRICS = {
    "auc": ("AUC", 1, 0.5),
    "tpr at 1% fpr": (TPR, 100, 1),
    "auc in class": ("AUC within the class", 1, 0.5),
}


def curve(
    table: pd.DataFrame, paper: dict[str, tuple[float, float]] | None = None
) -> Figure:
    """Draw the MLP's accuracy against sparsity, and what it lives on (Figures 1, 2).

    Upper row: the attack's accuracy; lower row: the attacked network's. A column a
    network.

    Args:
        table: its rows of `point` curve are drawn.
        paper: network to the lowest and highest accuracy that the paper reports.
    """
    rows = _where(table, point="curve")
    ticks = sorted(rows["sparsity"].unique())
    rows = rows.assign(place=rows["sparsity"].map(ticks.index))
    figure, axes = _panels(2, 2, 5.4, height_ratios=(3, 2))
    for network, (above, below) in zip(NETWORKS, axes.T, strict=True):
        here = _where(rows, network=network)
        for bound in (paper or {}).get(network, ()):
            above.axhline(100 * bound, **PAPER)
        above.axhline(50, **CHANCE)
        _arms(above, _where(here, metric="accuracy", attack="mlp"))
        for kind, look in KINDS.items():
            metric = kind.replace("-", "").replace("members", "member_accuracy")
            _arms(below, _where(here, metric=metric), **look, label=None)
            below.plot([], [], "o", color="0.5", label=f"on {kind}", **look)
        above.set_title(f"{network} network")
        below.set_xticks(range(len(ticks)), [f"{100 * s:g} %" for s in ticks])
        below.set_xlabel("sparsity (share of weights removed)")
    axes[0, 0].set_ylabel("attack accuracy (%)")
    axes[1, 0].set_ylabel("network’s\naccuracy (%)")
    figure.align_ylabels()
    return _finished(figure)


def classes(table: pd.DataFrame, paper: dict[int, float]) -> Figure:
    """Draw the attack's accuracy against the number of classes (§4.1.1).

    Args:
        table: also with the column `classes`; a panel each of three values of `point`.
        paper: number of classes to the accuracy that the paper reports.
    """
    figure, axes = _panels(1, 3, 3.7)
    thin = {"linestyle": ":", "linewidth": 1, "markersize": 4}
    for axis, (design, title) in zip(axes[0], DESIGNS.items(), strict=True):
        axis.plot(paper.keys(), [100 * v for v in paper.values()], **PAPER)
        here = _where(table, point=design)
        _pair(axis, here, "classes", {"mlp": {}, "loss threshold": thin})
        axis.set_title(title, fontsize=11)
    axes[0, 1].set_xlabel("classes")
    axes[0, 0].set_ylabel("attack accuracy (%)")
    return _finished(figure, columns=3)


def samples(table: pd.DataFrame) -> Figure:
    """Draw the MLP's accuracy against the examples that it learns from (Figure 3).

    `table` also has the column `samples`; its rows of `point` samples are drawn.
    """
    figure, axes = _panels(1, 2, 3.7)
    for axis, network in zip(axes[0], NETWORKS, strict=True):
        here = _where(table, point="samples", network=network)
        _pair(axis, here, "samples", {"mlp": {}})
        axis.set(title=f"{network} network", xlabel="examples to learn from")
    axes[0, 0].set_ylabel("attack accuracy (%)")
    return _finished(figure)


def transfer(table: pd.DataFrame, names: dict[str, str]) -> Figure:
    """Draw the accuracy of attacks on networks they were not learned on (Figure 4).

    Args:
        table: also with the columns `source` (a line) and `target` (a column), such as
            "small, ticket"; in the order of their first appearance; means over seeds.
        names: what to write for a part of these, such as {"ticket": "80 %"}.
    """
    rows = _where(table, point="transfer", metric="accuracy")
    wide = rows.pivot_table(index="source", columns="target", values="value")
    wide = 100 * wide.reindex(rows["source"].unique(), columns=rows["target"].unique())
    labels = [
        [", ".join(names.get(part, part) for part in name.split(", ")) for name in axis]
        for axis in (wide.index, wide.columns)
    ]
    figure, axis = plt.subplots(figsize=(7.2, 6), dpi=72, layout="constrained")
    if wide.empty:
        return _finished(figure)
    text = {"annot": True, "fmt": ".1f", "annot_kws": {"fontsize": 10}}
    sns.heatmap(wide, ax=axis, cmap="cividis", cbar=False, **text)
    axis.set_title("attack accuracy (%)")
    axis.set_yticks(axis.get_yticks(), labels[0], fontsize=10, rotation=0)
    axis.set_xticks(axis.get_xticks(), labels[1], fontsize=10, rotation=90)
    axis.set_ylabel("source: the attack was learned on")
    axis.set_xlabel("target: the attack is used on")
    return figure


def attacks(table: pd.DataFrame) -> Figure:
    """Draw the AUC, and the TPR at 1 % FPR, of each attack on three networks.

    Rows of `point` family; the networks are the dense one and the one-shot tickets of
    the levels ticket and high. The MLP is the first line, others follow as they first
    appear. The rates are on a logarithmic axis if none of them is 0.
    """
    rows = _where(table, point="family")
    rows = rows[rows["attack"].notna() & rows["metric"].isin(METRICS)]
    names = {a: ATTACKS.get(a, a) for a in ["mlp", *rows["attack"].unique()]}
    series = [
        (look, {n: _where(here, attack=a) for a, n in names.items()})
        for look, here in _three(rows)
    ]
    return _dots(series, ["auc", "tpr at 1% fpr"], apart=0.22)


def treatments(table: pd.DataFrame) -> Figure:
    """Draw online LiRA's AUC, and TPR at 1 % FPR, against each way of pruning.

    Rows of `point` family at the level high, beside the dense network and the one-shot
    ticket of the level ticket.
    """
    rows = _where(table, point="family", attack="lira, online")
    series = [(look, {look.pop("label"): here}) for look, here in _three(rows)]
    high = _where(rows, level="high")
    for arm, name in WAYS.items():
        if len(here := _where(high, arm=arm)):
            look = LOOKS.get(arm, LOOKS["sparser"])
            series.append((look, {f"{name}, {_percent(here)}": here}))
    return _dots(series, ["auc", "tpr at 1% fpr"])


def roc(families: dict[str, tuple[ArrayLike, ArrayLike]]) -> Figure:
    """Draw ROC curves, both axes logarithmic, each over all models of a family.

    Args:
        families: name to scores, float [models, images], larger for "more likely a
            member", and membership, bool of the same shape. Their colours are those of
            the dense network, the ticket, the sparser ticket, the random mask and the
            late ticket, in this order.
    """
    most = len(LOOKS)
    require(len(families) <= most, f"at most {most} families fit", len(families))
    figure, axis = plt.subplots(figsize=(7.2, 4.6), dpi=90, layout="constrained")
    for look, (name, pair) in zip(LOOKS.values(), families.items(), strict=False):
        scores, member = (np.asarray(x) for x in pair)
        same = scores.shape == member.shape
        require(same, f"{name}: scores and membership must be alike", scores.shape)
        # Between two points on a line a curve of steps would run too low.
        every = {"drop_intermediate": False}
        fpr, tpr, _ = roc_curve(member.ravel(), scores.ravel(), **every)
        line = {"color": look["color"], "drawstyle": "steps-post", "label": name}
        axis.plot(100 * fpr, 100 * tpr, **line)
    axis.plot([0.01, 100], [0.01, 100], **CHANCE | {"linestyle": "--"})
    axis.set(xscale="log", yscale="log", xlim=(0.01, 100), ylim=(0.01, 120))
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter("{x:g}")
    axis.minorticks_off()
    axis.set(xlabel="false positive rate (%)", ylabel="true positive rate (%)")
    axis.legend(loc="lower right")
    return figure


def by_class(table: pd.DataFrame, names: list[str]) -> Figure:
    """Draw online LiRA's AUC within each class, on the networks of `attacks`.

    `table` also has the column `class`, a place in `names`.
    """
    rows = _where(table, point="family", metric="auc in class", attack="lira, online")
    series = [
        (look, {n: here[here["class"] == k] for k, n in enumerate(names)})
        for look, here in _three(rows)
    ]
    return _dots(series, ["auc in class"], apart=0.22)


def exposure(first: ArrayLike, second: ArrayLike, names: tuple[str, str]) -> Figure:
    """Draw how exposed each image is by two ways of training; float [N], NaN left out.

    `names` are those of the two ways, on the axes; the title has the rank correlation.
    """
    pairs = pd.DataFrame({"a": np.asarray(first), "b": np.asarray(second)}).dropna()
    figure, axis = plt.subplots(figsize=(7.2, 4.6), dpi=90, layout="constrained")
    rank = pairs.corr("spearman").iloc[0, 1]
    axis.set_title(f"rank correlation {rank:.2f}, {len(pairs):,} images")
    look = {"s": 5, "alpha": 0.3, "linewidths": 0, "rasterized": True}
    axis.scatter(pairs["a"], pairs["b"], color=COLOURS["ticket"], **look)
    axis.axline((0, 0), slope=1, color="0.5", linewidth=1)
    axis.set_xlabel(f"exposure by {names[0]}")
    axis.set_ylabel(f"exposure by {names[1]}")
    axis.set_aspect("equal")
    return figure


def examples(images: ArrayLike, rows: dict[str, list[int]]) -> Figure:
    """Draw rows of images, uint8 N×C×H×W, under their titles: places of images."""
    grid = (len(rows), max(1, *map(len, rows.values())))
    size = (7.2, 1.05 * len(rows))
    figure, axes = plt.subplots(*grid, figsize=size, dpi=80, squeeze=False)
    figure.subplots_adjust(0, 0, 1, 1, wspace=0.08, hspace=0.4)
    for line, (title, places) in zip(axes, rows.items(), strict=True):
        for axis in line:
            axis.set_axis_off()
        for axis, place in zip(line, places, strict=False):
            picture = np.asarray(images[place]).transpose(1, 2, 0).squeeze()
            axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        line[0].set_title(title, loc="left", fontsize=11)
    return figure


def _where(table: pd.DataFrame, **marks: str | int) -> pd.DataFrame:
    """Return the rows whose columns have these values."""
    return table[np.logical_and.reduce([table[c] == v for c, v in marks.items()])]


def _percent(rows: pd.DataFrame) -> str:
    return f"{100 * rows['sparsity'].iloc[0]:g} %"


def _three(rows: pd.DataFrame) -> list[tuple[dict, pd.DataFrame]]:
    """Return the looks and rows of the networks that are compared, if there."""
    found = [(LOOKS["dense"] | {"label": "dense"}, _where(rows, arm="dense"))]
    for level, look in {"ticket": "one-shot", "high": "sparser"}.items():
        if len(here := _where(rows, arm="one-shot", level=level)):
            label = f"one-shot, {_percent(here)}"
            found.append((LOOKS[look] | {"label": label}, here))
    return found


def _panels(lines: int, columns: int, height: float, **ratios):
    """Return a figure with axes lines × columns, which share the y axis of a line."""
    more = {"sharey": "row", "sharex": "col", "layout": "constrained"}
    size = {"figsize": (7.2, height), "dpi": 90, "squeeze": False}
    return plt.subplots(lines, columns, **size, **more, **ratios)


def _means(axis: Axes, found: list, look: dict, unit: int = 100, flat=False) -> None:
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


def _arms(axis: Axes, rows: pd.DataFrame, **more) -> None:
    """Draw tickets as a line from the dense network on; the other arms beside it."""
    ticket = rows[rows["arm"].isin(["dense", "one-shot"])]
    look = LOOKS["one-shot"] | {"label": "one-shot"}
    _means(axis, list(ticket.groupby("place")), look | more)
    for arm, shift in {"dense": 0, "late": -0.2, "random mask": 0.2}.items():
        look = LOOKS[arm] | {"label": arm} | more | {"linestyle": "none"}
        groups = _where(rows, arm=arm).groupby("place")
        _means(axis, [(place + shift, here) for place, here in groups], look)


def _pair(axis: Axes, rows: pd.DataFrame, by: str, shown: dict[str, dict]) -> None:
    """Draw the accuracy of attacks on the dense network and the ticket, side by side.

    `by` is the column on the logarithmic axis; `shown` gives an attack's look.
    """
    axis.axhline(50, **CHANCE)
    rows = _where(rows, metric="accuracy")
    for attack, more in shown.items():
        for arm, factor in {"dense": 0.96, "one-shot": 1.04}.items():
            name = f"{arm}, {'MLP' if attack == 'mlp' else attack}"
            look = LOOKS[arm] | more | {"label": name}
            groups = _where(rows, arm=arm, attack=attack).groupby(by)
            _means(axis, [(place * factor, here) for place, here in groups], look)
    if len(ticks := sorted(rows[by].unique())):
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
        axis.minorticks_off()


def _dots(series: list[tuple[dict, dict]], metrics: list[str], apart=0.0) -> Figure:
    """Draw a dot plot: (look, {line: rows}) for each kind of dot, a panel a metric."""
    names = dict.fromkeys(name for _, rows in series for name in rows)
    lines = [n for n in names if any(len(rows.get(n, ())) for _, rows in series)]
    figure, axes = _panels(1, len(metrics), 1.6 + 0.32 * len(lines))
    for axis, metric in zip(axes[0], metrics, strict=True):
        label, unit, chance = METRICS[metric]
        axis.axvline(chance, **CHANCE)
        for place, (look, rows) in enumerate(series):
            shift = apart * (place - (len(series) - 1) / 2)
            found = [
                (lines.index(name) + shift, _where(here, metric=metric))
                for name, here in rows.items()
                if name in lines
            ]
            _means(axis, found, {"linestyle": "none"} | look, unit, flat=True)
        dots = [c.lines[0].get_xdata().min() for c in axis.containers]
        if metric.startswith("tpr") and min(dots, default=0) > 0:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        axis.set_xlabel(label)
    axes[0, 0].set_yticks(range(len(lines)), lines)
    axes[0, 0].set_ylim(max(1, len(lines)) - 0.5, -0.5)
    return _finished(figure)


def _finished(figure: Figure, columns: int = 4) -> Figure:
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
