"""The display of a run: what the events say, and what is drawn of them."""

import json
import os
import sys
import threading
import time

import pytest

from lottolab.jobs import display
from lottolab.runs import progress, staging


@pytest.fixture(autouse=True)
def unwatched(monkeypatch):
    monkeypatch.delenv(progress.FOLDER, raising=False)


@pytest.fixture
def clock(monkeypatch):
    """Hold the time at 1000 s."""
    monkeypatch.setattr(time, "time", lambda: 1000.0)


def event(kind, pid=1, at=0.0, **fields):
    return {"event": kind, "pid": pid, "time": at, **fields}


def plan(jobs=1, **stages):
    return event("plan", pid=0, jobs=jobs, stages=stages)


def start(stage, pid=1, at=0.0):
    return event("start", pid, at, stage=stage, label=f"{stage} seed={pid}")


def epoch(number, of, pid=1):
    return event("epoch", pid, epoch=number, epochs=of, rate=1234.5)


def end(stage, seconds, pid=1, cached=False, at=0.0):
    return event("end", pid, at, stage=stage, cached=cached, seconds=seconds)


def done(stage, seconds, pid=1, cached=False):
    return [start(stage, pid), end(stage, seconds, pid, cached)]


def fed(*events):
    state = display.State()
    for one in events:
        for part in one if isinstance(one, list) else [one]:
            state.feed(part)
    return state


# --- what is left


def test_nothing_is_known_before_the_first_run():
    assert fed().remaining() is None
    assert fed(plan(a=[10.0])).remaining() is None
    assert fed(plan(a=[10.0]), start("a")).remaining() is None


def test_what_is_left_is_the_plan_at_this_runs_speed():
    events = [plan(a=[10.0] * 4, b=[30.0]), done("a", 20.0)]
    assert fed(*events).remaining() == pytest.approx(2 * (3 * 10 + 30))
    events += [done("b", 20.0)]  # 40 s where the plan has 40 s
    assert fed(*events).remaining() == pytest.approx(30)


def test_two_jobs_halve_the_time_and_one_run_is_not_halved():
    events = [done("a", 10.0), done("a", 10.0)]
    one = fed(plan(1, a=[10.0] * 4), *events)
    two = fed(plan(2, a=[10.0] * 4), *events)
    assert two.remaining() == one.remaining() / 2 == pytest.approx(10)
    assert fed(plan(2, a=[10.0] * 3), *events).remaining() == pytest.approx(10)


def test_runs_read_back_say_nothing_of_speed_and_were_not_planned():
    """A plan holds what is not in the store; what it needs is read back besides."""
    events = [plan(a=[10.0] * 3), done("a", 10.0)]
    slow = fed(*events)
    read = fed(*events, *[done("a", 0.001, cached=True)] * 5)
    assert read.remaining() == slow.remaining() == pytest.approx(20)
    assert read.line().startswith("1/3 runs · 20 s left")
    assert fed(plan(a=[10.0]), done("a", 0.1, cached=True)).remaining() is None


def test_a_stage_that_is_not_in_the_plan_changes_nothing():
    events = [plan(a=[10.0] * 3), done("a", 10.0)]
    assert fed(*events, done("b", 99.0)).remaining() == pytest.approx(20)


def test_a_second_plan_starts_with_nothing_done():
    first = [plan(a=[10.0] * 2), done("a", 20.0), done("a", 20.0)]
    assert fed(*first).remaining() == 0
    assert fed(*first, plan(a=[10.0] * 2)).remaining() == pytest.approx(40)
    assert fed(*first, plan(a=[10.0] * 2)).line() == "2/4 runs · 40 s left"


def test_the_fraction_of_a_running_stage_counts(clock):
    events = [plan(a=[10.0] * 2), start("a", at=990.0), epoch(1, 4)]
    # A quarter took 10 s, so that the rest of it takes 30 s and the other one 40 s.
    assert fed(*events).remaining() == pytest.approx(30 + 40)


def test_two_that_run_side_by_side_count_alike(clock):
    events = [plan(2, a=[10.0] * 3)]
    for pid in (1, 2):
        events += [start("a", pid, at=990.0), epoch(1, 2, pid)]
    assert fed(*events).remaining() == pytest.approx((10 + 10 + 20) / 2)


def test_a_stages_clock_leaves_out_what_it_asked_of_others(clock):
    events = [plan(a=[10.0], b=[10.0]), start("b", at=900.0), start("a", at=900.0)]
    events += [end("a", 90.0, at=990.0), epoch(1, 2)]
    # `a` took 9 times the plan, half of `b` twice: 100 s for what was to take 15 s.
    assert fed(*events).remaining() == pytest.approx(5 * 100 / 15)


