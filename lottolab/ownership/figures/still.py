"""Figures of keys, codes, triggers and attacks that stand still."""

from collections.abc import Iterable

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from lottolab.pages.plots import COLOURS
from lottolab.truth import stats
from lottolab.truth.rates import binomial_interval

SCORES = {
    "magnitude": ("#0072B2", "o"),
    "ewp": ("#D55E00", "v"),
    "betweenness": ("#009E73", "^"),
    "random": ("#000000", "s"),
}

BLACK, WHITE = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)  # of a code's modules
DARK, LIGHT = (0.6, 0.0, 0.0), (1.0, 0.6, 0.6)  # of those that were flipped


def keys(table: pd.DataFrame, ticket: dict[int, float]) -> Figure:
    """Draw what a ticket is worth without its key, and with a guessed one.

    Args:
        table: rows with `arm` (`locked`, `guessed`), `score`, `share`, `seed`, `value`.
        ticket: test accuracy of the whole ticket by seed, from which the differences
            are taken. Means over seeds with 95 % intervals.
    """
    figure, axes = plt.subplots(1, 2, figsize=(7.2, 3.6), sharey=True)
    titles = {"locked": "retrained without the key", "guessed": "with a random key"}
    for axis, (arm, title) in zip(axes, titles.items(), strict=True):
        axis.axhspan(-1, 0, color="0.92", zorder=0)
        for shift, (score, (colour, marker)) in enumerate(SCORES.items()):
            here = table[(table["arm"] == arm) & (table["score"] == score)]
            points = [
                (share, stats.mean_interval(100 * stats.paired_by(found, ticket)))
                for share, group in here.groupby("share")
                if (found := group.set_index("seed")["value"].to_dict())
            ]
            x = [100 * share * (1 + 0.04 * (shift - 1.5)) for share, _ in points]
            y = np.array([i.estimate for _, i in points])
            error = [y - [i.low for _, i in points], [i.high for _, i in points] - y]
            look = {"color": colour, "marker": marker, "capsize": 2, "label": score}
            axis.errorbar(x, y, yerr=error, **look)
        axis.set(title=title, xscale="log", xlabel="relative sparsity of the key (%)")
        shares = sorted(table["share"].unique())
        axis.set_xticks([100 * s for s in shares], [f"{100 * s:g}" for s in shares])
        axis.minorticks_off()
    axes[0].set_ylabel("test accuracy − ticket (points)")
    axes[0].legend(loc="lower left", fontsize=9)
    figure.tight_layout()
    return figure


def codes(pictures: dict[str, list[tuple[str, np.ndarray, bool]]]) -> Figure:
    """Draw the codes that are read from attacked networks, uncovered.

    Args:
        pictures: for each attack a list of how strong it was, the modules (bool
            size×size, True = dark) and whether the text could be decoded. Modules that
            differ from those of the first of each list are drawn in red, dark or light.
    """
    columns = max(len(row) for row in pictures.values())
    size = (7.2, 1.55 * len(pictures))
    figure, axes = plt.subplots(len(pictures), columns, figsize=size, squeeze=False)
    for row, (name, found) in zip(axes, pictures.items(), strict=True):
        for axis in row:
            axis.set_axis_off()
        for axis, (label, modules, decoded) in zip(row, found, strict=False):
            picture = np.where(modules[..., None], BLACK, WHITE)
            flipped = modules != found[0][1]
            picture[flipped] = np.where(modules[flipped][:, None], DARK, LIGHT)
            axis.imshow(picture, interpolation="nearest")
            colour = COLOURS["ticket"] if decoded else COLOURS["random mask"]
            mark = "✓" if decoded else "✗"
            axis.set_title(f"{label} {mark}", fontsize=9, color=colour)
        row[0].text(
            -0.15,
            0.5,
            name,
            rotation=90,
            va="center",
            ha="right",
            transform=row[0].transAxes,
            fontsize=9,
        )
    figure.tight_layout()
    return figure


def contact_sheet(images, labels, names: list[str], count: int = 10) -> Figure:
    """Draw the first triggers, uint8 N×C×H×W, each with the class that it was given."""
    figure, axes = plt.subplots(1, count, figsize=(7.2, 1.2))
    for axis, image, label in zip(axes, images, labels, strict=False):
        picture = image.permute(1, 2, 0).squeeze(2).numpy()
        axis.imshow(picture, cmap="gray", vmin=0, vmax=255)
        axis.set_title(names[int(label)], fontsize=7)
        axis.set_axis_off()
    return figure


