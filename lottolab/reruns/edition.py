"""Run all chapters of a scale; leave alone those that are finished and still right.

`attempt_all` is a queue: it goes on where it was interrupted, because what is finished
lies in the store or in `_build/<scale>`. It commits nothing; `publish` copies what has
ended to where it is committed, also while the queue runs.
"""

import hashlib
import json
import platform
from importlib.metadata import distributions
from pathlib import Path

import joblib
import nbformat
import pandas as pd

from lottolab import jobs, runs
from lottolab.checks import require
from lottolab.pages import parameters
from lottolab.reruns import dryrun, execute
from lottolab.runs import store
from lottolab.truth import results
from lottolab.truth.claims_file import CHAPTERS
from lottolab.units import duration

CODE = Path(__file__).resolve().parents[1]
HOUR = 3600


def run_all(scale: str) -> dict[str, Path]:
    """Run every chapter that has the scale, and return the notebooks by chapter.

    Raises:
        ValueError: no chapter has the scale.
        Failed: chapters failed; the message names them, and all others have run.
    """
    notebooks, failures = attempt_all(scale)
    if failures:
        told = "; ".join(map(str, failures))
        count = f"{len(failures)} of {len(parameters.having(scale))} chapters failed"
        raise execute.Failed(f"{count}: {told}")
    return notebooks


def attempt_all(scale: str) -> tuple[dict[str, Path], list[execute.Failed]]:
    """Run every chapter that has the scale; return notebooks by chapter, and failures.

    A chapter that is finished is not run again. One that fails stops no other, and its
    notebook says what happened. Those whose results are stored run side by side, then
    the others one by one, because each of them computes on all cores, and those that
    only read results come last, to whom a chapter that failed has none.

    Raises:
        ValueError: no chapter has the scale.
    """
    names = parameters.having(scale)
    stored = [n for n in names if n in CHAPTERS and _stored_before(n, scale)]
    alone = [n for n in names if n in CHAPTERS and n not in stored]
    readers = [n for n in names if n not in CHAPTERS]
    done, failed, before = {}, {}, jobs.variables()
    hours = _expected(alone, scale)
    for group in (stored, *([name] for name in alone), readers):
        if group and (todo := [n for n in alone if n in hours and n not in done]):
            left = duration(sum(hours[n] for n in todo))
            told = f"{scale} scale: about {left} left on {jobs.processes()} processes"
            print(f"{told}, for {', '.join(todo)}", flush=True)
        beside = joblib.Parallel(n_jobs=min(jobs.processes(), max(1, len(group))))
        attempt = joblib.delayed(_attempt)
        here = before | {results.FAILED: " ".join(f"{scale}/{n}" for n in failed)}
        attempts = beside(attempt(name, scale, here) for name in group)
        for name, outcome in zip(group, attempts, strict=True):
            done[name] = outcome
            if isinstance(outcome, execute.Failed):
                failed[name] = outcome
                done[name] = execute.unfinished(_notebook(name, scale))
    return {name: done[name] for name in names}, list(failed.values())


def _attempt(chapter: str, scale: str, environment: dict) -> Path | execute.Failed:
    """Return the chapter's notebook, run if it is not finished, or what stopped it."""
    with jobs.adopted(environment):  # this may be a process of its own
        if is_finished(chapter, scale):
            told = f"{chapter} at {scale} scale: finished before, nothing has changed"
            print(told, flush=True)
            return _notebook(chapter, scale)
        try:
            return run(chapter, scale)
        except execute.Failed as error:
            print(f"{error}; the other chapters go on", flush=True)
            return error


def _expected(chapters: list[str], scale: str) -> dict[str, float]:
    """Return the seconds that chapters will take, if all together take an hour.

    To ask takes a minute or so, which nobody shall wait for who runs small ones.
    """
    known = [results.read_stages(c, results.shown(c, scale)) for c in chapters]
    seconds = sum(stages["seconds"].sum() for stages in known)
    if seconds < HOUR * jobs.processes():
        return {}
    todo = [c for c in chapters if not is_finished(c, scale)]
    return {chapter: dryrun.left(chapter, scale) for chapter in todo}


def publish(scale: str) -> tuple[list[str], list[str]]:
    """Copy the chapters whose runs have ended to where they are committed.

    The tables are those of any scale; the pages are the edition's and, of a chapter
    that has no edition, the laptop's. Those that only read results are drawn anew.
    Returns the names of the chapters that were copied, and of those that were not.

    Raises:
        ValueError: there is no such scale, or nothing of it has ended.
        Failed: a page that reads the results could not be drawn.
    """
    measured = [n for n in parameters.having(scale) if n in CHAPTERS]
    ended = [name for name in measured if _has_ended(name, scale)]
    again = f"a chapter must have been run: lottolab run --all --scale {scale}"
    require(ended, again, "none that has ended")
    for name in ended:
        results.commit(execute.build_folder(scale) / "results", name, scale)
        if results.shown(name, results.EDITION) == scale:
            execute.publish_notebook(_notebook(name, scale))
    for name in parameters.having(results.EDITION):
        if name not in CHAPTERS and scale in (results.EDITION, "laptop"):
            redraw(name)
    return ended, [name for name in measured if name not in ended]


