"""Select the rows of a results table that decide a claim.

A test's `a` and `b` select rows of the chapter's results table by plain equality on its
columns, and exactly one row a seed must remain. There are no ranges: the chapter labels
the rows that decide, as in `point: sparsest`. A cell may hold several labels, separated
by ";". The table's own `claim` column takes no part: it tells readers what a row was
measured for.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd


class ClaimError(ValueError):
    """Say which claim cannot be judged from its table, why, and what to do."""


class UnmeasuredError(ClaimError):
    """Say which rows a claim asks for that its table does not have."""


def select(
    table: pd.DataFrame, selection: Mapping[str, Any], claim: str
) -> pd.DataFrame:
    """Return the rows that a claim's selection picks, indexed by seed, one row a seed.

    Numbers match to a relative 1e-9; texts match a cell, or a label in it between ";".
    Raises UnmeasuredError if a column is missing or nothing matches, and ClaimError if
    a seed does twice.
    """
    where, kept = f"claim {claim}: {dict(selection)}", np.arange(len(table))
    for column in ("seed", "value", *selection):
        if column not in table:
            columns = ", ".join(map(str, table.columns))
            raise UnmeasuredError(
                f"{where}: no column {column!r} in the table ({columns})"
            )
    for column, wanted in selection.items():
        cells = table[column].iloc[kept]
        kept = kept[_matches(cells, wanted)]
        if not len(kept):
            there = cells.drop_duplicates().tolist()
            raise UnmeasuredError(
                f"{where}: no row has {column} = {wanted!r}, they have {there[:9]}; "
                "measure it, or correct the selection"
            )
    rows = table.iloc[kept]
    seeds = rows["seed"]
    if seeds.duplicated().any():
        twice = rows[seeds == seeds[seeds.duplicated()].iloc[0]]
        differ = {c: twice[c].tolist() for c in twice if twice[c].nunique() > 1}
        raise ClaimError(
            f"{where}: {len(twice)} rows for seed {twice['seed'].iloc[0]}, which "
            f"differ in {differ}; select by a column that tells them apart"
        )
    return rows.set_index("seed")


def _matches(column: pd.Series, wanted: str | float | bool) -> np.ndarray:
    if isinstance(wanted, int | float) and not isinstance(wanted, bool):
        cells = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float)
        return np.isclose(cells, wanted, rtol=1e-9, atol=0)
    places, cells = pd.factorize(column, use_na_sentinel=False)
    labels = ([part.strip() for part in str(cell).split(";")] for cell in cells)
    return np.array([str(wanted) in parts for parts in labels], dtype=bool)[places]
