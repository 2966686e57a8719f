"""All chapters run once; what is finished is left alone, unless anything changed."""

import os
from importlib.metadata import distributions

import chapters
import nbformat
import pytest
from nbformat import v4

from lottolab.pages import parameters
from lottolab.reruns import edition, execute
from lottolab.runs import staging
from lottolab.truth import results

INSTALLED = list(distributions())[:3]  # of hundreds, which take a while to read
WORK = """\
from lottolab.truth import results
from test_edition import counted
rows = [results.row(counted, dict(x=count), metric="m", value=1.0)
        for _ in [counted(x=count)]]
_ = results.write("{chapter}", scale, rows)"""


@staging.stage("test_edition.counted")
def counted(*, x):
    return {"x": x}


def notebook(chapter: str, source: str) -> nbformat.NotebookNode:
    text = (
        'scale: str = "laptop"  # one of laptop, edition\ncount: int = 3  # in [1, 5]'
    )
    return chapters.chapter(text, source.format(chapter=chapter))


@pytest.fixture
def ran(tmp_path, monkeypatch):
    """Make a book of two chapters and a scorecard; list what is run."""
    folder = tmp_path / "book"
    folder.mkdir()
    entries = "".join(f"  - file: book/{n}\n" for n in ("second", "card"))
    toc = f"format: jb-book\nroot: book/first\nchapters:\n{entries}"
    (tmp_path / "_toc.yml").write_text(toc)
    nbformat.write(notebook("first", WORK), folder / "first.ipynb")
    other = WORK.replace("x=count", "x=count + 1")
    nbformat.write(notebook("second", other), folder / "second.ipynb")
    nbformat.write(notebook("card", "print(scale)"), folder / "card.ipynb")
    (tmp_path / "data/papers").mkdir(parents=True)
    (tmp_path / "code").mkdir()
    (tmp_path / "code/module.py").write_text("x = 1\n")
    monkeypatch.setattr(parameters, "BOOK", folder)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(edition, "CODE", tmp_path / "code")
    monkeypatch.setattr(edition, "CHAPTERS", ("first", "second"))
    monkeypatch.setattr(edition, "distributions", lambda: INSTALLED)
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")  # or the processes lack all this
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    seen = []

    def run(chapter, scale):
        """Do what the kernel would, in this process."""
        seen.append(chapter)
        target = tmp_path / f"_build/{scale}/notebooks/{chapter}.ipynb"
        target.parent.mkdir(parents=True, exist_ok=True)
        page = nbformat.read(folder / f"{chapter}.ipynb", as_version=4)
        values = {"scale": scale, "count": 3, **parameters.resolve(chapter, scale, {})}
        own = {results.FOLDER: str(tmp_path / f"_build/{scale}/results")}
        with execute.environment(chapter, scale, own):
            try:
                exec(page.cells[1].source, values)
            except Exception as error:
                raise execute.Failed(f"{chapter} stopped: {error!r}") from error
        nbformat.write(page, target)
        return target

    monkeypatch.setattr(execute, "execute", run)
    return seen


def again(ran) -> list[str]:
    ran.clear()
    edition.run_all("laptop")
    return list(ran)


def test_what_is_finished_is_not_run_again_and_the_scorecard_always_is(ran, capfd):
    notebooks = edition.run_all("laptop")
    assert ran == ["first", "second", "card"] == list(notebooks)
    capfd.readouterr()
    assert edition.run_all("laptop") == notebooks
    assert ran[3:] == ["card"]
    assert "second at laptop scale: finished before" in capfd.readouterr().out


def edit(path, old, new):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))


def test_outputs_are_no_change(ran, tmp_path):
    edition.run_all("laptop")
    path = tmp_path / "book/first.ipynb"
    page = nbformat.read(path, as_version=4)
    page.cells[1].outputs = [v4.new_output("stream", text="3")]
    page.cells[1].execution_count = 2
    nbformat.write(page, path)
    assert again(ran) == ["card"]


SPOILT = {
    "the notebook's source": ("book/first.ipynb", "counted(x=count)", "counted(x=1)"),
    "a default": ("book/first.ipynb", "count: int = 3", "count: int = 4"),
    "what was executed": ("_build/laptop/notebooks/first.ipynb", "rows", "lines"),
    "the table": ("_build/laptop/results/first/laptop.csv", "1.0", "2.0"),
}


@pytest.mark.parametrize("what", SPOILT)
def test_a_chapter_that_changed_runs_again(ran, tmp_path, what):
    edition.run_all("laptop")
    path, old, new = SPOILT[what]
    edit(tmp_path / path, old, new)
    assert again(ran) == ["first", "card"]


@pytest.mark.parametrize("path", ["code/module.py", "data/claims.yaml"])
def test_all_run_again_when_what_they_share_changed(ran, tmp_path, path):
    edition.run_all("laptop")
    (tmp_path / path).write_text("x = 2\n")
    assert again(ran) == ["first", "second", "card"]


def test_other_installed_versions_are_a_change(ran, monkeypatch):
    monkeypatch.setattr(edition, "distributions", distributions)  # all of them
    edition.run_all("laptop")
    assert again(ran) == ["card"]
    monkeypatch.setattr(edition, "distributions", lambda: [])
    assert again(ran) == ["first", "second", "card"]


def test_an_emptied_store_is_filled_again(ran, tmp_path, monkeypatch):
    edition.run_all("laptop")
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "other"))
    assert again(ran) == ["first", "second", "card"]
    assert again(ran) == ["card"]


def test_a_broken_note_is_no_proof(ran, tmp_path):
    edition.run_all("laptop")
    note = tmp_path / "_build/laptop/notebooks/second.json"
    for text in ("", "{}", '{"files": {}, "ingredients": ""}'):
        note.write_text(text)
        assert again(ran) == ["second", "card"]