def redraw(name: str) -> None:
    """Draw anew what a committed page draws from tables: verdicts, or all of it."""
    if name in CHAPTERS:
        execute.redraw(name)
    else:
        execute.publish_notebook(run(name, results.EDITION))


def _stored_before(chapter: str, scale: str) -> bool:
    """Say whether the store has all stages behind the chapter's last results."""
    table = results.find(chapter, scale, ".stages.csv")
    return table is not None and _is_stored(table)


def run(chapter: str, scale: str) -> Path:
    """Run one chapter at a scale, note what it was made of, and return its notebook."""
    before = ingredients(chapter, scale)
    print(f"{chapter} at {scale} scale", flush=True)
    notebook = execute.execute(chapter, scale)
    if all(path.is_file() for path in _tables(chapter, scale)):
        made = {"ingredients": before, "files": _files(chapter, scale)}
        _note(chapter, scale).write_text(json.dumps(made), encoding="utf-8")
    return notebook


def is_finished(chapter: str, scale: str) -> bool:
    """Say whether a run with the present code, parameters and store would add nothing.

    So it is if the notebook and the tables are those that a run left, what it was made
    of is unchanged, and the store holds every stage behind the tables. A notebook
    without a table of its own is drawn from the others' and never finished.
    """
    if not _has_ended(chapter, scale):
        return False
    made = json.loads(_note(chapter, scale).read_text("utf-8"))
    same = made.get("ingredients") == ingredients(chapter, scale)
    return same and _is_stored(_tables(chapter, scale)[1])


def _has_ended(chapter: str, scale: str) -> bool:
    """Say whether the notebook and the tables are those that one run left."""
    try:
        made = json.loads(_note(chapter, scale).read_text("utf-8"))
        return made["files"] == _files(chapter, scale)
    except (OSError, ValueError, KeyError):
        return False


def ingredients(chapter: str, scale: str) -> str:
    """Return a sha256 of all that a chapter is made of, its stages' results apart.

    That is its notebook without outputs, its parameters, all code of lottolab, the
    papers' numbers, the claims, and the versions of Python and of what is installed.

    Raises:
        ValueError: chapter or scale are not allowed.
    """
    values = parameters.resolve(chapter, scale, {})
    digest = hashlib.sha256()
    notebook = nbformat.read(parameters.BOOK / f"{chapter}.ipynb", as_version=4)
    cells = [[c.cell_type, c.source, c.metadata] for c in notebook.cells]
    installed = sorted(f"{d.name} {d.version}" for d in distributions())
    versions = [platform.python_version(), *installed]
    digest.update(json.dumps([cells, values, versions], sort_keys=True).encode())
    data = results.COMMITTED.parent
    files = [*CODE.rglob("*.py"), data / "claims.yaml", *data.glob("papers/*.csv")]
    for path in sorted(filter(Path.is_file, files)):
        digest.update(f"{path.name} {store.sha256(path)}".encode())
    return digest.hexdigest()


def _is_stored(table: Path) -> bool:
    """Say whether the store has the results behind a table of stages."""
    stages = pd.read_csv(table, keep_default_na=False, dtype=results.TEXTS)
    for stage in stages.itertuples():
        record = store.read_record(runs.root() / stage.stage) or {}
        if record.get("digest") != stage.digest:
            return False
        if record["fingerprint"] != stage.fingerprint:
            return False
    return True


def _files(chapter: str, scale: str) -> dict[str, str]:
    """Return name to sha256 of what a run leaves.

    Raises:
        FileNotFoundError: a file is missing.
    """
    paths = [_notebook(chapter, scale), *_tables(chapter, scale)]
    return {path.name: store.sha256(path) for path in paths}


def _notebook(chapter: str, scale: str) -> Path:
    return execute.build_folder(scale) / "notebooks" / f"{chapter}.ipynb"


def _tables(chapter: str, scale: str) -> list[Path]:
    folder = execute.build_folder(scale) / "results" / chapter
    return [folder / f"{scale}.csv", folder / f"{scale}.stages.csv"]


def _note(chapter: str, scale: str) -> Path:
    return _notebook(chapter, scale).with_suffix(".json")
