"""Build the student editions of the labs, and the course that grades them."""

import base64
import io
import os
import re
import runpy
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import numpy as np
from joblib import Parallel, delayed

from lottolab.checks import one_of, require, whole
from lottolab.labs import pack
from lottolab.pages.parameters import BOOK

SOURCES = BOOK / "labs" / "source"
GIVEN = "given.npz"
# A hidden test reads what only the teacher knows from this place in its own text: a
# file would lie open to the submission that it grades.
KEPT = "@KEPT@"
REGION = re.compile(r"### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)### END \1", re.DOTALL)
HIDDEN = "### BEGIN HIDDEN TESTS\n{}\n### END HIDDEN TESTS"


def names() -> list[str]:
    """List the labs by name, in the order of the book."""
    found = {path.parent.name for path in SOURCES.glob("*/prepare.py")}
    order = ["ownership", "membership", "ensembles", "modelguard", "mia_pruning"]
    return [n for n in order if n in found] + sorted(found - set(order))


def build(
    output: Path,
    *,
    variant: int = 0,
    tests: Path | None = None,
    labs: list[str] | None = None,
) -> list[Path]:
    """Make the course folder and a zip for students of each lab; return the zips.

    Args:
        output: gets `<lab>.zip` and `course/`, an nbgrader course with its gradebook.
        variant: a whole number >= 0 that changes the labs' data, keys and numbers.
        tests: a folder of hidden tests of your own, `<lab>/<task>.py`, each run at the
            end of that task's hidden tests.
        labs: which; all by default.

    Raises:
        ValueError: an unknown lab or task, or `output` holds grades.
        RuntimeError: a student edition would give a solution or a hidden test away.
    """
    labs = names() if labs is None else labs
    for lab in labs:
        one_of("the lab", lab, names())
    whole("variant", variant, 0)
    added = _own_tests(tests, labs)
    course = output / "course"
    graded = (course / "autograded").exists() or (course / "submitted").exists()
    require(not graded, "output must hold no course with submissions", output)
    shutil.rmtree(course, ignore_errors=True)
    jobs = Parallel(n_jobs=min(2, os.cpu_count() or 1))
    data = jobs(delayed(_prepare)(SOURCES / n / "prepare.py", variant) for n in labs)
    output.mkdir(parents=True, exist_ok=True)
    for lab in names():  # those of another variant, too
        (output / f"{lab}.zip").unlink(missing_ok=True)
    for lab, (given, kept) in zip(labs, data, strict=True):
        _place(course / "source" / lab, lab, given, kept, added)
        generate(course, lab)
        if lines := leaks(course / "source" / lab, course / "release" / lab):
            raise RuntimeError(f"the student edition of {lab} gives away: {lines[0]}")
    notebooks = {lab: SOURCES / lab / f"{lab}.ipynb" for lab in labs}
    release = course / "release"
    return [pack.lab(output, release / n, source) for n, source in notebooks.items()]


def configuration(course: Path):
    """Return nbgrader's configuration for a course folder."""
    from traitlets.config import Config

    config = Config()
    config.CourseDirectory.root = str(course.resolve())
    # Several workers write their scores into one gradebook.
    config.CourseDirectory.db_url = (
        f"sqlite:///{course.resolve()}/gradebook.db?timeout=60"
    )
    return config


def generate(course: Path, lab: str) -> None:
    """Make `course/release/<lab>` and the gradebook's entries from `course/source`."""
    from nbgrader.converters import GenerateAssignment
    from nbgrader.coursedir import CourseDirectory

    config = configuration(course)
    config.CourseDirectory.assignment_id = lab
    folder = CourseDirectory(config=config)
    made = GenerateAssignment(coursedir=folder, config=config)
    made.log.setLevel("ERROR")
    before = os.environ.get("PATH", "")
    # nbgrader calls alembic by name.
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{before}"
    try:
        made.start()
    finally:
        os.environ["PATH"] = before


def leaks(source: Path, release: Path) -> list[str]:
    """List the lines of solutions and hidden tests that the student edition holds.

    A line that the source also shows outside of them is none.
    """
    secret, shown = set(), set()
    for path in source.glob("*.ipynb"):
        for cell in nbformat.read(path, as_version=4).cells:
            inside = "\n".join(m[2] for m in REGION.finditer(cell.source))
            outside = REGION.sub("", cell.source)
            if cell.metadata.get("nbgrader", {}).get("solution") and not inside:
                inside, outside = outside, ""
            secret |= _lines(inside)
            shown |= _lines(outside)
    marks = {"BEGIN SOLUTION", "BEGIN HIDDEN TESTS", KEPT}
    found = []
    for path in release.rglob("*"):
        if path.suffix == ".ipynb":
            for cell in nbformat.read(path, as_version=4).cells:
                text = _lines(cell.source + "\n" + str(cell.get("outputs") or ""))
                found += sorted(text & (secret - shown))
                found += [mark for mark in marks if mark in cell.source]
    return found


def _lines(text: str) -> set[str]:
    """Return a text's lines; brackets and the like, alone on a line, say nothing."""
    return {s for line in text.splitlines() if len(s := line.strip()) > 3}


def _prepare(script: Path, variant: int) -> tuple[dict, dict]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return runpy.run_path(str(script))["prepare"](variant)
    finally:
        torch.set_num_threads(threads)


def _place(folder: Path, lab: str, given: dict, kept: dict, added: dict) -> None:
    """Write a lab's source with data and the teacher's own tests into the course."""
    folder.mkdir(parents=True)
    np.savez_compressed(folder / GIVEN, **given)
    packed = io.BytesIO()
    np.savez_compressed(packed, **kept)
    text = base64.b64encode(packed.getvalue()).decode()
    notebook = nbformat.read(SOURCES / lab / f"{lab}.ipynb", as_version=4)
    for cell in notebook.cells:
        cell.source = cell.source.replace(KEPT, text)
        task = cell.metadata.get("nbgrader", {}).get("grade_id")
        if (lab, task) in added:
            cell.source += "\n" + HIDDEN.format(added.pop((lab, task)))
    unknown = [task for of, task in added if of == lab]
    graded = [c.metadata.nbgrader.grade_id for c in _tests(notebook)]
    for task in unknown:
        one_of(f"the task of {lab}", task, graded)
    nbformat.write(notebook, folder / f"{lab}.ipynb")


def _tests(notebook) -> Iterator:
    for cell in notebook.cells:
        meta = cell.metadata.get("nbgrader", {})
        if cell.cell_type == "code" and meta.get("grade") and not meta.get("solution"):
            yield cell


def _own_tests(folder: Path | None, labs: list[str]) -> dict[tuple[str, str], str]:
    if folder is None:
        return {}
    require(folder.is_dir(), "tests must be a folder", folder)
    found = {(p.parent.name, p.stem): p for p in sorted(folder.glob("*/*.py"))}
    require(bool(found), "tests must hold files <lab>/<task>.py", folder)
    for lab, _ in found:
        one_of("the lab", lab, names())
    return {key: p.read_text("utf-8") for key, p in found.items() if key[0] in labs}
