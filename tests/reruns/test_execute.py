"""A notebook runs to its end or leaves nothing under its name."""

import json
import os
import sys
from pathlib import Path

import chapters
import nbformat
import notebooks
import pytest
import yaml
from nbformat import v4

from lottolab import jobs
from lottolab.pages import parameters
from lottolab.reruns import execute
from lottolab.runs import files
from lottolab.truth import results

PARAMETERS = """\
scale: str = "laptop"  # one of smoke, laptop
what: str = "fine"  # one of fine, raise, wordless, lines, stop, die
count: int = 3  # in [1, 5]"""
WORK = """\
import os, pathlib, signal
if what == "raise":
    raise ZeroDivisionError("a drop too much")
if what == "wordless":
    raise LookupError
if what == "lines":
    raise ZeroDivisionError("first line\\nsecond line")
if what == "stop":
    raise SystemExit
if what == "die":
    from lottolab import runs
    from lottolab import jobs
    @runs.stage("test_execute.die")
    def die(*, seed):
        os.kill(os.getpid(), signal.SIGKILL)
    jobs.compute([(die, dict(seed=7))])
folder = pathlib.Path(os.environ["LOTTOLAB_RESULTS"]) / "first"
folder.mkdir(parents=True, exist_ok=True)
_ = (folder / f"{scale}.csv").write_text(f"value\\n{count}\\n")
_ = pathlib.Path("cwd.txt").write_text(os.environ["LOTTOLAB_EXPECTED"])"""


def chapter(name: str) -> nbformat.NotebookNode:
    works, shows = map(v4.new_markdown_cell, ("It works.", "It shows."))
    cells = works, WORK, shows, "print(scale, what, count)"
    return chapters.chapter(PARAMETERS, *cells, title=f"# {name}")