def evidence(table: pd.DataFrame, columns: dict[str, str], base: float) -> Figure:
    """Draw what is left after each attack: rows are attacks, columns evidence.

    Args:
        table: rows with `attack`, `trained`, `metric`, `seed`, `value`.
        columns: metric to its name on the axis; all in [0, 1], drawn as shares.
        base: mean test accuracy before the attack, whose loss is written in points.
    """
    wide = table.pivot_table(
        index=["attack", "trained"], columns="metric", values="value", sort=False
    )
    shares = wide[[c for c in columns if c in wide]].to_numpy()
    size = (7.2, 0.24 * len(wide) + 1.3)
    figure, axis = plt.subplots(figsize=size, dpi=72)
    axis.imshow(shares, cmap="Blues", vmin=0, vmax=1.4, aspect="auto")
    for (row, column), share in np.ndenumerate(shares):
        if not np.isnan(share):
            where = {"ha": "center", "va": "center", "fontsize": 8}
            where["color"] = "white" if share > 0.7 else "black"
            axis.text(column, row, f"{100 * share:.0f}", **where)
    lost = 100 * (wide["test_accuracy"] - base)
    labels = [
        f"{attack}{', then trained' if trained == 'yes' else ''}  ({loss:+.1f})"
        for (attack, trained), loss in zip(wide.index, lost, strict=True)
    ]
    axis.set_yticks(range(len(wide)), labels, fontsize=8)
    names = [name for metric, name in columns.items() if metric in wide]
    axis.set_xticks(range(len(names)), names, fontsize=8, rotation=60, ha="left")
    axis.xaxis.tick_top()
    axis.grid(False)
    axis.tick_params(length=0)
    figure.tight_layout()
    return figure


def against_strength(
    table: pd.DataFrame, strength: str, metrics: dict[str, str], groups: list[str]
) -> Figure:
    """Draw metrics against an attack's strength, one panel a metric, a line a group.

    Args:
        table: rows with `strength`, `groups`, `metric`, `seed` and `value` in [0, 1];
            means over seeds.
        metrics: metric to the name of its axis.
    """
    figure, axes = plt.subplots(1, len(metrics), figsize=(7.2, 3.4), sharex=True)
    looks = zip(COLOURS.values(), "osv^D", ("-", "--", "-.", ":", "-"), strict=False)
    names = list(dict.fromkeys(map(tuple, table[groups].to_numpy())))
    style = dict(zip(names, looks, strict=False))
    for axis, (metric, name) in zip(np.atleast_1d(axes), metrics.items(), strict=True):
        here = table[table["metric"] == metric]
        for group, (colour, marker, line) in style.items():
            rows = here[(here[groups] == list(group)).all(axis=1)]
            mean = rows.groupby(strength)["value"].mean()
            look = {"color": colour, "marker": marker, "linestyle": line}
            axis.plot(100 * mean.index, 100 * mean, label=", ".join(group), **look)
        axis.set_ylabel(f"{name} (%)")
        axis.set_xlabel(f"{strength} (%)")
    handles, labels = np.atleast_1d(axes)[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=4, fontsize=9)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    return figure


def decoders(
    table: pd.DataFrame, expected: dict[float, float], absent: Iterable[str] = ()
) -> Figure:
    """Draw how often each reader reads a code against the share of flipped modules.

    Args:
        table: rows with `reader`, `flipped`, `read` and `trials`, as
            `decoding.compare` returns; with exact 95 % intervals.
        expected: flipped share to the exact probability for the first reader.
        absent: readers that could not be asked, which the legend names.
    """
    figure, axis = plt.subplots()
    looks = zip(list(COLOURS.values())[1:], "ov^s", strict=False)
    for (reader, rows), (colour, marker) in zip(
        table.groupby("reader", sort=False), looks, strict=False
    ):
        counts = (rows["read"] * rows["trials"]).round().astype(int)
        found = [
            binomial_interval(k, n) for k, n in zip(counts, rows["trials"], strict=True)
        ]
        y = np.array([100 * i.estimate for i in found])
        error = [y - [100 * i.low for i in found], [100 * i.high for i in found] - y]
        look = {"color": colour, "marker": marker, "capsize": 2, "label": reader}
        axis.errorbar(100 * rows["flipped"], y, yerr=error, **look)
    x = sorted(expected)
    line = {"color": "0.4", "linestyle": "--", "linewidth": 1.2, "label": "exact"}
    axis.plot([100 * v for v in x], [100 * expected[v] for v in x], **line)
    axis.set_xlabel("modules flipped (%)")
    axis.set_ylabel("codes read (%)")
    axis.legend(title=f"not here: {', '.join(absent)}" if absent else None)
    figure.tight_layout()
    return figure


def modules(layers: dict[str, tuple[np.ndarray, np.ndarray, tuple]]) -> Figure:
    """Draw layers' kernels before and after signing: dark = alive.

    Args:
        layers: for each ticket bool outputs × inputs before and after, and the first
            row, first column and side of the signature's square, which is outlined.
    """
    size = (7.2, 2.6 * len(layers))
    figure, axes = plt.subplots(len(layers), 3, figsize=size, squeeze=False)
    for line, (name, (before, after, window)) in zip(axes, layers.items(), strict=True):
        pictures = {"before": before, "after": after, "changed": before != after}
        for axis, (title, picture) in zip(line, pictures.items(), strict=True):
            axis.imshow(~picture, cmap="gray", vmin=0, vmax=1, interpolation="nearest")
            row, column, side = window
            corner = (column - 0.5, row - 0.5)
            edge = {"edgecolor": COLOURS["random mask"], "linewidth": 1.5}
            axis.add_patch(plt.Rectangle(corner, side, side, fill=False, **edge))
            axis.set(title=title, xlabel="input channel", xticks=[], yticks=[])
            axis.grid(False)
        line[0].set_ylabel(f"{name}\noutput channel")
    figure.tight_layout()
    return figure
