"""Dot plots: attacks, treatments and classes, by the models of a family."""

import pandas as pd
from matplotlib import ticker
from matplotlib.figure import Figure

from lottolab.membership.figures.style import LOOKS, percent
from lottolab.pages.plots import CHANCE, finished, means, panels, where

ATTACKS = {
    "mlp": "MLP (the paper's)",
    "correctness": "gap (correctness)",
    "lira, online": "LiRA, online",
    "lira, offline_tail": "LiRA, offline (tail)",
    "lira, offline_density": "LiRA, offline (density)",
    "rmia, online": "RMIA, online",
    "rmia, offline": "RMIA, offline",
    "rmia, online, gamma 1": "RMIA, online, γ = 1",
    "rmia, online, gamma 1, largest half": "RMIA, γ = 1, largest half",
    "rmia, offline, gamma 1": "RMIA, offline, γ = 1",
    "strongest": "the strongest, chosen elsewhere",
}
WAYS = {"iterative": "iterative", "snip": "SNIP", "grasp": "GraSP"}
WAYS |= {"synflow": "SynFlow", "random mask": "random mask"}
WAYS |= {"outsiders' mask": "outsiders’ mask", "partner's mask": "partner’s mask"}
TPR = "true positive rate (%) at\na false positive rate of 1 %"
# Metric to the name of its axis and what chance gives, both in percent.
METRICS = {
    "auc": ("AUC (%)", 50),
    "tpr at 1% fpr": (TPR, 1),
    "auc in class": ("AUC within the class (%)", 50),
}


def attacks(table: pd.DataFrame) -> Figure:
    """Draw the AUC, and the TPR at 1 % FPR, of each attack on three networks.

    Rows of `point` family; the networks are the dense one and the one-shot tickets of
    the levels ticket and high. The MLP is the first line, others follow as they first
    appear. The rates are on a logarithmic axis if none of them is 0.
    """
    rows = where(table, point="family")
    rows = rows[rows["attack"].notna() & rows["metric"].isin(METRICS)]
    names = {a: ATTACKS.get(a, a) for a in ["mlp", *rows["attack"].unique()]}
    series = [
        (look, {n: where(here, attack=a) for a, n in names.items()})
        for look, here in _three(rows)
    ]
    return _dots(series, ["auc", "tpr at 1% fpr"], apart=0.22)


def treatments(table: pd.DataFrame) -> Figure:
    """Draw the strongest attack's AUC, and TPR at 1 % FPR, on each way of pruning.

    Rows of `point` family at the level high, beside the dense network and the one-shot
    ticket of the level ticket.
    """
    rows = where(table, point="family", attack="strongest")
    series = [(look, {look.pop("label"): here}) for look, here in _three(rows)]
    high = where(rows, level="high")
    for arm, name in WAYS.items():
        if len(here := where(high, arm=arm)):
            look = LOOKS.get(arm, LOOKS["sparser"])
            series.append((look, {f"{name}, {percent(here)}": here}))
    return _dots(series, ["auc", "tpr at 1% fpr"])


def by_class(table: pd.DataFrame, names: list[str]) -> Figure:
    """Draw online LiRA's AUC within each class, on the networks of `attacks`.

    `table` also has the column `class`, a place in `names`.
    """
    rows = where(table, point="family", metric="auc in class", attack="lira, online")
    series = [
        (look, {n: here[here["class"] == k] for k, n in enumerate(names)})
        for look, here in _three(rows)
    ]
    return _dots(series, ["auc in class"], apart=0.22)


def _three(rows: pd.DataFrame) -> list[tuple[dict, pd.DataFrame]]:
    """Return the looks and rows of the networks that are compared, if there."""
    found = [(LOOKS["dense"] | {"label": "dense"}, where(rows, arm="dense"))]
    for level, look in {"ticket": "one-shot", "high": "sparser"}.items():
        if len(here := where(rows, arm="one-shot", level=level)):
            label = f"one-shot, {percent(here)}"
            found.append((LOOKS[look] | {"label": label}, here))
    return found


def _dots(series: list[tuple[dict, dict]], metrics: list[str], apart=0.0) -> Figure:
    """Draw a dot plot: (look, {line: rows}) for each kind of dot, a panel a metric."""
    names = dict.fromkeys(name for _, rows in series for name in rows)
    lines = [n for n in names if any(len(rows.get(n, ())) for _, rows in series)]
    figure, axes = panels(1, len(metrics), 1.6 + 0.32 * len(lines))
    for axis, metric in zip(axes[0], metrics, strict=True):
        label, chance = METRICS[metric]
        axis.axvline(chance, **CHANCE)
        for place, (look, rows) in enumerate(series):
            shift = apart * (place - (len(series) - 1) / 2)
            found = [
                (lines.index(name) + shift, where(here, metric=metric))
                for name, here in rows.items()
                if name in lines
            ]
            means(axis, found, {"linestyle": "none"} | look, 100, flat=True)
        dots = [c.lines[0].get_xdata().min() for c in axis.containers]
        if metric.startswith("tpr") and min(dots, default=0) > 0:
            axis.set_xscale("log")
            axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
            axis.xaxis.set_major_formatter("{x:g}")
            axis.minorticks_off()
        axis.set_xlabel(label)
    axes[0, 0].set_yticks(range(len(lines)), lines)
    axes[0, 0].set_ylim(max(1, len(lines)) - 0.5, -0.5)
    return finished(figure)
