"""Rehearse chapters, print what they cost, and keep the table."""

import time
from pathlib import Path

import pandas as pd
from rich.table import Table

from lottolab.jobs import display
from lottolab.pages import parameters
from lottolab.reruns.rehearsal import cost, throughput
from lottolab.reruns.rehearsal.plan import planned
from lottolab.reruns.rehearsal.rehearsal import SIZES, rehearse
from lottolab.runs import staging
from lottolab.truth import results
from lottolab.units import duration

PATH = results.COMMITTED / "rehearsal.csv"
SUMMED = ["runs", "PFLOP", "GPU-hours", "CPU-hours", "hours here", "disk GB"]
SHOWN = ["stage", "network", "dataset", "runs", "steps", "PFLOP", "GPU-hours"]
SHOWN += ["CPU-hours", "hours here", "GPU GB", "disk GB"]
FORMATS = dict.fromkeys(["runs", "steps", "PFLOP"], ",.0f")
FORMATS |= dict.fromkeys(["GPU-hours", "CPU-hours", "disk GB", "GPU GB"], ",.1f")
FORMATS |= {"hours here": ",.0f", "seconds a step": ".3g"}


def report(chapters: list[str], scale: str, keep: bool) -> bool:
    """Rehearse chapters that have the scale; return whether none failed.

    With `keep` the table goes to data/results/rehearsal.csv, in place of the chapters'
    earlier rows.
    """
    tables = []
    for name in chapters:
        start = time.perf_counter()
        found = rehearse(planned(name, scale), SIZES.get(name, SIZES[""]))
        table = cost.table(found)
        table.insert(0, "chapter", name)
        took = duration(time.perf_counter() - start)
        _show(
            priced(table),
            f"{name} at {scale} scale: {len(found.ledgers)} kinds in {took}",
        )
        for key, error in found.errors.items():
            print(f"failed: {key.partition('{')[0]}: {error}\n  {key}")
        if keep:
            _keep(table, scale, found.tiny)
        tables.append(table)
    together = priced(pd.concat(tables))
    print("GPU-hours are", throughput.rule(throughput.read()))
    if len(chapters) > 1:
        sums = together.groupby("chapter", sort=False)[SUMMED].sum()
        _show(sums.reset_index(names="stage"), "all chapters")
    return not together["error"].any()


def read(path: Path = PATH) -> pd.DataFrame:
    """Return the committed table, a row for each stage, network, data set and batch,
    with the hours of a GPU by what was measured on one."""
    return priced(_kept(path))


def priced(table: pd.DataFrame) -> pd.DataFrame:
    """Return the table with `PFLOP` and `GPU-hours`."""
    hours = throughput.hours(table, throughput.read()).sum(axis=1)
    return table.assign(**{"PFLOP": table[cost.WORK].sum(axis=1), "GPU-hours": hours})


def _kept(path: Path) -> pd.DataFrame:
    empty = {"seconds a step": [""]}  # of stages that train nothing
    return pd.read_csv(path, keep_default_na=False, na_values=empty)


def _show(table: pd.DataFrame, title: str) -> None:
    names = [name for name in SHOWN if name in table]
    drawn = Table(*names, title=title)
    total = {name: table[name].sum() for name in SUMMED}
    for row in [*table.to_dict("records"), {"stage": "total", **total}]:
        row["stage"] = ".".join(row["stage"].split(".")[-2:])
        drawn.add_row(*[_cell(row.get(n, ""), FORMATS.get(n, "")) for n in names])
    display.console().print(drawn)


def _cell(value, form: str) -> str:
    if isinstance(value, str):
        return value
    return "" if pd.isna(value) else format(value, form)


def _keep(table: pd.DataFrame, scale: str, tiny: list[str], path: Path = PATH) -> None:
    here = staging.surroundings()
    marks = {k: here[k] for k in ("finished", "device", "versions", "peak_mb")}
    table = table.assign(scale=scale, tiny=" ".join(tiny), **marks)
    if path.is_file():
        before = _kept(path)
        own = before["chapter"].isin(table["chapter"]) & (before["scale"] == scale)
        table = pd.concat([before[~own], table])
    order = {name: place for place, name in enumerate(parameters.chapters())}
    table = table.sort_values("chapter", key=lambda c: c.map(order), kind="stable")
    table.to_csv(path, index=False, lineterminator="\n", float_format="%.6g")
