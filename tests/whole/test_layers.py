"""The contract of the layers, which `make test` checks, breaks where an arrow turns."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lottolab.machine import setup

TOOL = Path(sys.executable).with_name("lint-imports")


def linted(folder: Path) -> tuple[int, str]:
    command = [TOOL, "--no-logo", "--no-cache", "pyproject.toml"]
    own = os.environ | {"PYTHONPATH": str(folder), "COLUMNS": "200"}
    done = subprocess.run(command, cwd=folder, env=own, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tree")
    shutil.copytree(setup.ROOT / "lottolab", folder / "lottolab")
    shutil.copy(setup.ROOT / "pyproject.toml", folder)
    return folder


def test_the_arrows_run_downwards(tree):
    code, said = linted(tree)
    assert code == 0, said
    assert "2 kept, 0 broken" in said


LAYERS, CIRCLES = "Arrows run downwards", "No circles, in no folder"


@pytest.mark.parametrize(
    ("low", "high", "contract"),
    [
        ("runs/files.py", "lottolab.jobs.steps", LAYERS),
        ("nets/masks.py", "lottolab.ownership.triggers", LAYERS),
        ("checks/a_new_module.py", "lottolab.together.worth", LAYERS),
        ("membership/metrics.py", "lottolab.modelguard.queries", LAYERS),  # a neighbour
        ("ownership/signatures/qr.py", "lottolab.ownership.experiments.keys", CIRCLES),
    ],
)
def test_an_arrow_that_is_turned_round_is_named(tree, low, high, contract):
    path = tree / "lottolab" / low
    before = path.read_text("utf-8") if path.exists() else None
    try:
        path.write_text(f"{before or ''}\nimport {high}\n", "utf-8")
        code, said = linted(tree)
    finally:
        path.unlink() if before is None else path.write_text(before, "utf-8")
    assert code == 1, said
    assert f"{contract} BROKEN" in said
    importer = low.removesuffix(".py").rpartition("/")[2]
    assert contract == CIRCLES or (importer in said and high in said)