def test_a_failure_stops_no_other_chapter_and_is_told_at_the_end(ran, tmp_path, capfd):
    edit(tmp_path / "book/first.ipynb", "counted(x=count)", "counted(x=1 / 0)")
    with pytest.raises(execute.Failed, match=r"1 of 3 chapters failed: first stopped"):
        edition.run_all("laptop")
    assert ran == ["first", "second", "card"]
    edit(tmp_path / "book/first.ipynb", "counted(x=1 / 0)", "counted(x=count)")
    assert again(ran) == ["first", "card"]


def test_who_failed_has_no_results_for_those_that_read_them(ran, tmp_path, capfd):
    card = "from lottolab.truth import results\n"
    card += "print([n for n in ('first', 'second') if results.find(n, scale)])"
    nbformat.write(notebook("card", card), tmp_path / "book/card.ipynb")
    edition.run_all("laptop")
    assert capfd.readouterr().out.splitlines()[-1] == "['first', 'second']"
    edit(tmp_path / "book/first.ipynb", "counted(x=count)", "counted(x=1 / 0)")
    notebooks, (failure,) = edition.attempt_all("laptop")
    assert "['second']" in capfd.readouterr().out
    assert "first stopped: ZeroDivisionError" in str(failure)
    names = {name: path.name for name, path in notebooks.items()}
    assert names.pop("first") == "first.unfinished.ipynb"
    assert names == {name: f"{name}.ipynb" for name in ("second", "card")}
    assert results.find("first", "laptop") is None  # only the committed are asked here
    assert results.FAILED not in os.environ


# The edition: a queue that says what is left, and what has ended can be published.


@pytest.fixture
def queue(ran, tmp_path):
    """Give the book's chapters and its scorecard an edition."""
    folder = tmp_path / "book/scales/edition"
    folder.mkdir(parents=True)
    for name, text in {"first": "count: 1", "second": "count: 2", "card": ""}.items():
        (folder / f"{name}.yaml").write_text(text or "scale: edition")
    return ran


def committed(tmp_path) -> dict[str, str]:
    paths = sorted((tmp_path / "data/results").glob("*/*"))
    return {p.relative_to(tmp_path / "data/results").as_posix(): p for p in paths}


def test_an_interrupted_queue_goes_on_and_commits_nothing(queue, tmp_path, monkeypatch):
    go_on = execute.execute

    def cut(chapter, scale):
        if chapter == "second":
            raise KeyboardInterrupt
        return go_on(chapter, scale)

    monkeypatch.setattr(execute, "execute", cut)
    with pytest.raises(KeyboardInterrupt):
        edition.run_all("edition")
    assert queue == ["first"]
    monkeypatch.setattr(execute, "execute", go_on)
    edition.run_all("edition")
    assert queue == ["first", "second", "card"]
    assert committed(tmp_path) == {}


def test_what_is_left_is_told_in_hours_before_each_chapter(queue, monkeypatch, capfd):
    hours = {"first": 1.5 * 3600, "second": 3600.0}
    monkeypatch.setattr(edition.dryrun, "left", lambda name, scale: hours[name])
    edition.run_all("edition")
    assert "left" not in capfd.readouterr().out  # all of it is short: nobody is asked
    monkeypatch.setattr(edition, "HOUR", -1)
    for chapter in hours:
        edition._note(chapter, "edition").unlink()
    edition.run_all("edition")
    said = [line for line in capfd.readouterr().out.splitlines() if "left" in line]
    assert said == [
        "edition scale: about 2 h 30 min left on 1 processes, for first, second",
        "edition scale: about 1 h 00 min left on 1 processes, for second",
    ]


def test_what_has_ended_is_published_while_the_rest_goes_on(
    queue, tmp_path, monkeypatch
):
    pages = []
    monkeypatch.setattr(
        execute, "publish_notebook", lambda p: pages.append((p.parts[-3], p.stem))
    )
    edition.run("first", "edition")
    edition.run_all("laptop")
    queue.clear()
    assert edition.publish("edition") == (["first"], ["second"])
    names = ["first/edition.csv.gz", "first/edition.stages.csv.gz"]
    assert list(committed(tmp_path)) == names
    assert queue == ["card"]
    assert pages == [("edition", "first"), ("edition", "card")]
    there = results.load(_table(tmp_path, "first"))["stage"]
    assert results.read("first", "edition")["stage"].tolist() == there.tolist()

    # The laptop's page of a chapter that has an edition stays where it was.
    pages.clear()
    assert edition.publish("laptop") == (["first", "second"], [])
    assert pages == [("laptop", "second"), ("edition", "card")]
    assert "first/laptop.csv" in committed(tmp_path)


def _table(tmp_path, chapter: str):
    return tmp_path / f"_build/edition/results/{chapter}/edition.csv"


def test_a_run_that_was_cut_off_is_not_published(queue, tmp_path, monkeypatch):
    monkeypatch.setattr(execute, "publish_notebook", lambda path: None)
    edition.run_all("edition")
    edit(_table(tmp_path, "first"), "1.0", "2.0")  # a later run wrote it, and stopped
    assert edition.publish("edition") == (["second"], ["first"])
    assert not any("first" in name for name in committed(tmp_path))
    with pytest.raises(ValueError, match="run --all --scale cifar"):
        edition.publish("cifar")


def test_bad_input_runs_nothing(ran):
    with pytest.raises(ValueError, match="did you mean laptop"):
        edition.run_all("lapto")
    with pytest.raises(ValueError, match="did you mean first"):
        edition.run("frist", "laptop")
    assert ran == []
    assert edition.run_all("smoke") == {}
