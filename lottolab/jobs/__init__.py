"""Plan many runs of stages and compute them in processes side by side.

`jobs.compute([(stage, arguments), …])` is what a chapter needs. `environment` gives its
variables to a worker, which `orphans` ends with the run; `cluster` says what a Dask
cluster lacks. `display` draws how far all processes are; `steps` are loops of which a
rehearsal takes a few steps; `named` finds the package's stages by their names. A run
that fails or dies is told by stage, arguments and signal, and stops no other.
"""

import faulthandler
import json
import multiprocessing
import os
import re
import tempfile
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import joblib
import pandas as pd
from joblib.externals.loky import BrokenProcessPool, ProcessPoolExecutor

from lottolab.checks import require
from lottolab.jobs import cluster, display, orphans, steps
from lottolab.jobs.environment import adopted, variables
from lottolab.runs import places, progress, staging

Work = list[tuple[Callable, dict]]
PLANNED = ["stage", "runs", "in store", "seconds", "minutes left"]
LINES = 8  # of an error's traceback that are told
MOST = 5  # failures that are told
KILLED = "; SIGKILL mostly means too little memory: try LOTTOLAB_JOBS=1"


class RunsFailed(RuntimeError):
    """Runs of stages failed; all others that were asked for are in the store."""


def plan(work: Work) -> pd.DataFrame:
    """Announce the work: pairs of a stage and its settings, in the order of computing.

    Returns a row a stage: `stage`, `runs`, `in store`, `seconds` a run (the mean of
    the records in the store or, failing that, of the last edition; NaN where nothing
    is known) and `minutes left` on all processes. The display of remaining time is
    made from it; so is the table of a dry run, with the peak memory of the records.
    """
    expected = json.loads(os.environ.get("LOTTOLAB_EXPECTED") or "{}")
    rows, waiting = [], {}
    work = steps.watcher().announced(work)
    for stage in dict.fromkeys(stage for stage, _ in work):
        records = [places.record(s, **setting) for s, setting in work if s is stage]
        left = _missing(records)
        known = [r["seconds"] for r in records if r]
        known = known or expected.get(places.name(stage), [])
        seconds = sum(known) / len(known) if known else float("nan")
        rows.append(
            {"stage": places.name(stage), "runs": len(records)}
            | {"in store": len(records) - left, "seconds": seconds}
            | {"minutes left": left * seconds / 60 / processes() if left else 0.0}
            | {"peak_mb": max((r["peak_mb"] for r in records if r), default=None)}
        )
        waiting[places.name(stage)] = [seconds if known else 1.0] * left
    progress.emit("plan", jobs=processes(), stages=waiting, rows=rows)
    return pd.DataFrame(rows, columns=PLANNED)


def compute(work: Work, keep: tuple[str, ...] | None = None) -> list[dict]:
    """Compute the work in processes side by side; return the results in its order.

    A stage that needs another one waits for it, so put what is needed first. The runs
    of a stage go together: one after the other, a run and what it needs would leave
    all processes but one waiting. Inside `joblib.parallel_config("dask")` the calls run
    on that cluster. What the store has is read in this process. Of each result only the
    values named in `keep` come back, or all.

    A run that fails stops no other. One whose process dies is tried once more, alone.

    Raises:
        DryRun: this is a dry run, and not all of the work is in the store.
        RunsFailed: some failed; it says which, why, and the last lines of their errors.
    """
    instead = steps.watcher().compute(work, keep)
    if instead is not None:
        return instead
    here = variables()
    stored = [not _missing([places.record(s, **setting)]) for s, setting in work]
    alone = not os.environ.get(progress.FOLDER)
    for stage, setting in work:  # a notebook's functions have their source only here
        places.current(stage, places.arguments(stage, setting))
    if os.environ.get(staging.DRY) and (left := stored.count(False)):
        raise staging.DryRun(f"{left} of {len(work)} runs are not in the store")
    stages = list(dict.fromkeys(stage for stage, _ in work))
    order = sorted(range(len(work)), key=lambda place: stages.index(work[place][0]))
    todo = {p: work[p] for p in order if not stored[p]}
    with display.watch("lottolab"):
        if alone:  # or else who watches has been told of all the work
            plan(work)
        here |= {progress.FOLDER: os.environ[progress.FOLDER]}
        found = _side_by_side(todo, here, keep)
        failed = [found[p] for p in order if isinstance(found.get(p), str)]
        if failed:
            head = f"{len(failed)} of {len(work)} runs failed, the others are stored: "
            head *= len(work) > 1
            more = [f"and {len(failed) - MOST} more"] * (len(failed) > MOST)
            raise RunsFailed(head + "\n\n".join(failed[:MOST] + more))
        found |= {p: _kept(*work[p], keep) for p in order if stored[p]}
    return [found[place] for place in range(len(work))]


