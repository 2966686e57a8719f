"""Each lab, from its source to its scores: right answers pass, wrong ones do not.

`labs/<lab>.txt` holds the answers: "== right: what" or "== wrong: what | tasks that
fail", then "-- cell" and the text of that cell; other cells are the instructor's.

A kernel of its own costs a submission ten times what its cells do. So nbgrader grades
the instructor, and of one lab the untouched edition and two answers; the others' cells
are run here, and nbgrader's rule reads their outputs. The long campaign grades them all
by nbgrader.
"""

import ast
import functools
import io
import json
import re
import sys
import warnings
import zipfile
from collections.abc import Iterable
from contextlib import contextmanager, redirect_stderr
from pathlib import Path

import alone
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import pytest
from nbformat.v4 import new_code_cell, new_output
from nbgrader.utils import determine_grade, is_grade

from lottolab.labs import build, contain, grade

ANSWERS = Path(__file__).parent
VARIANT = 7
AGAIN = build.names()[0]  # one lab shows that grading repeats
BOTH_WAYS = (0, 2)  # of its answers, one right and one wrong


def answers(lab: str) -> list[tuple[str, list[str], dict[str, str]]]:
    """Read the answers to a lab: name, tasks that must fail, cells."""
    found = []
    for part in (ANSWERS / f"{lab}.txt").read_text("utf-8").split("\n== ")[0:]:
        head, *cells = re.split(r"^-- (\w+)\n", part.removeprefix("== "), flags=re.M)
        what, _, fails = head.strip().partition(" | ")
        assert what.startswith("wrong: ") == bool(fails), head
        pairs = dict(zip(cells[::2], cells[1::2], strict=True))
        found.append((what, fails.split(", ") if fails else [], pairs))
    return found


def answered(source: Path, cells: dict[str, str]) -> nbformat.NotebookNode:
    """Read the notebook `source` with other text in some cells."""
    notebook, left = nbformat.read(source, as_version=4), dict(cells)
    for cell in notebook.cells:
        task = cell.metadata.get("nbgrader", {}).get("grade_id")
        cell.source = left.pop(task, cell.source)
    assert not left, f"no such cells: {list(left)}"
    return notebook


def solutions(source: Path) -> list[nbformat.NotebookNode]:
    """Return the cells of code that students write, as the instructor does."""
    cells = nbformat.read(source, as_version=4).cells
    marked = [(cell.metadata.get("nbgrader", {}), cell) for cell in cells]
    return [c for m, c in marked if m.get("solution") and c.cell_type == "code"]


def submit(source: Path, target: Path, cells: dict[str, str]) -> None:
    """Write the notebook `source` to `target` with other text in some cells."""
    target.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(answered(source, cells), target)


def run(notebook: nbformat.NotebookNode, folder: Path) -> pd.DataFrame:
    """Run a notebook's cells up to the last task's; return the scores by task."""
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    last, names, found = [is_grade(cell) for cell in code][::-1].index(True), {}, {}
    names["__name__"] = "__main__"
    with pytest.MonkeyPatch.context() as patch, nothing_imported():
        patch.chdir(folder)
        for cell in code[: len(code) - last]:
            cell.outputs = outputs(cell.source, names)
            if is_grade(cell):
                found[cell.metadata.nbgrader.grade_id] = determine_grade(cell)
    plt.close("all")
    return pd.DataFrame.from_dict(found, "index", columns=["score", "max_score"])


@contextmanager
def nothing_imported():
    """Import the package anew, as a kernel does: labs refuse some of its modules."""

    def ours() -> dict:
        own = [name for name in sys.modules if name.partition(".")[0] == "lottolab"]
        return {name: sys.modules.pop(name) for name in own}

    before = ours()
    try:
        yield
    finally:
        ours()
        sys.modules.update(before)


