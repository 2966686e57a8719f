"""Sweeps: each point once, whoever dies; the table is that of a serial run."""

import functools
import itertools
import json
import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import deaths
import joblib
import nbformat
import numpy as np
import pandas as pd
import pytest
import scipy.stats
import yaml
from chapters import chapter
from dask.distributed import Client, LocalCluster

import lottolab.jobs.cluster
from lottolab import cli, jobs
from lottolab.modelguard.experiments import services
from lottolab.pages import curves, parameters
from lottolab.reruns import execute
from lottolab.reruns.sweeps import grids, points, sweep
from lottolab.runs import staging
from lottolab.truth import results

ROOT = Path(__file__).parents[2]
GRID = {f"{x:02d}": {"x": x} for x in range(12)}


def tables(folder):
    return {p.parent.name: p.read_text() for p in sorted(folder.glob("*/table.csv"))}


def without_seconds(records):
    return {name: record | {"seconds": 0} for name, record in records.items()}


@pytest.fixture(scope="module")
def serial(tmp_path_factory):
    """Run the grid in one process."""
    folder = tmp_path_factory.mktemp("serial")
    call = functools.partial(deaths.measure, 0)
    return dict(points.run(call, GRID, folder)), tables(folder)


def test_a_failure_is_the_points_own_and_one_line(serial):
    records, found = serial
    assert list(found) == [n for n in GRID if n != "05"]
    assert records["05"]["error"] == "ValueError: five is right out"
    assert {n for n, r in records.items() if r["error"]} == {"05"}
    assert all(records[n]["point"] == point for n, point in GRID.items())


def test_processes_side_by_side_leave_what_one_does(serial, tmp_path):
    call = functools.partial(deaths.measure, 0)
    records = dict(points.run(call, GRID, tmp_path, jobs=2))
    assert without_seconds(records) == without_seconds(serial[0])
    assert tables(tmp_path) == serial[1]


def test_a_killed_process_costs_no_point_but_the_one_that_kills(tmp_path):
    records = list(points.run(deaths.kill_once, GRID, tmp_path, jobs=2))
    assert sorted(name for name, _ in records) == list(GRID)  # none lost, none twice
    errors = {name: r["error"] for name, r in records if r["error"]}
    assert errors == {"04": "its worker was killed 3 times"}
    assert (tmp_path / "04/runs").stat().st_size == 3
    assert (tmp_path / "03/runs").stat().st_size >= 2
    assert all(points.read(tmp_path / name) == record for name, record in records)


class Unread:
    """Kill whoever reads this call, before a point can begin."""

    def __call__(self, point, folder):
        raise AssertionError

    def __reduce__(self):
        return os._exit, (1,)


def test_processes_that_cannot_even_begin_end_the_sweep(tmp_path):
    with pytest.raises(RuntimeError, match="no process can run a point"):
        list(points.run(Unread(), GRID, tmp_path, jobs=2))


def started(program, *words):
    """Start a program of Dask that finds this module; who asked must kill it."""
    here = [str(folder) for folder in Path(__file__).parents[:2]]  # its helpers, too
    path = os.pathsep.join([*here, os.environ.get("PYTHONPATH", "")])
    return subprocess.Popen(
        [sys.executable, "-m", f"distributed.cli.dask_{program}", *words],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": path},
    )


@pytest.fixture
def cluster(tmp_path):
    """Start a scheduler and two workers on loopback; return address and workers."""
    file = tmp_path / "scheduler.json"
    common = ["--no-dashboard", "--scheduler-file", str(file), "--host", "127.0.0.1"]
    one = ["--nthreads", "1", "--resources", "GPU=1", "--no-nanny"]
    processes = [started("scheduler", *common, "--port", "0")]
    processes += [started("worker", *common, *one) for _ in range(2)]
    try:
        end = time.monotonic() + 60
        while not file.exists() and time.monotonic() < end:
            time.sleep(0.05)
        yield json.loads(file.read_text())["address"], processes[1:]
    finally:
        for process in processes:
            process.kill()
            process.wait(10)


