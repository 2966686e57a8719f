"""Sweep a chapter over a grid of parameters: one tidy table, one figure.

A point of the grid is one run of the chapter, with a notebook and results of its own,
or one run of a stage.
"""

import functools
import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import matplotlib.pyplot as plt
import pandas as pd

from lottolab import jobs
from lottolab.jobs import display
from lottolab.pages import curves, parameters
from lottolab.reruns import execute
from lottolab.reruns.sweeps import grids, one_stage, points
from lottolab.runs import files, progress
from lottolab.truth import results
from lottolab.units import duration


def sweep(
    chapter: str,
    scale: str,
    given: list[str],
    folder: Path,
    *,
    stage: str | None = None,
    scheduler: str | None = None,
    gpus: int = 0,
    metric: str | None = None,
    where: list[str] | None = None,
) -> int:
    """Run what is missing of a grid; leave `table.csv` and `figure.png` in `folder`.

    The table holds the chapter's rows of each point, in the grid's order, after the
    point's parameters (`p_…`); a point that failed is one row with its `error`. Returns
    how many failed.

    Args:
        given: `NAME=VALUES`, see `grids.read`.
        stage: of the chapter, whose arguments are swept instead, see `stages.find`.
        scheduler, gpus: of a Dask cluster, see `points.run`.
        metric, where: what the figure shows and of which rows, `COLUMN=VALUES`; by
            default what `curves.shown` says.

    Raises:
        ValueError: the chapter, the scale, a parameter or a value is not allowed, and
            nothing has run; or the table, which is written, has no such rows to draw.
        RuntimeError: the scheduler cannot be reached.
    """
    marks, look, words = grids.marks(where or []), None, {}
    if stage is None:
        made, salt = grids.of_chapter(chapter, scale, given), _code(chapter)
        call = functools.partial(run_point, chapter, scale)
        look, words = curves.shown(chapter), grids.words(chapter, given)
    else:
        made, call, salt = _grid_of_stage(chapter, scale, stage, given)
    named = {_name(salt, scale, point): point for point in made}
    told = {
        name: {words.get(key, key): _cell(value) for key, value in point.items()}
        for name, point in named.items()
    }
    side = {"jobs": jobs.processes(), "scheduler": scheduler, "gpus": gpus}
    ended = _finish(call, chapter, scale, named, told, folder, side)
    rows = [_rows(chapter, scale, folder, n, told[n], ended[n]) for n in named]
    table = pd.concat(rows)
    _write(table, folder / "table.csv")
    (folder / "figure.png").unlink(missing_ok=True)
    if "metric" in table and table["metric"].notna().any():
        shown = {"look": look, "metric": metric, "where": marks}
        figure = curves.draw(table, list(told.values()), **shown)
        with files.replacing(folder / "figure.png") as new:
            figure.savefig(new, format="png")
        plt.close(figure)
    return sum(bool(record["error"]) for record in ended.values())


def run_point(
    chapter: str, scale: str, point: dict, folder: Path, *, environment: dict
) -> None:
    """Run the chapter with the point's parameters into its folder."""
    with jobs.adopted(environment):
        execute.execute(chapter, scale, point, folder)


def _grid_of_stage(
    chapter: str, scale: str, stage: str, given: list[str]
) -> tuple[list[dict], Callable, str]:
    """Return the points of a stage's grid, what runs one, and the stage's name."""
    texts = grids.read(given)
    function, base, read = one_stage.find(chapter, scale, stage, texts)
    made = grids.product({n: [read[n][1].parse(t) for t in texts[n]] for n in texts})
    whole = {"function": function, "base": base}
    whole |= {"places": {name: place for name, (place, _) in read.items()}}
    call = functools.partial(one_stage.run_point, chapter, scale, **whole)
    return made, call, json.dumps(whole, sort_keys=True)


def _finish(
    call: Callable,
    chapter: str,
    scale: str,
    named: dict[str, dict],
    told: dict[str, dict],
    folder: Path,
    side: dict,
) -> dict[str, dict]:
    """Run the points that are missing; return the records of all by name.

    `told` says them in the words of the command line.
    """
    ended = {n: r for n in named if (r := _ended(chapter, scale, folder, n))}
    todo = {n: point for n, point in named.items() if n not in ended}
    print(f"{len(named)} points, {len(ended)} of them are there", flush=True)
    here = jobs.variables()
    here["LOTTOLAB_JOBS"] = "1"  # the points are what is side by side
    with display.watch(f"sweep of {chapter}"):
        here |= {progress.FOLDER: os.environ[progress.FOLDER]}
        call = functools.partial(call, environment=here)
        for name, record in points.run(call, todo, folder / "points", **side):
            ended[name] = record
            said = record["error"] or f"done in {duration(record['seconds'])}"
            text = f"{len(ended)}/{len(named)} {grids.label(told[name])}: {said}"
            print(text, flush=True)
    return ended


def _code(chapter: str) -> str:
    """Return the chapter's code; that of the stages it runs is asked in `_ended`."""
    notebook = json.loads((parameters.BOOK / f"{chapter}.ipynb").read_text("utf-8"))
    code = [c["source"] for c in notebook["cells"] if c["cell_type"] == "code"]
    return json.dumps(code)


def _name(salt: str, scale: str, point: dict) -> str:
    text = json.dumps([salt, scale, point], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def _cell(value):
    """Write a value into a table: a list's only element, or the list as JSON."""
    if isinstance(value, list):
        return value[0] if len(value) == 1 else json.dumps(value)
    return value


def _ended(chapter: str, scale: str, folder: Path, name: str) -> dict | None:
    """Return the record of a point that ended well, with the code as it is now."""
    record = points.read(folder / "points" / name)
    if record is None or record["error"]:
        return None
    path = _measured(chapter, scale, folder, name).with_suffix(".stages.csv")
    if path.exists():
        behind = pd.read_csv(path, keep_default_na=False, dtype=results.TEXTS)
        if any(results.current(s) != s["fingerprint"] for _, s in behind.iterrows()):
            return None
    return record


def _measured(chapter: str, scale: str, folder: Path, name: str) -> Path:
    return folder / "points" / name / "results" / chapter / f"{scale}.csv"


def _rows(
    chapter: str, scale: str, folder: Path, name: str, told: dict, record: dict
) -> pd.DataFrame:
    own = {curves.PREFIX + key: value for key, value in told.items()}
    path = _measured(chapter, scale, folder, name)
    if record["error"] or not path.exists():
        return pd.DataFrame([own | {"error": record["error"]}])
    table = results.load(path)
    return pd.concat([pd.DataFrame([own] * len(table)), table], axis=1)


def _write(table: pd.DataFrame, path: Path) -> None:
    with files.replacing(path) as new:
        table.to_csv(new, index=False, lineterminator="\n")
