"""The structure of every notebook that the table of contents lists."""

from functools import partial
from pathlib import Path

import nbformat
import notebooks
import pytest
from nbformat.v4 import (
    new_code_cell,
    new_markdown_cell,
    new_notebook,
    new_output,
)

ROOT = Path(__file__).parents[2]
LISTED = notebooks.listed(ROOT / "_toc.yml")
NOTEBOOKS = [name for name in LISTED if not (ROOT / f"{name}.md").is_file()]
NOT_CHAPTERS = {
    "book/scorecard",
    "book/how_sure",
    "book/status",
    "book/paper_scale",
}
CHAPTERS = [name for name in NOTEBOOKS if name not in NOT_CHAPTERS]
EVERYWHERE = [
    notebooks.schema,
    notebooks.title,
    notebooks.outputs,
    notebooks.counts,
    notebooks.lengths,
    notebooks.prose,
    notebooks.figures,
    notebooks.paths,
    notebooks.tags,
    notebooks.folded,
    notebooks.solved,
]


def read(name):
    path = ROOT / f"{name}.ipynb"
    assert path.is_file(), f"_toc.yml lists {name}, but there is no {path.name}"
    return nbformat.read(path, as_version=4)


@pytest.mark.parametrize("check", EVERYWHERE, ids=lambda check: check.__name__)
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook(name, check):
    assert check(read(name)) == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebook_is_small(name):
    read(name)
    assert notebooks.size(ROOT / f"{name}.ipynb") == []


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_parameters(name):
    assert notebooks.parameters(read(name), needed=name in CHAPTERS) == []


@pytest.mark.parametrize("name", CHAPTERS)
def test_chapter_has_the_skeleton(name):
    assert notebooks.skeleton(read(name)) == []


def test_no_notebook_is_forgotten():
    found = {f"book/{path.stem}" for path in (ROOT / "book").glob("*.ipynb")}
    assert found == set(NOTEBOOKS)


# Every checker must be able to find what it looks for: a good chapter, and ways to
# spoil it.

FIGURE = {
    "mystnb": {
        "figure": {"caption": "Accuracy.", "name": "fig-a"},
        "image": {"alt": "A line that falls."},
    }
}
PNG = new_output(
    "display_data", data={"image/png": "iVBORw0KGgo=", "text/plain": "<F>"}
)


def chapter():
    cells = [new_markdown_cell("# 1 A chapter\n\nA question?")]
    cells += [new_markdown_cell(f"## {text}\n\nProse.") for text in notebooks.SKELETON]
    setup = new_code_cell(
        "seeds: list = [0, 1]  # a model each\nrate: float = -0.2  # share a round",
        execution_count=1,
        metadata={"tags": ["parameters"]},
    )
    cells.insert(4, setup)
    plot = new_code_cell("plot()", execution_count=2, metadata=FIGURE, outputs=[PNG])
    cells.insert(8, plot)
    about = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return nbformat.from_dict(new_notebook(cells=cells, metadata=about))


SETUP, PLOT = 4, 8
parameters = partial(notebooks.parameters, needed=True)
optional = partial(notebooks.parameters, needed=False)


def source(index, text):
    def spoil(nb):
        nb.cells[index].source = text

    return spoil


def output(**what):
    def spoil(nb):
        nb.cells[SETUP].outputs = [nbformat.from_dict(new_output(**what))]

    return spoil


def figure(part, key):
    def spoil(nb):
        nb.cells[PLOT].metadata.mystnb[part][key] = " "

    return spoil


def unprefaced(nb):
    nb.cells.insert(SETUP, nb.cells.pop(PLOT))


def unexplained(nb):
    nb.cells.append(nb.cells.pop(PLOT))


def twice(nb):
    nb.cells[PLOT + 2 : PLOT + 2] = [new_markdown_cell("Again."), nb.cells[PLOT]]


def set_count(index, count):
    def spoil(nb):
        nb.cells[index].execution_count = count

    return spoil