def test_a_cluster_that_loses_a_worker_leaves_what_one_process_does(
    serial, cluster, tmp_path
):
    address, workers = cluster
    call, records = functools.partial(deaths.measure, 0.25), []

    def kill():
        while len(records) < 3:
            time.sleep(0.01)
        workers[0].kill()

    killer = threading.Thread(target=kill)
    killer.start()
    for pair in points.run(call, GRID, tmp_path, scheduler=address, gpus=1):
        records.append(pair)
    killer.join()
    assert workers[0].wait(10) == -signal.SIGKILL
    assert sorted(name for name, _ in records) == list(GRID)
    assert without_seconds(dict(records)) == without_seconds(serial[0])
    assert tables(tmp_path) == serial[1]


class Cluster:
    """A cluster in this process whose workers come and go."""

    def __init__(self):
        own = {"processes": False, "protocol": "tcp", "dashboard_address": None}
        self.cluster = LocalCluster(n_workers=1, threads_per_worker=1, **own)
        self.cluster.scale(0)

    def hire(self, count, **resources):
        self.cluster.new_spec["options"]["resources"] = resources
        self.cluster.scale(count)


@pytest.fixture
def volatile(monkeypatch):
    monkeypatch.setattr(lottolab.jobs.cluster, "EVERY", 0.1)
    made = Cluster()
    yield made
    made.cluster.close()


def test_a_cluster_that_lacks_what_is_asked_is_told_of_and_waited_for(
    volatile, tmp_path, capfd
):
    said = []

    def heard(text):
        end = time.monotonic() + 20
        while not (said and text in said[-1]):
            if time.monotonic() > end:
                volatile.hire(3, GPU=2)  # or nothing would ever end
                pytest.fail(f"{text!r} was not said, but {said}")
            said.extend(capfd.readouterr().err.splitlines())
            time.sleep(0.02)

    call, grid = (
        functools.partial(deaths.measure, 0.6),
        {n: GRID[n] for n in ("00", "01")},
    )
    options = {"scheduler": volatile.cluster.scheduler_address, "gpus": 2}
    with ThreadPoolExecutor(1) as pool:
        ending = points.run(call, grid, tmp_path, **options)
        first = pool.submit(next, ending)
        heard("waiting: the cluster has no worker; start one by dask worker ADDRESS")
        assert said[-1].endswith('--resources "GPU=2"')
        volatile.hire(1, GPU=1)
        heard("GPU=2 of one worker is asked; the best of 1 has GPU=1")
        volatile.hire(2, GPU=2)
        heard("going on: a worker is there")
        records = dict([first.result(20)])
        volatile.hire(0)
        rest = pool.submit(list, ending)
        heard("waiting: the cluster has no worker")
        volatile.hire(1, GPU=2)
        records |= dict(rest.result(30))
    assert {n: r["error"] for n, r in records.items()} == dict.fromkeys(grid)


@staging.stage("test_sweep.squared")
def squared(*, x):
    time.sleep(0.3)
    return {"square": x * x}


def test_stages_whose_workers_have_all_ended_say_so_too(
    volatile, tmp_path, monkeypatch, capfd
):
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path))
    monkeypatch.setenv("LOTTOLAB_JOBS", "2")
    volatile.hire(1)
    changes = [threading.Timer(s, volatile.hire, [n]) for s, n in ((0.7, 0), (1.5, 1))]
    with Client(volatile.cluster.scheduler_address, set_as_default=False) as client:
        client.wait_for_workers(1)
        for change in changes:
            change.start()
        with joblib.parallel_config("dask", client=client):
            found = jobs.compute([(squared, {"x": x}) for x in range(6)])
    assert [f["square"] for f in found] == [0, 1, 4, 9, 16, 25]
    said = capfd.readouterr().err
    assert "waiting: the cluster has no worker; start one by dask worker ADDRES" in said
    assert "going on: a worker is there" in said


def test_no_scheduler_and_gpus_without_one_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="give a scheduler, got 1"):
        list(points.run(deaths.count, GRID, tmp_path, gpus=1))
    with pytest.raises(RuntimeError, match="no scheduler at nowhere"):
        list(points.run(deaths.count, GRID, tmp_path, scheduler="nowhere://1"))


# Grids


