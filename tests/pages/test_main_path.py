"""A reader gets a chapter's answer in ten minutes: the main path is short."""

import re

import nbformat
import pytest

from lottolab.machine import setup
from lottolab.pages.site.folds import MARK

# words, figures and tables at most; a chapter joins when it has been gone over
LIMITS = {"ensembles": (2500, 10), "membership": (3000, 12), "modelguard": (3000, 12)}
LIMITS |= {"ownership": (3000, 12), "mia_pruning": (3000, 12)}


def main_path(notebook):
    """Yield the cells that no section of details holds."""
    folded = 0  # the level of the heading that folds
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            kept, fence = [], False
            for line in cell.source.splitlines():
                fence ^= line.startswith("```")
                head = re.match(r"(#+) (.*)", line)
                if head and not fence:
                    level = len(head[1])
                    if not folded or level <= folded:
                        folded = level if head[2].startswith(MARK) else 0
                if not folded:
                    kept.append(line)
            cell = nbformat.v4.new_markdown_cell("\n".join(kept))
            yield cell
        elif not folded:
            yield cell


def words(text):
    """Count words; what a dropdown hides, and what Sphinx is told, is none."""
    text = re.sub(
        r":::\{admonition\}[^\n]*\n:class: dropdown.*?:::", "", text, flags=re.S
    )
    lines = [line for line in text.splitlines() if not line.startswith((":", "$$"))]
    return len(" ".join(lines).split())


def shown(cell):
    """Say whether a cell's output is a figure or a table."""
    for output in cell.get("outputs", ()):
        data = output.get("data", {})
        told = "".join(data.get("text/html", ""))
        moves = 'class="moving"' in told  # its picture is in the cell before
        if "image/png" in data or ("<table" in told and not moves):
            return True
    return False


@pytest.mark.parametrize("chapter", LIMITS)
def test_the_main_path_is_short(chapter):
    page = nbformat.read(setup.ROOT / "book" / f"{chapter}.ipynb", 4)
    cells = list(main_path(page))
    most_words, most_displays = LIMITS[chapter]
    count = sum(words(c.source) for c in cells if c.cell_type == "markdown")
    assert 500 < count <= most_words
    displays = sum(shown(c) for c in cells if c.cell_type == "code")
    assert 3 < displays <= most_displays


def test_details_end_where_a_heading_of_their_level_begins():
    made = nbformat.v4.new_notebook()
    texts = ["# A\n\nin", "## Details: b\n\nout\n\n### c\n\nout", "out", "## D\n\nin"]
    made.cells = [nbformat.v4.new_markdown_cell(t) for t in texts]
    made.cells.insert(3, nbformat.v4.new_code_cell("1"))
    kept = [c.source for c in main_path(made)]
    assert "out" not in "".join(kept)
    assert "".join(kept).count("in") == 2
    assert "1" not in kept
