"""Run every check of the project in one go: what `make test` does."""

import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from uuid import uuid4
from xml.etree import ElementTree

import psutil

from lottolab import jobs
from lottolab.pages import parameters
from lottolab.reruns import execute
from lottolab.units import duration

CELL_SECONDS = 1200  # a chapter's longest takes minutes on two slow cores
ENDING = 10  # seconds that a process has to end after the tests that started it
MARK = "SUITE_OF_LOTTOLAB"  # by which a step's processes are known
LONG_SECONDS = 3600
# Two processes, each with whole files. One that dies ends the run: another in its
# place would begin with the test that killed the first, again and again.
SIDE_BY_SIDE = ("-p", "xdist", "-n", "2", "--dist", "loadfile")
SIDE_BY_SIDE += ("--max-worker-restart", "0")
ONE_THREAD = {"OMP_NUM_THREADS": "1"}  # two each would wait for one another
BARE = {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # what nobody asked for takes seconds


def run_all(full: bool = False) -> int:
    """Run lint, unit tests and the notebooks; return 0 if all passed, else 1."""
    tools = Path(sys.executable).parent
    with tempfile.TemporaryDirectory(prefix="lottolab-") as folder:
        report = Path(folder, "tests.xml")
        steps = {
            "lint": [tools / "ruff", "check", "."],
            "format": [tools / "ruff", "format", "--check", "."],
            "layers": [tools / "lint-imports", "--no-logo"],
            "tests": [*_pytest(full), "--junit-xml", report],
            "notebooks": None,
        }
        failed = []
        for name, command in steps.items():
            print(f"== {name}", flush=True)
            start = time.time()
            code = _notebooks() if command is None else _call(command, BARE)
            took = duration(time.time() - start)
            print(f"== {name}: {'FAILED' if code else 'ok'}, {took}")
            failed += [name] if code else []
        for name, seconds in longest(report):
            print(f"longest: {name}: {duration(seconds)}")
        for reason, count in skipped(report).items():
            print(f"skipped: {count} test{'s' * (count > 1)}: {reason}")
    print("all passed" if not failed else f"failed: {', '.join(failed)}", flush=True)
    return int(bool(failed))


def longest(report: Path, count: int = 12) -> list[tuple[str, float]]:
    """Return the files of tests that took longest, with seconds, as JUnit has them."""
    seconds: Counter[str] = Counter()
    for case in _found(report, "testcase"):
        seconds[case.get("classname", "")] += float(case.get("time", 0))
    return seconds.most_common(count)


def skipped(report: Path) -> Counter[str]:
    """Count the tests by why they were skipped, as pytest's JUnit report says it."""
    return Counter(element.get("message", "") for element in _found(report, "skipped"))


def _found(report: Path, tag: str) -> Iterator[ElementTree.Element]:
    if report.exists():  # else pytest itself failed
        yield from ElementTree.parse(report).iter(tag)


def _pytest(full: bool) -> list:
    command = [sys.executable, "-m", "pytest", *SIDE_BY_SIDE]
    command += ["--no-loadscope-reorder"]  # but as tests/conftest.py says
    command += ["--durations", "25"]
    if not full:
        return [*command, "-m", "not long"]
    # Measured here alone: counting lines makes the tests take half as long again.
    command += ["-p", "pytest_cov", "--cov", "lottolab"]
    command += ["--cov-report", "term:skip-covered", "--cov-fail-under", "90"]
    return [*command, "-o", f"faulthandler_timeout={LONG_SECONDS}"]


def _notebooks() -> int:
    """Run copies of the notebooks with smoke parameters under nbval, two at a time."""
    from papermill import execute_notebook

    with tempfile.TemporaryDirectory(prefix="lottolab-") as folder:
        for name in parameters.chapters():
            values = parameters.resolve(name, "smoke", {}) | {"scale": "smoke"}
            source, copy = (
                parameters.BOOK / f"{name}.ipynb",
                Path(folder, f"{name}.ipynb"),
            )
            paths = execute.literal(source), execute.literal(copy)
            execute_notebook(*paths, values, prepare_only=True)
        command = [sys.executable, "-m", "pytest", *SIDE_BY_SIDE, "--durations", "5"]
        command += ["-p", "nbval", "--nbval-lax", "--nbval-current-env"]
        command += [
            "-p",
            "lottolab.machine.kernels",
            f"--nbval-cell-timeout={CELL_SECONDS}",
        ]
        command += ["-p", "no:cacheprovider", "--rootdir", folder, folder]
        own = {"LOTTOLAB_RESULTS": str(Path(folder) / "results"), "LOTTOLAB_JOBS": "1"}
        return _call(command, own | BARE)


def _call(command: list, environment: dict | None = None) -> int:
    """Run a command; what it has left running is ended, named, and makes it fail."""
    own = {**jobs.variables(), **ONE_THREAD, **(environment or {}), MARK: uuid4().hex}
    code = subprocess.call(command, cwd=execute.ROOT, env={**os.environ, **own})
    left = _outliving(own[MARK])
    for process in left:
        print(f"left running, and ended: {_told(process)}", flush=True)
        process.kill()
    return code or int(bool(left))


def _outliving(mark: str) -> list[psutil.Process]:
    """Return the processes that carry a mark and do not end by themselves in time."""
    found = [process for process in psutil.process_iter() if _marked(process, mark)]
    return psutil.wait_procs(found, timeout=ENDING)[1]


def _marked(process: psutil.Process, mark: str) -> bool:
    try:
        return process.environ().get(MARK) == mark
    except (psutil.Error, OSError):  # of another user, or ended
        return False


def _told(process: psutil.Process) -> str:
    try:
        return f"{process.pid} {' '.join(process.cmdline())[:120]}"
    except psutil.Error:
        return str(process.pid)
