"""A lab as a student meets it: unpacked, solved and validated in JupyterLab."""

import json
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import nbformat
import pytest

from lottolab.labs import build
from lottolab.machine import capacity

pytestmark = pytest.mark.browser
LAB = "ownership"
MARKS = re.compile(r"^ *### (BEGIN|END) SOLUTION\n?", re.MULTILINE)


@pytest.fixture
def server(tmp_path):
    """Unpack a lab's zip and start JupyterLab there, with an empty home."""
    path = build.build(tmp_path / "out", labs=[LAB])[0]
    with zipfile.ZipFile(path) as archive:
        archive.extractall(tmp_path / "student")
    places = {"HOME": "home", "JUPYTER_RUNTIME_DIR": "run", "IPYTHONDIR": "ipython"}
    own = {key: str(tmp_path / name) for key, name in places.items()}
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root"]
    command += ["--ServerApp.port=0", f"{LAB}/{LAB}.ipynb"]
    with (tmp_path / "log").open("w") as log:
        at = {"cwd": tmp_path / "student", "env": os.environ | own}
        process = subprocess.Popen(command, stdout=log, stderr=log, **at)
    try:
        while not (found := list((tmp_path / "run").glob("jpserver-*.json"))):
            assert process.poll() is None, (tmp_path / "log").read_text()
            time.sleep(0.1)
        time.sleep(0.5)  # until it is written
        yield json.loads(found[0].read_text())
    finally:
        process.terminate()
        process.wait(30)


def solve(page, source: Path) -> None:
    """Go through all cells with the keyboard and type the solutions."""
    page.locator(".jp-Notebook .jp-Cell").first.click()
    page.keyboard.press("Escape")
    for place, cell in enumerate(nbformat.read(source, as_version=4).cells):
        page.locator(f'.jp-mod-active[data-windowed-list-index="{place}"]').wait_for()
        if cell.metadata.get("nbgrader", {}).get("solution"):
            page.keyboard.press("Enter")
            page.locator(".jp-mod-active .cm-focused").wait_for()
            page.keyboard.press("ControlOrMeta+a")
            page.keyboard.insert_text(MARKS.sub("", cell.source))
        page.keyboard.press("Shift+Enter")


def validate(page) -> str:
    """Press nbgrader's button and return what the dialog says."""
    page.get_by_role("button", name="Validate").click()
    dialog = page.locator(".jp-Dialog", has_text="Validation Results")
    dialog.wait_for(timeout=60_000)
    said = dialog.inner_text()
    dialog.get_by_role("button", name="Ok").click()
    return said


def test_a_student_solves_a_lab_in_jupyterlab(server, tmp_path):
    from playwright.sync_api import sync_playwright

    if (path := capacity.chromium()) is None:
        pytest.skip("no Chromium, Chrome or Edge found")
    notebook = tmp_path / "student" / LAB / f"{LAB}.ipynb"
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=path, args=["--no-sandbox"])
        page, asked = browser.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        query = f"?token={server['token']}"
        page.goto(f"{server['url']}lab/tree/{notebook.name}{query}")
        page.locator(".jp-Notebook .jp-Cell").first.wait_for(timeout=60_000)
        assert "failed" in validate(page)
        solve(page, tmp_path / "out" / "course" / "source" / LAB / notebook.name)
        page.get_by_text("Task 6: you accuse [").wait_for(timeout=60_000)
        assert "Success! Your notebook passes all the tests." in validate(page)
        browser.close()
    away = ("data:", "blob:", server["url"])
    assert [url for url in asked if not url.startswith(away)] == []
    cells = nbformat.read(notebook, as_version=4).cells
    said = "".join(o.get("text", "") for c in cells for o in c.get("outputs", ()))
    assert all(f"Task {task}: " in said for task in range(1, 7))
    assert not [o for c in cells for o in c.get("outputs", ()) if o.get("ename")]
