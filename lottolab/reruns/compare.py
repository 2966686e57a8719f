"""Say what differs between two tables of measurements of one chapter."""

import numpy as np
import pandas as pd

from lottolab.pages.verdicts import machines
from lottolab.truth import claims, results

NOT_SETTINGS = {"claim", "value", "seed", "stale", *results.PROVENANCE}
SAME, SEEDS, CHANGED = "same", "same where seeds are shared", "changed"
GONE, NEW = "only before", "only now"
WITHIN, BEYOND = "within", "beyond"


def measurements(before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each measurement of either table, seeds taken together.

    A measurement is what agrees in its metric and in every setting; who computed it,
    when and with which code takes no part. The columns are the settings, `before` and
    `now`, the means over seeds (NaN where there is none), `seeds before` and `seeds
    now`, their numbers, and `what`: `same` (each seed has the same value), `same where
    seeds are shared` (and some are not), `changed`, `only before` or `only now`.
    """
    settings = [c for c in dict.fromkeys([*before, *now]) if c not in NOT_SETTINGS]
    old, new = (_by_setting(table, settings) for table in (before, now))
    rows = []
    for key in dict.fromkeys([*old, *new]):
        there, here = old.get(key, {}), new.get(key, {})
        means = [np.mean([*v.values()]) if v else np.nan for v in (there, here)]
        rows.append([*key, *means, len(there), len(here), _what(there, here)])
    columns = ["before", "now", "seeds before", "seeds now", "what"]
    return pd.DataFrame(rows, columns=[*settings, *columns])


def _what(there: dict, here: dict) -> str:
    """Name the difference between two maps from seed to value."""
    if not there or not here:
        return GONE if there else NEW
    if there == here:
        return SAME
    shared = there.keys() & here.keys()
    agree = shared and all(there[seed] == here[seed] for seed in shared)
    return SEEDS if agree else CHANGED


def beside_machines(found: pd.DataFrame, table: pd.DataFrame) -> pd.Series:
    """Say of each measurement that changed whether another machine changes it as much.

    `table` holds what two arithmetics gave for the same seeds (`pages.machines`). A
    change of a mean is `within` what 19 of 20 are, by the metric's measurements that
    are in the table, and `beyond` it otherwise. It is "" for what has not changed, has
    other seeds than before, or a metric that the table has not.
    """
    known = machines.noise(table)

    def judged(row: pd.Series) -> str:
        alike = row["what"] == CHANGED and row["seeds before"] == row["seeds now"]
        if not alike or row["metric"] not in known:
            return ""
        most = machines.bound(*known[row["metric"]], row["seeds now"])
        return WITHIN if abs(row["now"] - row["before"]) <= most else BEYOND

    return pd.Series([judged(row) for _, row in found.iterrows()], found.index, str)


def largest_first(found: pd.DataFrame, what: str = CHANGED) -> pd.DataFrame:
    """Return the measurements that differ, largest share of the larger mean first.

    Metrics have different units, so that differences themselves have no order.
    """
    changed = found[found["what"] == what]
    size = changed[["before", "now"]].abs().max(axis=1)
    share = (changed["now"] - changed["before"]).abs() / size.where(size > 0)
    return changed.loc[share.sort_values(ascending=False, kind="stable").index]


def label(row: pd.Series, constant: set[str]) -> str:
    """Name a measurement: its metric, then its settings, without the constant ones."""
    words = []
    for column, value in row.items():
        if column == "metric" or column in constant or value == "":
            continue
        number = f"{value:g}" if isinstance(value, float) else f"{value}"
        words.append(value if isinstance(value, str) else f"{column} {number}")
    return ": ".join(filter(None, [row["metric"], ", ".join(words)]))


def labels(found: pd.DataFrame) -> pd.Series:
    """Name the measurements; a setting that all share is left out."""
    settings = found.loc[:, : found.columns[found.columns.get_loc("before") - 1]]
    constant = {c for c in settings if settings[c].nunique() == 1}
    return settings.apply(label, axis=1, constant=constant)


def verdicts(chapter: str, before: pd.DataFrame, now: pd.DataFrame) -> pd.DataFrame:
    """Return a row for each claim of the chapter whose verdict differs.

    The columns are `claim`, `before`, `now` (the verdicts), `ours before`, `ours now`
    and `note`, which says why where a claim cannot be judged any more.
    """
    old, new = (
        claims.against_paper(chapter, table, lenient=True) for table in (before, now)
    )
    pairs = old.merge(new, on="claim", suffixes=(" before", " now"))
    pairs = pairs[pairs["verdict before"] != pairs["verdict now"]]
    names = {"verdict before": "before", "verdict now": "now", "note now": "note"}
    shown = ["claim", "before", "now", "ours before", "ours now", "note"]
    return pairs.rename(columns=names)[shown].reset_index(drop=True)


def _by_setting(table: pd.DataFrame, settings: list[str]) -> dict[tuple, dict]:
    """Return seed to value for each setting; a setting without a value is ""."""
    wide = table.reindex(columns=[*settings, "seed", "value"]).astype(object)
    wide = wide.where(wide.notna(), "")
    found: dict[tuple, dict] = {}
    for *setting, seed, value in wide.itertuples(index=False):
        found.setdefault(tuple(setting), {})[seed] = value
    return found
