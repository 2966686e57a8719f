"""Draw how far runs are: the events of all processes, in one line of one of them."""

import contextlib
import json
import os
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from lottolab.runs.progress import FOLDER, emit
from lottolab.units import duration


def say(text: str) -> None:
    """Tell who watches; where nobody does, write to the standard error."""
    if os.environ.get(FOLDER):
        emit("message", text=text)
    else:
        print(f"lottolab: {text}", file=sys.stderr, flush=True)


def console() -> Any:
    """Return rich's console, as wide as the terminal; 160 characters without one."""
    from rich.console import Console

    width = None if sys.stdout.isatty() else 160
    return Console(highlight=False, markup=False, width=width)


class State:
    """What the events so far say: what runs, what is done, what is left.

    The remaining time is what the plan expects of the runs that are not finished,
    scaled by how this run compares with the plan so far, over the processes at work.
    """

    def __init__(self) -> None:
        self.running: dict[int, list[dict]] = {}
        self.plan: dict[str, list[float]] = {}  # of the runs that are not finished
        self.done = 0
        self.expected = self.spent = 0.0  # seconds of those that are
        self.jobs = 1
        self.step = ""  # of a command that runs no stage
        self.messages: list[str] = []

    def feed(self, event: dict) -> None:
        """Take in one event."""
        stack = self.running.setdefault(event["pid"], [])
        kind = event["event"]
        if kind == "start":
            stack.append(event | {"fraction": 0.0, "note": ""})
        elif kind == "epoch" and stack:
            stack[-1]["fraction"] = event["epoch"] / event["epochs"]
            stack[-1]["note"] = (
                f"epoch {event['epoch']}/{event['epochs']}, "
                f"{event['rate']:,.0f} images/s"
            )
        elif kind == "step":
            if stack:
                stack[-1]["note"] = event["text"]
            self.step = "" if stack else event["text"]
        elif kind in ("end", "fail") and stack:
            stack.pop()
            if stack:  # what it asked of others is not its own time
                stack[-1]["time"] = event["time"]
            waiting = self.plan.get(event["stage"])
            # The plan holds only what is not in the store.
            if kind == "end" and not event["cached"] and waiting:
                self.done += 1
                self.expected += waiting.pop()
                self.spent += event["seconds"]
        elif kind == "plan":
            self.jobs = event["jobs"]
            self.plan |= {name: list(s) for name, s in event["stages"].items()}
        elif kind == "message":
            self.messages.append(event["text"])
        elif kind == "dead":
            for pid in event["pids"]:
                self.running.pop(pid, None)

    def remaining(self) -> float | None:
        """Estimate the seconds left; None while nothing is known."""
        expected, spent, todo = self.expected, self.spent, 0.0
        left = {name: list(seconds) for name, seconds in self.plan.items()}
        jobs = max(1, min(self.jobs, sum(map(len, left.values()))))
        now = time.time()
        for event in (e for stack in self.running.values() for e in stack[-1:]):
            if left.get(event["stage"]) and event["fraction"]:
                seconds = left[event["stage"]].pop()
                expected += seconds * event["fraction"]
                spent += now - event["time"]
                todo += seconds * (1 - event["fraction"])
        todo += sum(sum(seconds) for seconds in left.values())
        if not expected:
            return None
        return todo * spent / expected / jobs

    def line(self) -> str:
        """Say in one line where the run stands."""
        total = self.done + sum(len(seconds) for seconds in self.plan.values())
        parts = [f"{self.done}/{total} runs"] if total else []
        parts += [self.step] if self.step else []
        left = self.remaining()
        if left is not None:
            parts.append(f"{duration(left)} left")
        for stack in self.running.values():
            if stack:
                parts.append(f"{stack[-1]['label']} ({stack[-1]['note'] or 'started'})")
        return " · ".join(parts)


def running() -> dict[int, list[dict]]:
    """Return the stages that each process is in, or was when it died, by its id."""
    state = State()
    _collect(Path(os.environ[FOLDER]), {}, state)
    return state.running


@contextmanager
def watch(title: str, every: float = 10.0) -> Iterator[State]:
    """Show the events of this process and its children until the block ends.

    On a terminal one line is redrawn in place; in a file or in CI a line is printed
    every `every` seconds, when it has something new to say.
    """
    if os.environ.get(FOLDER):  # somebody outside watches already
        yield State()
        return
    state, stop = State(), threading.Event()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        os.environ[FOLDER] = folder
        thread = threading.Thread(
            target=_draw, args=(Path(folder), title, state, stop, every), daemon=True
        )
        thread.start()
        try:
            yield state
        finally:
            stop.set()
            thread.join()
            del os.environ[FOLDER]


def _draw(folder: Path, title: str, state: State, stop: threading.Event, every: float):
    read: dict[Path, int] = {}
    live, shown, printed = sys.stderr.isatty(), "", 0.0
    start, said = time.time(), 0
    while True:
        last = stop.wait(0.5 if live else min(every, 1.0))
        _collect(folder, read, state)
        for text in state.messages[said:]:
            print(("\r\x1b[K" if live else "") + f"{title}: {text}", file=sys.stderr)
        said = len(state.messages)
        line = f"{title}: {duration(time.time() - start)} · {state.line()}"
        if live:
            # A terminal that does not know its size says 0.
            width = os.get_terminal_size(sys.stderr.fileno()).columns or 80
            print("\r\x1b[K" + line[: width - 1], end="", file=sys.stderr, flush=True)
        elif time.time() - printed >= every and state.line() != shown:
            print(line, file=sys.stderr, flush=True)
            shown, printed = state.line(), time.time()
        if last:
            if live:
                print("\r\x1b[K", end="", file=sys.stderr, flush=True)
            return


def _collect(folder: Path, read: dict[Path, int], state: State) -> None:
    """Feed the whole lines that are new, in the order of their times."""
    events = []
    for path in sorted(folder.glob("*.jsonl")):
        with open(path) as file:
            file.seek(read.get(path, 0))
            while (line := file.readline()).endswith("\n"):
                read[path] = file.tell()
                with contextlib.suppress(ValueError):  # a broken line is no event
                    events.append(json.loads(line))
    known = [
        e for e in events if isinstance(e, dict) and {"event", "time", "pid"} <= set(e)
    ]
    for event in sorted(known, key=lambda event: event["time"]):
        state.feed(event)
