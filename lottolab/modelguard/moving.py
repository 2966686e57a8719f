"""Chapter 4's figure that moves: what ε does to one answer, to a copy and to a user.

`table` is that of the chapter's results. `found` are outcomes of `single.seen`: by
defence a list, one for each ε, all of the same predictions. Without a defence the
answer and what the thief recovers are the prediction itself.
"""

from collections.abc import Mapping, Sequence

import pandas as pd
from IPython.display import HTML
from matplotlib.figure import Figure
from torch import Tensor

from lottolab.modelguard import utility
from lottolab.pages import moving
from lottolab.pages.plots import finished, panels, where
from lottolab.truth import stats

HERE = "with it"
SHOWN = 7  # classes of which a prediction is largest; the others are one bar
KINDS = {
    "exact": "the exact prediction",
    "answer": "the answer that the client sees",
    "recovered": "what the thief makes of it",
}
LOOKS = {"exact": {"color": "white", "edgecolor": "black"}}
LOOKS |= {"answer": {"color": "#0072B2"}, "recovered": {"color": "#D55E00"}}
DISTANCES = {
    "answer": "this answer: moved in ℓ1 by",
    "recovered": "the thief’s guess of it: wrong in ℓ1 by",
}
HONEST = {
    "mean ℓ1": ("honest users: mean ℓ1", "number"),
    "log-loss": ("honest users: log-loss (nats)", "number"),
    "kept": ("honest users: top class kept", "percent"),
}
COPIES = {a: f"accuracy of the copy, {a}" for a in ("naive", "partial Bayes")}
FORMS = dict.fromkeys(DISTANCES.values(), "number") | dict(HONEST.values())
FORMS |= dict.fromkeys(COPIES.values(), "percent")
SAYS = """\
{Defence}, ε = {ε}, {Prediction} prediction: the answer is moved by {answer} in ℓ1, and
the thief comes back to within {recovered}. A copy reaches {partial Bayes} by partial
Bayes; honest users keep the top class in {kept} and pay a log-loss of {log-loss}."""
for _name, _row in (
    {k: t for k, (t, _) in HONEST.items()} | DISTANCES | COPIES
).items():
    SAYS = SAYS.replace(f"{{{_name}}}", f"{{{_row}|{HERE}}}").replace("\n", " ")


