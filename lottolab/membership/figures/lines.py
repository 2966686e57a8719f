"""Lines: the attack's accuracy against sparsity, classes and examples."""

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottolab.membership.figures.style import LOOKS
from lottolab.pages.plots import CHANCE, PAPER, finished, means, panels, where

NETWORKS = ("small", "larger")
NAMES = {"mlp": "MLP", "mlp, chosen": "MLP"}
KINDS = {
    "members": {"linestyle": "-"},
    "non-members": {"linestyle": ":", "markerfacecolor": "white"},
}
DESIGNS = {
    "fixed total": "as many images\nin all",
    "fixed per class": "as many images\na class",
    "same images": "the same\nimages",
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
    rows = where(table, point="curve")
    ticks = sorted(rows["sparsity"].unique())
    rows = rows.assign(place=rows["sparsity"].map(ticks.index))
    figure, axes = panels(2, 2, 5.4, height_ratios=(3, 2))
    for network, (above, below) in zip(NETWORKS, axes.T, strict=True):
        here = where(rows, network=network)
        for bound in (paper or {}).get(network, ()):
            above.axhline(100 * bound, **PAPER)
        above.axhline(50, **CHANCE)
        _arms(above, where(here, metric="accuracy", attack="mlp"))
        for kind, look in KINDS.items():
            metric = kind.replace("-", "").replace("members", "member_accuracy")
            _arms(below, where(here, metric=metric), **look, label=None)
            below.plot([], [], "o", color="0.5", label=f"on {kind}", **look)
        above.set_title(f"{network} network")
        below.set_xticks(range(len(ticks)), [f"{100 * s:g} %" for s in ticks])
        below.set_xlabel("sparsity (share of weights removed)")
    axes[0, 0].set_ylabel("attack accuracy (%)")
    axes[1, 0].set_ylabel("network’s\naccuracy (%)")
    figure.align_ylabels()
    return finished(figure)


def classes(table: pd.DataFrame, paper: dict[int, float]) -> Figure:
    """Draw the attack's accuracy against the number of classes (§4.1.1).

    The MLP learns from all known examples, in the encoding that is best elsewhere.

    Args:
        table: also with the column `classes`; a panel each of three values of `point`.
        paper: number of classes to the accuracy that the paper reports.
    """
    figure, axes = panels(1, 3, 3.7)
    thin = {"linestyle": ":", "linewidth": 1, "markersize": 4}
    for axis, (design, title) in zip(axes[0], DESIGNS.items(), strict=True):
        axis.plot(paper.keys(), [100 * v for v in paper.values()], **PAPER)
        here = where(table, point=design)
        _pair(axis, here, "classes", {"mlp, chosen": {}, "loss threshold": thin})
        axis.set_title(title, fontsize=11)
    axes[0, 1].set_xlabel("classes")
    axes[0, 0].set_ylabel("attack accuracy (%)")
    return finished(figure, columns=3)


def samples(table: pd.DataFrame) -> Figure:
    """Draw the MLP's accuracy against the examples that it learns from (Figure 3).

    `table` also has the column `samples`; its rows of `point` samples are drawn.
    """
    figure, axes = panels(1, 2, 3.7)
    for axis, network in zip(axes[0], NETWORKS, strict=True):
        here = where(table, point="samples", network=network)
        _pair(axis, here, "samples", {"mlp": {}})
        axis.set(title=f"{network} network", xlabel="examples to learn from")
    axes[0, 0].set_ylabel("attack accuracy (%)")
    return finished(figure)


def _arms(axis: Axes, rows: pd.DataFrame, **more) -> None:
    """Draw tickets as a line from the dense network on; the other arms beside it."""
    ticket = rows[rows["arm"].isin(["dense", "one-shot"])]
    look = LOOKS["one-shot"] | {"label": "one-shot"}
    means(axis, list(ticket.groupby("place")), look | more)
    for arm, shift in {"dense": 0, "late": -0.2, "random mask": 0.2}.items():
        look = LOOKS[arm] | {"label": arm} | more | {"linestyle": "none"}
        groups = where(rows, arm=arm).groupby("place")
        means(axis, [(place + shift, here) for place, here in groups], look)


def _pair(axis: Axes, rows: pd.DataFrame, by: str, shown: dict[str, dict]) -> None:
    """Draw the accuracy of attacks on the dense network and the ticket, side by side.

    `by` is the column on the logarithmic axis; `shown` gives an attack's look.
    """
    axis.axhline(50, **CHANCE)
    rows = where(rows, metric="accuracy")
    for attack, more in shown.items():
        for arm, factor in {"dense": 0.96, "one-shot": 1.04}.items():
            name = f"{arm}, {NAMES.get(attack, attack)}"
            look = LOOKS[arm] | more | {"label": name}
            groups = where(rows, arm=arm, attack=attack).groupby(by)
            means(axis, [(place * factor, here) for place, here in groups], look)
    if len(ticks := sorted(rows[by].unique())):
        axis.set_xscale("log")
        axis.set_xticks(ticks, [f"{t:,.0f}" for t in ticks])
        axis.minorticks_off()
