"""`make test` runs every step, also after one that failed, and says which did."""

import os
import subprocess
import sys
from pathlib import Path

import chapters
import nbformat
import psutil
import pytest
import yaml

from lottolab.machine import testing
from lottolab.pages import parameters
from lottolab.reruns import execute


@pytest.fixture
def steps(monkeypatch):
    """Note the steps; `fails` names words in the commands of those that fail."""
    ran, fails = [], set()

    def call(command, environment=None):
        line = " ".join(map(str, command))
        ran.append(line)
        return 5 * any(word in line for word in fails)

    monkeypatch.setattr(testing, "_call", call)
    monkeypatch.setattr(testing, "_notebooks", lambda: call(["notebooks"]))
    return ran, fails


@pytest.mark.parametrize(
    ("failing", "names"),
    [
        (set(), ""),
        ({"ruff check"}, "lint"),
        ({"format"}, "format"),
        ({"pytest"}, "tests"),
        ({"notebooks"}, "notebooks"),
        ({"lint-imports"}, "layers"),
        ({"ruff", "notebooks"}, "lint, format, notebooks"),
    ],
)
def test_all_steps_run_and_the_failed_are_named(steps, capsys, failing, names):
    ran, fails = steps
    fails |= failing
    assert testing.run_all() == int(bool(failing))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (f"failed: {names}" if names else "all passed")
    words = ("check", "--check", "lint-imports", "pytest", "notebooks")
    for line, word in zip(ran, words, strict=True):
        assert word in line


def test_long_campaigns_are_in_the_full_run_only(steps):
    ran, _ = steps
    testing.run_all()
    testing.run_all(full=True)
    lines = (line for line in ran if "pytest" in line)
    short, full = (line.partition(" --junit-xml ")[0] for line in lines)
    assert short.endswith("-m not long")
    assert full.startswith(short.removesuffix("-m not long"))
    assert "--cov-fail-under 90" in full


def test_copies_of_the_notebooks_get_the_smoke_parameters(monkeypatch):
    seen, before = {}, {p: p.read_bytes() for p in parameters.BOOK.glob("*.ipynb")}

    def call(command, environment):
        folder = Path(command[-1])
        seen["folder"], seen["command"], seen["environment"] = (
            folder,
            list(map(str, command)),
            environment,
        )
        for path in folder.glob("*.ipynb"):
            seen[path.stem] = nbformat.read(path, as_version=4)
        return 3

    monkeypatch.setattr(testing, "_call", call)
    assert testing._notebooks() == 3
    assert not seen["folder"].exists()
    results = str(seen["folder"] / "results")
    assert {"LOTTOLAB_RESULTS": results}.items() <= seen["environment"].items()
    assert "--nbval-lax" in seen["command"]
    assert f"--nbval-cell-timeout={testing.CELL_SECONDS}" in seen["command"]
    for name in parameters.chapters():
        cells = seen[name].cells
        tags = [cell.metadata.get("tags", []) for cell in cells]
        place = tags.index(["injected-parameters"])
        assert "parameters" in tags[place - 1]  # behind the notebook's own
        values: dict = {}
        exec(cells[place].source, values)  # a cell that papermill wrote
        wanted = yaml.safe_load(
            (parameters.BOOK / f"scales/smoke/{name}.yaml").read_text()
        )
        for key, value in {**wanted, "scale": "smoke"}.items():
            assert values[key] == value
    assert {p: p.read_bytes() for p in parameters.BOOK.glob("*.ipynb")} == before