def _side_by_side(
    todo: dict[int, tuple[Callable, dict]],
    here: dict[str, str],
    keep: tuple[str, ...] | None,
) -> dict[int, dict | str]:
    """Return each run's result by its place, or what to say of its failure."""
    found: dict[int, dict | str] = {}
    call = joblib.delayed(_in_worker)
    client = getattr(joblib.parallel.get_active_backend()[0], "client", None)  # Dask's
    while left := [place for place in todo if place not in found]:
        with _folder() as marks, warnings.catch_warnings(), cluster.watched(client):
            # A worker that has grown is replaced by a fresh one; nothing is lost.
            warnings.filterwarnings("ignore", "A worker stopped", UserWarning)
            beside = joblib.Parallel(
                n_jobs=processes(), batch_size=1, return_as="generator_unordered"
            )
            calls = (call(*todo[p], here, keep, marks, p) for p in left)
            try:
                for place, outcome in beside(calls):
                    found[place] = outcome
            except BrokenProcessPool as error:
                died = _died(marks, todo)
                if not died:  # no run is to blame
                    raise
                ran = " or ".join(died[place]["run"] for place in died)
                end, hint = _ending(error)
                display.say(f"a worker died ({end}) in {ran}; tried again alone{hint}")
                for place in died:
                    found[place] = _alone(*todo[place], here, keep, place)
    return found


def _alone(
    stage: Callable, setting: dict, here: dict, keep: tuple[str, ...] | None, place: int
) -> dict | str:
    """Run in a fresh process; return the result or what to say of its failure.

    The stage that ended the process, maybe one that was asked for, is noted in `here`.
    """
    with _folder() as marks, ProcessPoolExecutor(1) as fresh:
        run = fresh.submit(_in_worker, stage, setting, here, keep, marks, place)
        try:
            return run.result()[1]
        except BrokenProcessPool as error:
            unknown = {"run": places.told(stage, setting), "place": "", "said": ""}
            died = _died(marks, {place: (stage, setting)}).get(place, unknown)
            here[staging.DIED] = f"{here.get(staging.DIED, '')} {died['place']}"
            end, hint = _ending(error)
            told = f"{died['run']}: its process died ({end}), also alone"
            display.say(f"{told}; given up")
            return "\n".join([told + hint, *died["said"].splitlines()[:LINES]])


def _folder() -> tempfile.TemporaryDirectory:
    return tempfile.TemporaryDirectory(ignore_cleanup_errors=True)


def _died(marks: str, todo: dict[int, tuple[Callable, dict]]) -> dict[int, dict]:
    """Return of each run that was cut off the `run` and `place` of the innermost stage,
    its process `pid`, and what that `said`.

    When one process dies, joblib ends the others. The one that crashed has said so;
    where none has, all are suspects.
    """
    stacks, found = display.running(), {}
    for path in Path(marks).iterdir():
        place, pid = map(int, path.name.split("-"))
        found[place] = {"run": places.told(*todo[place]), "place": "", "pid": pid}
        found[place] |= (stacks.get(pid) or [{}])[-1]
        found[place] |= {"said": path.read_text(errors="replace")}
    progress.emit("dead", pids=[run["pid"] for run in found.values()])
    return {place: run for place, run in found.items() if run["said"]} or found


def _ending(error: BrokenProcessPool) -> tuple[str, str]:
    """Return how a process ended, such as `SIGKILL` (in joblib's prose), and a hint."""
    codes = re.findall(r"SIG[A-Z0-9]+|EXIT\(\d+\)", str(error))
    end = ", ".join(dict.fromkeys(codes)) or "nobody knows of what"
    return end, KILLED if "SIGKILL" in end else ""


@contextmanager
def _mark(marks: str, place: int) -> Iterator[None]:
    """Keep a file while a worker is in a run; a crash of the process writes into it."""
    path = Path(marks, f"{place}-{os.getpid()}")
    if multiprocessing.parent_process() is None or not path.parent.is_dir():
        yield  # this is no worker, or one on another machine
        return
    with open(path, "w") as file:
        faulthandler.enable(file, all_threads=False)
        yield
        faulthandler.disable()
    path.unlink()


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
    stage: Callable,
    setting: dict,
    environment: dict,
    keep: tuple[str, ...] | None,
    marks: str,
    place: int,
) -> tuple[int, dict | str]:
    orphans.follow()
    with adopted(environment), _mark(marks, place):
        try:
            return place, _kept(stage, setting, keep)
        except Exception as error:
            why = f"{places.told(stage, setting)}: {type(error).__name__}: {error}"
            last = traceback.format_exc().splitlines()[-LINES:]
            return place, "\n".join([why, *last])
