"""The figures of the chapter `together`, drawn from its results table."""

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lottolab.pages import plots
from lottolab.truth import stats
from lottolab.truth.intervals import measured

BLUE, ORANGE, GREEN, PINK, GREY = "#0072B2", "#D55E00", "#009E73", "#CC79A7", "0.35"
MASK = {  # by what the attacker does, and from which initialisation he knows
    ("weights", ""): "the trained weights",
    ("retrained", ""): "mask, trained on other images",
    ("aligned", ""): "mask and initialisation, aligned",
    ("untrained", ""): "mask on the initialisation",
    ("same initialisation", "first"): "the same, references from it too",
    ("same initialisation", "second"): "the same, another initialisation",
    ("mask of other images", "first"): "control: mask of other images",
}
GUARDS = {"ModelGuard-S": (BLUE, "o"), "ModelGuard-W": (ORANGE, "s")}
LEVELS = (BLUE, GREEN, ORANGE, PINK)
# What is measured of each defence: the metric, what it is called, which way is better.
WORTH = {
    "signature": ("signature", "signature:\nmodules in agreement", 1),
    "triggers": ("triggers", "triggers:\nanswers in agreement", 1),
    "pruning": ("auc", "pruning:\nmembership AUC", -1),
    "ModelGuard": ("copy accuracy", "ModelGuard-S:\naccuracy of a copy", -1),
    "team": ("robust accuracy", "team:\naccuracy under PGD", 1),
}
NONE = "nothing"


def masks(table: pd.DataFrame) -> pd.DataFrame:
    """Return how much each use of a mask gives away, a row a use and attack.

    `place` in MASK, `use`, `attack` and the AUC, `estimate`, `low` and `high`, in
    percent. Where a pool brings its error, the interval is that; else it is over the
    networks.
    """
    own, rows = plots.where(table, question="mask"), []
    for place, ((kind, start), use) in enumerate(MASK.items()):
        found = plots.where(own, kind=kind)
        found = plots.where(found, start=start) if start else found
        for attack, part in found.groupby("attack", sort=False):
            whole = plots.where(part, metric="pool auc")
            each = plots.where(part, metric="auc")["value"]
            pool = len(whole) > 0
            i = measured.pooled(whole).interval() if pool else stats.mean_interval(each)
            rows.append((place, use, attack, i.estimate, i.low, i.high))
    names = ["place", "use", "attack", "estimate", "low", "high"]
    found = pd.DataFrame(rows, columns=names)
    return found.assign(**{n: 100 * found[n] for n in names[3:]})


def mask_alone(table: pd.DataFrame) -> Figure:
    """Draw what masks and weights give away: `masks`, and a dot a network."""
    figure, axes = plots.panels(1, 1, 3.4)
    axis, own = axes[0, 0], plots.where(table, question="mask", metric="auc")
    own = plots.where(own, attack="lira, online")
    for place, (kind, start) in enumerate(MASK):
        rows = plots.where(own, kind=kind)
        rows = plots.where(rows, start=start) if start else rows
        dots = {"s": 14, "alpha": 0.5, "color": GREY, "linewidths": 0}
        axis.scatter(100 * rows["value"], np.full(len(rows), place - 0.15), **dots)
    found = plots.where(masks(table), attack="lira, online")
    mean, y = found["estimate"], found["place"] + 0.15
    look = {"fmt": "o", "color": BLUE, "capsize": 2}
    axis.errorbar(mean, y, xerr=[mean - found["low"], found["high"] - mean], **look)
    axis.set_yticks(range(len(MASK)), list(MASK.values()))
    axis.set_ylim(len(MASK) - 0.5, -0.5)
    axis.axvline(50, **plots.CHANCE)
    axis.set_xlabel("AUC of online LiRA (%); grey: each network")
    return figure


def copies(table: pd.DataFrame) -> Figure:
    """Draw what a copy gives away of its target's members, and its own accuracy."""
    figure, axes = plots.pair(3.4)
    own = plots.where(table, question="evidence", suspect="copy")
    parts = [("auc", "AUC on the target's members (%)")]
    parts += [("accuracy", "accuracy of the copy (%)")]
    for axis, (metric, label) in zip(axes, parts, strict=True):
        rows = plots.where(own, metric=metric)
        for guard, (colour, marker) in GUARDS.items():
            found = plots.where(rows, guard=guard).groupby("epsilon")
            points = [(0.0, plots.where(rows, guard="none")), *found]
            look = {"color": colour, "marker": marker, "label": guard}
            plots.means(axis, points, look)
        _level(axis, plots.where(rows, guard="Top-1"), "labels alone")
        axis.set_ylabel(label)
        axis.set_xlabel("ε of the defence (0: none)")
    axes[0].axhline(50, **plots.CHANCE)
    return plots.finished(figure)