def test_a_step_runs_in_the_project_with_its_environment(tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setenv("LOTTOLAB_OLD", "old")
    show = "import os; print(os.getcwd(), *map(os.getenv, ['LOTTOLAB_OLD', 'NEW']))"
    assert testing._call([sys.executable, "-c", show], {"NEW": "new"}) == 0
    assert capfd.readouterr().out == f"{tmp_path} old new\n"
    assert testing._call([sys.executable, "-c", "raise SystemExit(7)"]) == 7


# A test, or a notebook's kernel, that dies or hangs.

ENDINGS = {
    "aborts": "os.abort()",
    "hangs": "ctypes.PyDLL(None).sleep(600)",  # and nothing else of Python runs
}
FILES = {
    "test_a.py": "import ctypes, os\ndef test_1(): pass\ndef test_that():\n    {}\n",
    "test_b.py": "import time\ndef test_other(): time.sleep(1)\n",
}


@pytest.mark.skipif(sys.platform == "win32", reason="calls the C library's sleep")
@pytest.mark.parametrize("ending", ENDINGS)
def test_a_test_that_ends_its_process_ends_the_run_and_is_named(tmp_path, ending):
    for name, text in FILES.items():
        (tmp_path / name).write_text(text.format(ENDINGS[ending]))
    command = [sys.executable, "-m", "pytest", *testing.SIDE_BY_SIDE]
    command += ["-c", execute.ROOT / "pyproject.toml", "--rootdir", tmp_path]
    command += ["-o", "faulthandler_timeout=3", "-p", "no:cacheprovider", tmp_path]
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    capture = {"capture_output": True, "text": True, "timeout": 60}
    done = subprocess.run(command, cwd=tmp_path, env=bare, **capture)
    assert done.returncode == 1
    assert "crashed while running 'test_a.py::test_that'" in done.stdout
    assert 'test_a.py", line 4 in test_that' in done.stderr  # its stack


def test_a_kernel_that_dies_ends_the_run_and_its_cell_is_named(
    tmp_path, monkeypatch, capfd
):
    book = tmp_path / "book"
    (book / "scales/smoke").mkdir(parents=True)
    (book / "scales/smoke/first.yaml").write_text("count: 2\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/first\n")
    die = "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)"
    page = chapters.chapter("count: int = 3  # in [1, 5]", die, "never = 1")
    nbformat.write(page, book / "first.ipynb")
    monkeypatch.setattr(parameters, "BOOK", book)
    assert testing._notebooks() == 1
    said, errors = capfd.readouterr()
    assert "the kernel died in first.ipynb::Cell 2" in errors
    assert "crashed while running 'first.ipynb::Cell 2'" in said


def test_what_was_skipped_is_said_at_the_end(tmp_path, steps, monkeypatch, capsys):
    (tmp_path / "test_a.py").write_text(
        "import pytest\nno = pytest.mark.skipif(True, reason='no X: apt install x')\n"
        "@no\ndef test_a(): pass\n@no\ndef test_b(): pass\n"
        "def test_c(): pytest.skip('no <Y>')\ndef test_d(): assert False, 'skipped'\n"
    )

    def call(command, environment=None):
        if "--junit-xml" in command:
            report = command[command.index("--junit-xml") + 1]
            own = ["-q", "-p", "no:cacheprovider", f"--junit-xml={report}", tmp_path]
            return pytest.main([*own, "--rootdir", tmp_path])
        return 0

    monkeypatch.setattr(testing, "_call", call)
    assert testing.run_all() == 1
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "skipped: 2 tests: no X: apt install x",
        "skipped: 1 test: no <Y>",
        "failed: tests",
    ]


def test_the_longest_files_are_named_with_the_sums_of_their_tests(tmp_path):
    report = tmp_path / "tests.xml"
    assert testing.longest(report) == []
    cases = [("a", 1.5), ("b", 2), ("a", 1), ("c", 0)]
    text = "".join(f'<testcase classname="{n}" time="{t}"/>' for n, t in cases)
    report.write_text(f"<testsuites><testsuite>{text}</testsuite></testsuites>")
    assert testing.longest(report, 2) == [("a", 2.5), ("b", 2.0)]


STARTS = """
import subprocess, sys
child = [sys.executable, "-c", "import time; time.sleep({seconds})"]
subprocess.Popen(child, start_new_session=True)
"""


@pytest.mark.parametrize(("seconds", "code"), [(600, 1), (1, 0)])
def test_no_process_outlives_a_step(monkeypatch, capfd, seconds, code):
    monkeypatch.setattr(testing, "ENDING", 3)
    command = [sys.executable, "-c", STARTS.format(seconds=seconds)]
    assert testing._call(command) == code
    said = capfd.readouterr().out
    assert ("left running" in said) == bool(code)
    text = f"time.sleep({seconds})"
    assert (text in said) == bool(code)
    listed = [p.info for p in psutil.process_iter(["cmdline", "status"])]
    alive = [p for p in listed if p["cmdline"] and p["status"] != "zombie"]
    assert not [p for p in alive if p["cmdline"][-1].endswith(text)]
