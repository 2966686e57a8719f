"""Say what a run would compute, how long and in how much memory; compute none of it."""

import json
import tempfile
from pathlib import Path

import nbformat
import pandas as pd
from rich.table import Table

from lottolab import jobs, runs
from lottolab.jobs import display
from lottolab.pages import parameters
from lottolab.reruns import execute
from lottolab.reruns.rehearsal import report, throughput
from lottolab.runs import progress
from lottolab.truth import results
from lottolab.units import duration

COLUMNS = ["stage", "runs", "in store", "seconds", "minutes left", "peak_mb"]


def plan(chapter: str, scale: str, given: dict) -> tuple[pd.DataFrame, str]:
    """Return what a chapter plans, and what kept it from planning more ("": nothing).

    The chapter's own cells make its plan: they run up to the last that calls
    `jobs.plan`, in a kernel where no stage may be computed (data sets may be drawn).
    A chapter that plans again once a first part is computed can be followed as far as
    the store goes. The frame has a row a stage: `stage`, `runs`, `in store`, `seconds`
    a run and `minutes left` on all processes (NaN where nothing was ever timed), and
    `peak_mb`, the memory of the largest process so far (NaN where none is known).

    Raises:
        ValueError: chapter, scale or parameters are not allowed.
        Failed: a cell raised.
    """
    values = parameters.resolve(chapter, scale, given)
    notebook = nbformat.read(parameters.BOOK / f"{chapter}.ipynb", as_version=4)
    plans = [i for i, c in enumerate(notebook.cells) if "jobs.plan(" in c.source]
    if not plans:
        return pd.DataFrame(columns=COLUMNS), ""
    notebook.cells = notebook.cells[: plans[-1] + 1]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        source = Path(folder, f"{chapter}.ipynb")
        nbformat.write(notebook, source)
        own = {runs.DRY: "1", progress.FOLDER: folder, results.FOLDER: folder}
        with execute.environment(chapter, scale, own):
            stopped = _follow(chapter, source, values)
        rows = _planned(Path(folder))
    stages = results.read_stages(chapter, results.shown(chapter, scale))
    known = stages.groupby("function")["peak_mb"].max()
    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame["peak_mb"] = frame["peak_mb"].fillna(frame["stage"].map(known)).astype(float)
    return frame, stopped


def left(chapter: str, scale: str) -> float:
    """Return about how many seconds a chapter would take now, on all processes.

    A run is taken to last as long as the last ones of its stage did, at the scale or,
    for an edition that was never run, at `laptop`; what the plan does not name, to grow
    and to be done as the rest is.

    Raises:
        Failed: a cell before the plan raised.
    """
    frame, _ = plan(chapter, scale, {})
    before = results.read_stages(chapter, results.shown(chapter, scale))
    planned = before["function"].isin(frame["stage"])
    then, others = (before[of]["seconds"].sum() for of in (planned, ~planned))
    now = (frame["runs"] * frame["seconds"]).sum()
    todo = 60 * frame["minutes left"].sum()
    grown = now / then if then else 1.0
    share = todo * jobs.processes() / now if now else 1.0
    return todo + others * grown * share / jobs.processes()


def dry_run(chapters: list[str], scale: str, given: dict) -> None:
    """Print what the chapters would compute.

    Raises:
        ValueError: a chapter, the scale or a parameter is not allowed.
        Failed: chapters failed before their plans; the others are printed.
    """
    console = display.console()
    left, failures = 0.0, []
    for chapter in chapters:
        console.print(f"{chapter} at {scale} scale, dry run", style="bold")
        try:
            frame, stopped = plan(chapter, scale, given)
        except execute.Failed as error:
            print(error)
            failures.append(str(error))
            continue
        if frame.empty and not stopped:
            print("it plans no stages: it is drawn from the results of others")
            continue
        console.print(_drawn(frame))
        print("\n".join(_sums(frame)))
        if scale == "paper":
            print("\n".join(_rehearsed(chapter, frame)))
        for line in _more(chapter, scale, frame, stopped):
            print(line)
        left += 60 * frame["minutes left"].sum()
    if len(chapters) > 1:
        print(f"all chapters: {duration(left)} left, as far as stages were ever timed")
    if failures:
        raise execute.Failed("; ".join(failures))


