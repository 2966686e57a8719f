"""Draw chapter 3's figures.

A `table` is that of the chapter's results, with the columns `arm`, `place`, `attack`,
`epsilon` (in 255ths), `point`, `metric`, `seed`, `value` and those that a function
names. One value a library; bars are 95 % t intervals over libraries.
"""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottolab.pages.plots import PAPER, finished, means, where

SIZE = {"dpi": 90, "layout": "constrained"}
DOTS = {"linestyle": "none", "markersize": 5, "elinewidth": 0.8}
# Okabe and Ito's colours; what draws is filled, what does not is hollow.
LOOKS = {
    "dense": {"color": "#000000", "marker": "s", "markerfacecolor": "white"},
    "best ticket": {"color": "#56B4E9", "marker": "D", "markerfacecolor": "white"},
    "mean ticket": {"color": "#999999", "marker": "D", "markerfacecolor": "white"},
    "fixed team": {"color": "#CC79A7", "marker": "v", "markerfacecolor": "white"},
    "fixed teams": {"color": "#CC79A7", "marker": "v", "markerfacecolor": "white"},
    "static library": {"color": "#009E73", "marker": "^", "markerfacecolor": "white"},
    "R2S": {"color": "#E69F00", "marker": "D"},
    "matched": {"color": "#D55E00", "marker": "v"},
    "ensemble": {"color": "#0072B2", "marker": "o"},
}
STRUCTURES = {
    "first": {"color": "#0072B2", "marker": "o"},
    "second": {"color": "#D55E00", "marker": "s"},
    "third": {"color": "#009E73", "marker": "^"},
    "fourth": {"color": "#E69F00", "marker": "D"},
}


def tickets(table: pd.DataFrame, names: dict[str, str], paper: float) -> Figure:
    """Draw the tickets' accuracy against the ratio that remains, a line a structure.

    Rows of `point` transfer that are of a ticket, with the column `ratio`.

    Args:
        names: a structure's name by its place.
        paper: the lowest robust accuracy of a ticket there, in [0, 1].
    """
    figure, axes = plt.subplots(1, 2, sharey=True, figsize=(7.2, 3.8), **SIZE)
    rows = where(table, point="transfer", of="ticket")
    for axis, metric in zip(axes, ("clean_accuracy", "robust_accuracy"), strict=True):
        for place, look in STRUCTURES.items():
            here = where(rows, metric=metric, place=place)
            if len(here):
                _line(axis, here, "ratio", look | {"label": names[place]})
        axis.set_xscale("log")
        ratios = sorted(rows["ratio"].unique())
        axis.set_xticks(ratios, [f"{100 * r:g}" for r in ratios])
        axis.minorticks_off()
        axis.set_xlabel("weights that remain (%)")
    axes[1].axhline(100 * paper, **PAPER | {"label": "paper, lowest"})
    axes[0].set(ylabel="accuracy (%)", title="clean")
    axes[1].set_title("under PGD")
    return finished(figure)


def matrix(pairs: pd.DataFrame, names: list[str]) -> Figure:
    """Draw the accuracy of each ticket on examples of each other, as a heat map.

    Args:
        pairs: `accuracy` by `place` and `rank` of the target, and `source_place` and
            `source_rank`; several of a pair, as of several libraries, are averaged.
        names: of the structures, in order.
    """
    wide = pairs.pivot_table(
        index=["place", "rank"],
        columns=["source_place", "source_rank"],
        values="accuracy",
    )
    figure, axis = plt.subplots(figsize=(7.2, 6.0), **SIZE)
    image = axis.imshow(100 * wide.to_numpy(), cmap="cividis")
    counts = wide.index.get_level_values("place").value_counts(sort=False)
    ends = counts.cumsum().to_numpy()
    for end in ends[:-1] - 0.5:
        axis.axhline(end, color="white", linewidth=1.5)
        axis.axvline(end, color="white", linewidth=1.5)
    middles = ends - counts.to_numpy() / 2 - 0.5
    axis.set_xticks(middles, names)
    axis.set_yticks(middles, names)
    axis.grid(visible=False)
    axis.set(xlabel="made on a ticket of", ylabel="shown to a ticket of")
    figure.colorbar(image, label="accuracy (%)", shrink=0.8)
    return figure


def curves(table: pd.DataFrame, paper: dict[float, float]) -> Figure:
    """Draw accuracy under PGD, with EOT where something is drawn, against ε (Figure 2).

    Rows of `point` curve; of defences of one structure those of the first.

    Args:
        paper: the paper's accuracy of its ensemble in [0, 1], by ε in 255ths.
    """
    figure, axis = plt.subplots(figsize=(7.2, 4.4), **SIZE)
    rows = where(table, point="curve", metric="accuracy")
    rows = rows[rows["place"].isin(["first", "all"])]
    for arm, look in LOOKS.items():
        here = where(rows, arm=arm)
        if len(here):
            _line(axis, here, "epsilon", look | {"label": arm})
    places, values = list(paper), [100 * v for v in paper.values()]
    look = PAPER | {"marker": "*", "markersize": 11, "label": "paper, its own"}
    axis.plot(places, values, **look)
    axis.set(xlabel="ε (255ths)", ylabel="accuracy (%)")
    return finished(figure)


