"""Plan many runs of stages and compute them in processes side by side."""

import json
import os
import warnings
from collections.abc import Callable, Iterable

import joblib
import pandas as pd

from lottolab import progress, runs
from lottolab.checks import require

Work = list[tuple[Callable, dict]]
FOLDERS = {"LOTTOLAB_STORE", "LOTTOLAB_DATA", "LOTTOLAB_RESULTS", progress.FOLDER}


def plan(work: Work) -> pd.DataFrame:
    """Announce the work: pairs of a stage and its settings, in the order of computing.

    Returns a row a stage: `stage`, `runs`, `in store`, `seconds` a run (the mean of
    the records in the store or, failing that, of the last edition; NaN where nothing
    is known) and `minutes left` on all processes. The display of remaining time is
    made from it; so is the table of a dry run, with the peak memory of the records.
    """
    expected = json.loads(os.environ.get("LOTTOLAB_EXPECTED") or "{}")
    rows, waiting = [], {}
    for stage in dict.fromkeys(stage for stage, _ in work):
        records = [runs.record(s, **setting) for s, setting in work if s is stage]
        left = _missing(records)
        known = [r["seconds"] for r in records if r]
        known = known or expected.get(runs.name(stage), [])
        seconds = sum(known) / len(known) if known else float("nan")
        rows.append(
            {"stage": runs.name(stage), "runs": len(records)}
            | {"in store": len(records) - left, "seconds": seconds}
            | {"minutes left": left * seconds / 60 / processes() if left else 0.0}
            | {"peak_mb": max((r["peak_mb"] for r in records if r), default=None)}
        )
        waiting[runs.name(stage)] = [seconds if known else 1.0] * left
    progress.emit("plan", jobs=processes(), stages=waiting, rows=rows)
    return pd.DataFrame(rows).drop(columns="peak_mb", errors="ignore")


def compute(work: Work, keep: tuple[str, ...] | None = None) -> list[dict]:
    """Compute the work in processes side by side; return the results in its order.

    A stage that needs another one waits for it, so put what is needed first. The runs
    of a stage go together: one after the other, a run and what it needs would leave
    all processes but one waiting. Inside `joblib.parallel_config("dask")` the calls run
    on that cluster. What the store has is read in this process. Of each result only the
    values named in `keep` come back, or all.

    Raises:
        DryRun: this is a dry run, and not all of the work is in the store.
    """
    here = variables()
    stored = [not _missing([runs.record(s, **setting)]) for s, setting in work]
    alone = not os.environ.get(progress.FOLDER)
    for stage, setting in work:  # a notebook's functions have their source only here
        runs.current(stage, runs.arguments(stage, setting))
    if os.environ.get(runs.DRY) and (left := stored.count(False)):
        raise runs.DryRun(f"{left} of {len(work)} runs are not in the store")
    stages = list(dict.fromkeys(stage for stage, _ in work))
    order = sorted(range(len(work)), key=lambda place: stages.index(work[place][0]))
    with progress.watch("lottolab"):
        if alone:  # or else who watches has been told of all the work
            plan(work)
        here |= {progress.FOLDER: os.environ[progress.FOLDER]}
        call = joblib.delayed(_in_worker)
        with warnings.catch_warnings():
            # A worker that has grown is replaced by a fresh one; nothing is lost.
            warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
            results = joblib.Parallel(n_jobs=processes(), batch_size=1)(
                call(*work[place], here, keep) for place in order if not stored[place]
            )
        found = dict(zip((p for p in order if not stored[p]), results, strict=True))
        found |= {p: _kept(*work[p], keep) for p in order if stored[p]}
    return [found[place] for place in range(len(work))]


def _kept(stage: Callable, setting: dict, keep: tuple[str, ...] | None) -> dict:
    result = stage(**setting)
    return result if keep is None else {k: result[k] for k in keep if k in result}


def _missing(records: Iterable[dict | None]) -> int:
    """Count the runs whose result the store has not, or only a stale one."""
    return sum(not record or record["stale"] for record in records)


def processes() -> int:
    """Return how many processes work side by side: `LOTTOLAB_JOBS`, or the cores."""
    given = os.environ.get("LOTTOLAB_JOBS") or str(joblib.cpu_count())
    whole = given.isdecimal() and int(given) >= 1
    require(whole, "LOTTOLAB_JOBS must be a whole number of at least 1", given)
    return int(given)


def _in_worker(
    stage: Callable, setting: dict, environment: dict, keep: tuple[str, ...] | None
) -> dict:
    adopt(environment)
    return _kept(stage, setting, keep)


def variables() -> dict[str, str]:
    """Return the project's environment variables, for a worker to adopt."""
    found = {k: v for k, v in os.environ.items() if k.startswith("LOTTOLAB_")}
    return absolute(found)


def absolute(variables: dict[str, str]) -> dict[str, str]:
    """Make the folders absolute that variables name: who reads them runs elsewhere."""
    named = {k: os.path.abspath(v) for k, v in variables.items() if k in FOLDERS and v}
    return variables | named


def adopt(environment: dict[str, str]) -> None:
    """Take these for the project's variables: a worker outlives who started it."""
    for key in variables():
        del os.environ[key]
    os.environ.update(environment)