def tag(index, *given):
    def spoil(nb):
        nb.cells[index].metadata["tags"] = list(given)

    return spoil


def kernel(nb):
    nb.metadata.kernelspec.name = "dev"


def broken_schema(nb):
    nb.cells[SETUP]["colour"] = "red"


def two_images(nb):
    nb.cells[PLOT].outputs = nb.cells[PLOT].outputs * 2


def swapped(nb):
    nb.cells[2], nb.cells[3] = nb.cells[3], nb.cells[2]


def metadata_path(nb):
    nb.metadata["papermill"] = {"input_path": "/home/ann/a.ipynb"}


def fenced_heading(nb):
    nb.cells[-1].source = "```\n## Provenance\n```"


EXERCISES = "## Exercises\n\n1. *Check.* A?\n2. *Extend.* B?\n\n"
TOGGLE = ":::{{admonition}} Path to {0}\n:class: dropdown\nC.\n:::\n\n"
RECAP = "## Recap\n\n" + TOGGLE.format(2)  # which is no exercise's
MANY = "\n".join(f"p{i}: int = {i}  # a number" for i in range(21))
LONG = "\n".join("x = 1" for _ in range(26))
TYPED = "must be `name: type = literal`"
SPOILT = [
    (notebooks.schema, kernel, "must be python3, got dev"),
    (notebooks.schema, broken_schema, "not a valid notebook"),
    (notebooks.title, source(0, "Prose."), "one first-level heading"),
    (notebooks.title, source(1, "# Another"), "one first-level heading"),
    (notebooks.title, source(0, "Prose.\n\n# Title"), "begin with the title"),
    (notebooks.skeleton, source(3, "Prose."), "missing ['Setup']"),
    (notebooks.skeleton, source(3, "## Set up"), "not allowed ['Set up']"),
    (notebooks.skeleton, swapped, "out of order"),
    (notebooks.skeleton, source(0, "# A\n\n## Recap"), "missing []"),
    (notebooks.skeleton, fenced_heading, "missing ['Provenance']"),
    (parameters, tag(SETUP), "exactly one parameters cell, found 0"),
    (parameters, tag(PLOT, "parameters"), "exactly one parameters cell, found 2"),
    (optional, tag(PLOT, "parameters"), "at most one parameters cell, found 2"),
    (parameters, source(SETUP, "a: int = 1"), "without a comment"),
    (parameters, source(SETUP, "a = 1  # a number"), TYPED),
    (parameters, source(SETUP, "a: int = 2 * 3  # a number"), TYPED),
    (parameters, source(SETUP, "a: dict = dict(b=1)  # a call"), TYPED),
    (parameters, source(SETUP, "a: int  # nothing"), TYPED),
    (parameters, source(SETUP, "import os  # a module"), TYPED),
    (parameters, source(SETUP, "a: int = "), "not Python"),
    (parameters, source(SETUP, MANY), "at most 20 parameters, got 21"),
    (
        notebooks.outputs,
        output(output_type="error", ename="ValueError", evalue="", traceback=[]),
        "stored error ValueError",
    ),
    (notebooks.counts, set_count(PLOT, None), "not run: [8]"),
    (notebooks.counts, set_count(PLOT, 3), "must be 1 to 2 in order"),
    (notebooks.counts, set_count(SETUP, 2), "must be 1 to 2 in order"),
    (notebooks.lengths, source(SETUP, LONG), "at most 25 lines, has 26"),
    (notebooks.lengths, source(SETUP, "x" * 80), "at most 79 columns, has 80"),
    (notebooks.lengths, source(SETUP, LONG[: 24 * 6]), "the median cell"),
    (notebooks.prose, unprefaced, "no prose before"),
    (notebooks.prose, source(SETUP - 1, " "), "no prose before"),
    (notebooks.figures, figure("figure", "caption"), "without mystnb.figure.caption"),
    (notebooks.figures, figure("figure", "name"), "without mystnb.figure.name"),
    (notebooks.figures, figure("image", "alt"), "without mystnb.image.alt"),
    (notebooks.figures, unexplained, "no prose after this figure"),
    (notebooks.figures, source(PLOT + 1, ""), "no prose after this figure"),
    (notebooks.figures, two_images, "one image/png a cell"),
    (notebooks.figures, twice, "used twice: fig-a"),
    (notebooks.paths, source(SETUP, "open('/home/ann/x')"), "absolute path"),
    (notebooks.paths, source(1, "See /work/main/x."), "absolute path"),
    (notebooks.paths, source(SETUP, r"open('C:\\Users\\x')"), "absolute path"),
    (notebooks.paths, metadata_path, "metadata: absolute path"),
    (
        notebooks.paths,
        output(output_type="stream", name="stdout", text="read /tmp/a.csv"),
        "output: absolute path",
    ),
    (
        notebooks.paths,
        output(output_type="display_data", data={"text/html": "<b>/root/x</b>"}),
        "text/html: absolute path",
    ),
    (notebooks.tags, tag(PLOT, "injected-parameters"), "injected-parameters is not"),
    (notebooks.tags, tag(PLOT, "raises-exception"), "raises-exception is not"),
    (
        notebooks.solved,
        source(1, EXERCISES + TOGGLE.format(1) + RECAP),
        "exercise 2 is not solved",
    ),
    (
        notebooks.solved,
        source(1, EXERCISES + TOGGLE.format(1) + TOGGLE.format(3)),
        "not asked: 3",
    ),
    (notebooks.folded, source(PLOT, LONG[: 4 * 6]), "4 lines after Experiment"),
]


