"""One figure each: the heat map, ROC curves, exposed images."""

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from matplotlib.figure import Figure
from numpy.typing import ArrayLike
from sklearn.metrics import roc_curve

from lottolab.checks import require
from lottolab.membership.figures.style import LOOKS
from lottolab.pages.plots import CHANCE, COLOURS, finished, where


def transfer(table: pd.DataFrame, names: dict[str, str]) -> Figure:
    """Draw the accuracy of attacks on networks they were not learned on (Figure 4).

    Args:
        table: also with the columns `source` (a line) and `target` (a column), such as
            "small, ticket"; in the order of their first appearance; means over seeds.
        names: what to write for a part of these, such as {"ticket": "80 %"}.
    """
    rows = where(table, point="transfer", metric="accuracy")
    wide = rows.pivot_table(index="source", columns="target", values="value")
    wide = 100 * wide.reindex(rows["source"].unique(), columns=rows["target"].unique())
    labels = [
        [", ".join(names.get(part, part) for part in name.split(", ")) for name in axis]
        for axis in (wide.index, wide.columns)
    ]
    figure, axis = plt.subplots(figsize=(7.2, 6), dpi=72, layout="constrained")
    if wide.empty:
        return finished(figure)
    text = {"annot": True, "fmt": ".1f", "annot_kws": {"fontsize": 10}}
    sns.heatmap(wide, ax=axis, cmap="cividis", cbar=False, **text)
    axis.set_title("attack accuracy (%)")
    axis.set_yticks(axis.get_yticks(), labels[0], fontsize=10, rotation=0)
    axis.set_xticks(axis.get_xticks(), labels[1], fontsize=10, rotation=90)
    axis.set_ylabel("source: the attack was learned on")
    axis.set_xlabel("target: the attack is used on")
    return figure


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
