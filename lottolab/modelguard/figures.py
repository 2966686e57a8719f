"""Draw chapter 4's figures.

A `table` is that of the chapter's results, with the columns `arm`, `attack`, `point`,
`level`, `epsilon`, `metric`, `seed`, `value` and those that a function names. One value
a target; bars are 95 % t intervals over targets, where there are several.
"""

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from lottolab.pages.plots import finished, means, pair, panels, where

# Okabe and Ito's colours.
LOOKS = {
    "none": {"color": "#000000", "marker": "s"},
    "RevSig": {"color": "#E69F00", "marker": "v"},
    "MAD": {"color": "#009E73", "marker": "^"},
    "AM": {"color": "#CC79A7", "marker": "<"},
    "Top-1": {"color": "0.45", "marker": ">"},
    "Rounding": {"color": "#56B4E9", "marker": "h"},
    "ModelGuard-W": {"color": "#0072B2", "marker": "D"},
    "ModelGuard-S": {"color": "#D55E00", "marker": "o"},
    "warm ModelGuard-S": {
        "color": "#D55E00",
        "marker": "P",
        "markerfacecolor": "white",
    },
}
ATTACKS = {
    "naive": {"color": "#000000", "marker": "s"},
    "top-1": {"color": "0.45", "marker": ">"},
    "smoothing": {"color": "#009E73", "marker": "^"},
    "D-DAE": {"color": "#E69F00", "marker": "v"},
    "D-DAE+": {"color": "#56B4E9", "marker": "D"},
    "partial Bayes": {"color": "#0072B2", "marker": "o"},
}
ADAPTIVE = ("cell", "dithering", "own table", "tenants", "tenants + cell", "votes")
ADAPTIVE += ("exact kept", "own table, exact kept")
ADAPTIVE += ("shifts + partial Bayes", "shifts + exact kept")
# Metric to what it is called, and its unit.
UTILITY = {
    "AUROC": ("AUROC, foreign images (%)", 100),
    "calibration error": ("calibration error (%)", 100),
    "log-loss": ("log-loss (nats)", 1),
    "top-5 accuracy": ("top-5 accuracy (%)", 100),
}
UNDEFENDED = {"color": "0.5", "linewidth": 1, "zorder": 0, "label": "no defence"}
STOLEN = "extraction accuracy (%)"
BUDGET = "distortion budget ε"


def attacks(table: pd.DataFrame) -> Figure:
    """Draw the paper's attacks on each defence: extraction accuracy, rows of `many`."""
    rows = where(table, point="many", metric="accuracy")
    arms = [arm for arm in LOOKS if arm in set(rows["arm"])]
    return _dots(rows, rows, arms, ATTACKS)


def adaptive(table: pd.DataFrame) -> Figure:
    """Draw what the paper does not run beside what it does, on ModelGuard-S.

    A line an attack; hollow on the mended, warm one, and black without a defence.
    """
    points = ("many", "adaptive", "composed")
    rows = where(table[table["point"].isin(points)], metric="accuracy")
    names = ["naive", "partial Bayes", *ADAPTIVE]
    looks = {arm: LOOKS[arm] for arm in ("none", "ModelGuard-S", "warm ModelGuard-S")}
    turned = rows.rename(columns={"arm": "attack", "attack": "arm"})
    return _dots(turned, rows, names, looks)


def _dots(rows: pd.DataFrame, all_rows: pd.DataFrame, lines, looks: dict) -> Figure:
    """Draw a line for each `arm` of `lines`, a kind of dot for each `attack`."""
    figure, axis = _axis(0.5 * len(lines) + 1.4)
    for step, (attack, look) in enumerate(looks.items()):
        shift = 0.12 * ((len(looks) - 1) / 2 - step)
        found = [
            (len(lines) - place + shift, where(rows, arm=arm, attack=attack))
            for place, arm in enumerate(lines)
        ]
        dots = look | {"linestyle": "none", "markersize": 5, "label": attack}
        means(axis, found, dots, flat=True)
    _undefended(axis.axvline, all_rows)
    axis.set_yticks(range(len(lines), 0, -1), lines)
    axis.set_xlabel(STOLEN)
    return finished(figure, columns=4)


