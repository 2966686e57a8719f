"""A dry run tells what would be computed, and computes none of it."""

import json

import nbformat
import numpy as np
import pandas as pd
import pytest
from chapters import chapter

from lottolab import cli
from lottolab.images import datasets
from lottolab.pages import parameters
from lottolab.reruns import dryrun, execute
from lottolab.runs import staging
from lottolab.truth import results

PARAMETERS = """\
count: int = 3  # in [1, 5]
early: bool = False  # ask before the plan"""
STAGES = """\
import pathlib
from lottolab import runs
from lottolab import jobs
if count == 5:
    raise ValueError("count must not be 5")
@runs.stage("test_dryrun.first")
def first(*, x):
    pathlib.Path("computed").touch()
    return {"x": x}
@runs.stage("test_dryrun.then")
def then(*, x):
    pathlib.Path("computed").touch()
    return {"x": x}
if early:
    first(x=9)
work = [(first, dict(x=x)) for x in range(count)]"""
PLAN = "plan = jobs.plan(work)"
COMPUTE = "found = jobs.compute(work)"
AGAIN = "plan = jobs.plan([(then, dict(x=f['x'] + 1)) for f in found])"


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Make a book whose chapters plan once, twice and never."""
    folder = tmp_path / "book"
    folder.mkdir()
    names = {"once": (PLAN, COMPUTE), "twice": (PLAN, COMPUTE, AGAIN, COMPUTE)}
    for name, cells in (names | {"never": ("1 + 1",)}).items():
        nbformat.write(chapter(PARAMETERS, STAGES, *cells), folder / f"{name}.ipynb")
    toc = "format: jb-book\nroot: book/once\nchapters:\n"
    toc += "  - file: book/twice\n  - file: book/never\n"
    (tmp_path / "_toc.yml").write_text(toc)
    monkeypatch.setattr(parameters, "BOOK", folder)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LOTTOLAB_JOBS", "2")
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    return folder


def committed(folder, **stages: tuple[int, float, int]) -> None:
    """Commit stages: number, seconds and memory of each."""
    rows = [
        {"stage": f"{name}/{i}", "function": f"test_dryrun.{name}"}
        | {"seconds": seconds, "peak_mb": peak}
        for name, (number, seconds, peak) in stages.items()
        for i in range(number)
    ]
    target = folder.parent / "data/results/once"
    target.mkdir(parents=True)
    frame = pd.DataFrame(rows, columns=results.STAGE)
    frame.to_csv(target / "laptop.stages.csv", index=False)


def test_the_plan_is_told_and_nothing_is_computed_or_written(book, tmp_path):
    committed(book, first=(2, 60.0, 500), nested=(4, 5.0, 900))
    before = {path: path.read_bytes() for path in book.iterdir()}
    frame, stopped = dryrun.plan("once", "laptop", {"count": "4"})
    assert stopped == ""
    [row] = frame.to_dict("records")
    assert row == {
        "stage": "test_dryrun.first",
        "runs": 4,
        "in store": 0,
        "seconds": 60.0,
        "minutes left": 2.0,  # four of a minute on two processes
        "peak_mb": 500.0,
    }
    assert {path: path.read_bytes() for path in book.iterdir()} == before
    assert not (tmp_path / "_build").exists()
    assert not list((tmp_path / "store").rglob("record.json"))


def test_a_second_plan_is_reached_when_the_first_is_stored(book):
    frame, stopped = dryrun.plan("twice", "laptop", {})
    assert frame["stage"].tolist() == ["test_dryrun.first"]
    assert np.isnan(frame["seconds"][0])
    assert np.isnan(frame["minutes left"][0])
    assert stopped == "3 of 3 runs are not in the store"
    execute.execute("once", "laptop")  # its stages are the same ones
    (book / "computed").unlink()

    frame, stopped = dryrun.plan("twice", "laptop", {})
    assert stopped == ""
    assert frame["stage"].tolist() == ["test_dryrun.first", "test_dryrun.then"]
    assert frame["in store"].tolist() == [3, 0]
    assert frame["peak_mb"][0] > 0  # of the records
    assert not (book / "computed").exists()


def test_a_stage_that_is_asked_before_the_plan_is_named(book):
    frame, stopped = dryrun.plan("once", "laptop", {"early": "True"})
    assert frame.empty
    assert stopped == "test_dryrun.first is not in the store"
    assert not (book / "computed").exists()


def test_a_chapter_without_a_plan_needs_no_kernel(book, monkeypatch):
    monkeypatch.setattr(execute, "run_cells", None)
    frame, stopped = dryrun.plan("never", "laptop", {})
    assert frame.empty
    assert stopped == ""


def test_a_value_that_only_the_chapter_refuses_shows(book):
    with pytest.raises(execute.Failed, match=r"once would stop .*count must not be 5"):
        dryrun.plan("once", "laptop", {"count": "5"})
    with pytest.raises(ValueError, match="did you mean count"):
        dryrun.plan("once", "laptop", {"cuont": "5"})


def test_the_command_prints_a_table_and_the_sums(book, capfd):
    committed(book, first=(2, 60.0, 500), nested=(4, 5.0, 900))
    assert cli.main(["run", "once", "--dry-run", "-p", "count=4"]) == 0
    out = capfd.readouterr().out
    row = next(line for line in out.splitlines() if line.startswith("│"))
    cells = [cell.strip() for cell in row.split("│")[1:-1]]
    assert cells == ["test_dryrun.first", "4", "0", "60.0", "2 min 00 s", "500"]
    assert "4 of 4 runs to compute: 2 min 00 s on 2 processes\n" in out
    assert "500 MB a process, at most 1,000 MB on 2 processes" in out
    assert (
        "besides these the committed edition needed 10 s for test_dryrun.nested" in out
    )
    assert "GPU-hours" not in out


def test_all_chapters_are_told_and_a_failure_is_an_exit_code(book, capfd, monkeypatch):
    def told(chapter, scale, given):
        if chapter == "twice":
            raise execute.Failed("twice would stop")
        row = ["s", 2, 0, 30.0, 0.5, 100.0]
        return pd.DataFrame([row], columns=dryrun.COLUMNS), ""

    monkeypatch.setattr(dryrun, "plan", told)
    assert cli.main(["run", "--all", "--dry-run"]) == 1
    out, err = capfd.readouterr()
    assert "all chapters: 1 min 00 s left" in out
    assert "lottolab: twice would stop" in err


def test_what_is_left_of_the_rehearsed_hours_is_told(monkeypatch):
    rows = [["a", 10, 4, 600.0, 30.0, 100.0], ["b", 1, 1, np.nan, 0.0, np.nan]]
    frame = pd.DataFrame(rows, columns=dryrun.COLUMNS)
    columns = ["chapter", "scale", "stage", "GPU-hours", "CPU-hours", "disk GB"]
    table = pd.DataFrame(
        [
            ["twice", "paper", "a", 20.0, 1.0, 0.5],
            ["twice", "paper", "a", 10.0, 0.0, 0.5],  # another network
            ["twice", "paper", "b", 7.0, 7.0, 7.0],  # is in the store
            ["twice", "paper", "c", 2.0, 0.0, 0.0],  # is asked for by others
            ["other", "paper", "a", 90.0, 9.0, 9.0],
            ["twice", "smoke", "a", 90.0, 9.0, 9.0],
        ],
        columns=columns,
    )
    monkeypatch.setattr(dryrun.report, "read", lambda: table)
    lines = dryrun._rehearsed("twice", frame)
    assert lines[0].startswith("GPU-hours: 20.0 for one ")
    assert lines[1:] == ["CPU-hours besides: 0.6", "disk: 0.6 GB of the store"]
    (line,) = dryrun._rehearsed("never", frame)
    assert "lottolab rehearse never --keep" in line


def test_only_data_sets_are_made_in_a_dry_run(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path))
    monkeypatch.setenv(staging.DRY, "1")
    assert len(datasets.load("glyphs", classes=2, images=7, seed=5).images) == 7

    @staging.stage("test_dryrun.never")
    def never(*, x):
        raise AssertionError("was computed")

    with pytest.raises(staging.DryRun, match="never is not in the store"):
        never(x=1)
    records = [json.loads(p.read_text()) for p in tmp_path.rglob("record.json")]
    assert {record["stage"] for record in records} == {"glyphs.drawn"}