@pytest.mark.parametrize(
    "check", [*EVERYWHERE, notebooks.skeleton, parameters, optional]
)
def test_a_good_chapter_has_no_fault(check):
    assert check(chapter()) == []


@pytest.mark.parametrize(("check", "spoil", "expected"), SPOILT)
def test_a_fault_is_found(check, spoil, expected):
    nb = chapter()
    spoil(nb)
    assert any(expected in fault for fault in check(nb)), check(nb)


def test_every_checker_is_proven():
    proven = {getattr(check, "func", check) for check, _, _ in SPOILT}
    assert {*EVERYWHERE, notebooks.skeleton, notebooks.parameters} == proven


def test_exercises_that_are_all_solved_are_no_fault():
    nb = chapter()
    nb.cells[1].source = EXERCISES + TOGGLE.format(1) + TOGGLE.format(2)
    assert notebooks.solved(nb) == []


@pytest.mark.parametrize("text", ["a/tmp/b", "~/work/x", "data/home/x", "1/var/2"])
def test_relative_paths_are_no_fault(text):
    nb = chapter()
    nb.cells[1].source = text
    assert notebooks.paths(nb) == []


def test_a_notebook_without_parameters_may_be_no_chapter():
    nb = chapter()
    tag(SETUP)(nb)
    assert optional(nb) == []


def test_a_big_notebook_is_found(tmp_path):
    big, small = tmp_path / "big", tmp_path / "small"
    big.write_bytes(b"x" * 1_000_001)
    small.write_bytes(b"x" * 1_000_000)
    assert notebooks.size(big) == ["must have at most 1,000,000 bytes, has 1,000,001"]
    assert notebooks.size(small) == []


def test_a_listed_notebook_that_is_missing_fails(monkeypatch, tmp_path):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    with pytest.raises(AssertionError, match="lists book/gone, but there is no gone"):
        read("book/gone")


def test_every_entry_of_a_table_of_contents_is_listed(tmp_path):
    toc = tmp_path / "_toc.yml"
    toc.write_text(
        "root: a\nparts:\n- chapters:\n  - file: b\n    sections:\n    - file: c\n",
        encoding="utf-8",
    )
    assert notebooks.listed(toc) == ["a", "b", "c"]
