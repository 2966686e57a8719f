"""Chapter 5's figure that moves: stop the training earlier, or prune more.

Both go from the network without a defence through one plane, of accuracy on fresh
images and of what the strongest attack finds. A treatment is an (arm, level). The
sliders stop at treatments that were measured, and nowhere between.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from IPython.display import HTML

from lottolab.checks import require
from lottolab.mia_pruning import figures, tables
from lottolab.mia_pruning.experiments.terms import STRONGEST
from lottolab.pages import moving
from lottolab.pages.plots import where
from lottolab.truth.intervals import measured

Key = tuple[str, str]
STOP, PRUNE = "Stop the training after", "Prune by ADMM"
PATHS = {STOP: ("early stopping", 1), PRUNE: ("ADMM", 2)}  # name and look
COLUMNS = ("stopped", "pruned")
FRESH, CHOSEN = "accuracy on fresh images", "the strongest attack"
AUC = tables.LEAKS[STRONGEST, "auc"]
# What is measured of the strongest attack: the panel's title, its axis, and chance.
PANELS = {
    AUC: ("AUC of the strongest attack", "AUC (%)", 0.5),
    tables.LEAKS[STRONGEST, "tpr at 1% fpr"]: (
        "Its TPR at an FPR of 1 %",
        "TPR (%)",
        0.01,
    ),
}
PRUNED, GAME, PRIVATE, OTHER = BESIDE = (
    "other pruning",
    "Min-Max",
    "DP, and without its noise",
    "regularisers",
)
LOOKS = dict(zip(BESIDE, (0, 3, 4, 5), strict=True))
GROUPS = {"Min-Max": GAME, "DP": PRIVATE}
GROUPS |= {"DP, looser": PRIVATE, "DP, no noise": PRIVATE}
GROUPS |= {"weight decay": OTHER, "label smoothing": OTHER, "early stopping": OTHER}


def plane(
    table: pd.DataFrame,
    stopped: Mapping[str, Key],
    pruned: Mapping[str, Key],
    names: Mapping[Key, str],
) -> HTML:
    """Show `figures.frontier`, with a slider for each of two paths through it.

    Args:
        table: of the chapter's results; its rows of `point` leaking, which bring their
            errors (`intervals.measured`).
        stopped, pruned: what the sliders' steps are called, and their treatments.
        names: all treatments of the plane, and what they are called.

    Raises:
        ValueError: a treatment has no accuracy or AUC in the table.
    """
    paths = {STOP: stopped, PRUNE: pruned}
    rows = where(table, point="leaking")
    found = {key: _point(rows, key) for key in names}
    on = [key for steps in paths.values() for key in steps.values()]
    missing = [k for k in [*on, *found] if not {FRESH, AUC} <= set(found.get(k, ()))]
    require(not missing, "a treatment must be named and measured", missing)
    told = (FRESH, *tables.LEAKS.values())
    shown = [name for name in told if any(name in own for own in found.values())]
    controls = [
        moving.Control(name, list(steps), len(steps) // 2)
        for name, steps in paths.items()
    ]
    drawn = [
        _panel(leak, found, paths, names)
        for leak in PANELS
        if all(leak in found[key] for key in on)
    ]
    figure = moving.Moving(
        "fig-frontier",
        controls,
        drawn,
        _readout(found, shown, paths),
        _summed(found, shown, names),
    )
    return moving.shown(figure, figures.frontier(table))


def _point(rows: pd.DataFrame, key: Key) -> dict:
    """Return what was measured of a treatment: shares with their intervals' ends."""
    here = where(rows, arm=key[0], level=key[1])
    found = {FRESH: where(here, metric="fresh_accuracy")}
    for (attack, metric), name in tables.LEAKS.items():
        found[name] = where(here, attack=attack, metric=metric)
    told = {name: _interval(own) for name, own in found.items() if len(own)}
    best = found[AUC]
    return told | ({CHOSEN: best["chosen"].mode().iloc[0]} if len(best) else {})


def _interval(rows: pd.DataFrame) -> list[float]:
    found = measured.pooled(rows).interval()
    return [found.estimate, found.low, found.high]


def _panel(leak: str, found: Mapping[Key, dict], paths: Mapping, names) -> moving.Plot:
    """Return the plane of one measure: two paths, and what stands beside them."""
    title, axis, chance = PANELS[leak]
    there = {key: (own[FRESH], own[leak]) for key, own in found.items() if leak in own}
    series = [_path(name, steps, there, names) for name, steps in paths.items()]
    groups: dict[str, list[Key]] = {name: [] for name in BESIDE}
    for key in there:
        if not any(key in steps.values() for steps in paths.values()):
            groups[_group(key[0])].append(key)
    series += [
        _series(name, LOOKS[name], "points", keys, there, names)
        for name, keys in groups.items()
        if keys
    ]
    (left, right), (low, high) = (_ends([p[s] for p in there.values()]) for s in (0, 1))
    xs = ("accuracy on fresh images (%)", "linear", left, right)
    ys = (axis, "linear", min(low, chance), high)
    return moving.Plot(title, series, xs, ys, level=chance)


def _group(arm: str) -> str:
    """Return what an arm is drawn as: all known ones prune that GROUPS has not."""
    return GROUPS.get(arm, PRUNED if arm in figures.LOOKS else OTHER)


def _path(name: str, steps: Mapping[str, Key], there: Mapping, names) -> moving.Series:
    keys = list(steps.values())
    dots = [[axis[0] for axis in there[key]] for key in keys]
    reach = [[end for axis in there[key] for end in axis[1:]] for key in keys]
    moved = {"dot": moving.By([name], dots), "reach": moving.By([name], reach)}
    return _series(*PATHS[name], "joined", keys, there, names, **moved)


def _series(
    name: str, look: int, kind: str, keys: Sequence[Key], there, names, **moved
) -> moving.Series:
    x, y = (moving.By([], [there[key][side][0] for key in keys]) for side in (0, 1))
    told = moving.By([], [names[key] for key in keys])
    return moving.Series(name, x, y, look=look, kind=kind, names=told, **moved)


def _ends(values: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Return limits of an axis that holds all intervals, and a little more."""
    low, high = min(map(min, values)), max(map(max, values))
    room = 0.03 * (high - low) or 0.01  # where nothing was learned all are one
    return low - room, high + room


def _readout(found: Mapping[Key, dict], shown: list[str], paths) -> moving.Readout:
    """Return the numbers of two treatments, one a slider."""
    first, second = (list(steps.values()) for steps in paths.values())
    rows = dict.fromkeys([*shown, CHOSEN], "percent")
    cells = [
        [[[found[key].get(name) for key in (a, b)] for name in rows] for b in second]
        for a in first
    ]
    said = [
        f"{text}: {{{FRESH}|{column}}} of fresh images right, AUC {{{AUC}|{column}}}"
        for text, column in zip(
            (f"Stopped after {{{STOP}}}", f"pruned by {{{PRUNE}}}"),
            COLUMNS,
            strict=True,
        )
    ]
    cells = moving.By(list(paths), cells)
    return moving.Readout(rows, COLUMNS, cells, "; ".join(said) + ".", "95 % intervals")


def _summed(found: Mapping[Key, dict], shown: list[str], names) -> pd.DataFrame:
    """Return a row for each treatment, as texts, by rising AUC."""
    rows = []
    for key in sorted(found, key=lambda k: found[k][AUC][0]):
        own = found[key]
        cells = {name: moving.text("percent", own.get(name)) for name in shown}
        rows.append({"treatment": names[key]} | cells)
    return pd.DataFrame(rows)