def _axis(height: float) -> tuple[Figure, Axes]:
    return plt.subplots(figsize=(7.2, height), dpi=90, layout="constrained")


def _undefended(line, rows: pd.DataFrame) -> None:
    """Draw a line at what the naive attack steals without a defence."""
    naive = where(rows, arm="none", attack="naive", metric="accuracy", point="many")
    if len(naive):
        line(100 * naive["value"].mean(), **UNDEFENDED)


def sweep(table: pd.DataFrame) -> Figure:
    """Draw extraction accuracy against ε, naive and partial Bayes (Figure 3).

    Rows of `point` sweep.
    """
    rows = where(table, point="sweep", metric="accuracy")
    figure, axes = panels(1, 2, 4.0)
    for axis, attack in zip(axes[0], ("naive", "partial Bayes"), strict=True):
        here = where(rows, attack=attack)
        _by_epsilon(axis, here)
        _undefended(axis.axhline, table)
        axis.set(xlabel=BUDGET, title=f"{attack} attack")
    axes[0, 0].set_ylabel(STOLEN)
    return finished(figure, columns=5)


def _by_epsilon(axis: Axes, rows: pd.DataFrame, unit: int = 100) -> None:
    for arm in [arm for arm in LOOKS if arm in set(rows["arm"])]:
        own = where(rows, arm=arm).groupby("epsilon")
        means(axis, list(own), LOOKS[arm] | {"label": arm}, unit)


def centroids(table: pd.DataFrame) -> Figure:
    """Draw partial Bayes against ModelGuard-S over the number of centroids (Figure 4).

    Left the extraction accuracy, right the mean distance in ℓ2 of what it recovers; a
    line a target, a dot an ε.
    """
    rows = where(table, point="sweep", arm="ModelGuard-S", attack="partial Bayes")
    key = ["seed", "epsilon"]
    wide = rows.pivot_table(index=key, columns="metric", values="value")
    figure, axes = pair(3.6)
    wanted = {"accuracy": (STOLEN, 100), "recovery ℓ2": ("recovery distance (ℓ2)", 1)}
    for axis, (metric, (label, unit)) in zip(axes, wanted.items(), strict=True):
        for (seed, own), marker in zip(wide.groupby("seed"), "osD^v", strict=False):
            look = {"color": LOOKS["ModelGuard-S"]["color"], "marker": marker}
            look |= {"linewidth": 1, "label": f"target {seed}"}
            axis.errorbar(own["centroids"], unit * own[metric], **look)
        axis.set(xlabel="centroids", ylabel=label, xscale="log")
    return finished(figure)


def utility(table: pd.DataFrame) -> Figure:
    """Draw what honest users lose against ε, a panel a measure (Figure 5, left).

    Rows of `point` served; lines across are defences without an ε.
    """
    rows = where(table, point="served")
    size = {"figsize": (7.2, 6.4), "dpi": 90, "layout": "constrained"}
    figure, axes = plt.subplots(2, 2, sharex=True, **size)
    for axis, (metric, (label, unit)) in zip(axes.flat, UTILITY.items(), strict=True):
        here = where(rows, metric=metric)
        moves = here.groupby("arm")["epsilon"].nunique() > 1
        _by_epsilon(axis, here[here["arm"].map(moves)], unit)
        for arm in [arm for arm in LOOKS if arm in moves.index and not moves[arm]]:
            value = unit * where(here, arm=arm)["value"].mean()
            look = {"color": LOOKS[arm]["color"], "linewidth": 1, "zorder": 0}
            axis.axhline(value, linestyle="--", label=arm, **look)
        axis.set_ylabel(label)
    for axis in axes[1]:
        axis.set_xlabel(BUDGET)
    return finished(figure, columns=4)


