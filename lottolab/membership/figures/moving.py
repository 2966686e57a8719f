"""Chapter 2's figure that moves: one threshold, and whom it accuses."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from torch import Tensor

from lottolab.membership.experiments.cuts import RATES
from lottolab.pages import moving
from lottolab.pages.plots import COLOURS, panels

NAMES = ("found, of the members (TPR)", "accused, of all others (FPR)")
NAMES += ("accuracy", "precision")
LOOKS = (0, 1, 2, 3)  # of the treatments' curves
WHOM = {"members": ("members", 1), "others": ("others", 2)}  # name and look
FOUND, ACCUSED = "members found (%)", "others accused (%)"
LISTED = 4  # thresholds an attack in the table; the figure has them all
LOWEST = 1e-3  # of the axes, where the data reach that far


def threshold(found: Mapping[str, Mapping], networks: list[str]) -> HTML:
    """Show two distributions a network, a threshold over all, and the ROC curves.

    Args:
        found: outcomes of `cuts.swept` by what their score is called.
        networks: what the treatments are called, at most four.
    """
    scores, each = list(found), list(found.values())
    count = min(len(one["cuts"]) for one in each)  # the last ones: few false alarms
    kept = [{"cuts": o["cuts"][-count:], "rates": o["rates"][:, -count:]} for o in each]
    options = [
        [f"{cut:.3g}".replace("-", "−") for cut in o["cuts"].tolist()] for o in kept
    ]
    controls = [
        moving.Control("Attack", scores, slider=False),
        moving.Control("Threshold", options, count // 2, by="Attack"),
    ]
    cut = moving.By(["Attack", "Threshold"], [o["cuts"] for o in kept])
    drawn = [_scores(each, name, place, cut) for place, name in enumerate(networks)]
    drawn.append(_curves(kept, networks))
    cells = [o["rates"].permute(1, 2, 0, 3) for o in kept]  # cuts, rates, networks
    readout = moving.Readout(
        dict.fromkeys(NAMES, "percent"),
        networks,
        moving.By(["Attack", "Threshold"], cells),
        _says(networks),
        "95 % intervals",
    )
    table = _summed(scores, kept, networks)
    figure = moving.Moving("fig-threshold", controls, drawn, readout, table)
    return moving.shown(figure, still(each[0], networks))


def still(one: Mapping, networks: list[str]) -> Figure:
    """Draw the scores of members and others of the networks, by one attack."""
    figure, axes = panels(len(networks), 1, 1.3 * len(networks) + 1.2)
    looks = {"members": COLOURS["ticket"], "others": COLOURS["random mask"]}
    for place, (axis, name) in enumerate(zip(axes[:, 0], networks, strict=True)):
        for kind, colour in looks.items():
            given = {"fill": True, "alpha": 0.25, "color": colour}
            shares = 100 * one[kind][place].numpy()
            axis.stairs(shares, one["edges"].numpy(), label=kind, **given)
            axis.stairs(shares, one["edges"].numpy(), color=colour)
        axis.axvline(one["cuts"][len(one["cuts"]) // 2].item(), color="black")
        axis.set(title=name, ylabel="share (%)")
    axes[-1, 0].set_xlabel("score; all above the threshold are accused")
    look = {"loc": "outside lower center", "ncols": 2}
    figure.legend(*axes[0, 0].get_legend_handles_labels(), **look)
    return figure


def _scores(each: list[Mapping], name: str, place: int, cut: moving.By) -> moving.Plot:
    edges = moving.By(["Attack"], [one["edges"] for one in each])
    series = [
        moving.Series(
            told,
            edges,
            moving.By(["Attack"], [o[k][place] for o in each]),
            look=look,
            kind="steps",
        )
        for k, (told, look) in WHOM.items()
    ]
    top = max(float(one[kind].max()) for one in each for kind in WHOM)
    xs = ("score", "linear", None, None)
    return moving.Plot(name, series, xs, ("share (%)", "linear", 0.0, 1.05 * top), cut)


def _curves(kept: list[Mapping], networks: list[str]) -> moving.Plot:
    """Return the ROC curves on logarithmic axes; their points are the thresholds."""
    tpr, fpr = (RATES.index(name) for name in ("tpr", "fpr"))

    def of(place: int, rate: int) -> list[Tensor]:
        return [o["rates"][place, :, rate, 0] for o in kept]

    series = []
    for place, name in enumerate(networks):
        dots = [o["rates"][place, :, [fpr, tpr], 0] for o in kept]
        x, y = (moving.By(["Attack"], of(place, rate)) for rate in (fpr, tpr))
        dot = moving.By(["Attack", "Threshold"], dots)
        series.append(moving.Series(name, x, y, dot, LOOKS[place]))
    lowest = min(float(o["rates"][:, :, fpr, 0].min()) for o in kept)
    low = min(max(LOWEST, lowest), 0.1)
    xs, ys = (ACCUSED, "log", low, 1.0), (FOUND, "log", low, 1.0)
    return moving.Plot("Found against accused", series, xs, ys, diagonal=True)


def _says(networks: list[str]) -> str:
    parts = [
        f"{n}: {{{NAMES[0]}|{n}}} found, {{{NAMES[1]}|{n}}} accused" for n in networks
    ]
    return "{Attack}, threshold {Threshold}. " + "; ".join(parts) + "."


def _summed(
    scores: list[str], kept: list[Mapping], networks: list[str]
) -> pd.DataFrame:
    """Return a row for some thresholds of each attack, and each network, as texts."""
    rows = []
    for score, one in zip(scores, kept, strict=True):
        cuts = one["cuts"].tolist()
        for step in np.linspace(0, len(cuts) - 1, LISTED).round().astype(int):
            for place, name in enumerate(networks):
                own = one["rates"][place, step].tolist()
                cells = [moving.text("percent", value) for value in own]
                row = {
                    "attack": score,
                    "threshold": f"{cuts[step]:.3g}",
                    "network": name,
                }
                rows.append(row | dict(zip(NAMES, cells, strict=True)))
    return pd.DataFrame(rows)