def attacks(table: pd.DataFrame, order: list[str]) -> Figure:
    """Draw the accuracy that each attack leaves of each defence, at the paper's ε.

    Rows of `point` main; of defences of one structure those of the first.

    Args:
        order: of the attacks, from above.
    """
    figure, axis = plt.subplots(figsize=(7.2, 5.4), **SIZE)
    rows = where(table, point="main", metric="accuracy")
    rows = rows[rows["place"].isin(["first", "all"])]
    arms = [arm for arm in LOOKS if arm in set(rows["arm"])]
    for shift, arm in zip(np.linspace(-0.32, 0.32, len(arms)), arms, strict=True):
        found = [
            (i + shift, where(rows, arm=arm, attack=name))
            for i, name in enumerate(order)
        ]
        means(axis, found, LOOKS[arm] | DOTS | {"label": arm}, flat=True)
    axis.set_yticks(range(len(order)), order)
    axis.invert_yaxis()
    axis.set_xlabel("accuracy (%)")
    return finished(figure)


def strongest(
    table: pd.DataFrame, names: dict[str, str], points: dict[str, str]
) -> Figure:
    """Draw each defence under the strongest attack on each image, a panel a radius.

    Rows of some `point`s: `accuracy`, the mean over draws, and `worst`, in all of them;
    hollow, what both are on clean images (there their `drop` is added).

    Args:
        names: a structure's name by its place.
        points: a panel's title by its `point`.
    """
    size = {"sharey": True, "figsize": (7.2, 4.4)}
    figure, axes = plt.subplots(1, len(points), squeeze=False, **size, **SIZE)
    shapes = {
        ("accuracy", "drop"): ("mean of the draws", "#0072B2", "o"),
        ("worst", "worst drop"): ("right in all draws", "#D55E00", "v"),
    }
    for axis, (point, title) in zip(axes[0], points.items(), strict=True):
        rows = where(table, point=point)
        kinds = list(rows.groupby(["arm", "place"], sort=False).groups)
        kinds.sort(key=lambda kind: list(LOOKS).index(kind[0]))
        for (metric, drop), (label, colour, marker) in shapes.items():
            look = DOTS | {"color": colour, "marker": marker}
            for hollow in (False, True):
                found = [
                    (i, _scores(rows, metric, drop if hollow else None, kind))
                    for i, kind in enumerate(kinds)
                ]
                more = {"markerfacecolor": "white", "alpha": 0.6} if hollow else {}
                more |= {"label": f"{label}, clean" if hollow else label}
                means(axis, found, look | more, flat=True)
        _lines(axis, kinds, names)
        axis.set(title=title, xlabel="accuracy (%)")
    axes[0][0].invert_yaxis()
    return finished(figure, 2)


def _lines(axis: Axes, kinds: list[tuple], names: dict[str, str]) -> None:
    """Name a line a defence, by its arm and its structure where it has one."""
    told = [f"{arm}, {names[p]}" if p in names else arm for arm, p in kinds]
    axis.set_yticks(range(len(kinds)), told)


def _scores(
    rows: pd.DataFrame, metric: str, drop: str | None, kind: tuple
) -> pd.DataFrame:
    """Return the rows of a metric, or what it was before the attack took its drop."""
    here = where(rows, arm=kind[0], place=kind[1], metric=metric)
    if drop is None:
        return here
    taken = where(rows, arm=kind[0], place=kind[1], metric=drop)
    both = here.set_index("seed")["value"] + taken.set_index("seed")["value"]
    return here.assign(value=here["seed"].map(both))


def training(
    table: pd.DataFrame, names: dict[str, str], panels: dict[tuple[str, float], str]
) -> Figure:
    """Draw what training on adversarial examples adds, a panel an attack and radius.

    Rows of `point` training, with the column `training`, adversarial or standard.

    Args:
        names: a structure's name by its place.
        panels: a panel's title by its attack and ε in 255ths.
    """
    rows = where(table, point="training", metric="accuracy")
    size = {"sharey": True, "figsize": (7.2, 2.9)}
    figure, axes = plt.subplots(1, len(panels), squeeze=False, **size, **SIZE)
    kinds = list(rows.groupby(["arm", "place"], sort=False).groups)
    looks = {"adversarial": {"color": "#0072B2", "marker": "o"}}
    looks["standard"] = {"color": "#D55E00", "marker": "o", "markerfacecolor": "white"}
    for axis, ((attack, radius), title) in zip(axes[0], panels.items(), strict=True):
        near = where(rows[np.isclose(rows["epsilon"], radius)], attack=attack)
        for name, look in looks.items():
            found = [
                (i, where(near, arm=arm, place=place, training=name))
                for i, (arm, place) in enumerate(kinds)
            ]
            label = {"label": f"{name} training"}
            means(axis, found, DOTS | look | label, flat=True)
        _lines(axis, kinds, names)
        axis.set(title=title, xlabel="accuracy (%)", xlim=(0, 100))
    axes[0][0].invert_yaxis()
    return finished(figure, 2)


def draws(table: pd.DataFrame) -> Figure:
    """Draw the ensemble's accuracy against the draws that each step of EOT averages.

    Rows of `point` draws, with the column `drawn`.
    """
    figure, axis = plt.subplots(figsize=(7.2, 3.6), **SIZE)
    rows = where(table, point="draws")
    for metric, label in (("accuracy", "mean of the draws"), ("worst", "in all draws")):
        look = LOOKS["ensemble"] | {"label": label}
        if metric == "worst":
            look |= {"linestyle": ":", "marker": "v"}
        _line(axis, where(rows, metric=metric), "drawn", look)
    counts = sorted(rows["drawn"].unique())
    axis.set_xscale("log", base=2)
    axis.set_xticks(counts, [f"{c:g}" for c in counts])
    axis.set(xlabel="draws a step", ylabel="accuracy (%)")
    return finished(figure)


def _line(axis: Axes, rows: pd.DataFrame, column: str, look: dict) -> None:
    thin = {"linewidth": 1.2, "markersize": 5}
    means(axis, list(rows.groupby(column)), thin | look)
