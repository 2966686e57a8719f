"""Any output, any home: what a command finds around it stops it not."""

import io
import os
import runpy
import subprocess
import sys
import tempfile
from pathlib import Path

import joblib
import pandas as pd
import pytest

from lottolab import cli
from lottolab.machine import settle

LETTERS = "ε ≥ 0.5 → é 日本"
# A child stands for the workers, whose words go to the same output.
PRINTS = f"""
import subprocess, sys
from lottolab.machine import settle
settle.settle()
print({LETTERS!r})
print({LETTERS!r}, file=sys.stderr, flush=True)
if len(sys.argv) == 1:
    sys.stdout.flush()
    subprocess.run([sys.executable, "-c", "print({LETTERS!r})"], check=True)
"""


@pytest.fixture
def surroundings(monkeypatch):
    """Put back what settling changes."""
    for name in ("HOME", "PYTHONIOENCODING"):
        monkeypatch.setenv(name, os.environ.get(name, ""))
    return monkeypatch


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "cp1252:strict", "utf-8"])
def test_every_letter_is_printed_whatever_the_output_knows(tmp_path, encoding):
    (tmp_path / "prints.py").write_text(PRINTS, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, tmp_path / "prints.py"],
        env=os.environ | {"PYTHONIOENCODING": encoding},
        capture_output=True,
    )
    name = encoding.partition(":")[0]
    line = LETTERS.encode(name, "backslashreplace")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [line, line]
    assert done.stderr.splitlines() == [line]


def test_the_commands_print_so(surroundings):
    row = dict.fromkeys(("claim", "paper", "ours", "verdict"), LETTERS)
    output = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    surroundings.setattr(sys, "stdout", output)
    surroundings.setattr(
        "lottolab.pages.show.scorecard", lambda *_: pd.DataFrame([row])
    )
    assert cli.main(["claims"]) == 0
    output.flush()
    assert b"\\u2265" in output.buffer.getvalue()


def test_the_installation_prints_so(surroundings):
    output = io.TextIOWrapper(io.BytesIO(), encoding="cp1252")
    surroundings.setattr(sys, "stdout", output)
    surroundings.setattr(
        "lottolab.machine.setup.ready", lambda: sys.exit(print(LETTERS))
    )
    with pytest.raises(SystemExit):
        runpy.run_module("lottolab", run_name="__main__")
    output.flush()
    assert b"\\u65e5\\u672c" in output.buffer.getvalue()


HOME = """
import os, pathlib
from lottolab.machine import settle
settle.settle()
from jupyter_core.paths import jupyter_runtime_dir
pathlib.Path(jupyter_runtime_dir()).mkdir(parents=True)
import matplotlib
matplotlib.get_configdir()
print(os.environ["HOME"])
"""


@pytest.mark.skipif(os.name == "nt", reason="Windows has another idea of a home")
@pytest.mark.parametrize("kind", ["a file", "not there"])
def test_a_home_that_cannot_be_written_is_stood_in_for(tmp_path, kind):
    home = tmp_path / "home"
    if kind == "a file":
        home.write_text("")
    own = {k: v for k, v in os.environ.items() if not k.startswith(("XDG", "JUPYTER"))}
    own.pop("MPLCONFIGDIR", None)
    done = subprocess.run(
        [sys.executable, "-c", HOME],
        env=own | {"HOME": str(home)},
        capture_output=True,
        text=True,
    )
    assert done.stderr == ""
    other = Path(done.stdout.strip())
    assert other != home
    assert not other.exists()  # any more
    assert home.exists() == (kind == "a file")


def test_workers_start_whatever_the_temporary_folder_is_called(surroundings, tmp_path):
    folder = tmp_path / "Jörg 日本"
    folder.mkdir()
    surroundings.setattr(tempfile, "tempdir", str(folder))
    surroundings.setenv("PUBLIC", str(tmp_path))
    surroundings.setenv("JOBLIB_TEMP_FOLDER", "")
    surroundings.delenv("JOBLIB_TEMP_FOLDER")
    settle.settle()
    with joblib.parallel_config("loky", n_jobs=2):
        assert joblib.Parallel()(joblib.delayed(abs)(x) for x in (-1, -2)) == [1, 2]
    assert os.environ["JOBLIB_TEMP_FOLDER"] == str(tmp_path)
    given = str(folder / "given")
    surroundings.setenv("JOBLIB_TEMP_FOLDER", given)
    settle.settle()
    assert os.environ["JOBLIB_TEMP_FOLDER"] == given


def test_a_home_that_can_be_written_stays(surroundings, tmp_path):
    surroundings.setenv("HOME", str(tmp_path))
    settle.settle()
    assert os.environ["HOME"] == str(tmp_path)