def test_a_failed_stage_is_no_longer_running():
    state = fed(plan(a=[10.0] * 2), start("a"), event("fail", stage="a"))
    assert state.line() == "0/2 runs"
    assert state.remaining() is None


def test_the_line_names_what_runs():
    events = [plan(2, a=[60.0] * 3), start("a", 1), epoch(2, 8, 1), start("b", 2)]
    running = fed(*events).line()
    assert running.startswith("0/3 runs · ")
    assert running.endswith(
        " · a seed=1 (epoch 2/8, 1,234 images/s) · b seed=2 (started)"
    )
    ended = fed(*events, end("b", 5.0, 2), end("a", 60.0, 1)).line()
    assert ended == "1/3 runs · 1 min 00 s left"
    nested = fed(start("outer"), start("inner"))
    assert nested.line() == "inner seed=1 (started)"
    nested.feed(end("inner", 1.0))
    assert nested.line() == "outer seed=1 (started)"


def test_an_epoch_outside_of_a_stage_is_nobodys():
    assert fed(plan(a=[1.0]), epoch(1, 2)).line() == "0/1 runs"


# --- events


def test_an_event_is_one_line_with_time_and_process(tmp_path, monkeypatch):
    progress.emit("start", stage="a")  # nobody watches
    monkeypatch.setenv(progress.FOLDER, str(tmp_path))
    before = time.time()
    progress.emit("start", stage="a\nb")
    progress.emit("end", seconds=1.5)
    (path,) = tmp_path.iterdir()
    events = [json.loads(line) for line in path.read_text().splitlines()]
    assert [e["event"] for e in events] == ["start", "end"]
    assert (events[0]["stage"], events[1]["seconds"]) == ("a\nb", 1.5)
    assert {e["pid"] for e in events} == {os.getpid()}
    assert before <= events[0]["time"] <= events[1]["time"] <= time.time()


def test_a_display_out_of_reach_stops_no_run(tmp_path, monkeypatch):
    """A worker on another machine has the variable but not the folder."""
    monkeypatch.setenv(progress.FOLDER, str(tmp_path / "elsewhere"))
    progress.emit("start", stage="a")


def put(path, *events, tail=""):
    with open(path, "a") as file:
        file.write("".join(json.dumps(e) + "\n" for e in events) + tail)


def test_a_half_written_line_waits_for_its_end(tmp_path):
    state, read = display.State(), {}
    whole = json.dumps(end("a", 20.0)) + "\n"
    put(tmp_path / "1.jsonl", plan(a=[10.0] * 2), start("a"), tail=whole[:25])
    for _ in range(2):
        display._collect(tmp_path, read, state)
        assert state.remaining() is None
    put(tmp_path / "1.jsonl", tail=whole[25:])
    for _ in range(2):
        display._collect(tmp_path, read, state)
        assert state.remaining() == pytest.approx(20)


@pytest.mark.parametrize("broken", ['{"event": "sta', "", "[1]", '{"pid": 1}', "\0\0"])
def test_a_broken_line_is_skipped(tmp_path, broken):
    state, read = display.State(), {}
    put(tmp_path / "1.jsonl", plan(a=[10.0] * 2), tail=broken + "\n")
    put(tmp_path / "1.jsonl", start("a"), end("a", 20.0))
    display._collect(tmp_path, read, state)
    assert state.remaining() == pytest.approx(20)


def test_events_of_several_processes_are_taken_in_their_order(tmp_path):
    state = display.State()
    put(tmp_path / "1.jsonl", start("a", 1, at=2.0), end("a", 20.0, 1, at=3.0))
    put(tmp_path / "2.jsonl", plan(a=[10.0] * 2) | {"time": 1.0})
    display._collect(tmp_path, {}, state)
    assert state.remaining() == pytest.approx(20)


# --- drawing


def until(true, seconds=10.0):
    """Wait until `true()`."""
    limit = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < limit, "waited in vain"
        time.sleep(0.01)


def test_without_a_terminal_plain_lines_are_printed_and_nothing_leaks(capsys):
    before, threads = dict(os.environ), threading.active_count()
    with display.watch("chapter", every=0.05) as state:
        folder = os.environ[progress.FOLDER]
        progress.emit("plan", jobs=1, stages={"a": [10.0] * 2})
        progress.emit("start", stage="a", label="a seed=1")
        until(lambda: "started" in state.line())
        time.sleep(0.3)
        progress.emit("message", text="a file is damaged")
        progress.emit("end", stage="a", cached=False, seconds=20.0)
        until(lambda: "left" in state.line())
        time.sleep(0.1)
    said = capsys.readouterr()
    lines = said.err.splitlines()
    assert said.out == ""
    assert "chapter: 0 s · 0/2 runs · a seed=1 (started)" in lines
    assert "chapter: a file is damaged" in lines
    assert lines[-1] == "chapter: 0 s · 1/2 runs · 20 s left"
    assert len(lines) == len(set(lines)) <= 4  # said once, when it is new
    assert "\x1b" not in said.err
    assert dict(os.environ) == before
    assert not os.path.exists(folder)
    assert threading.active_count() == threads


