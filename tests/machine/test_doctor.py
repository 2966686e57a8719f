"""The doctor says what is missing, to whom, and what mends it; it needs nothing."""

import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from lottolab import cli
from lottolab.machine import capacity, doctor, findings, setup
from lottolab.machine.findings import LACKS, NEEDED, OK, Line

GB = 2**30


def asks(root: Path, dependencies: list[str], tests: list[str] | None = None) -> None:
    """Write a pyproject.toml that lists these, and an extra `tests`."""
    lines = ["[project]", f"dependencies = {dependencies}"]
    lines += ["[project.optional-dependencies]", f"tests = {tests or []}"]
    (root / "pyproject.toml").write_text("\n".join(lines))


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Give a whole machine: what a test takes away is all that is missing."""
    asks(tmp_path, ["pytest>=8"])
    monkeypatch.setattr(setup, "ROOT", tmp_path)
    monkeypatch.delenv("LOTTOLAB_STORE", raising=False)
    told = ["9.9.9+cu1", "AVX512", ["A GPU"], [80 * GB]]
    monkeypatch.setattr(capacity, "ask_torch", lambda: told)
    return tmp_path


def marked(mark: str) -> list[Line]:
    return [
        line for lines in doctor.page().values() for line in lines if line[0] == mark
    ]


def test_the_page_is_plain_narrow_and_says_that_all_is_well(machine, capfd):
    assert cli.main(["doctor"]) == 0
    out, err = capfd.readouterr()
    assert err == ""
    assert out.isascii()
    assert max(map(len, out.splitlines())) <= 100
    headings = ["This machine", "You read", "You rerun", "You teach, or run the tests"]
    lines = out.splitlines()
    assert [line for line in lines if line in headings] == headings
    assert out.startswith("lottolab 0.")
    assert "have what they need" in lines[-1]
    assert " ok torch 9.9.9+cu1, CPU capability AVX512\n" in out
    assert " ok GPU: A GPU, 80.0 GB\n" in out
    unbroken = "".join(out.split())  # a long path goes on in the next line
    assert f"{machine / '.lottolab'},0MB" in unbroken


def test_a_missing_requirement_is_needed_and_mended_by_make_book(machine, capfd):
    asks(machine, ["nowhere-to-be-found>=1", "pytest>=8"], ["pytest>=999"])
    assert doctor.main() == 1
    out = capfd.readouterr().out
    assert " !! not as pyproject.toml asks: nowhere-to-be-found, pytest " in out
    assert "(pytest>=999 is asked)" in out
    assert "    -> make book, or python -m lottolab book" in out
    assert "1 needed by `make book` and `make test` (!!)" in out


def test_a_torch_that_cannot_be_imported_is_needed(machine, monkeypatch, capfd):
    monkeypatch.setattr(capacity, "ask_torch", lambda: "ImportError: no libc")
    assert doctor.main() == 1
    assert (
        " !! torch cannot be imported: ImportError: no libc\n" in capfd.readouterr().out
    )


@pytest.mark.parametrize(
    ("name", "cpu", "count"),
    [("2.14.1+cpu", "AVX2", 1), ("2.14.1", "AVX512", 0), ("2.15.0", "AVX2", 0)],
)
def test_the_known_fault_is_told_where_it_is(machine, monkeypatch, name, cpu, count):
    told = [name, cpu, ["A GPU"], [80 * GB]]
    monkeypatch.setattr(capacity, "ask_torch", lambda: told)
    faults = [line for line in marked(LACKS) if "corrupts memory" in line.text]
    assert len(faults) == count
    assert all(
        "lottolab.nets.strided.subsampled(model)" in line.mend for line in faults
    )


def test_torch_is_asked_in_a_process_that_may_die(monkeypatch):
    monkeypatch.setattr(capacity, "TORCH", "import json; print(json.dumps([1]))")
    assert capacity.ask_torch() == [1]
    monkeypatch.setattr(capacity, "TORCH", "import os; os.abort()")
    assert isinstance(capacity.ask_torch(), str)
    monkeypatch.setattr(capacity, "TORCH", "raise OSError('no libgomp')")
    assert capacity.ask_torch() == "OSError: no libgomp"


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://proxy:3128", "http://proxy:3128"),
        ("http://me:secret@proxy:3128", "http://***@proxy:3128"),
        ("http://me:se,cr@et/s@proxy:3128/", "http://***@proxy:3128/"),
        ("me:secret@proxy:3128", "***@proxy:3128"),
    ],
)
def test_a_proxy_is_told_without_its_password(value, shown):
    told = findings.environment({"HTTPS_PROXY": value, "HOME": "/h", "API_KEY": "k"})
    assert told == [Line(OK, f"HTTPS_PROXY={shown}")]
    own = {"LOTTOLAB_JOBS": "1", "no_proxy": "localhost"}
    assert [line.text for line in findings.environment(own)] == [
        "LOTTOLAB_JOBS=1",
        "no_proxy=localhost",
    ]


def test_a_store_that_cannot_be_written_is_needed(machine, monkeypatch):
    (machine / "file").touch()
    monkeypatch.setenv("LOTTOLAB_STORE", str(machine / "file/store"))
    [line] = marked(NEEDED)
    assert f"{machine / 'file/store'} cannot be written" in line.text
    assert "LOTTOLAB_STORE" in line.mend


def test_nothing_is_left_where_it_was_tried_to_write(machine):
    before = sorted(machine.iterdir())
    doctor.page()
    assert sorted(machine.iterdir()) == before


def test_a_small_disk_is_told_with_what_is_needed(machine, monkeypatch):
    usage = type("usage", (), {"free": 2 * GB})
    monkeypatch.setattr(findings.shutil, "disk_usage", lambda path: usage)
    assert [line.mark for line in findings.disk(machine, installed=True)] == [OK]
    [line] = findings.disk(machine, installed=False)
    assert line.mark == NEEDED
    assert line.text.startswith("2.0 GB of disk are free")
    assert "8 GB are needed" in line.mend


def test_scales_are_held_against_cores_and_memory(tmp_path):
    rows = {"first": [(3000, 1024), (600, 512)], "second": [(0.5, 2048)]}
    for chapter, stages in rows.items():
        path = tmp_path / chapter / "laptop.stages.csv"
        path.parent.mkdir()
        text = "".join(f"{seconds},{peak}\n" for seconds, peak in stages)
        path.write_text(f"seconds,peak_mb\n{text}")
    _, line = findings.scales(tmp_path, 4, 8 * GB)
    assert line.mark == OK
    assert (
        "2 chapters, 1 h 00 min of computing, by 4 processes 15 min 00 s" in line.text
    )
    assert "takes 2.0 GB, all together 8.0 GB" in line.text
    _, line = findings.scales(tmp_path, 4, 7 * GB)
    assert (line.mark, line.mend) == (
        LACKS,
        "this machine has 7.0 GB: LOTTOLAB_JOBS=3",
    )
    assert findings.scales(tmp_path, 4, None)[1].mark == OK


def test_what_is_missing_is_told_with_what_mends_it(machine, monkeypatch):
    monkeypatch.setattr(findings.shutil, "which", lambda name: None)
    monkeypatch.setattr(capacity, "chromium", lambda: None)
    monkeypatch.setitem(sys.modules, "pyzbar", None)
    monkeypatch.setattr(findings.importlib.util, "find_spec", lambda name: None)
    monkeypatch.setattr(findings.contain, "missing", lambda: "bubblewrap is not there")
    mends = " ".join(line.mend for line in marked(LACKS))
    for part in ("python -m lottolab book", "libzbar0", "zxing-cpp", "chromium"):
        assert part in mends
    assert "bubblewrap" in mends
    assert doctor.main() == 0


def test_it_runs_where_nothing_is_installed():
    # -S leaves site-packages out: Python alone, as before the first `make book`.
    command = [sys.executable, "-S", "-m", "lottolab.machine.doctor"]
    done = subprocess.run(command, cwd=setup.ROOT, capture_output=True, text=True)
    assert done.stderr == ""
    assert done.returncode == 1
    assert "pyproject.toml asks: torch, torchvision, numpy" in done.stdout
    assert "torch cannot" not in done.stdout


@pytest.mark.parametrize("made", [False, True])
def test_the_first_command_examines_and_installs_nothing(machine, monkeypatch, made):
    python = machine / "python"
    if made:
        python.touch()
    monkeypatch.setattr(setup, "interpreter", lambda: python)
    monkeypatch.setattr(setup, "ready", None)
    monkeypatch.setattr(sys, "argv", ["lottolab", "doctor"])
    called = []
    monkeypatch.setattr(subprocess, "call", lambda words: called.append(words) or 1)
    with pytest.raises(SystemExit, match="1"):
        runpy.run_module("lottolab", run_name="__main__")
    used = python if made else sys.executable
    assert called == [[used, "-m", "lottolab.machine.doctor"]]
