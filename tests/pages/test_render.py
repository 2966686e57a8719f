"""Rendering a book: what arrives, what is refused, and what a failure leaves behind."""

import html
import importlib.util
import json
import re
import subprocess
import sys
from pathlib import Path

import chapters
import nbformat
import pytest
from bs4 import BeautifulSoup
from nbformat import v4

from lottolab.pages import parameters
from lottolab.pages.site.render import mathjax, render, render_page
from lottolab.reruns import edition, execute
from lottolab.truth import results

ROOT = Path(__file__).parents[2]
TOC = "format: jb-book\nroot: book/intro\nchapters:\n  - file: book/ownership\n"


def notebook(path, words):
    cell = {"cell_type": "markdown", "metadata": {}, "source": f"# {words}"}
    content = {"cells": [cell], "metadata": {}, "nbformat": 4, "nbformat_minor": 4}
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


@pytest.fixture
def source(tmp_path):
    """A book of two pages, with this project's settings, in a path with a space."""
    root = tmp_path / "a book"
    for folder in ("book/_static", "book/labs", "book/scales/smoke"):
        (root / folder).mkdir(parents=True)
    config = (ROOT / "_config.yml").read_text(encoding="utf-8")
    (root / "_config.yml").write_text(config, encoding="utf-8")
    (root / "_toc.yml").write_text(TOC, encoding="utf-8")
    (root / "book" / "references.bib").touch()
    (root / "book" / "_static" / "custom.css").touch()
    (root / "book" / "labs" / "lab.md").write_text("# Lab", encoding="utf-8")
    (root / "book" / "intro.md").write_text("# Introduction\n\n$x$", encoding="utf-8")
    notebook(root / "book" / "ownership.ipynb", "Committed")
    return root


def files(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_pages_and_mathjax_arrive_and_sources_stay(source, tmp_path):
    before = files(source)
    output = tmp_path / "out of it" / "html"
    index = render(source, output, strict=True)
    assert index == output.resolve() / "index.html"
    assert "book/intro.html" in index.read_text(encoding="utf-8")
    assert "Committed" in (output / "book" / "ownership.html").read_text("utf-8")
    assert not (output / "book" / "labs").exists()
    for file in mathjax():
        copy = output / "_static" / "mathjax" / file.name
        assert copy.read_bytes() == file.read_bytes()
    assert list(output.parent.iterdir()) == [output]
    assert files(source) == before


def test_a_notebook_can_be_replaced_and_a_failure_keeps_the_earlier_page(
    source, tmp_path
):
    output = source / "_build" / "smoke" / "html"
    other = notebook(tmp_path / "executed.ipynb", "Executed")
    render(source, output, strict=True, notebooks={"ownership": other})
    assert "Executed" in (output / "book" / "ownership.html").read_text("utf-8")
    earlier = files(output)
    intro = source / "book" / "intro.md"
    intro.write_text("# Introduction\n\n[gone](gone.md)\n", encoding="utf-8")
    with pytest.raises(RuntimeError, match=r"intro\.md:3: WARNING") as failure:
        render(source, output, strict=True)
    lines = str(failure.value).splitlines()
    assert all("WARNING" in line for line in lines[1:])
    assert str(tmp_path) not in str(failure.value)
    assert files(output) == earlier
    assert list(output.parent.iterdir()) == [output]

    render(source, output, strict=False)  # replaces it, though not in order
    assert "Committed" in (output / "book" / "ownership.html").read_text("utf-8")


WORKS = """
@book{one, author = {A. One}, title = {First}, publisher = {P}, year = {2001}}
@book{two, author = {B. Two}, title = {Second}, publisher = {P}, year = {2002}}
"""


def test_works_are_items_of_a_list_that_words_link_to(source, tmp_path):
    (source / "book/references.bib").write_text(WORKS, encoding="utf-8")
    cited = "# Introduction\n\n{cite:p}`two`\n\n```{bibliography}\n:all:\n```\n"
    (source / "book/intro.md").write_text(cited, encoding="utf-8")
    index = render(source, tmp_path / "html", strict=True)
    page = (index.parent / "book/intro.html").read_text("utf-8")
    content = BeautifulSoup(page, "html.parser").find("article")
    works = content.find_all(class_="citation")
    assert [work.find("em").text for work in works] == ["First", "Second"]
    assert [work["role"] for work in works] == ["listitem", "listitem"]
    assert [work.parent["role"] for work in works] == ["list", "list"]
    link = content.find("a", string=re.compile("Two"))
    assert link["href"] == f"#{works[1]['id']}"


FAILS = """\
from lottolab import runs
from lottolab import jobs

@runs.stage("test_render.train")
def train(*, network, seed):
    raise ValueError("the loss is not finite")

_ = jobs.compute([(train, dict(network=dict(name="cnn4", width=3), seed=7))])"""


def test_a_chapter_that_fails_has_a_page_that_says_so(source, tmp_path, monkeypatch):
    figure = {"caption": "Curves.", "name": "fig-curves"}
    drawn = v4.new_code_cell("figure = 1", metadata={"mystnb": {"figure": figure}})
    page = chapters.chapter("seed: int = 7  # any", FAILS, drawn, title="# One")
    page.cells.append(v4.new_markdown_cell("(below)=\n## Below\n\n$$1 = 1$$ (one)"))
    nbformat.write(page, source / "book/ownership.ipynb")
    words = "# Introduction\n\n{numref}`fig-curves`, {eq}`one` and {ref}`below`\n"
    (source / "book/intro.md").write_text(words, encoding="utf-8")
    monkeypatch.setattr(parameters, "BOOK", source / "book")
    monkeypatch.setattr(execute, "ROOT", source)
    monkeypatch.setattr(results, "COMMITTED", source / "data/results")
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")

    notebooks, (failure,) = edition.attempt_all("laptop")
    why = "test_render.train(network={'name': 'cnn4', 'width': 3}, seed=7)"
    assert f"ownership stopped: RunsFailed: {why}: ValueError: the loss" in str(failure)
    index = render(source, tmp_path / "html", strict=True, notebooks=notebooks)
    text = html.unescape((index.parent / "book/ownership.html").read_text("utf-8"))
    plain = re.sub("<[^>]+>", "", text)
    head, _, rest = plain.partition("To try again")
    assert "This page is not finished" in head
    assert f"RunsFailed: {why}: ValueError: the loss is not finite" in head
    assert '    raise ValueError("the loss is not finite")\nValueError: the' in head
    assert rest.startswith(": lottolab run ownership --scale laptop.")
    assert re.search('<figure [^>]*id="fig-curves">\\s*<img [^>]*svg', text)
    assert "An Exception was encountered" not in plain
    intro = (index.parent / "book/intro.html").read_text("utf-8")
    for anchor in ("fig-curves", "equation-one", "below"):
        assert f'href="ownership.html#{anchor}"' in intro


def test_without_jupyter_book_sphinx_itself_makes_the_pages(
    source, tmp_path, monkeypatch
):
    find = importlib.util.find_spec
    gone = {"jupyter_book"}
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name in gone else find(name)
    )
    index = render(source, tmp_path / "html", strict=True)
    assert "book/intro.html" in index.read_text(encoding="utf-8")
    page = (index.parent / "book" / "intro.html").read_text("utf-8")
    assert "mathjax/tex-svg.js" in page
    assert "custom.css" in page
    assert "Lottery tickets: stolen" in page
    assert not list(index.parent.glob("**/*.doctree"))


