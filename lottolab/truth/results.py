"""Keep what was measured: one tidy table a chapter and scale, a row a measurement.

Beside `<scale>.csv` stands `<scale>.stages.csv`, a row for each stage that a
measurement comes from, or that such a stage asked for, with all that is needed to run
it again and compare.
"""

import itertools
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import pandas as pd

from lottolab import jobs
from lottolab.checks import require
from lottolab.jobs import named
from lottolab.runs import files, places, store

Asked = tuple[dict, Callable, dict]  # columns of the rows, a stage, its arguments
COMMITTED = Path(__file__).resolve().parents[2] / "data" / "results"
FOLDER = "LOTTOLAB_RESULTS"
FAILED = "LOTTOLAB_FAILED"  # <scale>/<chapter>s of this run, whose old tables wait
EDITION = "edition"  # the scale that is read; before it is run, the laptop's
LAPTOP = "laptop"
OWN = "LOTTOLAB_OWN"  # set in a reader's own run, which may leave rows unmeasured
SUFFIXES = (".csv", ".stages.csv")
PROVENANCE = ["seconds", "fingerprint", "stage"]  # more of it is in the other table
STAGE = ["stage", "function", "arguments", "data", "fingerprint", "digest", "seconds"]
STAGE += ["peak_mb", "finished", "device", "versions"]
NEEDED = ["claim", "metric", "value", "seed", "fingerprint", "stage"]
# What `measure` reads of a result; hundreds of networks' weights stay where they are.
MEASURED = ("accuracy", "density", "metrics", "measurements")
# Digits alone, or around one e, would be read as a number.
TEXTS = {"fingerprint": str, "digest": str, "claim": str}


def row(stage, setting: dict, *, metric: str, value: float, claim="", **columns):
    """Return one measurement on the result of `stage(**setting)`.

    Args:
        metric: what was measured, one word for one thing (`test_accuracy`).
        claim: ids of the claims that it decides, separated by blanks.
        columns: the settings that tell this row from others (`arm`, `density` …), and
            the `seed` where it is not the stage's argument.

    Raises:
        LookupError: the store has no result of the stage.
    """
    columns |= {"metric": metric, "value": value}
    return _row(_source(stage, setting), {"claim": claim} | columns)


def _row(source: dict, columns: dict) -> dict:
    """Put the seed behind the columns, and behind it where the value is from."""
    columns = dict(columns)
    seed = columns.pop("seed", source["seed"])
    return columns | {"seed": seed} | {k: source[k] for k in PROVENANCE}


def _source(stage, setting: dict) -> dict:
    """Return where the measurements on a stage's result are from, and its seed."""
    record = places.record(stage, **setting)
    if record is None:
        raise LookupError(f"{places.name(stage)} has no result for {setting}")
    place = f"{record['stage']}/{places.place(stage, **setting).name}"
    return record | {"seed": record["arguments"].get("seed"), "stage": place}


def cross(
    stage: Callable, settings: list[dict], columns: dict | None = None, **axes
) -> list[Asked]:
    """Ask a stage for every combination of the values of `axes`, at each setting.

    An axis is an argument of the stage and a column of its rows; `columns` are more of
    these. What comes back goes to `measure`.

    >>> asked = cross(print, [{"seed": 0}], {"arm": "locked"}, share=(0.1, 0.5))
    >>> [(columns["share"], given) for columns, _, given in asked]
    [(0.1, {'seed': 0, 'share': 0.1}), (0.5, {'seed': 0, 'share': 0.5})]
    """
    points = itertools.product(*axes.values())
    values = [dict(zip(axes, point, strict=True)) for point in points]
    shared = columns or {}
    return [(shared | v, stage, given | v) for v in values for given in settings]


def measure(asked: list[Asked]) -> list[dict]:
    """Compute what is asked for side by side; return a row for each measurement.

    Measurements are a result's `metrics`, numbers by name; or its table of
    `measurements` with the columns `metric`, `value` and more that join those of the
    row; or the accuracies of a trained network, whose `density` becomes a column.

    Args:
        asked: for each stage the columns of its rows (`arm` …), the stage and its
            arguments, as `cross` makes them.
    """
    outcomes = jobs.compute([(stage, given) for _, stage, given in asked], MEASURED)
    rows = []
    for (columns, stage, given), outcome in zip(asked, outcomes, strict=True):
        more = {"density": outcome["density"]} if "density" in outcome else {}
        found = [{"metric": m, "value": v} for m, v in metrics_of(outcome).items()]
        if "measurements" in outcome:
            found = outcome["measurements"].to_dict("records")
        source = _source(stage, given) if found else {}
        shared = {"claim": "", **columns, **more}
        rows += [_row(source, shared | marks) for marks in found]
    return rows


def metrics_of(outcome: dict) -> dict[str, float]:
    """Return a stage's own metrics or, without any, its accuracies."""
    accuracy = outcome.get("accuracy", {})
    return outcome.get("metrics") or {f"{k}_accuracy": accuracy[k] for k in accuracy}


def write(chapter: str, scale: str, rows: list[dict]) -> pd.DataFrame:
    """Write the chapter's tables, in one step each, and return the measurements.

    From now on this process reads them, and not the committed ones.
    """
    table = pd.DataFrame(rows)
    os.environ[FOLDER] = str(_target(scale))
    folder = _target(scale) / chapter
    folder.mkdir(parents=True, exist_ok=True)
    stages = [_stage_row(place) for place in _behind(table["stage"].unique())]
    _replace(pd.DataFrame(stages, columns=STAGE), folder / f"{scale}.stages.csv")
    _replace(table, folder / f"{scale}.csv")
    return read(chapter, scale)