def frontier(table: pd.DataFrame) -> Figure:
    """Draw what is stolen against what honest users lose, a line a defence.

    Stolen: by the best of the attacks that were run at each ε, a mean over targets;
    lost: log-loss. The paper's ε = 1 is the large marker. Labels alone are one more; no
    defence that keeps them leaves who asks ten times less than the line of the votes.
    """
    stolen = where(table, point="sweep", metric="accuracy")
    labels = where(table, point="many", metric="accuracy", arm="Top-1")
    stolen = pd.concat([stolen, labels.assign(level="paper")])
    key = ["arm", "level"]
    best = stolen.groupby([*key, "attack"])["value"].mean().groupby(key).max()
    lost = where(table, point="served", metric="log-loss").groupby(key)["value"].mean()
    figure, axis = _axis(4.4)
    for arm in [arm for arm in LOOKS if arm in best.index.get_level_values("arm")]:
        _along(axis, arm, lost[arm], 100 * best[arm])
    _undefended(axis.axhline, table)
    votes = where(table, arm="none", attack="votes", metric="accuracy")["value"]
    if len(votes):
        look = {"linestyle": "--", "color": "0.5", "linewidth": 1, "zorder": 0}
        axis.axhline(100 * votes.mean(), label="votes over labels", **look)
    axis.set(xlabel="log-loss for honest users (nats)", ylabel=STOLEN)
    return finished(figure)


def _along(axis: Axes, arm: str, x: pd.Series, y: pd.Series) -> None:
    """Draw a defence's line, by level, and its large marker at the paper's ε."""
    order = x.reindex(y.index).sort_values().index
    axis.errorbar(x[order], y[order], **LOOKS[arm] | {"label": arm})
    if "paper" in order:
        look = LOOKS[arm] | {"markersize": 11}
        axis.errorbar([x["paper"]], [y["paper"]], **look)


def growth(table: pd.DataFrame) -> Figure:
    """Draw ModelGuard-S's centroids against queries, a line an ε (Figure 5, right)."""
    rows = where(table, point="grown", metric="centroids")
    figure, axis = _axis(3.6)
    shades = ("#000000", "#D55E00", "#0072B2", "#009E73")
    for (epsilon, own), shade in zip(rows.groupby("epsilon"), shades, strict=False):
        look = {"color": shade, "label": f"ε = {epsilon:g}"}
        means(axis, list(own.groupby("queries")), look, 1)
    axis.set(xlabel="queries", ylabel="centroids", yscale="log")
    return finished(figure)


def latency(table: pd.DataFrame) -> Figure:
    """Draw the time of one answer, the network included (Figure 6).

    Rows of `point` over HTTP: filled `via` in process, hollow HTTP, ticks the 95th
    percentiles. Of a table without them, those of `point` timed.
    """
    rows = where(table, point="timed", metric="response")
    if "via" in table:
        point = {"point": "over HTTP", "via": "in process"}
        both = where(table, **point, metric="response")
        alone = rows[~rows["arm"].isin(both["arm"])]  # MAD is not served over HTTP
        rows = pd.concat([both, alone])
    arms = [arm for arm in LOOKS if arm in set(rows["arm"])]
    figure, axis = _axis(3.8)
    for place, arm in zip(range(len(arms), 0, -1), arms, strict=True):
        look = LOOKS[arm] | {"linestyle": "none"}
        means(axis, [(place, where(rows, arm=arm))], look, 1, flat=True)
        if "via" in table:
            own = where(table, point="over HTTP", arm=arm)
            if len(own):
                _over_http(axis, place - 0.3, own, look)
    axis.set_yticks(range(len(arms), 0, -1), arms)
    axis.set(xlabel="response time of one query (ms)", xscale="log")
    ticks = [0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    low, high = axis.get_xlim()
    ticks = [t for t in ticks if low <= t <= high]
    axis.set_xticks(ticks, [f"{t:g}" for t in ticks])
    axis.minorticks_off()
    return figure


def _over_http(axis: Axes, place: float, rows: pd.DataFrame, look: dict) -> None:
    hollow = look | {"markerfacecolor": "white"}
    there = where(rows, via="HTTP", metric="response")
    means(axis, [(place, there)], hollow, 1, flat=True)
    late = where(rows, metric="response, 95th percentile")
    for y, via in ((place + 0.3, "in process"), (place, "HTTP")):
        value = where(late, via=via)["value"].mean()
        axis.plot([value], [y], "|", color=look["color"], markersize=11)