def test_the_tables_that_pages_link_to_arrive_the_runs_own_before_the_committed(
    source, tmp_path
):
    names = ["data/results/ownership/smoke.csv", "data/results/membership/laptop.csv"]
    names += ["_build/smoke/results/ownership/smoke.csv"]
    for name in names:
        (source / name).parent.mkdir(parents=True)
        (source / name).write_text(name, encoding="utf-8")
    (source / "_build/smoke/notebooks").mkdir()
    own = notebook(source / "_build/smoke/notebooks/ownership.ipynb", "Executed")
    index = render(source, tmp_path / "html", strict=True, notebooks={"ownership": own})
    there = index.parent / "_static" / "results"
    assert (there / "ownership" / "smoke.csv").read_text("utf-8") == names[2]
    assert (there / "membership" / "laptop.csv").read_text("utf-8") == names[1]


WORDS = """\
Alone

(here)=
## Two

As {ref}`here`, {eq}`sum` and {term}`ticket` say, see [words](glossary.md), and
[another](membership.ipynb) and [a third](using.md#change) do.

$$1 + 1 = 2$$ (sum)"""


def test_a_page_alone_has_its_note_its_words_and_no_other_chapter(source, tmp_path):
    glossary = "# Glossary\n\n```{glossary}\nticket\n  A small network.\n```\n"
    (source / "book" / "glossary.md").write_text(glossary, encoding="utf-8")
    notebook(source / "book" / "membership.ipynb", "Another")
    own = notebook(tmp_path / "ownership.ipynb", WORDS)
    before, kept = files(source), own.read_bytes()
    page = render_page(source, tmp_path / "html", own, "A *note* stands here.")
    assert page == (tmp_path / "html/book/ownership.html").resolve()
    text = page.read_text("utf-8")
    assert "A <em>note</em> stands here." in text
    for role in ("{ref}", "{eq}", "{term}", "$$"):
        assert role not in text
    assert 'href="#here"' in text
    assert 'href="glossary.html#term-ticket"' in text
    assert 'href="#equation-sum"' in text
    names = {path.name for path in page.parent.glob("*.html")}
    assert names == {"ownership.html", "glossary.html"}
    assert (tmp_path / "html/_static/mathjax/tex-svg.js").is_file()
    assert "see <a " in text
    assert "\nanother and a third do." in text
    assert (files(source), own.read_bytes()) == (before, kept)


def test_a_chapter_that_the_book_does_not_have_is_named(source, tmp_path):
    given = {"ownrship": notebook(tmp_path / "a.ipynb", "A")}
    with pytest.raises(ValueError, match="one of intro, ownership, got ownrship"):
        render(source, tmp_path / "html", strict=True, notebooks=given)
    assert not (tmp_path / "html").exists()


@pytest.mark.parametrize("output", [".", "..", "book", "book/html"])
def test_sources_are_never_overwritten(source, output):
    before = files(source)
    with pytest.raises(ValueError, match="must not hold or lie in the sources"):
        render(source, source / output, strict=True)
    assert files(source) == before


def test_the_earlier_page_comes_back_when_the_new_one_cannot_be_moved(
    source, tmp_path, monkeypatch
):
    output = tmp_path / "html"
    output.mkdir()
    (output / "index.html").write_text("earlier", encoding="utf-8")
    rename = Path.rename

    def refuse(self, target):
        if self.name == "html" and self.parent.name == "_build":
            raise PermissionError("in use")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", refuse)
    with pytest.raises(PermissionError):
        render(source, output, strict=False)
    assert (output / "index.html").read_text(encoding="utf-8") == "earlier"


def test_missing_mathjax_says_what_to_install(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(FileNotFoundError, match="pip install 'django-static-mathjax"):
        mathjax()


def test_mathjax_is_found_without_django():
    code = (
        "import sys; sys.modules['django'] = None; "
        "from lottolab.pages.site import render as r; "
        "r.mathjax(); assert 'mathjax' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