def guards(table: pd.DataFrame) -> Figure:
    """Draw online LiRA through defended answers, by ε and what the attacker knows."""
    figure, axes = plots.panels(1, 2, 3.4)
    own = plots.where(table, question="guard", metric="auc")
    for axis, aware in zip(axes[0], ("aware", "unaware"), strict=True):
        rows = plots.where(own, attack="lira, online", attacker=aware)
        for guard, (colour, marker) in GUARDS.items():
            found = plots.where(rows, guard=guard).groupby("epsilon")
            points = [(0.0, plots.where(rows, guard="none")), *found]
            look = {"color": colour, "marker": marker, "label": guard}
            plots.means(axis, points, look)
        votes = plots.where(own, attack="label only", guard="none")
        _level(axis, votes, "label-only attack")
        axis.axhline(50, **plots.CHANCE)
        axis.set_title(f"{aware} of the defence", fontsize=11)
        axis.set_xlabel("ε of the defence (0: none)")
    axes[0, 0].set_ylabel("AUC of online LiRA (%)")
    return plots.finished(figure)


def _level(axis, rows: pd.DataFrame, label: str) -> None:
    """Draw a mean that does not depend on x."""
    if len(rows):
        mean = 100 * rows["value"].mean()
        axis.axhline(mean, color=GREEN, linestyle="--", linewidth=1.5, label=label)


def gaps(table: pd.DataFrame) -> Figure:
    """Draw the AUC against the gap on the way of each training, by sparsity."""
    figure, axes = plots.panels(1, 1, 3.8)
    axis, own = axes[0, 0], plots.where(table, question="trajectory")
    wide = own.pivot_table(
        index=["sparsity", "seed", "epoch"], columns="metric", values="value"
    )
    levels = sorted(own["sparsity"].unique())
    colours = dict(zip(levels, ["black", *LEVELS], strict=False))
    for (sparsity, seed), path in wide.groupby(level=["sparsity", "seed"]):
        first = seed == own["seed"].min()
        name = "dense" if sparsity == 0 else f"{sparsity:.0%} pruned"
        look = {"color": colours[sparsity], "marker": "os^vD"[levels.index(sparsity)]}
        look |= {"markersize": 4, "linewidth": 1, "label": name if first else None}
        axis.plot(100 * path["gap"], 100 * path["auc"], **look)
    axis.axhline(50, **plots.CHANCE)
    axis.set_xlabel("gap: accuracy on members − on non-members (points)")
    axis.set_ylabel("AUC of the calibrated attack (%)")
    axis.legend(fontsize=9)
    return figure


def stacked(table: pd.DataFrame) -> pd.DataFrame:
    """Return the matrix of what each defence (row) is worth with another (column).

    A row a seed and cell; `with` is `nothing` (without any defence), `alone` or the
    name of another defence.
    """
    own = plots.where(table, question="stack")
    rows = []
    for defence, (metric, _, _) in WORTH.items():
        systems = {NONE: NONE, "alone": defence}
        systems |= {o: paired(defence, o) for o in WORTH if o != defence}
        for column, system in systems.items():
            found = plots.where(own, system=system, metric=metric)
            for row in found.itertuples():
                rows.append((defence, column, row.seed, row.value))
    return pd.DataFrame(rows, columns=["defence", "with", "seed", "value"])


def paired(one: str, other: str) -> str:
    """Return the name of the system that has both, as the results table has it."""
    order = [name for name in WORTH if name in (one, other)]
    return " + ".join(order)


def stack(table: pd.DataFrame) -> Figure:
    """Draw the matrix of `stacked`: mean, change against alone, and its interval."""
    values, columns = stacked(table), [NONE, "alone", *WORTH]
    figure, axes = plots.panels(1, 1, 4.6)
    axis, shade = axes[0, 0], np.full((len(WORTH), len(columns)), np.nan)
    for i, (defence, (_, _, better)) in enumerate(WORTH.items()):
        row = plots.where(values, defence=defence)
        alone = plots.where(row, **{"with": "alone"}).set_index("seed")["value"]
        for j, column in enumerate(columns):
            cell = plots.where(row, **{"with": column}).set_index("seed")["value"]
            if cell.empty:
                continue
            text = f"{100 * cell.mean():.0f}"
            if column not in (NONE, "alone"):
                pairs = stats.paired_by(cell.to_dict(), alone.to_dict())
                change = stats.mean_interval(100 * pairs)
                half = (change.high - change.low) / 2
                text += f"\n{change.estimate:+.0f} ± {half:.0f}"
                shade[i, j] = better * change.estimate
            axis.text(j, i, text, ha="center", va="center", fontsize=9)
    look = {"cmap": "PuOr", "vmin": -40, "vmax": 40, "aspect": "auto", "alpha": 0.7}
    image = axis.imshow(shade, **look)
    names = ["no defence", "alone", *(f"with\n{name}" for name in WORTH)]
    axis.set_xticks(range(len(columns)), names, fontsize=8)
    axis.set_yticks(range(len(WORTH)), [w[1] for w in WORTH.values()], fontsize=8)
    axis.xaxis.tick_top()
    axis.grid(False)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    bar = figure.colorbar(image, ax=axis, location="bottom", shrink=0.6, aspect=40)
    bar.set_label(
        "change against alone, in points; purple: the defence is worth more", fontsize=9
    )
    return figure
