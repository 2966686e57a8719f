"""What makes and grades labs, shown with a tiny lab and submissions that misbehave."""

import os
import shutil
import socket
from pathlib import Path

import nbformat
import numpy as np
import pytest
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from lottolab import cli
from lottolab.labs import build, contain, grade
from lottolab.pages.site import render

needs_walls = pytest.mark.skipif(
    bool(contain.missing()), reason=f"not contained here: {contain.missing()}"
)
PREPARE = """
def prepare(variant):
    import numpy as np
    return {"number": np.array(variant)}, {"answer": np.array(2 * variant)}
"""
DOUBLE = """\
def double(x):
    ### BEGIN SOLUTION
    return x + x  # by adding
    ### END SOLUTION"""
DOUBLE_TEST = """\
assert double(2) == 4
### BEGIN HIDDEN TESTS
import base64, io
import numpy as np
kept = np.load(io.BytesIO(base64.b64decode("@KEPT@")))
assert double(np.load("given.npz")["number"]) == kept["answer"]
### END HIDDEN TESTS"""
SECOND = "### BEGIN SOLUTION\nsecond = 2\n### END SOLUTION"
HONEST = "def double(x):\n    return 2 * x"


def cell(name: str, text: str, *, points: float | None = None):
    """Make a solution cell, or with points a test cell."""
    kind = {"grade": points is not None, "solution": points is None}
    kind |= {"grade_id": name, "locked": points is not None, "task": False}
    kind |= {"schema_version": 3, "cell_type": "code"}
    kind |= {} if points is None else {"points": points}
    return new_code_cell(text, metadata={"nbgrader": kind}, id=name.replace("_", "-"))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Point the builder to one tiny lab, and build it."""
    folder = tmp_path_factory.mktemp("tiny")
    cells = [cell("double", DOUBLE), cell("double_test", DOUBLE_TEST, points=2)]
    cells += [
        cell("second", SECOND),
        cell("second_test", "assert second == 2", points=1),
    ]
    words = cell("words", "", points=3).metadata
    words.nbgrader |= {"solution": True, "locked": False, "cell_type": "markdown"}
    cells.append(new_markdown_cell("a model answer", metadata=words, id="words"))
    kernel = {
        "kernelspec": {"name": "python3", "display_name": "", "language": "python"}
    }
    (folder / "source/tiny").mkdir(parents=True)
    (folder / "source/tiny/prepare.py").write_text(PREPARE)
    nbformat.write(
        new_notebook(cells=cells, metadata=kernel), folder / "source/tiny/tiny.ipynb"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "SOURCES", folder / "source")
        build.build(folder / "out", variant=5)
        yield folder


def hand_in(tiny: Path, folder: Path, students: dict[str, str]) -> Path:
    """Hand in the student edition with a text for the cell `double`."""
    release = tiny / "out/course/release/tiny/tiny.ipynb"
    for student, text in students.items():
        notebook = nbformat.read(release, as_version=4)
        for one in notebook.cells:
            texts = {"double": text, "second": "second = 2", "words": "my answer"}
            one.source = texts.get(one.metadata.nbgrader.grade_id, one.source)
        (folder / student / "tiny").mkdir(parents=True)
        nbformat.write(notebook, folder / student / "tiny" / "tiny.ipynb")
    return folder


def graded(tiny: Path, folder: Path, **options) -> dict[str, tuple[float, str]]:
    """Grade and return score and problem by student."""
    options = {"cell_seconds": 4, "seconds": 15} | options
    table = grade.grade(folder, tiny / "out/course", **options)
    return {r.student: (r.score, r.problem) for r in table.itertuples()}


@needs_walls
def test_what_misbehaves_fails_alone_and_is_reported(tiny, tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0)
        port = server.getsockname()[1]
        outside = Path(__file__).parent / "written-by-a-submission"
        source = tiny / "out/course/source/tiny/tiny.ipynb"
        others = tmp_path / "honest/tiny/tiny.ipynb"
        found = graded(
            tiny,
            hand_in(
                tiny,
                tmp_path,
                {
                    "honest": HONEST,
                    "writes": f"open({str(outside)!r}, 'w').write('x')\n{HONEST}",
                    "copies": f"print(open({str(others)!r}).read())\n{HONEST}",
                    "looks": f"print(open({str(source)!r}).read())\n{HONEST}",
                    "calls": "import socket\n"
                    f"socket.create_connection(('127.0.0.1', {port}), 2)\n{HONEST}",
                    "near": "import pathlib\npathlib.Path('note.txt').write_text('x')\n"
                    f"open('/tmp/x', 'w').write('x')\n{HONEST}",
                },
            ),
        )
        with pytest.raises(BlockingIOError):
            server.accept()
    assert found["honest"] == (3, "")
    assert found["near"] == (3, ""), "its own folder and /tmp are free"
    assert not outside.exists()
    expected = {"writes": "Error", "copies": "FileNotFoundError"}
    expected |= {"looks": "FileNotFoundError", "calls": "ConnectionRefusedError"}
    for student, problem in expected.items():
        score, said = found[student]
        assert problem in said, (student, said)
        assert score == 1, "the second task was solved"


@pytest.mark.parametrize("walls", [pytest.param(True, marks=needs_walls), False])
def test_what_does_not_end_or_eats_memory_fails_alone(tiny, tmp_path, walls):
    stubborn = "while True:\n    try:\n        while True: pass\n"
    stubborn += "    except KeyboardInterrupt: pass"
    students = {
        "honest": HONEST,
        "loops": "while True: pass",
        "stubborn": stubborn,
        "eats": "import numpy as np\nheld = []\n"
        f"while True: held.append(np.empty(10**9, np.uint8))\n{HONEST}",
        "leaves": f"import os\nos._exit(0)\n{HONEST}",
    }
    found = graded(tiny, hand_in(tiny, tmp_path, students), walls=walls)
    assert found["honest"] == (3, "")
    assert found["loops"] == (1, "cell 0: took too long")
    assert found["eats"][0] == 1
    assert "MemoryError" in found["eats"][1]
    # An interrupt may hit the loop between its handlers, or never.
    score, said = found["stubborn"]
    ends = {0: "stopped after 15 s", 1: "cell 0: took too long"}
    assert ends[score] in said
    assert found["leaves"] == (
        0,
        "the kernel died: out of memory, or ended by the submission itself",
    )


@pytest.mark.filterwarnings("error::sqlalchemy.exc.SAWarning")
def test_what_cannot_be_read_is_reported_and_an_old_score_is_gone(tiny, tmp_path):
    walls = not contain.missing()
    folder = hand_in(
        tiny, tmp_path, {"a": HONEST, "b": HONEST, "c": HONEST, "d": HONEST}
    )
    assert graded(tiny, folder, walls=walls)["b"] == (3, "")
    (folder / "b/tiny/tiny.ipynb").write_text("no notebook")
    (folder / "c/tiny/tiny.ipynb").unlink()
    (folder / "d/tiny/tiny.ipynb").unlink()
    (folder / "d/tiny/tiny.ipynb").symlink_to(folder / "a/tiny/tiny.ipynb")
    found = graded(tiny, folder, walls=walls)
    assert found["a"] == (3, "")
    assert found["b"][0] == 0
    assert "JSON" in found["b"][1]
    assert found["c"] == (0, "tiny.ipynb is missing")
    assert found["d"] == (0, "tiny.ipynb is missing")


NAMES = (
    "Jörg Müller",
    "Jo\u0308rg Mu\u0308ller",  # the same, as a Mac writes it
    'O\'Neil "Bo", {x} a] $HOME',
    "\N{GRINNING FACE}" + "ü" * 120,
)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such names")
def test_a_class_is_graded_whatever_its_folders_are_called(tiny, tmp_path):
    folder = hand_in(tiny, tmp_path, dict.fromkeys(NAMES, HONEST))
    sound = folder / NAMES[0] / "tiny/tiny.ipynb"
    for litter in ("__MACOSX/tiny", ".ipynb_checkpoints", f"{NAMES[1]}/.DS_Store"):
        (folder / litter).mkdir(parents=True)
    (folder / "desktop.ini").touch()
    texts = {"list": "[]", "null": "null", "text": "no", "old": '{"nbformat": 2}'}
    for name in (*texts, "a*", "empty", "tree", "named", "zip", "lab", "alien"):
        (folder / name / "tiny").mkdir(parents=True)
    for name, text in texts.items():
        (folder / name / "tiny/tiny.ipynb").write_text(text)
    other = nbformat.read(sound, as_version=4)
    for one in other.cells:
        one.metadata.nbgrader.grade_id += "_of_another"
    nbformat.write(other, folder / "alien/tiny/tiny.ipynb")
    shutil.copytree(sound.parent, folder / "tree/tiny/tiny")
    shutil.copy(sound, folder / "named/tiny/tiny (1).ipynb")
    (folder / "zip/tiny/tiny.zip").touch()
    (folder / "lab/tiny").rename(folder / "lab/tinny")
    (folder / "loose.zip").touch()
    (folder / "nothing").mkdir()
    (folder / "file").mkdir()
    shutil.copy(sound, folder / "file/tiny.ipynb")
    (folder / "link").mkdir()
    (folder / "link/tiny").symlink_to(sound.parent)
    os.mkdir(os.fsencode(folder) + b"/J\xf6rg")  # from an old zip
    found = graded(tiny, folder, walls=not contain.missing())
    assert {name: found.pop(name) for name in NAMES} == dict.fromkeys(NAMES, (3, ""))
    lies = "submissions must lie in <student>/<lab>/<lab>.ipynb, got "
    missing = "tiny.ipynb is missing"
    for name, said in {
        "empty": missing,
        "tree": f"{missing}; there is tiny/tiny.ipynb",
        "named": f"{missing}; there is tiny (1).ipynb",
        "zip": f"{missing}; there is tiny.zip",
        "lab": "the lab must be one of tiny, got 'tinny'; did you mean tiny?",
        "loose.zip": f"unpack it: {lies}loose.zip",
        "nothing": f"{lies}nothing",
        "file": f"{lies}tiny.ipynb",
        "link": f"{lies}tiny",
        "alien": "ValueError: the notebook has no cell of tiny: another lab's?",
        "a*": "rename the student's folder, got 'a*'",
        "J\\udcf6rg": r"rename the student's folder, got 'J\udcf6rg'",
    }.items():
        assert found.pop(name) == (0, said)
    assert found.keys() == texts.keys()  # and no litter
    assert all(score == 0 and said for score, said in found.values()), found


def test_a_grader_prints_what_looks_like_markup(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(contain, "missing", lambda: "")
    (tmp_path / "[b]:smile:").mkdir()
    (tmp_path / "[" / "b]").mkdir(parents=True)  # its lab is unknown: '[/b]' is near
    words = ["labs", "grade", str(tmp_path), "--output", str(tiny / "out")]
    assert cli.main(words) == 1
    assert "[b]" in capfd.readouterr().out
    assert "[b]:smile:" in (tiny / "out/grades.csv").read_text("utf-8")


def test_points_that_a_person_gave_survive_the_next_grading(tiny, tmp_path):
    from nbgrader.api import Gradebook

    folder, course = hand_in(tiny, tmp_path, {"m": HONEST}), tiny / "out/course"
    walls = not contain.missing()
    row = grade.grade(folder, course, walls=walls).iloc[0]
    assert row[["score", "max_score", "by_hand"]].tolist() == [3, 3, 3]
    with Gradebook(build.configuration(course).CourseDirectory.db_url) as gradebook:
        gradebook.find_grade("words", "tiny", "tiny", "m").manual_score = 2
        gradebook.db.commit()
    row = grade.grade(folder, course, walls=walls).iloc[0]
    assert row[["score", "max_score", "by_hand"]].tolist() == [5, 6, 0]


def test_the_pages_get_the_zips_and_nothing_else(tiny, tmp_path):
    render.place_labs([tmp_path / "nothing.zip"], tmp_path / "a")
    assert "make labs" in (tmp_path / "a/labs/downloads.md").read_text()
    render.place_labs([tiny / "out/tiny.zip"], tmp_path / "b")
    assert "../_static/labs/tiny.zip" in (tmp_path / "b/labs/downloads.md").read_text()
    files = [p.name for p in (tmp_path / "b").rglob("*") if p.is_file()]
    assert sorted(files) == ["downloads.md", "tiny.zip"]


def test_a_deleted_or_rewritten_test_cell_gives_no_points(tiny, tmp_path):
    folder = hand_in(tiny, tmp_path, {"deletes": "", "rewrites": ""})
    for student in ("deletes", "rewrites"):
        path = folder / student / "tiny/tiny.ipynb"
        notebook = nbformat.read(path, as_version=4)
        if student == "deletes":
            notebook.cells = [c for c in notebook.cells if c.id != "double-test"]
        else:
            notebook.cells[1].source = "pass"
            notebook.cells[1].metadata.nbgrader.points = 100
        nbformat.write(notebook, path)
    found = graded(tiny, folder, walls=not contain.missing())
    assert [score for score, _ in found.values()] == [1, 1]


def test_a_variant_changes_data_and_answers_and_own_tests_are_run(tiny, tmp_path):
    own = tmp_path / "own/tiny"
    own.mkdir(parents=True)
    (own / "double_test.py").write_text("assert double(-3) == -6")
    build.build(tmp_path / "out", variant=8, tests=tmp_path / "own")
    given = [
        np.load(f / "course/release/tiny/given.npz")["number"]
        for f in (tiny / "out", tmp_path / "out")
    ]
    assert given == [5, 8]
    release = (tmp_path / "out/course/release/tiny/tiny.ipynb").read_text()
    assert "-3" not in release
    assert "kept" not in release
    folder = hand_in(
        tiny,
        tmp_path / "in",
        {"h": HONEST, "w": "def double(x):\n    return abs(2 * x)"},
    )
    options = {"walls": not contain.missing()}
    both = [graded(f, folder, **options) for f in (tiny,)]
    shutil.copytree(tmp_path / "out", tmp_path / "other/out")
    both += [graded(tmp_path / "other", folder, **options)]
    assert both == [{"h": (3, ""), "w": (3, "")}, {"h": (3, ""), "w": (1, "")}]


def test_an_edition_that_gives_something_away_is_not_made(tiny, monkeypatch, tmp_path):
    course = tiny / "out/course"
    assert build.leaks(course / "source/tiny", course / "release/tiny") == []
    told = build.leaks(course / "source/tiny", course / "source/tiny")
    assert "return x + x  # by adding" in told
    assert any(line.startswith("kept = np.load") for line in told)
    monkeypatch.setattr(
        build,
        "generate",
        lambda course, lab: shutil.copytree(
            course / "source" / lab, course / "release" / lab
        ),
    )
    (tmp_path / "out").mkdir()
    (tmp_path / "out/tiny.zip").touch()  # of another variant
    with pytest.raises(RuntimeError, match="student edition of tiny gives away"):
        build.build(tmp_path / "out")
    assert not list(tmp_path.glob("out/*.zip"))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["build", "--lab", "tny"], "did you mean tiny"),
        (["build", "--variant", "-1"], "variant must be a whole number >= 0"),
        (["build", "--tests", "/nowhere"], "tests must be a folder"),
        (["grade", "/nowhere"], "submissions must be a folder"),
        (["grade", "FOLDER", "--jobs", "0"], "jobs must be a whole number >= 1"),
        (["grade", "FOLDER", "--output", "/nowhere"], "course must be built"),
        (["grade", "FOLDER"], "must hold <student>/<lab>/<lab>.ipynb"),
    ],
)
def test_bad_input_is_one_line(tiny, tmp_path, monkeypatch, capfd, words, said):
    monkeypatch.setattr(contain, "missing", lambda: "")
    words = [str(tmp_path) if w == "FOLDER" else w for w in words]
    where = ["--output", str(tiny / "out" if words[0] == "grade" else tmp_path / "out")]
    assert cli.main(["labs", *words, *([] if "--output" in words else where)]) == 2
    errors = capfd.readouterr().err.strip()
    assert said in errors
    assert "\n" not in errors


def test_grading_uncontained_is_said_and_has_to_be_asked_for(
    tiny, tmp_path, monkeypatch, capfd
):
    monkeypatch.setattr(contain, "missing", lambda: "bubblewrap is not installed")
    folder = hand_in(tiny, tmp_path, {"h": HONEST})
    words = ["labs", "grade", str(folder), "--output", str(tiny / "out")]
    assert cli.main(words) == 2
    assert "NOT contained: bubblewrap is not installed" in capfd.readouterr().err
    assert cli.main([*words, "--uncontained"]) == 0
    out, err = capfd.readouterr()
    assert "NOT contained" in err
    assert "grades.csv" in out
    lines = (tiny / "out/grades.csv").read_text().splitlines()
    assert lines == [
        "student,lab,score,max_score,by_hand,problem",
        "h,tiny,3.0,3.0,3.0,",
    ]


def test_a_course_with_grades_is_not_built_over(tiny):
    (tiny / "out/course/submitted").mkdir(exist_ok=True)
    with pytest.raises(ValueError, match="course with submissions"):
        build.build(tiny / "out")


def test_the_copies_that_grading_keeps_are_not_graded(tiny):
    course = tiny / "out/course"
    kept = hand_in(tiny, course / "submitted", {"kept": HONEST})
    with pytest.raises(ValueError, match="course's own copies"):
        grade.grade(kept, course)
    assert (kept / "kept/tiny/tiny.ipynb").is_file()
