"""Compute what decides a chapter's claims in the arithmetic of another CPU, too.

The instructions that torch and oneDNN may use are cut down by two variables that they
read when a process starts, so each arithmetic has processes, and a store, of its own.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from lottolab import runs
from lottolab.checks import one_of, require
from lottolab.pages.verdicts import machines
from lottolab.reruns import execute
from lottolab.runs import files, store
from lottolab.truth import claims, results
from lottolab.truth.selection import ClaimError, select

ARITHMETICS = {
    "avx2": {"ONEDNN_MAX_CPU_ISA": "AVX2", "ATEN_CPU_CAPABILITY": "avx2"},
    "sse41": {"ONEDNN_MAX_CPU_ISA": "SSE41", "ATEN_CPU_CAPABILITY": "default"},
}
COMPUTE = """import json, sys
from lottolab import jobs
from lottolab.jobs import named
work = json.load(sys.stdin)
jobs.compute([(named.find(name), given) for name, given in work], ())"""


def other(chosen: str | None = None) -> str:
    """Return the arithmetic to compare with: AVX2, or SSE4.1 where AVX2 is native.

    Raises:
        ValueError: the chosen one does not exist, or is what this machine does anyway.
    """
    native = torch.backends.cpu.get_cpu_capability().lower()
    able = {"avx2": ["sse41"]}.get(native, ["avx2", "sse41"])
    able = [] if native == "default" else able
    what = "this machine's CPU has no instructions that can be left out"
    require(able, what, native)
    if chosen is not None:
        one_of("the arithmetic", chosen, able)
    return chosen or able[0]


def compute(chapter: str, scale: str, chosen: str | None = None) -> tuple[Path, int]:
    """Compute the rows behind the chapter's headline claims in both arithmetics.

    A second call computes what is missing. Where no claim of the chapter is marked as a
    headline, all of them count. Returns the table's path, beside the committed results,
    and how many rows were left out, because no stage's result holds them as they are.

    Raises:
        ValueError: the arithmetic is not allowed, or the chapter has no results.
        RuntimeError: stages failed; those that did not are stored.
    """
    arithmetic = other(chosen)
    table = results.read(chapter, scale)
    again = f"{chapter} must have results at {scale} scale: run and publish it"
    require(table is not None, again, "none")
    rows = decisive(chapter, table)
    stages = results.read_stages(chapter, scale).set_index("stage")
    work = stages.loc[rows["stage"].unique()]
    told = [(s.function, json.loads(s.arguments)) for s in work.itertuples()]
    place = execute.ROOT / "_build/machines" / arithmetic
    sides = [(machines.HERE, "as this CPU does", runs.root(), {})]
    sides += [(machines.THERE, arithmetic, place, ARITHMETICS[arithmetic])]
    found = []
    for machine, name, root, variables in sides:
        _child(told, root, variables)
        read = {stage: store.read(root / stage) for stage in work.index}
        values = [value(read[row["stage"]], row) for _, row in rows.iterrows()]
        found.append(rows.assign(value=values, machine=machine, arithmetic=name))
    both = pd.concat(found)
    lost = {*both.index[both["value"].isna()]}
    return _write(both[~both.index.isin(lost)], chapter, scale), len(lost)


def beside(chapter: str, scale: str, theirs: Path) -> tuple[Path, int]:
    """Set those rows beside what another machine measured: its table of the same scale.

    A row is another's if stage, code (by fingerprint) and all marks are the same.
    Nothing is computed; what comes back is as `compute` has it, with what the others'
    `.stages.csv`, if it lies there, calls their device.

    Raises:
        ValueError: the chapter has no results, the file is no such table, or none of
            its rows is one of ours.
    """
    table = results.read(chapter, scale)
    again = f"{chapter} must have results at {scale} scale: run and publish it"
    require(table is not None, again, "none")
    require(theirs.is_file(), "--against must be a table of results", theirs)
    tables = [table, results.load(theirs)]
    mine, others = (
        decisive(chapter, t).assign(code=t["fingerprint"]).reset_index(drop=True)
        for t in tables
    )
    marks = [c for c in mine if c in others and c not in machines.MEASURED]
    one, other = (
        t.assign(place=t.index).set_index(
            t[marks].astype(object).where(t[marks].notna(), "").agg(tuple, axis=1)
        )["place"]
        for t in (mine, others)
    )
    known = one.index.intersection(other.index)
    what = f"{theirs} must hold a row of the headline claims, by the same code"
    require(len(known) > 0, what, "none")
    told = theirs.with_name(theirs.name.replace(".csv", ".stages.csv", 1))
    device = pd.read_csv(told)["device"].mode()[0] if told.exists() else "another"
    sides = [(mine, one, machines.HERE, "as this CPU does")]
    sides += [(others, other, machines.THERE, device)]
    both = pd.concat(
        t.loc[places[known]].drop(columns="code").assign(machine=name, arithmetic=how)
        for t, places, name, how in sides
    )
    return _write(both, chapter, scale), len(mine) - len(known)


def _write(both: pd.DataFrame, chapter: str, scale: str) -> Path:
    path = results.COMMITTED / chapter / f"{scale}{machines.SUFFIX}"
    path.parent.mkdir(parents=True, exist_ok=True)
    with files.replacing(path) as new:
        both.dropna(axis="columns", how="all").to_csv(
            new, index=False, lineterminator="\n"
        )
    return path


def decisive(chapter: str, table: pd.DataFrame) -> pd.DataFrame:
    """Return the rows that decide the headline claims, without their provenance."""
    own = [c for c in claims.load() if c.chapter == chapter and c.tests]
    marked = [c for c in own if c.headline]
    numbered, kept = table.assign(place=np.arange(len(table))), set()
    for claim in marked or own:
        for test in claim.tests:
            try:
                for selection in filter(None, (test.a, test.b)):
                    kept |= {*select(numbered, selection, claim.id)["place"]}
            except ClaimError:
                continue
    without = ["claim", "stale", "seconds", "fingerprint"]
    return table.iloc[sorted(kept)].drop(columns=without, errors="ignore")


def value(result: dict, row: pd.Series) -> float:
    """Return what a stage's result says of a row that was measured on it before.

    That is nan if the row is not in there, or not once: others were computed from it.
    """
    if "measurements" not in result:
        return results.metrics_of(result).get(row["metric"], np.nan)
    found = result["measurements"]
    for column in found.columns.difference(["value"]).intersection(row.index):
        found = found[[_same(cell, row[column]) for cell in found[column]]]
    return float(found["value"].iloc[0]) if len(found) == 1 else np.nan


def _same(a, b) -> bool:
    if pd.isna(a) or pd.isna(b):
        return bool(pd.isna(a) and pd.isna(b))
    try:
        return bool(np.isclose(float(a), float(b), rtol=1e-9, atol=0))
    except ValueError:
        return str(a) == str(b)


def _child(work: list[tuple[str, dict]], root: Path, variables: dict) -> None:
    """Compute stages in a process that starts with these variables, and their store."""
    own = {**os.environ, "LOTTOLAB_STORE": str(root.resolve()), **variables}
    call, text = [sys.executable, "-c", COMPUTE], json.dumps(work)
    done = subprocess.run(call, input=text, text=True, env=own, cwd=execute.ROOT)
    failed = f"stages failed with {variables or 'all instructions'}; see above"
    if done.returncode:
        raise RuntimeError(failed)