def _follow(chapter: str, source: Path, values: dict) -> str:
    """Run the cells; return which stage stopped them, "" if none did."""
    try:
        execute.run_cells(source, source.with_suffix(".out.ipynb"), values)
    except Exception as error:
        if getattr(error, "ename", "") == runs.DryRun.__name__:
            return error.evalue
        told = f"{chapter} would stop before its plan: {execute.reason(error)}"
        raise execute.Failed(told) from error
    return ""


def _planned(folder: Path) -> list[dict]:
    """Return the rows that `jobs.plan` told of, plan after plan."""
    texts = [path.read_text() for path in folder.glob("*.jsonl")]
    events = [json.loads(line) for text in texts for line in text.splitlines()]
    events = [event for event in events if event["event"] == "plan"]
    ordered = sorted(events, key=lambda event: event["time"])
    return [row for event in ordered for row in event["rows"]]


def _drawn(frame: pd.DataFrame) -> Table:
    drawn = Table("stage", "runs", "in store", "s a run", "left", "peak MB")
    for _, row in frame.iterrows():
        new = row["runs"] - row["in store"]
        timed, sized = pd.notna(row["seconds"]), pd.notna(row["peak_mb"])
        seconds = f"{row['seconds']:,.1f}" if timed else "not known"
        left = duration(60 * row["minutes left"]) if timed or not new else "not known"
        size = f"{row['peak_mb']:,.0f}" if sized else "not known"
        counts = (str(row["runs"]), str(row["in store"]))
        drawn.add_row(row["stage"], *counts, seconds, left if new else "-", size)
    return drawn


def _sums(frame: pd.DataFrame) -> list[str]:
    """Say what the rows come to: time and memory."""
    new = frame["runs"] - frame["in store"]
    unknown = frame[(new > 0) & frame["seconds"].isna()]
    least = f", and {len(unknown)} stages never timed" if len(unknown) else ""
    count = jobs.processes()
    words = f"{new.sum():,} of {frame['runs'].sum():,} runs to compute"
    time = duration(60 * frame["minutes left"].sum())
    lines = [f"{words}: {time} on {count} processes{least}"]
    peak = frame["peak_mb"].max()
    if pd.notna(peak):
        all_of_them = f"at most {count * peak:,.0f} MB on {count} processes"
        lines.append(f"peak memory: {peak:,.0f} MB a process, {all_of_them}")
    else:
        lines.append("peak memory: not known")
    return lines


def _rehearsed(chapter: str, frame: pd.DataFrame) -> list[str]:
    """Say what is left of the hours and the bytes that the rehearsal foresees.

    A stage that is not in the plan, because others ask for it, counts in full.
    """
    table = report.read()
    table = table[(table["chapter"] == chapter) & (table["scale"] == "paper")]
    if table.empty:
        return [f"GPU-hours: not known before `lottolab rehearse {chapter} --keep`"]
    share = (frame["runs"] - frame["in store"]) / frame["runs"]
    share = table["stage"].map(dict(zip(frame["stage"], share, strict=True))).fillna(1)
    sums = table[["GPU-hours", "CPU-hours", "disk GB"]].mul(share, axis=0).sum()
    lines = [
        f"GPU-hours: {sums['GPU-hours']:,.1f} {throughput.rule(throughput.read())}"
    ]
    lines.append(f"CPU-hours besides: {sums['CPU-hours']:,.1f}")
    lines.append(f"disk: {sums['disk GB']:,.1f} GB of the store")
    return lines


def _more(chapter: str, scale: str, frame: pd.DataFrame, stopped: str) -> list[str]:
    """Say what the plan leaves out: nested stages, and plans that need results."""
    lines = []
    if stopped:
        lines.append(f"it plans more once these are computed ({stopped})")
    stages = results.read_stages(chapter, scale)
    others = stages[~stages["function"].isin(frame["stage"])]
    new = (frame["runs"] > frame["in store"]).any()
    if len(others) and (new or stopped):
        time = duration(others["seconds"].sum() / jobs.processes())
        counts = others["function"].value_counts().items()
        told = ", ".join(f"{name} ×{count}" for name, count in counts)
        lines.append(f"besides these the committed edition needed {time} for {told}")
    return lines
