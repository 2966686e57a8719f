"""Work in processes side by side: its order, failures, environment and plan."""

import json
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

# Every worker imports this module: what takes long is imported where it is needed.
from lottolab import jobs
from lottolab.jobs import display
from lottolab.runs import places, progress, staging


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    for key in [k for k in os.environ if k.startswith("LOTTOLAB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LOTTOLAB_JOBS", "2")
    return tmp_path


def wait_for(true):
    limit = time.monotonic() + 60
    while not true() and time.monotonic() < limit:
        time.sleep(0.005)


@staging.stage("test_jobs.square")
def square(*, x):
    return {"square": x * x}


@staging.stage("test_jobs.look")
def look(*, x):
    """Return where this runs and what it finds in the environment."""
    found = {k: v for k, v in os.environ.items() if k.startswith("LOTTOLAB_")}
    return {"pid": os.getpid(), "found": found}


@staging.stage("test_jobs.together")
def together(*, x, folder, count):
    """Wait until `count` of us have begun; return the time of begin and end."""
    begin = time.time()
    (Path(folder) / f"{x}").touch()
    wait_for(lambda: len(os.listdir(folder)) >= count)
    return {"begin": begin, "end": time.time(), "pid": os.getpid()}


@staging.stage("test_jobs.fail")
def fail(*, after):
    wait_for(Path(after).exists)
    raise ValueError("this stage fails")


@staging.stage("test_jobs.backwards")
def backwards(*, x, folder, last):
    """End only when `x` + 1 has ended."""
    wait_for(lambda: x == last or (Path(folder) / f"{x + 1}").exists())
    (Path(folder) / f"{x}").touch()
    return {"x": x}


def test_results_come_in_the_order_of_the_work_not_of_their_end(home):
    folder = home / "ended"
    folder.mkdir()
    options = {"folder": str(folder), "last": 1}
    work = [(backwards, {"x": x, **options}) for x in (0, 1)]
    work += [(square, {"x": x}) for x in (5, 3, 4)]
    results = jobs.compute(work)
    assert [r["x"] for r in results[:2]] == [0, 1]
    assert [r["square"] for r in results[2:]] == [25, 9, 16]


@staging.stage("test_jobs.stamp")
def stamp(*, x):
    return {"begin": time.time(), "x": x}


def test_the_runs_of_a_stage_go_together(home, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    alone = {"folder": str(home), "count": 0}
    work = [(stamp, {"x": 0}), (together, {"x": 0, **alone}), (stamp, {"x": 1})]
    first, between, second = jobs.compute(work)
    assert (first["x"], second["x"]) == (0, 1)
    assert first["begin"] < second["begin"] < between["begin"]


def test_only_what_is_kept_comes_back_and_all_is_stored():
    found = jobs.compute([(look, {"x": 0}), (square, {"x": 3})], ("pid", "none"))
    assert [sorted(result) for result in found] == [["pid"], []]
    assert jobs.compute([(square, {"x": 3})]) == [{"square": 9}]


@pytest.mark.parametrize("keep", [None, ("square",), ("none",)])
def test_what_the_store_has_needs_no_other_process(home, monkeypatch, keep):
    asked = [(square, {"x": x}) for x in (3, 1, 2)]
    expected = [r if keep != ("none",) else {} for r in jobs.compute(asked[::2])]
    started = []

    def parallel(**_options):
        return lambda calls: [
            started.append(given["x"]) or (place, {"square": -1})
            for _, (_, given, *_, place), _ in calls
        ]

    monkeypatch.setattr(jobs.joblib, "Parallel", parallel)
    first, computed, last = jobs.compute(asked, keep)
    assert started == [1]
    assert computed == {"square": -1}
    assert [first, last] == expected


def test_training_side_by_side_gives_the_bytes_of_training_in_turn(home, monkeypatch):
    from lottolab.nets import tickets

    setting = {
        "dataset": "digits",
        "sizes": {"train": 100, "val": 10, "test": 10},
        "network": {"name": "cnn4", "width": 2},
        "recipe": {"epochs": 2, "batch": 20},
        "rewind_at": 1,
    }
    work = [(tickets.dense, {**setting, "seed": seed}) for seed in (0, 1, 2)]

    def digests():
        return [places.record(stage, **given)["digest"] for stage, given in work]

    parallel = jobs.compute(work)
    beside = digests()
    monkeypatch.setenv("LOTTOLAB_STORE", str(home / "other"))
    assert [places.record(stage, **given) for stage, given in work] == [None] * 3
    serial = [stage(**given) for stage, given in work]
    assert digests() == beside
    assert len(set(beside)) == 3
    for one, other in zip(parallel, serial, strict=True):
        assert one["accuracy"] == other["accuracy"]
        assert one["history"].equals(other["history"])


@pytest.mark.parametrize("count", [1, 2])
def test_as_many_work_at_once_as_is_said(home, monkeypatch, count):
    monkeypatch.setenv("LOTTOLAB_JOBS", str(count))
    assert jobs.processes() == count
    folder = home / "begun"
    folder.mkdir()
    options = {"folder": str(folder), "count": count}
    results = jobs.compute([(together, {"x": x, **options}) for x in range(3)])
    edges = [(r["begin"], 1) for r in results] + [(r["end"], -1) for r in results]
    at_once = np.cumsum([step for _, step in sorted(edges)])
    assert at_once.max() == count
    if count == 2:
        assert os.getpid() not in {r["pid"] for r in results}


@pytest.mark.parametrize("bad", ["0", "-1", "two", "1.5"])
def test_a_number_of_jobs_that_is_none_is_refused(monkeypatch, bad):
    monkeypatch.setenv("LOTTOLAB_JOBS", bad)
    with pytest.raises(ValueError, match=f"LOTTOLAB_JOBS must be .*, got {bad}"):
        jobs.plan([(square, {"x": 1})])


def test_by_default_every_core_works(monkeypatch):
    monkeypatch.delenv("LOTTOLAB_JOBS")
    monkeypatch.setattr("joblib.cpu_count", lambda: 7)
    assert jobs.processes() == 7


@pytest.mark.parametrize("count", ["1", "2"])
def test_a_failure_is_raised_and_what_was_finished_stays(monkeypatch, count):
    monkeypatch.setenv("LOTTOLAB_JOBS", count)
    first = places.place(square, x=7) / "record.json"
    work = [(square, {"x": 7}), (fail, {"after": str(first)}), (square, {"x": 8})]
    environment = dict(os.environ)
    with pytest.raises(jobs.RunsFailed) as caught:
        jobs.compute(work)
    assert dict(os.environ) == environment
    head, *lines = str(caught.value).splitlines()
    assert head.startswith("1 of 3 runs failed, the others are stored: test_jobs.fail(")
    assert head.endswith("record.json'): ValueError: this stage fails")
    assert '    raise ValueError("this stage fails")' in lines
    assert places.record(square, x=8)["stage"] == "test_jobs.square"
    record = places.record(square, x=7)
    assert record["stage"] == "test_jobs.square"
    assert places.record(*work[1][:1], **work[1][1]) is None
    assert [r["square"] for r in jobs.compute([work[0], work[2]])] == [49, 64]
    assert places.record(square, x=7) == record


@staging.stage("test_jobs.deadly")
def deadly(*, x, folder, times, end):
    """End this process by a signal, the first `times` times."""
    (Path(folder) / f"{len(os.listdir(folder))}").write_text(f"{os.getpid()}")
    if len(os.listdir(folder)) <= times:
        os.kill(os.getpid(), end)
        time.sleep(60)
    return {"x": x}


@staging.stage("test_jobs.asks")
def asks(*, by, **given):
    return {"asked": deadly(**given)["x"]}


@pytest.mark.skipif(os.name == "nt", reason="there are no signals")
@pytest.mark.parametrize(("once", "always"), [("KILL", "ABRT"), ("ABRT", "KILL")])
def test_a_run_whose_process_dies_is_tried_again_alone_and_costs_no_other(
    home, capfd, once, always
):
    def dying(name, times):
        (home / name).mkdir()
        end = int(getattr(signal, f"SIG{name}"))
        return {"x": 1, "folder": str(home / name), "times": times, "end": end}

    def told(name):
        pids = [path.read_text() for path in (home / name).iterdir()]
        assert len(set(pids)) == len(pids)
        assert len(pids) in (2, 3)  # a process that waited may begin before its end
        err = capfd.readouterr().err.splitlines()
        (line,) = [text for text in err if "a worker died" in text]
        assert f"a worker died (SIG{name}) in " in line
        assert "test_jobs.deadly(" in line

    others = [(square, {"x": x}) for x in range(4)]
    work = [*others[:2], (asks, dying(once, times=1) | {"by": 0})]
    assert jobs.compute(work) == [{"square": 0}, {"square": 1}, {"asked": 1}]
    told(once)

    given = dying(always, times=9)
    both = [(asks, given | {"by": by}) for by in (1, 2)]
    with pytest.raises(jobs.RunsFailed) as caught:
        jobs.compute([others[2], *both, others[3]])
    told(always)
    text = str(caught.value)
    assert text.startswith("2 of 4 runs failed, the others are stored: test_jobs.")
    assert f"times=9, end={given['end']}): its process died (SIG{always}), also" in text
    assert text.count("ProcessDied: test_jobs.deadly(") == 2  # its line and its error
    assert ("LOTTOLAB_JOBS=1" in text) == (always == "KILL")
    assert ("in deadly" in text) == (always == "ABRT")
    assert places.record(deadly, **given) is None
    assert all(places.record(stage, **setting) for stage, setting in others)


def test_many_failures_are_told_in_part(monkeypatch):
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    work = [(fail, {"after": f"/{x}"}) for x in range(jobs.MOST + 2)]
    monkeypatch.setattr(Path, "exists", lambda self: True)
    with pytest.raises(jobs.RunsFailed) as caught:
        jobs.compute(work)
    head, *_, last = str(caught.value).splitlines()
    assert head.startswith("7 of 7 runs failed")
    assert str(caught.value).count("ValueError: this stage fails\nin the stage") == 5
    assert last == "and 2 more"


def test_a_cluster_goes_on_after_a_failure_too(home):
    distributed = pytest.importorskip("dask.distributed")
    options = {"n_workers": 1, "threads_per_worker": 1, "dashboard_address": None}
    work = [(square, {"x": 5}), (fail, {"after": str(home)}), (square, {"x": 6})]
    with (
        distributed.LocalCluster(processes=False, **options) as cluster,
        distributed.Client(cluster),
        jobs.joblib.parallel_config("dask"),
        pytest.raises(jobs.RunsFailed, match=r"1 of 3 .*ValueError: this stage fails"),
    ):
        jobs.compute(work)
    assert [r["square"] for r in jobs.compute(work[::2])] == [25, 36]


@pytest.mark.parametrize("count", ["1", "2"])
def test_workers_see_this_calls_environment_and_no_earlier_one(
    home, monkeypatch, count
):
    monkeypatch.setenv("LOTTOLAB_JOBS", count)
    monkeypatch.setenv("LOTTOLAB_PROBE", "one")
    first = jobs.compute([(look, {"x": x}) for x in range(2)])
    monkeypatch.delenv("LOTTOLAB_PROBE")
    monkeypatch.setenv("LOTTOLAB_STORE", str(home / "other"))
    monkeypatch.setenv("LOTTOLAB_OTHER", "two")
    before = dict(os.environ)
    second = jobs.compute([(look, {"x": x}) for x in range(2)])
    assert dict(os.environ) == before
    assert {r["found"]["LOTTOLAB_PROBE"] for r in first} == {"one"}
    for result in second:
        folder = result["found"].pop(progress.FOLDER)
        assert not os.path.exists(folder)
        assert result["found"] == {
            "LOTTOLAB_STORE": str(home / "other"),
            "LOTTOLAB_JOBS": count,
            "LOTTOLAB_OTHER": "two",
        }
    if count == "2":  # the same workers, or the second call would prove nothing
        pids = [{r["pid"] for r in results} for results in (first, second)]
        assert os.getpid() not in pids[0] | pids[1]
        assert pids[0] & pids[1]


def planned(monkeypatch, home, call):
    """Return what `call` returns and the plans that it announces."""
    folder = home / "events"
    folder.mkdir()
    monkeypatch.setenv(progress.FOLDER, str(folder))
    result = call()
    text = (folder / f"{os.getpid()}.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    return result, [e for e in events if e["event"] == "plan"]


def test_a_plan_takes_seconds_from_the_store_then_from_the_last_edition(
    home, monkeypatch
):
    expected = {"test_jobs.square": [1000.0], "test_jobs.look": [60.0, 120.0]}
    monkeypatch.setenv("LOTTOLAB_EXPECTED", json.dumps(expected))
    square(x=0)
    seconds = places.record(square, x=0)["seconds"]
    work = [(square, {"x": x}) for x in range(3)]
    work += [(look, {"x": x}) for x in range(4)]
    work += [(fail, {"after": "never"})]
    table, (event,) = planned(monkeypatch, home, lambda: jobs.plan(work))
    table = table.set_index("stage")
    assert table["runs"].tolist() == [3, 4, 1]
    assert table["in store"].tolist() == [1, 0, 0]
    assert table.loc["test_jobs.square", "seconds"] == seconds < 10
    assert table.loc["test_jobs.look", "seconds"] == 90
    assert table.loc["test_jobs.look", "minutes left"] == 4 * 90 / 60 / 2
    assert table.loc["test_jobs.fail", ["seconds", "minutes left"]].isna().all()
    assert event["jobs"] == 2
    assert event["stages"] == {
        "test_jobs.square": [seconds] * 2,
        "test_jobs.look": [90] * 4,
        "test_jobs.fail": [1],
    }


def test_a_plan_of_what_is_in_the_store_has_nothing_left(home, monkeypatch):
    square(x=0)
    work = [(square, {"x": 0})]
    table, (event,) = planned(monkeypatch, home, lambda: jobs.plan(work))
    assert table.loc[0, ["runs", "in store", "minutes left"]].tolist() == [1, 1, 0]
    assert event["stages"] == {"test_jobs.square": []}


def test_computing_by_itself_announces_its_work(monkeypatch):
    seen = []
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    monkeypatch.setattr(progress, "emit", lambda kind, **_: seen.append(kind))
    jobs.compute([(square, {"x": 1})])
    assert seen == ["plan", "start", "end"]
    seen.clear()
    with display.watch("outside"):  # whose plan may hold more than this call
        jobs.compute([(square, {"x": 2})])
    assert seen == ["start", "end"]


def test_what_a_worker_adopted_is_put_back_also_after_an_error(monkeypatch):
    def work():
        with jobs.adopted({"LOTTOLAB_STORE": "there"}):
            seen.append(jobs.variables())
            os.environ["LOTTOLAB_OWN"] = "1"
            raise RuntimeError("stopped")

    monkeypatch.setenv("LOTTOLAB_JOBS", "3")
    before, seen = dict(os.environ), []
    with pytest.raises(RuntimeError):
        work()
    assert seen == [{"LOTTOLAB_STORE": os.path.abspath("there")}]
    assert dict(os.environ) == before