@pytest.fixture
def tmp_path(tmp_path):
    """Return a folder with what formats, shells and narrow encodings stumble over."""
    folder = tmp_path / "a {b} {} été 日本"
    folder.mkdir()
    return folder


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Make a book of two chapters and point everything at it."""
    folder = tmp_path / "book"
    (folder / "scales/smoke").mkdir(parents=True)
    (folder / "scales/smoke/first.yaml").write_text("count: 1\n")
    toc = {"root": "book/intro", "chapters": [{"file": "book/first"}]}
    toc["chapters"].append({"file": "book/second"})
    (tmp_path / "_toc.yml").write_text(yaml.safe_dump(toc))
    for name in ("first", "second"):
        nbformat.write(chapter(name), folder / f"{name}.ipynb")
    monkeypatch.setattr(parameters, "BOOK", folder)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    other = tmp_path / "jupyter/kernels/python3/kernel.json"  # another Python's
    other.parent.mkdir(parents=True)
    spec = {"argv": [sys.executable, "-c", "1"], "display_name": "", "language": ""}
    other.write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    return folder


def printed(path) -> str:
    return nbformat.read(path, as_version=4).cells[-1].outputs[0].text


def everything(folder) -> dict[str, bytes]:
    files = (p for p in folder.rglob("*") if p.is_file())
    return {str(p.relative_to(folder)): p.read_bytes() for p in files}


def test_a_run_takes_the_scale_and_what_is_given(book, tmp_path, monkeypatch):
    committed = tmp_path / "data/results/first"
    committed.mkdir(parents=True)
    stages = "stage,function,seconds\na,tickets.dense,2.5\nb,tickets.dense,3.5\n"
    (committed / "smoke.stages.csv").write_text(stages)
    before = (book / "first.ipynb").read_bytes()

    path = execute.execute("first", "smoke")
    assert path == tmp_path / "_build/smoke/notebooks/first.ipynb"
    assert printed(path) == "smoke fine 1\n"
    measured = tmp_path / "_build/smoke/results/first/smoke.csv"
    assert measured.read_text() == "value\n1\n"
    seconds = json.loads((book / "cwd.txt").read_text())
    assert seconds == {"tickets.dense": [2.5, 3.5]}

    monkeypatch.chdir(tmp_path)  # a relative folder is the caller's
    own = execute.execute("first", "smoke", {"count": "5"}, Path("own"))
    assert own.resolve() == tmp_path / "own/notebooks/first.ipynb"
    assert printed(own) == "smoke fine 5\n"
    assert (tmp_path / "own/results/first/smoke.csv").read_text() == "value\n5\n"
    assert printed(path) == "smoke fine 1\n"
    assert measured.read_text() == "value\n1\n"
    assert (book / "first.ipynb").read_bytes() == before
    assert [p.name for p in path.parent.iterdir()] == ["first.ipynb"]
    assert not {"LOTTOLAB_RESULTS", "LOTTOLAB_EXPECTED", "LOTTOLAB_OWN"} & {*os.environ}


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("raise", "ZeroDivisionError: a drop too much"),
        ("wordless", "LookupError"),
        ("lines", "ZeroDivisionError: first line"),
        ("stop", "did not run to its end: cell 4 raised an error"),
        ("die", "Kernel died while test_execute.die seed=7 ran"),
    ],
)
def test_a_run_that_fails_leaves_the_older_notebook(
    book, tmp_path, monkeypatch, what, said
):
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    old = tmp_path / "_build/laptop/notebooks/first.ipynb"
    old.parent.mkdir(parents=True)
    old.write_text("the older one")
    with pytest.raises(execute.Failed, match="first ") as caught:
        execute.execute("first", "laptop", {"what": what}, old.parents[1])
    message = str(caught.value)
    assert said in message
    unfinished = old.with_name("first.unfinished.ipynb")
    assert f"see {unfinished}" in message
    assert "\n" not in message
    assert old.read_text() == "the older one"
    assert sorted(p.name for p in old.parent.iterdir()) == [old.name, unfinished.name]
    kept = nbformat.read(unfinished, as_version=4).cells
    assert "It works." in [cell.source for cell in kept]
    assert kept[0].source.startswith("# first\n\n:::{admonition}")
    assert said in kept[0].source
    assert f"`lottolab run first --scale laptop -p what={what}`" in kept[0].source
    assert not [cell for cell in kept if "papermill" in str(cell.source)]
    assert not {"LOTTOLAB_RESULTS", "LOTTOLAB_EXPECTED", "LOTTOLAB_OWN"} & {*os.environ}


@pytest.mark.parametrize(
    ("chapter", "scale", "given", "said"),
    [
        ("frist", "laptop", {}, "did you mean first"),
        ("first", "paper", {}, "laptop, smoke, got 'paper'"),
        ("second", "smoke", {}, "laptop, got 'smoke'"),
        ("first", "laptop", {"cuont": "3"}, "did you mean count"),
        ("first", "laptop", {"count": "9"}, "count must be in [1, 5], got 9"),
        ("first", "laptop", {"count": "many"}, "count must be int"),
        ("first", "laptop", {"scale": "smoke"}, "--scale"),
        ("first", "laptop", {"count": "4"}, "need a folder"),  # not the edition's
    ],
)
def test_bad_input_stops_before_anything_runs(
    book, tmp_path, monkeypatch, chapter, scale, given, said
):
    def run(*_, **__):
        raise AssertionError("a notebook was run")

    monkeypatch.setattr("papermill.execute_notebook", run)
    before = everything(tmp_path)
    with pytest.raises(ValueError, match=r"must be|--scale|need") as caught:
        execute.execute(chapter, scale, given)
    assert said in str(caught.value)
    assert everything(tmp_path) == before
    assert not (tmp_path / "_build").exists()


def test_a_full_disk_is_said_and_leaves_the_older_notebook(book, monkeypatch):
    older = execute.build_folder("smoke") / "notebooks/first.ipynb"
    older.parent.mkdir(parents=True)
    older.write_text("the older one")

    def run(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("papermill.execute_notebook", run)
    with pytest.raises(execute.Failed, match=r"the disk of \S.* is full") as caught:
        execute.execute("first", "smoke")
    assert isinstance(caught.value.__cause__, files.DiskFull)
    assert older.read_text() == "the older one"


def test_a_kernel_and_a_worker_get_the_callers_folders(book, tmp_path, monkeypatch):
    given = {f"LOTTOLAB_{n}": n.lower() for n in ("STORE", "DATA", "PROGRESS")}
    for name, folder in given.items():
        monkeypatch.setenv(name, folder)
    monkeypatch.setenv("LOTTOLAB_JOBS", "2")
    monkeypatch.delenv("LOTTOLAB_PRECISION", raising=False)
    monkeypatch.chdir(tmp_path)
    absolute = {name: str(tmp_path / folder) for name, folder in given.items()}
    assert jobs.variables() == absolute | {"LOTTOLAB_JOBS": "2"}
    with execute.environment("first", "smoke", {"LOTTOLAB_OWN": ""}):
        assert {name: os.environ[name] for name in given} == absolute
        assert os.environ["LOTTOLAB_OWN"] == ""
    assert {name: os.environ[name] for name in given} == given


@pytest.mark.parametrize(
    ("device", "asked", "given"),
    [("cpu", None, "float32"), ("cpu", "bfloat16", "bfloat16"), ("cuda", None, None)],
)
def test_a_cpu_trains_in_float32_unless_asked(book, monkeypatch, device, asked, given):
    monkeypatch.setenv("LOTTOLAB_DEVICE", device)
    monkeypatch.delenv("LOTTOLAB_PRECISION", raising=False)
    if asked:
        monkeypatch.setenv("LOTTOLAB_PRECISION", asked)
    with execute.environment("first", "smoke", {}):
        assert os.environ.get("LOTTOLAB_PRECISION") == given
    assert os.environ.get("LOTTOLAB_PRECISION") == asked


def test_the_results_folder_of_somebody_else_is_put_back(book, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_RESULTS", "elsewhere")
    with execute.environment("first", "smoke", {"LOTTOLAB_RESULTS": "here"}):
        assert os.environ["LOTTOLAB_RESULTS"] == os.path.abspath("here")
        assert json.loads(os.environ["LOTTOLAB_EXPECTED"]) == {}
    assert os.environ["LOTTOLAB_RESULTS"] == "elsewhere"
    assert "LOTTOLAB_EXPECTED" not in os.environ


def test_what_is_published_is_a_page_that_may_be_committed(book, tmp_path):
    path = execute.execute("first", "laptop")
    executed = nbformat.read(path, as_version=4)
    assert notebooks.paths(executed)  # papermill's notes hold absolute paths
    execute.publish_notebook(path)
    page = nbformat.read(book / "first.ipynb", as_version=4)
    assert printed(book / "first.ipynb") == "laptop fine 3\n"
    assert [c.source for c in page.cells] == [c.source for c in chapter("first").cells]
    assert "papermill" not in page.metadata
    assert all(set(cell.metadata) <= {"tags"} for cell in page.cells)
    checks = [notebooks.paths, notebooks.schema, notebooks.outputs, notebooks.counts]
    for check in [*checks, notebooks.tags, notebooks.prose, notebooks.title]:
        assert check(page) == []
    assert not list(book.glob(".*"))

    twice = execute.execute("first", "laptop")  # the next edition starts from this one
    assert printed(twice) == "laptop fine 3\n"


def test_a_published_page_of_another_scale_keeps_the_laptops_parameters(book):
    path = execute.execute("first", "smoke")
    assert "injected-parameters" in path.read_text()
    execute.publish_notebook(path)
    assert printed(book / "first.ipynb") == "smoke fine 1\n"
    assert notebooks.counts(nbformat.read(book / "first.ipynb", as_version=4)) == []
    page = nbformat.read(book / "first.ipynb", as_version=4)
    assert [c.source for c in page.cells] == [c.source for c in chapter("first").cells]
    assert printed(execute.execute("first", "laptop")) == "laptop fine 3\n"


def test_incomplete_finds_what_did_not_run():
    page = chapter("first")
    page.cells.append(v4.new_code_cell("  "))  # nothing to run
    assert [fault for fault in execute.incomplete(page) if "never run" in fault] == [
        "cell 1 was never run",
        "cell 3 was never run",
        "cell 5 was never run",
    ]
    for cell in page.cells:
        if cell.cell_type == "code" and cell.source.strip():
            cell.execution_count = 1
    assert execute.incomplete(page) == []
    page.cells[3].outputs = [v4.new_output("stream", text="ZeroDivisionError")]
    assert execute.incomplete(page) == []
    error = v4.new_output("error", ename="E", evalue="", traceback=[])
    page.cells[3].outputs.append(error)
    assert execute.incomplete(page) == ["cell 3 raised an error"]


def test_the_verdicts_on_a_page_are_drawn_anew_and_nothing_else_is_run(book):
    page = nbformat.read(book / "first.ipynb", as_version=4)
    cell = v4.new_code_cell("show.table  # imported\nf'{scale} {1 / count}'")
    cell.metadata["tags"], cell.execution_count = [execute.JUDGED], 9
    page.cells.append(cell)
    nbformat.write(page, book / "first.ipynb")
    before = nbformat.read(book / "first.ipynb", as_version=4).cells

    execute.redraw("first")
    after = nbformat.read(book / "first.ipynb", as_version=4).cells
    assert after[:-1] == before[:-1]
    (output,) = after[-1].outputs
    assert output.data["text/plain"] == f"'laptop {1 / 3}'"
    assert output.execution_count == 9

    edit = (book / "first.ipynb").read_text().replace("1 / count", "1 / 0")
    (book / "first.ipynb").write_text(edit)
    with pytest.raises(Exception, match="division by zero"):
        execute.redraw("first")
    assert (book / "first.ipynb").read_text() == edit
