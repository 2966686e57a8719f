"""Tell chapter 5's pools in tables: estimates with the errors that models share.

A `table` is that of the chapter's results; `names` maps (arm, level) to what a row is
called. Intervals are those of `intervals.measured`, over pairs of models and images; in
percentage points but for Φ⁻¹.
"""

from collections.abc import Mapping

import pandas as pd

from lottolab.mia_pruning.experiments.terms import ALONE, STRONGEST
from lottolab.pages.plots import where
from lottolab.truth.intervals import measured

Names = Mapping[tuple[str, str], str]
LEAKS = {
    (STRONGEST, "auc"): "AUC",
    (STRONGEST, "tpr at 1% fpr"): "TPR at 1 %",
    (STRONGEST, "tpr at 0.1% fpr"): "TPR at 0.1 %",
    (ALONE, "auc"): "AUC of LiRA alone",
}
NOWHERE = "not so accurate"


def points(rows: pd.DataFrame, unit: float = 100) -> str:
    """Return the pools' mean with its interval, such as `1.2 [0.3, 2.1]`."""
    found = measured.pooled(rows).interval()
    ends = (unit * x for x in (found.estimate, found.low, found.high))
    return "{:.1f} [{:.1f}, {:.1f}]".format(*ends).replace("-0.0 ", "0.0 ")


def leaking(table: pd.DataFrame, names: Names) -> pd.DataFrame:
    """Return a row a treatment: its accuracy and what the strongest attack finds.

    Rows of `point` leaking. By rising AUC, with the attack that was chosen for it and,
    of the rows of `point` family, the mean accuracy of the attack of Nasr et al.
    """
    rows, own = where(table, point="leaking"), where(table, point="family")
    found = []
    for (arm, level), name in names.items():
        here = where(rows, arm=arm, level=level)
        best = where(here, attack=STRONGEST, metric="auc")
        nasr = where(own, arm=arm, level=level, attack="nasr", metric="accuracy")
        line = {"treatment": name}
        line["fresh"] = points(here[here["metric"] == "fresh_accuracy"])
        line |= _leaks(here) | {"chosen": best["chosen"].mode().iloc[0]}
        line["Nasr, accuracy"] = f"{100 * nasr['value'].mean():.1f}"
        found.append((best["value"].mean(), line))
    return pd.DataFrame([line for _, line in sorted(found, key=lambda pair: pair[0])])


def differences(
    table: pd.DataFrame, point: str, names: Names, pairs: list[tuple[str, str, str]]
) -> pd.DataFrame:
    """Return a row a comparison: (arm, level) less what it is compared with.

    `point` is "compared", at each one's own accuracy, or "matched", at the treatment's;
    `pairs` are (arm, level, against). Where a family has no such accuracy the row says
    so, and nothing else.
    """
    rows, found = where(table, point=point), []
    for arm, level, against in pairs:
        here = where(rows, arm=arm, level=level, against=against)
        line = {"treatment": names[arm, level], "against": against}
        if point == "matched":
            there = bool((where(here, metric="inside")["value"] == 1).all())
            line |= _leaks(here) if there else dict.fromkeys(_shown(here), NOWHERE)
        else:
            line["accuracy"] = points(where(here, metric="fresh_accuracy"))
            line |= _leaks(here)
        found.append(line)
    return pd.DataFrame(found)


def _shown(rows: pd.DataFrame) -> list[str]:
    there = set(zip(rows["attack"], rows["metric"], strict=True))
    return [name for key, name in LEAKS.items() if key in there]


def _leaks(rows: pd.DataFrame) -> dict[str, str]:
    found = {}
    for (attack, metric), name in LEAKS.items():
        here = where(rows, attack=attack, metric=metric)
        if len(here):
            found[name] = points(here)
    return found
