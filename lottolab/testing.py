"""Run every check of the project in one go: what `make test` does."""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from lottolab import execute, jobs, parameters
from lottolab.progress import duration

CELL_SECONDS = 300


def run_all(full: bool = False) -> int:
    """Run lint, unit tests and the notebooks; return 0 if all passed, else 1."""
    tools = Path(sys.executable).parent
    steps = {
        "lint": [tools / "ruff", "check", "."],
        "format": [tools / "ruff", "format", "--check", "."],
        "tests": _pytest(full),
        "notebooks": None,
    }
    failed = []
    for name, command in steps.items():
        print(f"== {name}", flush=True)
        start = time.time()
        code = _notebooks() if command is None else _call(command)
        print(
            f"== {name}: {'FAILED' if code else 'ok'}, {duration(time.time() - start)}"
        )
        failed += [name] if code else []
    print("all passed" if not failed else f"failed: {', '.join(failed)}", flush=True)
    return int(bool(failed))


def _pytest(full: bool) -> list:
    command = [sys.executable, "-m", "pytest", "-n", "2", "--dist", "loadfile"]
    command += ["--cov", "lottolab", "--cov-report", "term:skip-covered"]
    command += ["--cov-fail-under", "90", "--durations", "5"]
    return command + ([] if full else ["-m", "not long"])


def _notebooks() -> int:
    """Run copies of the notebooks with smoke parameters under nbval."""
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
        command = [sys.executable, "-m", "pytest", "--nbval-lax", "--nbval-current-env"]
        command += [f"--nbval-cell-timeout={CELL_SECONDS}", "-p", "no:cacheprovider"]
        results = {"LOTTOLAB_RESULTS": str(Path(folder) / "results")}
        return _call([*command, "--rootdir", folder, folder], results)


def _call(command: list, environment: dict | None = None) -> int:
    environment = {**os.environ, **jobs.variables(), **(environment or {})}
    return subprocess.call(command, cwd=execute.ROOT, env=environment)
