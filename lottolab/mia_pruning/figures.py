"""Draw chapter 5's figures; style and intervals are those of chapter 2's.

A `table` is that of the chapter's results, with the columns `arm`, `level`, `point`,
`attack`, `metric`, `seed`, `value` and those that a function names. One value a trained
model; bars are 95 % t intervals. An axis without rows says "not measured".
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottolab.pages.plots import CHANCE, finished, pair, panels, where
from lottolab.truth import stats
from lottolab.truth.intervals import measured

# Okabe and Ito's colours; what prunes is filled, what does not is hollow.
LOOKS = {
    "parent": {"color": "#000000", "marker": "o", "markerfacecolor": "white"},
    "no defence": {"color": "#000000", "marker": "s", "markerfacecolor": "white"},
    "one-shot + rewind": {"color": "#0072B2", "marker": "o"},
    "prune + fine-tune": {"color": "#56B4E9", "marker": "D"},
    "ADMM": {"color": "#D55E00", "marker": "^"},
    "random + fine-tune": {"color": "#E69F00", "marker": "v"},
    "ADMM, converged": {"color": "#D55E00", "marker": "p"},
    "iterative ticket": {"color": "#0072B2", "marker": "H"},
    "borrowed ticket": {"color": "#0072B2", "marker": "H", "markerfacecolor": "white"},
    "joint ticket": {"color": "#0072B2", "marker": "8", "markerfacecolor": "white"},
    "ADMM, no penalty": {"color": "#D55E00", "marker": "p", "markerfacecolor": "white"},
    "ADMM + Min-Max": {"color": "#D55E00", "marker": "P"},
    "posterior balancing": {"color": "#56B4E9", "marker": "*"},
    "Min-Max": {"color": "#009E73", "marker": "X", "markerfacecolor": "white"},
    "early stopping": {"color": "#CC79A7", "marker": ">", "markerfacecolor": "white"},
    "weight decay": {"color": "0.45", "marker": "<", "markerfacecolor": "white"},
    "label smoothing": {"color": "0.45", "marker": "h", "markerfacecolor": "white"},
    "DP": {"color": "#009E73", "marker": "d", "markerfacecolor": "white"},
    "DP, looser": {"color": "#009E73", "marker": "1"},
    "DP, no noise": {"color": "#009E73", "marker": "+"},
}
CONTROLS = {
    ("DP, no noise", "no noise"): "--",
    ("no noise, no clipping", "nor clipping"): "-.",
    ("group norm", "nor this recipe"): ":",
}
FRONTIERS = {
    "auc": ("AUC of the strongest attack (%)", 100, 50),
    "tpr at 1% fpr": ("its TPR (%) at an FPR of 1 %", 100, 1),
}
GAP = "train-test gap (points)"
# Attack and metric to the name of the axis, its unit and what chance gives.
LEAKS = {
    ("nasr", "accuracy"): ("accuracy of the paper's attack (%)", 100, 50),
    ("lira, online", "auc"): ("AUC of LiRA, online (%)", 100, 50),
}


def frontier(table: pd.DataFrame) -> Figure:
    """Draw leakage against the accuracy on fresh images, a point a treatment.

    Rows of `point` leaking, with the errors of `intervals.measured`: the strongest
    attack's AUC, above, and its true positive rate at 1 % of false alarms. A line joins
    the levels of a treatment, between which accuracies are matched; the best place is
    at the lower right.
    """
    rows = where(table, point="leaking")
    fresh = where(rows, metric="fresh_accuracy")
    shown = [k for k in FRONTIERS if len(where(rows, metric=k))] or ["auc"]
    size = {"figsize": (7.2, 4.0 * len(shown)), "dpi": 90, "layout": "constrained"}
    figure, axes = plt.subplots(len(shown), 1, sharex=True, squeeze=False, **size)
    for axis, metric in zip(axes[:, 0], shown, strict=True):
        label, unit, chance = FRONTIERS[metric]
        leaks = where(rows, attack="strongest", metric=metric)
        for arm, look in LOOKS.items():
            here = where(leaks, arm=arm)
            if len(here):
                _path(axis, where(fresh, arm=arm), here, unit, look | {"label": arm})
        axis.axhline(chance, **CHANCE)
        axis.set_ylabel(label)
    # An interval that is wider than all the rest is not to push them together.
    means = 100 * fresh.groupby(["arm", "level"])["value"].mean()
    if len(means):
        axes[-1, 0].set_xlim(means.min() - 1.5, means.max() + 1.5)
    axes[-1, 0].set_xlabel("accuracy on fresh images (%)")
    return finished(figure, columns=4)


def _path(axis: Axes, across: pd.DataFrame, up: pd.DataFrame, unit: int, look) -> None:
    levels = list(dict.fromkeys(up["level"]))
    x, wide = _pooled([where(across, level=level) for level in levels], 100)
    y, tall = _pooled([where(up, level=level) for level in levels], unit)
    thin = {"linewidth": 1, "elinewidth": 0.8}
    axis.errorbar(x, y, xerr=wide, yerr=tall, **thin, **look)


def _pooled(groups: list[pd.DataFrame], unit: float) -> tuple[np.ndarray, list]:
    """Return what `_means` does, of rows that bring their errors."""
    found = [measured.pooled(rows).interval() for rows in groups]
    mean, low, high = (
        unit * np.array([getattr(i, end) for i in found])
        for end in ("estimate", "low", "high")
    )
    return mean, [mean - low, high - mean]


def _means(groups: list[pd.Series]) -> tuple[np.ndarray, list]:
    """Return the mean of each group and how far its interval reaches, down and up."""
    found = [stats.mean_interval(values) for values in groups]
    mean = np.array([i.estimate for i in found])
    return mean, [mean - [i.low for i in found], [i.high for i in found] - mean]


def against_gap(table: pd.DataFrame) -> Figure:
    """Draw leakage against the train-test gap, a dot for each model of the chapter.

    Rows of `point` family; the gap is that between members and the pool's non-members.
    """
    rows = where(table, point="family")
    key = ["arm", "level", "seed"]
    wide = rows[rows["attack"].isna()].pivot_table(
        index=key, columns="metric", values="value"
    )
    gap = 100 * (wide["member_accuracy"] - wide["nonmember_accuracy"])
    figure, axes = pair(5.2)
    for axis, (attack, metric) in zip(axes, list(LEAKS)[:2], strict=True):
        label, unit, chance = LEAKS[attack, metric]
        leak = unit * where(rows, attack=attack, metric=metric).set_index(key)["value"]
        for arm, look in LOOKS.items():
            if arm in leak.index.get_level_values("arm"):
                x, y = gap.loc[arm], leak.loc[arm]
                thin = {"linestyle": "none", "markersize": 4, "alpha": 0.6}
                axis.errorbar(x, y.reindex(x.index), **look | thin, label=arm)
        low, high = axis.get_xlim()
        floor = np.array([max(0, low), high])
        if metric == "accuracy":
            dashes = {"color": "0.5", "linestyle": "--", "label": "gap attack"}
            axis.plot(floor, 50 + floor / 2, **dashes)
        axis.axhline(chance, **CHANCE)
        axis.set(xlabel=GAP, ylabel=label)
    return finished(figure, columns=4)


def learning(histories: dict[str, pd.DataFrame], table: pd.DataFrame) -> Figure:
    """Draw the loss while networks train and the attack's accuracy while it learns.

    The counterpart of Figure 2: a column a network.

    Args:
        histories: arm to the history of its second half, `loss` by `epoch`, in order.
        table: its rows of `point` learning, with the column `attack_epoch`.
    """
    rows = where(table, point="learning")
    size = {"figsize": (7.2, 5.0), "dpi": 90, "layout": "constrained"}
    figure, axes = plt.subplots(2, len(histories), sharey="row", squeeze=False, **size)
    for (above, below), (arm, history) in zip(axes.T, histories.items(), strict=True):
        look = LOOKS[arm] | {"linewidth": 1, "markersize": 4}
        above.plot(range(1, len(history) + 1), history["loss"], **look)
        above.set(title=arm, xlabel="epoch of the network")
        groups = dict(list(where(rows, arm=arm).groupby("attack_epoch")["value"]))
        mean, error = _means([100 * values for values in groups.values()])
        below.errorbar(list(groups), mean, yerr=error, capsize=2, **look)
        below.axhline(50, **CHANCE)
        below.set_xlabel("epoch of the attack")
    axes[0, 0].set_ylabel("training loss")
    axes[0, 0].set_yscale("symlog", linthresh=0.1)
    axes[1, 0].set_ylabel("attack accuracy (%)")
    figure.align_ylabels()
    return figure


def weights(found: dict[str, np.ndarray]) -> Figure:
    """Draw histograms of weights, a panel each, and the share of zeros (Figure 3).

    Args:
        found: arm to its prunable weights, float[n].
    """
    figure, axes = panels(1, len(found), 3.0)
    ends = np.quantile(np.abs(np.concatenate(list(found.values()))), 0.999)
    bins = np.linspace(-ends, ends, 60)
    for axis, (arm, values) in zip(axes[0], found.items(), strict=True):
        zeros = (values == 0).mean()
        axis.hist(values[values != 0], bins, color=LOOKS[arm]["color"])
        axis.set_title(f"{arm}\n{100 * zeros:.0f} % zeros", fontsize=10)
        axis.set_xlabel("weight")
        axis.locator_params(axis="x", nbins=3)
    axes[0, 0].set_yscale("log")
    axes[0, 0].set_ylabel("weights that are not 0")
    return figure


def in_classes(found: dict[str, pd.DataFrame], names: list[str]) -> Figure:
    """Draw the attack's accuracy in each class against the network's gap in it.

    Args:
        found: arm to the classes' rows of several networks, with the columns `class`,
            `metric` (`gap in class`, `accuracy in class`) and `value`.
        names: of the classes.
    """
    figure, axes = panels(1, len(found), 3.8)
    for axis, (arm, rows) in zip(axes[0], found.items(), strict=True):
        wide = 100 * rows.pivot_table(index="class", columns="metric", values="value")
        x, y = wide["gap in class"], wide["accuracy in class"]
        axis.plot(x, y, linestyle="none", **LOOKS[arm])
        for number in wide.index:
            place = (x[number], y[number])
            axis.annotate(
                names[int(number)],
                place,
                fontsize=8,
                xytext=(4, 3),
                textcoords="offset points",
            )
        axis.axhline(50, **CHANCE)
        axis.set(title=arm, xlabel="gap in the class (points)")
    axes[0, 0].set_ylabel("attack accuracy in the class (%)")
    return figure


def privacy(table: pd.DataFrame) -> Figure:
    """Draw accuracy and attack against ε, beside controls that change one thing each.

    Rows of `point` privacy, with the column `epsilon` (none for the controls).
    """
    rows = where(table, point="privacy")
    figure, axes = pair(3.6)
    shown = {
        "accuracy on fresh images (%)": where(rows, metric="fresh_accuracy"),
        LEAKS["nasr", "accuracy"][0]: where(rows, metric="accuracy", attack="nasr"),
    }
    for axis, (label, here) in zip(axes, shown.items(), strict=True):
        found = dict(list(where(here, arm="DP").groupby("epsilon")["value"]))
        mean, error = _means([100 * values for values in found.values()])
        axis.errorbar(list(found), mean, yerr=error, capsize=2, **LOOKS["DP"])
        for (arm, said), line in CONTROLS.items():
            control = 100 * where(here, arm=arm)["value"].mean()
            axis.axhline(control, color="black", linestyle=line, label=said)
        axis.set_xscale("log")
        axis.set_xticks(list(found), [f"{e:g}" for e in found])
        axis.minorticks_off()
        axis.set(xlabel="ε", ylabel=label)
    axes[1].axhline(50, **CHANCE)
    return finished(figure)