@pytest.mark.parametrize(
    ("given", "parts"),
    [
        (["epoch=2,3"], ["'epoch'", "did you mean epochs"]),
        (["rounds=2,99"], ["rounds must be in [1, 40], got 99"]),
        (["rounds=2,2.5"], ["rounds must be int", "got 2.5"]),
        (["rounds=2,2"], ["the values of rounds must differ, got [2] twice"]),
        (["seed=0,1", "seeds=[0]"], ["seeds must be given once"]),
        (["seed=a"], ["seed must be int", "'a'"]),
        (["seed=5:2"], ["a < b, of 10000 at most, got 5:2"]),
        (["rounds"], ["NAME=VALUES, got 'rounds'"]),
        (["stem=same,strid"], ["'strid'", "stride2"]),
        (["scale=smoke"], ["--scale"]),
        ([], ["needs -p NAME=VALUES"]),
    ],
)
def test_a_bad_grid_stops_before_the_first_point(tmp_path, monkeypatch, given, parts):
    monkeypatch.setattr(points, "run", lambda *_, **__: pytest.fail("a point ran"))
    with pytest.raises(ValueError, match=r"got|twice") as caught:
        sweep.sweep("ownership", "laptop", given, tmp_path / "out")
    assert all(part in str(caught.value) for part in parts)
    assert list(tmp_path.iterdir()) == []


def test_a_grid_is_every_combination_once():
    given = ["rates=[0.5, 0.2],[0.3]", "rounds=2,4:6", "stem=same"]
    found = grids.of_chapter("ownership", "laptop", given)
    rates, rounds = [[0.5, 0.2], [0.3]], [2, 4, 5]
    wanted = [{"rates": a, "rounds": b, "stem": "same"} for a in rates for b in rounds]
    assert found == wanted
    lists = [
        grids.of_chapter("membership", "laptop", [t])
        for t in ("sparsity=0.5", "class=7")
    ]
    assert lists == [[{"sparsities": [0.5]}], [{"classes": [7]}]]


# Chapters


