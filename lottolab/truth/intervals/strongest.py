"""Report the strongest attack on each treatment, chosen on other pools or seeds.

Which attack is best depends on the treatment: one that a defence was made against may
be blind to it. The best of several on the very models that it is reported for is too
good; so is one chosen on models of the same pool, which share images and references.
"""

from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd

from lottolab.checks import one_of, require, whole
from lottolab.truth.intervals.maxima import strongest_interval
from lottolab.truth.stats import LEVEL, Interval

BY = ("arm", "level")
NAME = "strongest"


def rows(
    table: pd.DataFrame,
    metric: str,
    *,
    models: int | None = None,
    by: Sequence[str] = BY,
    attacks: Iterable[str] | None = None,
) -> pd.DataFrame:
    """Return a row a treatment and seed: of the attack that is best elsewhere.

    Elsewhere is every other pool, that of seed // `models`, each weighing the same; or
    every other seed where `models` is None (then the seeds must be pools, or
    independent otherwise). Among equals the attack that comes first in the alphabet.

    Args:
        table: a row a measurement, with `seed`, `attack`, `metric`, `value` and the
            columns `by`, which name a treatment; an empty cell is a value as others.
        metric: of those in the table; larger is stronger.
        attacks: those to choose among, or all that the table has. Each must have been
            run on every seed of a treatment.

    Returns rows as the table's, of the columns `by`, `seed`, `metric` and `value`;
    `attack` is "strongest" and `chosen` names the one that it was.

    Raises ValueError for a missing column or metric, an attack that lacks a seed or has
    one twice, and a treatment of one pool, where nothing else chooses.
    """
    given = {"table": table, "metric": metric, "by": by, "attacks": attacks}
    found = []
    for treatment, values in _values(**given):
        group = values.index.to_numpy()
        if models is not None:
            whole("models", models, 1)
            group = group // models
        best = _elsewhere(values.to_numpy(), group, treatment)
        marks = dict(zip(by, treatment, strict=True)) | {"metric": metric}
        for place, (seed, choice) in enumerate(zip(values.index, best, strict=True)):
            own = {"seed": seed, "value": values.iat[place, choice]}
            own |= {"attack": NAME, "chosen": values.columns[choice]}
            found.append(marks | own)
    return pd.DataFrame(found)


def interval(
    table: pd.DataFrame,
    metric: str,
    treatment: Sequence[str],
    *,
    models: int,
    by: Sequence[str] = BY,
    attacks: Iterable[str] | None = None,
    level: float = LEVEL,
) -> Interval:
    """Return what the strongest attack on a treatment achieves, with its interval.

    The values of a pool are averaged first; the interval is `strongest_interval`'s over
    pools, whose upper end does not rest on a choice that may have missed the best.

    Raises ValueError as `rows` does, or where there is no such treatment.
    """
    whole("models", models, 1)
    given = {"table": table, "metric": metric, "by": by, "attacks": attacks}
    found = dict(_values(**given))
    one_of("treatment", tuple(treatment), found)
    values = found[tuple(treatment)]
    pools = values.groupby(values.index.to_numpy() // models).mean()
    return strongest_interval(pools.to_numpy(), level)


def _values(table: pd.DataFrame, metric: str, by: Sequence[str], attacks):
    """Return (treatment, values) pairs; the values are a table of seeds × attacks."""
    needed = ("seed", "attack", "metric", "value", *by)
    missing = [name for name in needed if name not in table]
    require(not missing, f"table must have the columns {', '.join(needed)}", missing)
    one_of("metric", metric, table["metric"].dropna().unique())
    there = table[(table["metric"] == metric) & table["attack"].notna()]
    chosen = sorted(there["attack"].unique()) if attacks is None else sorted(attacks)
    require(len(chosen) > 0, "attacks must name at least one", chosen)
    for name in chosen:
        one_of("attack", name, there["attack"].unique())
    there = there[there["attack"].isin(chosen)]
    found = []
    for treatment, part in there.groupby(list(by), dropna=False, sort=False):
        key = tuple(None if pd.isna(cell) else cell for cell in treatment)
        twice = part.loc[part.duplicated(["seed", "attack"]), ["seed", "attack"]]
        what = f"{key} must have one value a seed and attack"
        require(twice.empty, what, twice.head(3).to_numpy().tolist())
        wide = part.pivot(index="seed", columns="attack", values="value")
        gaps = wide.reindex(columns=chosen).isna().sum()
        gone = gaps[gaps > 0].to_dict()
        require(not gone, f"every attack must be run on every seed of {key}", gone)
        found.append((key, wide[chosen]))
    return found


def _elsewhere(values: np.ndarray, group: np.ndarray, treatment) -> np.ndarray:
    """Return for each row which column has the largest mean over the other groups."""
    names, place = np.unique(group, return_inverse=True)
    what = f"{treatment} must have two pools or more, or what is reported also chooses"
    require(len(names) > 1, what, len(names))
    each = np.stack([values[place == k].mean(0) for k in range(len(names))])
    best = ((each.sum(0) - each) / (len(names) - 1)).argmax(1)
    return best[place]