def outputs(source: str, names: dict) -> list[nbformat.NotebookNode]:
    """Run a cell; return what decides its score: error, warnings, last value."""
    body, value, said = ast.parse(source).body, None, io.StringIO()
    if all(isinstance(part, ast.Expr) for part in body):
        return []  # it draws, and names nothing that a task could use
    last = [body.pop()] if isinstance(body[-1], ast.Expr) else []
    with redirect_stderr(said), warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("default")
        warnings.simplefilter("ignore", DeprecationWarning)
        try:
            exec(compile(ast.Module(body, []), "cell", "exec"), names)
            for part in last:
                value = eval(compile(ast.Expression(part.value), "cell", "eval"), names)
        except Exception as error:
            return [new_output("error", ename=type(error).__name__, evalue=str(error))]
    told = said.getvalue() + "".join(str(one.message) for one in warned)
    found = [new_output("stream", name="stderr", text=told)] if told else []
    shown = new_output("execute_result", {"text/plain": repr(value)})
    return found if value is None else [*found, shown]


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Build all labs once; `grade(lab)` grades its answers, once, two at a time."""
    output = tmp_path_factory.mktemp("labs")
    zips, course = build.build(output, variant=VARIANT), output / "course"

    def hand_in(lab: str, places: Iterable[int]) -> Path:
        """Put the untouched edition and answers where they are graded from."""
        folder, source = output / "handed-in" / lab, course / "source" / lab
        release = course / "release" / lab / f"{lab}.ipynb"
        submit(release, folder / "untouched" / lab / release.name, {})
        for place in places:
            target = folder / f"answer{place}" / lab / f"{lab}.ipynb"
            submit(source / target.name, target, answers(lab)[place][2])
        return folder

    @functools.cache
    def graded(lab: str) -> pd.DataFrame:
        source = course / "source" / lab / f"{lab}.ipynb"
        folder = output / "handed-in" / lab
        submit(source, folder / "instructor" / lab / source.name, {})
        if lab == AGAIN:
            submit(source, folder / "again" / lab / source.name, {})
            hand_in(lab, BOTH_WAYS)
        return grade.grade(folder, course, jobs=2, walls=walls)

    walls = not contain.missing()
    return {
        "zips": zips,
        "course": course,
        "grade": graded,
        "hand_in": hand_in,
        "walls": walls,
    }


def scores(made: dict, student: str, lab: str) -> pd.DataFrame:
    """Return a submission's scores by task."""
    made["grade"](lab)
    table = grade.scores(made["course"])
    rows = table[(table["student"] == student) & (table["lab"] == lab)]
    return rows.set_index("task")


@pytest.mark.parametrize("lab", build.names())
def test_the_instructor_gets_all_points_and_the_untouched_edition_none(made, lab):
    whole = scores(made, "instructor", lab)
    assert (whole["score"] == whole["max_score"]).all()
    assert 4 <= (whole["max_score"] > 0).sum() <= 7
    assert (whole["by_hand"] > 0).sum() == 1
    release, source = (made["course"] / kind / lab for kind in ("release", "source"))
    cells = nbformat.read(release / f"{lab}.ipynb", as_version=4).cells
    marks = [cell.metadata.get("nbgrader", {}) for cell in cells]
    given = zip(marks, cells, strict=True)
    left = {m["grade_id"]: c.source for m, c in given if m.get("solution")}
    nothing = run(answered(source / f"{lab}.ipynb", left), source)
    assert (nothing["score"] == 0).all()
    assert nothing["max_score"].sum() == whole["max_score"].sum()


def nothing_for_the_untouched(made: dict, lab: str) -> None:
    """Check nbgrader's scores, with the points that a person gives, of no work."""
    whole, nothing = (scores(made, who, lab) for who in ("instructor", "untouched"))
    assert (nothing["score"] == 0).all()
    assert nothing["max_score"].sum() == whole[["max_score", "by_hand"]].sum().sum()


@pytest.mark.parametrize(
    ("lab", "place"),
    [(lab, i) for lab in build.names() for i in range(len(answers(lab)))],
)
def test_right_answers_pass_and_wrong_ones_fail_where_they_are_wrong(made, lab, place):
    source = made["course"] / "source" / lab
    notebook = answered(source / f"{lab}.ipynb", answers(lab)[place][2])
    judge(run(notebook, source), lab, place)


def judge(found: pd.DataFrame, lab: str, place: int) -> None:
    """Check the scores of an answer: full ones, but for the tasks that must fail."""
    what, fails, _ = answers(lab)[place]
    lost = found["score"] < found["max_score"]
    assert sorted(lost.index[lost]) == sorted(fails), what
    wrong = found.loc[fails]  # some tasks give points for a part of the way
    assert (wrong["score"] <= 0.2 * wrong["max_score"]).all(), what