def test_what_happens_at_the_very_end_is_still_taken_in():
    with display.watch("chapter", every=60) as state:
        progress.emit("plan", jobs=1, stages={"a": [10.0] * 2})
    assert state.line() == "0/2 runs"


def test_a_failing_block_cleans_up_too():
    before, threads = dict(os.environ), threading.active_count()
    with pytest.raises(KeyError, match="mine"), display.watch("chapter"):
        raise KeyError("mine")
    assert dict(os.environ) == before
    assert threading.active_count() == threads


def test_a_nested_display_is_silent_and_the_outer_one_sees_its_events(capsys):
    with display.watch("outer", every=0.05) as state:
        folder = os.environ[progress.FOLDER]
        with display.watch("inner", every=0.05):
            assert os.environ[progress.FOLDER] == folder
            progress.emit("start", stage="a", label="a")
            until(lambda: state.line())
            time.sleep(0.2)
        assert os.environ[progress.FOLDER] == folder
    said = capsys.readouterr().err
    assert "outer: 0 s · a (started)" in said
    assert "inner" not in said


def drained(terminal: int) -> bytes:
    """Read what was written; a terminal hands it out in pieces."""
    import select

    pieces = []
    while select.select([terminal], [], [], 0.5)[0]:
        pieces.append(os.read(terminal, 100_000))
    return b"".join(pieces)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no pty")
@pytest.mark.parametrize("columns", [40, 0])
def test_on_a_terminal_one_line_is_redrawn(monkeypatch, columns):
    import pty
    import termios
    import tty

    ours, theirs = pty.openpty()
    tty.setraw(theirs)
    termios.tcsetwinsize(theirs, (24, columns))
    with open(theirs, "w") as screen:
        monkeypatch.setattr(sys, "stderr", screen)
        with display.watch("chapter") as state:
            progress.emit("plan", jobs=1, stages={"a": [10.0] * 2})
            progress.emit("start", stage="a", label="a" * 100)
            until(lambda: "started" in state.line())
            progress.emit("message", text="a file is damaged")
            until(lambda: state.messages)
            time.sleep(0.1)
        drawn = drained(ours).decode()
    os.close(ours)
    first, *pieces = drawn.split("\r\x1b[K")
    assert first == ""
    assert pieces[-1] == ""  # the line is wiped at the end
    messages = [piece for piece in pieces if "\n" in piece]
    assert messages == ["chapter: a file is damaged\n"]
    lines = [piece for piece in pieces[:-1] if "\n" not in piece]
    assert len(lines) >= 3
    assert {len(line) for line in lines[1:-1]} == {(columns or 80) - 1}
    assert all(line.startswith("chapter: ") for line in lines)
    assert "0/2 runs · aaa" in lines[-2]


# --- what stages emit


@staging.stage("test_progress.inner")
def inner(*, x):
    time.sleep(0.3)
    return {"x": x}


@staging.stage("test_progress.outer")
def outer(*, x):
    return {"x": inner(x=x)["x"]}


@staging.stage("test_progress.failing")
def failing(*, x):
    inner(x=x)
    raise ValueError("no")


def test_a_stage_says_what_it_does_and_its_own_seconds(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv(progress.FOLDER, str(tmp_path))
    outer(x=1)
    inner(x=1)
    with pytest.raises(ValueError, match="no"):
        failing(x=1)
    text = (tmp_path / f"{os.getpid()}.jsonl").read_text()
    events = [json.loads(line) for line in text.splitlines()]
    here = "test_progress."
    assert [(e["event"], e["stage"], e.get("cached")) for e in events] == [
        ("start", here + "outer", None),
        ("start", here + "inner", None),
        ("end", here + "inner", False),
        ("end", here + "outer", False),
        ("start", here + "inner", None),
        ("end", here + "inner", True),
        ("start", here + "failing", None),
        ("start", here + "inner", None),
        ("end", here + "inner", True),
        ("fail", here + "failing", None),
    ]
    assert events[2]["seconds"] >= 0.3
    assert events[3]["seconds"] < 0.2
    assert fed(*events).line() == ""
