"""`make test` runs every step, also after one that failed, and says which did."""

import sys
from pathlib import Path

import nbformat
import pytest
import yaml

from lottolab import execute, parameters, testing


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
        ({"ruff", "notebooks"}, "lint, format, notebooks"),
    ],
)
def test_all_steps_run_and_the_failed_are_named(steps, capsys, failing, names):
    ran, fails = steps
    fails |= failing
    assert testing.run_all() == int(bool(failing))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == (f"failed: {names}" if names else "all passed")
    assert len(ran) == 4
    for line, word in zip(
        ran, ("check", "--check", "pytest", "notebooks"), strict=True
    ):
        assert word in line


def test_long_campaigns_are_in_the_full_run_only(steps):
    ran, _ = steps
    testing.run_all()
    testing.run_all(full=True)
    short, full = (line for line in ran if "pytest" in line)
    assert short == f"{full} -m not long"
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
    assert seen["environment"] == {"LOTTOLAB_RESULTS": str(seen["folder"] / "results")}
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