CELLS = [
    'scale: str = "laptop"  # one of smoke, laptop\n'
    "seeds: list[int] = [0, 1]  # in [0, 9]\nlr: float = 0.1  # in (0, 1]",
    "from pathlib import Path\nimport os\n"
    "assert os.environ['LOTTOLAB_JOBS'] == '1'\n"
    "if seeds == [3]:\n    raise ArithmeticError('three')\n"
    "folder = Path(os.environ['LOTTOLAB_RESULTS']) / 'first'\n"
    "folder.mkdir(parents=True)\n"
    "rows = [f',{arm},loss,{lr * s},{s},f,t/1' for arm in 'ab' for s in seeds]\n"
    "head = 'claim,arm,metric,value,seed,fingerprint,stage'\n"
    "_ = (folder / f'{scale}.csv').write_text('\\n'.join([head, *rows, '']))",
]


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Make a book of one chapter."""
    (tmp_path / "book").mkdir()
    nbformat.write(chapter(*CELLS), tmp_path / "book/first.ipynb")
    toc = {"root": "book/intro", "chapters": [{"file": "book/first"}]}
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    monkeypatch.setattr(parameters, "BOOK", tmp_path / "book")
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    for key in [k for k in os.environ if k.startswith("LOTTOLAB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    return tmp_path


def test_a_chapter_is_swept_and_swept_again_only_where_it_must(
    book, capfd, monkeypatch
):
    monkeypatch.chdir(book)
    words = ["sweep", "first", "-p", "lr=0.1,0.5", "--output", "out"]
    assert cli.main([*words, "-p", "seed=2:4"]) == 1
    out, err = capfd.readouterr()
    folder = book / "out"  # the caller's, though chapters run in book/
    assert "4 points, 0 of them are there" in out
    assert "lr=0.1 seed=3: Failed: first stopped: ArithmeticError: three" in out
    assert err.splitlines()[-1] == "lottolab: points that failed: 2; their rows say why"
    table = pd.read_csv(folder / "table.csv")
    assert table["p_lr"].tolist() == [0.1, 0.1, 0.1, 0.5, 0.5, 0.5]
    assert table["p_seed"].tolist() == [2, 2, 3, 2, 2, 3]
    assert table["value"].dropna().tolist() == [0.2, 0.2, 1.0, 1.0]
    assert table["error"].notna().tolist() == [False, False, True, False, False, True]
    assert (folder / "figure.png").read_bytes().startswith(b"\x89PNG")
    assert not (book / "_build/laptop").exists()

    ran = {
        p: p.stat().st_mtime_ns for p in folder.glob("points/*/notebooks/first.ipynb")
    }
    assert len(ran) == 2
    assert cli.main([*words, "-p", "seed=1:3"]) == 0
    assert "4 points, 2 of them are there" in capfd.readouterr().out
    assert all(p.stat().st_mtime_ns == before for p, before in ran.items())
    table = pd.read_csv(folder / "table.csv")
    assert table["value"].tolist() == [0.1, 0.1, 0.2, 0.2, 0.5, 0.5, 1.0, 1.0]
    again = (folder / "table.csv").read_bytes()
    assert cli.main([*words, "-p", "seed=1:3"]) == 0
    assert "4 points, 4 of them are there" in capfd.readouterr().out
    assert (folder / "table.csv").read_bytes() == again

    page = book / "book/first.ipynb"
    page.write_text(page.read_text().replace("lr * s", "lr + s"))
    words = ["sweep", "first", "-p", "lr=0.5", "-p", "seed=1", "--output", "out"]
    assert cli.main(words) == 0
    assert "1 points, 0 of them are there" in capfd.readouterr().out
    assert pd.read_csv(folder / "table.csv")["value"].tolist() == [1.5, 1.5]


def test_a_point_whose_stage_has_changed_is_run_again(book, monkeypatch):
    monkeypatch.setattr(points, "read", lambda folder: {"error": None, "point": {}})
    path = book / "out/points/a/results/first/laptop.stages.csv"
    path.parent.mkdir(parents=True)
    row = "stage,function,arguments,fingerprint\na/b,tickets.dense,{{}},{}\n"
    monkeypatch.setattr(results, "current", lambda stage: "new")
    for fingerprint, ended in (("new", True), ("old", False)):
        path.write_text(row.format(fingerprint))
        assert (sweep._ended("first", "laptop", book / "out", "a") is not None) == ended


def rows_of(grid, **changed):
    """Return a sweep's table: for each point two arms, two metrics, one of them twice.

    A loss is (lr + crop) times the length of the arm's name, and its seed less 1.5.
    """
    rows = [
        {"p_lr": p["lr"], "p_crop": p["crop"], "p_seed": p["seed"], "p_rounds": 2}
        | {"arm": arm, "metric": metric, "seed": 7}
        | {"value": (p["lr"] + p["crop"]) * len(arm) + (p["seed"] - 1.5)}
        for p in grid
        for arm in ("a", "bb")
        for metric in ("loss", "loss", "accuracy")
    ]
    return pd.DataFrame([row | changed for row in rows])


LRS, SEEDS = (0.1, 0.2, 0.5), (0, 1, 2, 3)
POINTS = [
    {"seed": seed, "crop": crop, "lr": lr, "rounds": 2}
    for lr, crop, seed in itertools.product(LRS, (0, 4), SEEDS)
]


def drawn(figure):
    """Return for each axis by title its lines, by label: places, means, intervals."""
    return {
        axis.get_title(): {
            container.get_label(): (
                list(container.lines[0].get_xdata()),
                list(container.lines[0].get_ydata()),
                [[y for _, y in bar] for bar in container.lines[2][0].get_segments()],
            )
            for container in axis.containers
        }
        for axis in figure.axes
    }


def test_the_figure_has_a_panel_an_arm_and_a_line_a_value():
    figure = curves.draw(rows_of(POINTS), POINTS)
    found = drawn(figure)
    assert list(found) == ["a", "bb"]
    assert figure.axes[0].get_ylabel() == "loss"
    assert figure.axes[1].get_xlabel() == "lr"
    assert list(found["bb"]) == ["crop=0", "crop=4"]
    x, mean, _ = found["bb"]["crop=0"]
    assert x == list(LRS)
    assert mean == pytest.approx([0.2, 0.4, 1.0])
    x, mean, intervals = found["bb"]["crop=4"]
    assert mean == pytest.approx([8.2, 8.4, 9.0])
    known = scipy.stats.t(3, 8.2, np.std(SEEDS, ddof=1) / 2).interval(0.95)
    assert intervals[0] == pytest.approx(known)  # n is 4 seeds, not 8 rows
    with pytest.raises(ValueError, match="did you mean accuracy"):
        curves.draw(rows_of(POINTS), POINTS, metric="acuracy")


def test_a_chapter_says_what_its_figure_shows_and_the_reader_something_else():
    grid = [point for point in POINTS if point["crop"] == 0]
    table = pd.concat(
        [rows_of(grid, attack="naive"), rows_of(grid, attack="lira, online")]
    )
    look = {"metric": "accuracy", "where": {"arm": ["bb"], "attack": ["naive"]}}
    look |= {"panels": "attack", "lines": "arm"}
    assert {k: list(v) for k, v in drawn(curves.draw(table, grid, look)).items()} == {
        "naive": ["bb"]
    }
    where = grids.marks(["attack=naive,lira, online", "arm=a"])
    assert where == {"attack": ["naive", "lira, online"], "arm": ["a"]}
    found = drawn(curves.draw(table, grid, look, where=where))
    assert {k: list(v) for k, v in found.items()} == {
        "naive": ["a"],
        "lira, online": ["a"],
    }
    for other in ({"metric": "loss"}, {"look": look | {"where": {"arm": ["c"]}}}):
        figure = curves.draw(table, grid, **{"look": look} | other)
        assert list(drawn(figure)) == ["a", "bb"]
        assert figure.axes[0].get_ylabel() == "loss"


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (["arm"], "--where must be COLUMN=VALUES, got 'arm'"),
        (["arn=a"], "a column of the table must be one of .*did you mean arm"),
        (["arm=b"], "arm must be one of a, bb, got 'b'; did you mean bb"),
    ],
)
def test_rows_that_are_not_there_cannot_be_shown(where, message):
    with pytest.raises(ValueError, match=message):
        curves.draw(rows_of(POINTS), POINTS, where=grids.marks(where))


@pytest.mark.parametrize("name", ["ownership", "membership", "modelguard"])
def test_what_the_book_shows_of_a_chapter_is_in_its_results(name):
    look = curves.shown(name)
    table = results.load(results.COMMITTED / name / "laptop.csv")
    rows = table[table["metric"] == look["metric"]]
    for column, values in look["where"].items():
        assert set(values) <= set(rows[column])
    shown = curves.draw(
        table.assign(p_seed=table["seed"]), [{"seed": s} for s in (0, 1)], look
    )
    panels = look["where"][look["panels"]] if "panels" in look else [""]
    assert [axis.get_title() for axis in shown.axes] == panels
    assert set(drawn(shown)[panels[0]]) == set(look["where"][look["lines"]])


def test_the_command_of_the_issue_is_a_grid_that_the_chapter_can_run():
    """`-p epsilon=… -p seed=…`: one budget and one target a point."""
    given = ["epsilon=0.25,0.5,1", "seed=0:5"]
    made = grids.of_chapter("modelguard", "laptop", given)
    assert len(made) == 15
    assert made[5] == {"epsilons": [0.5], "seeds": [0]}
    known = {n: p.default for n, p in parameters.of("modelguard").items()} | made[5]
    names = ("epsilons", "betas", "taus", "grow", "budget", "small")
    services.check(**{name: known[name] for name in names})


def test_the_example_for_slurm_asks_for_what_the_page_says(capsys, monkeypatch):
    monkeypatch.setattr("dask_jobqueue.SLURMCluster.scale", lambda *_, **__: None)
    found = runpy.run_path(str(ROOT / "examples/slurm_cluster.py"))
    with found["cluster"]() as cluster:
        script = cluster.job_script()
        address = cluster.scheduler_address
    for part in ("#SBATCH --gres=gpu:1", "--nthreads 1", "--resources GPU=1"):
        assert part in script
    assert address.startswith("tcp://")


def test_jobs_of_a_point_do_not_multiply(monkeypatch):
    monkeypatch.setenv("LOTTOLAB_JOBS", "7")
    seen = []
    monkeypatch.setattr(execute, "execute", lambda *_: seen.append(jobs.processes()))
    sweep.run_point("first", "smoke", {}, Path(), environment={"LOTTOLAB_JOBS": "1"})
    assert seen == [1]
    assert jobs.processes() == 7