@pytest.mark.parametrize("place", BOTH_WAYS)
def test_nbgrader_says_what_running_the_cells_here_does(made, place):
    source = made["course"] / "source" / AGAIN
    here = run(answered(source / f"{AGAIN}.ipynb", answers(AGAIN)[place][2]), source)
    there = scores(made, f"answer{place}", AGAIN)
    there = there[there["by_hand"] == 0][["score", "max_score"]]
    pd.testing.assert_frame_equal(here.sort_index(), there, check_names=False)
    nothing_for_the_untouched(made, AGAIN)


@pytest.mark.long
@pytest.mark.parametrize("lab", build.names())
def test_nbgrader_grades_every_answer(made, lab):
    places = range(len(answers(lab)))
    made["grade"](lab)
    grade.grade(made["hand_in"](lab, places), made["course"], walls=made["walls"])
    nothing_for_the_untouched(made, lab)
    for place in places:
        judge(scores(made, f"answer{place}", lab), lab, place)


@pytest.mark.parametrize("lab", build.names())
def test_there_are_enough_answers(lab):
    kinds = [what.split(":")[0] for what, _, _ in answers(lab)]
    assert kinds.count("wrong") >= 3
    assert kinds.count("right") >= 2


def test_grading_repeats(made):
    first, second = (scores(made, who, AGAIN) for who in ("instructor", "again"))
    pd.testing.assert_frame_equal(
        first.drop(columns="student"), second.drop(columns="student")
    )
    table = made["grade"](AGAIN).set_index(["student", "lab"])
    assert table.loc[("again", AGAIN), "problem"] == ""


@pytest.mark.parametrize("lab", build.names())
def test_a_student_gets_no_line_of_a_solution_or_of_a_hidden_test(made, lab):
    source = (made["course"] / "source" / lab / f"{lab}.ipynb").read_text("utf-8")
    marks = r"### BEGIN (SOLUTION|HIDDEN TESTS)\n(.*?)\s*### END \1"
    secret, shown = set(), set()
    for cell in json.loads(source)["cells"]:
        text = "".join(cell["source"])
        inside = [m[2] for m in re.finditer(marks, text, re.DOTALL)]
        secret |= {line.strip() for part in inside for line in part.splitlines()}
        shown |= {
            line.strip() for line in re.sub(marks, "", text, flags=re.S).splitlines()
        }
    assert len(secret) > 20
    path = next(p for p in made["zips"] if p.stem == lab)
    with zipfile.ZipFile(path) as archive:
        held = {"README.txt", "requirements.txt", f"{lab}.ipynb", "given.npz"}
        assert set(archive.namelist()) == {f"{lab}/{name}" for name in held}
        student = json.loads(archive.read(f"{lab}/{lab}.ipynb"))["cells"]
    lines = {s.strip() for c in student for s in "".join(c["source"]).splitlines()}
    assert not lines & {s for s in secret - shown if len(s) > 3}
    assert not [c for c in student if c.get("outputs")]
    assert any("YOUR CODE HERE" in line for line in lines)


@pytest.mark.parametrize("lab", build.names())
def test_a_zip_gives_all_points_alone_and_offline(made, lab, tmp_path):
    place = alone.unpacked(made["course"].parent / f"{lab}.zip", tmp_path)
    env = alone.environment(place, tmp_path, home=made["course"].parent / "home")
    source = made["course"] / "source" / lab / f"{lab}.ipynb"
    solved = {c.metadata.nbgrader.grade_id: c.source for c in solutions(source)}
    notebook = answered(place / f"{lab}.ipynb", solved)
    notebook.cells.insert(0, new_code_cell(alone.NOTHING_ELSE))
    alone.execute(notebook, place, env)
    assert alone.said(notebook.cells[0]) == "nothing else\n"
    graded = [c for c in notebook.cells if is_grade(c) and c.get("outputs")]
    points = {c.metadata.nbgrader.grade_id: determine_grade(c) for c in graded}
    whole = scores(made, "instructor", lab)
    wanted = whole.loc[whole["by_hand"] == 0, "max_score"]
    assert points == {task: (most, most) for task, most in wanted.items()}


@pytest.mark.parametrize("lab", build.names())
def test_a_lab_says_what_its_reader_needs(lab):
    path = build.SOURCES / lab / f"{lab}.ipynb"
    cells = nbformat.read(path, as_version=4).cells
    prose = "\n".join(c.source for c in cells if c.cell_type == "markdown")
    for part in (
        "You will be able to",
        "You need",
        "minutes",
        "Rubric",
        "For the fast",
    ):
        assert part in prose, part