def read(chapter: str, scale: str) -> pd.DataFrame | None:
    """Return the measurements with a column `stale`, or None where there are none."""
    path = find(chapter, scale)
    if path is None:
        return None
    table = load(path)
    stages = read_stages(chapter, scale).set_index("stage")
    stages = stages[stages.index.isin(table["stage"])]
    rows = stages.to_dict("records")
    now = dict(zip(stages.index, map(current, rows), strict=True))
    return table.assign(stale=table["fingerprint"] != table["stage"].map(now))


def load(path: Path) -> pd.DataFrame:
    """Return the measurements in a file, as they were written.

    Raises ValueError for a file that is no such table.
    """
    try:
        given = {"keep_default_na": False, "na_values": [""], "dtype": TEXTS}
        table = pd.read_csv(path, low_memory=False, **given)
    except ValueError as error:  # also what cannot be cut into columns, or decoded
        raise ValueError(f"{path} is no table of results: {error}") from error
    missing = [name for name in NEEDED if name not in table]
    require(not missing, f"{path} must have the columns {NEEDED}", [*table][:9])
    return table.assign(claim=table["claim"].fillna(""))


def read_stages(chapter: str, scale: str) -> pd.DataFrame:
    """Return a row for each stage behind the measurements, nested ones last."""
    if (path := find(chapter, scale, ".stages.csv")) is None:
        return pd.DataFrame(columns=STAGE)
    return pd.read_csv(path, keep_default_na=False, dtype=TEXTS)


def paper(chapter: str) -> pd.DataFrame:
    """Return the paper's own numbers: `place`, what they are of, and `value`."""
    return pd.read_csv(COMMITTED.parent / "papers" / f"{chapter}.csv")


def restamp(chapter: str, scale: str, fingerprints: dict[str, str]) -> None:
    """Note in the committed tables that stages (by place) are current again."""
    for path in _tables(COMMITTED / chapter, scale):
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
        now = table["stage"].map(fingerprints).fillna(table["fingerprint"])
        _replace(table.assign(fingerprint=now), path)


def commit(folder: Path, chapter: str, scale: str) -> None:
    """Copy a chapter's tables to the committed ones; those of the edition compressed,
    since nineteen in twenty of their bytes repeat."""
    target = COMMITTED / chapter
    target.mkdir(parents=True, exist_ok=True)
    for path in _tables(folder / chapter, scale):
        table = pd.read_csv(path, keep_default_na=False, dtype=str)
        end = ".gz" if scale == EDITION and path.suffix != ".gz" else ""
        _replace(table, target / f"{path.name}{end}")


def _tables(folder: Path, scale: str) -> list[Path]:
    names = [f"{scale}{s}{end}" for s in SUFFIXES for end in ("", ".gz")]
    return [folder / name for name in names if (folder / name).is_file()]


def current(stage: Mapping[str, str]) -> str | None:
    """Return the fingerprint of a stage's code as it stands; None if it is gone."""
    return named.current_of(stage["function"], json.loads(stage["arguments"]))


def _behind(direct: Iterable[str]) -> list[str]:
    """Return the stages and, after them, those that they asked for, however deep.

    Records of before 22 November 2026 do not say what their stage asked for.
    """
    found = list(dict.fromkeys(direct))
    for place in found:
        record = store.read_record(places.root() / place) or {}
        there = [a for a in record.get("asked", []) if (places.root() / a).is_dir()]
        found += [asked for asked in there if asked not in found]
    return found


def _stage_row(place: str) -> dict:
    record = store.read_record(places.root() / place)
    own = {"stage": place, "function": record["stage"]}
    own |= {"arguments": json.dumps(record["arguments"], sort_keys=True)}
    return {k: record.get(k) for k in STAGE} | own


def _target(scale: str) -> Path:
    default = COMMITTED.parents[1] / "_build" / scale / "results"
    return Path(os.environ.get(FOLDER) or default)


def find(chapter: str, scale: str, suffix: str = ".csv") -> Path | None:
    """Return the table of the run that goes on, else the committed one.

    A chapter that has failed in this run of the book has none.
    """
    if f"{scale}/{chapter}" in os.environ.get(FAILED, "").split():
        return None
    folders = filter(None, (os.environ.get(FOLDER), COMMITTED))
    names = [f"{scale}{suffix}{end}" for end in ("", ".gz")]
    paths = (Path(folder, chapter, name) for folder in folders for name in names)
    return next(filter(Path.is_file, paths), None)


def shown(chapter: str, scale: str) -> str:
    """Return the scale whose tables stand for the chapter on the pages of `scale`: for
    an `edition` that was not run, or failed in this run, `laptop`."""
    absent = scale == EDITION and find(chapter, scale) is None
    return LAPTOP if absent and find(chapter, LAPTOP) else scale


def _replace(table: pd.DataFrame, path: Path) -> None:
    # No time of day in it: equal tables are equal bytes.
    how = {"method": "gzip", "mtime": 0} if path.suffix == ".gz" else None
    with files.replacing(path) as new:
        table.to_csv(new, index=False, lineterminator="\n", compression=how)
