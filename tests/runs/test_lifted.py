"""The store is one folder that works in another package too, as its README says."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from lottolab.runs import definitions

FOLDER = definitions.PACKAGE / "runs"
STAGES = """from mine import runs
from mine.help import half


@runs.stage("example.halved")
def halved(*, x: float) -> dict:
    print("computed")
    return {"y": half(x)}


print(halved(x=3.0)["y"], halved(x=3)["y"])
"""


def run(home: Path) -> list[str]:
    own = {"PYTHONPATH": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("LOTTOLAB_")}
    done = subprocess.run(
        [sys.executable, "-m", "mine.stages"],
        cwd=home,
        env=kept | own,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_another_package_can_have_it(tmp_path):
    package = tmp_path / "mine"
    shutil.copytree(FOLDER, package / "runs")
    for path in (package / "runs").glob("*.py"):
        path.write_text(path.read_text("utf-8").replace("lottolab", "mine"), "utf-8")
    installed = tmp_path / "mine-1.dist-info"
    installed.mkdir()
    (installed / "METADATA").write_text("Name: mine\nVersion: 1\n")
    (package / "__init__.py").write_text("")
    (package / "help.py").write_text("def half(x):\n    return x / 2\n")
    (package / "stages.py").write_text(STAGES)

    assert run(tmp_path) == ["computed", "1.5 1.5"]
    assert run(tmp_path) == ["1.5 1.5"]
    (package / "help.py").write_text("def half(x):\n    return x * 0.25\n")
    assert run(tmp_path) == ["computed", "0.75 0.75"]
    assert len(list((tmp_path / ".mine" / "example.halved").glob("*/record.json"))) == 1


def test_a_reader_can_hold_it_in_the_head():
    lines = [len(p.read_text("utf-8").splitlines()) for p in FOLDER.rglob("*.py")]
    assert sum(lines) <= 1000