def answers(
    table: pd.DataFrame,
    found: Mapping[str, Sequence[dict]],
    levels: Mapping[str, float],
    predictions: Sequence[str],
) -> HTML:
    """Show how much each defence moves an answer, and what comes of it, by ε.

    Args:
        levels: the names in the table's column `level`, and their ε, rising.
        predictions: what the rows of the outcomes are called.
    """
    arms, steps = list(found), ["0", *(f"{e:g}" for e in levels.values())]
    controls = [
        moving.Control("Defence", arms, len(arms) - 1, slider=False),
        moving.Control("ε", steps, min(2, len(steps) - 1)),
        moving.Control("Prediction", predictions, len(predictions) // 2, slider=False),
    ]
    names = [c.name for c in controls]
    rows = range(len(predictions))
    seen = {
        arm: [_undefended(outcomes[0]), *outcomes] for arm, outcomes in found.items()
    }
    parts = {arm: [[_parts(o, r) for r in rows] for o in seen[arm]] for arm in arms}
    bars = {
        kind: moving.By(names, [[[p[k] for p in s] for s in parts[a]] for a in arms])
        for k, kind in KINDS.items()
    }
    labels = moving.By(["Prediction"], [p["labels"] for p in parts[arms[0]][0]])
    panel = moving.Bars("One prediction of the target, by class", labels, bars)
    bare = _shared(table, "none", None)
    told = {a: [bare, *(_shared(table, a, name) for name in levels)] for a in arms}
    cells = [
        [
            [_cells(o, r, own, bare) for r in rows]
            for o, own in zip(seen[arm], told[arm], strict=True)
        ]
        for arm in arms
    ]
    columns = (HERE, "without")
    head = "this prediction; means over targets"
    readout = moving.Readout(FORMS, columns, moving.By(names, cells), SAYS, head)
    summed = _summed(steps, told)
    figure = moving.Moving("fig-mg-answer", controls, [panel], readout, summed)
    return moving.shown(figure, still(parts, predictions, levels))


def still(parts: Mapping[str, list], predictions: Sequence[str], levels) -> Figure:
    """Draw the middle prediction behind each defence, at the second ε if there is."""
    row, step = len(predictions) // 2, min(2, len(levels))
    lines = -(-len(parts) // 2)
    figure, axes = panels(lines, 2, 2.9 * lines)
    for axis, (arm, states) in zip(axes.flat, parts.items(), strict=False):
        own = states[step][row]
        places = range(len(own["labels"]))
        for place, (kind, look) in enumerate(LOOKS.items()):
            middle = [p + 0.28 * (place - 1) for p in places]
            shown = {"label": KINDS[kind], "height": 0.26, "linewidth": 0.8}
            axis.barh(middle, [100 * v for v in own[kind]], **shown | look)
        axis.set_yticks(places, own["labels"])
        axis.set(title=arm, xlabel="probability (%)", xlim=(0, 100))
        axis.grid(visible=False, axis="y")
    for axis in axes[:, 0]:  # a line shares its axis
        axis.invert_yaxis()
    return finished(figure, columns=3)


def _undefended(outcome: dict) -> dict:
    return dict.fromkeys(KINDS, outcome["exact"])


def _parts(outcome: dict, row: int) -> dict:
    """Return the likeliest classes' labels and, by kind, their probabilities."""
    order = outcome["exact"][row].argsort(descending=True, stable=True)
    first, rest = order[:SHOWN], order[SHOWN:]
    found = {"labels": [f"class {place}" for place in first.tolist()]}
    if len(rest):
        found["labels"].append(f"{len(rest)} others")
    for kind in KINDS:
        values: Tensor = outcome[kind][row].double()
        sums = [values[rest].sum().item()] if len(rest) else []
        found[kind] = [min(v, 1.0) for v in values[first].tolist() + sums]
    return found


def _cells(outcome: dict, row: int, own: Mapping, bare: Mapping) -> list[list]:
    far = [utility.l1(outcome[k], outcome["exact"])[row].item() for k in DISTANCES]
    cells = [[value, 0.0] for value in far]
    return cells + [[own[name], bare[name]] for name in list(FORMS)[len(far) :]]


def _shared(table: pd.DataFrame, arm: str, level: str | None) -> dict:
    """Return what is measured over all targets; without a level, of no defence."""
    served = where(table, point="served", arm=arm)
    thefts = where(table, metric="accuracy", arm=arm)
    point = "many" if level is None else "sweep"
    thefts = where(thefts, point=point)
    if level is not None:
        served, thefts = where(served, level=level), where(thefts, level=level)
    found = {t: where(served, metric=m) for m, (t, _) in HONEST.items()}
    for attack, text in COPIES.items():  # nothing is to undo without a defence
        name = "naive" if level is None else attack
        found[text] = where(thefts, attack=name)
    return {text: _interval(rows) for text, rows in found.items()}


def _interval(rows: pd.DataFrame) -> list[float] | float | None:
    """Return a mean over targets with its interval, if there is one."""
    values = rows["value"].to_numpy()
    if len(set(values)) < 2:
        return float(values[0]) if len(values) else None
    i = stats.mean_interval(values)
    return [i.estimate, i.low, i.high]


def _summed(steps: Sequence[str], told: Mapping[str, list[dict]]) -> pd.DataFrame:
    """Return a row for each defence and ε, as texts."""
    rows = []
    for arm, states in told.items():
        for step, own in zip(steps, states, strict=True):
            cells = {n: moving.text(FORMS[n], value) for n, value in own.items()}
            rows.append({"defence": arm, "ε": step} | cells)
    return pd.DataFrame(rows)
