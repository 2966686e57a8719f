"""Numbers that are typed into prose, held against what their page shows.

A rerun changes tables and figures, and leaves sentences. `typed` finds the numbers in
these, `sources` those that a page shows; `adrift` is what is left over, and `moved`
what a rerun has left behind though the same number stands elsewhere. `report` says it.
"""

import subprocess
from pathlib import Path

import nbformat

from lottolab.checks import require
from lottolab.pages.prose import sources
from lottolab.pages.prose.typed import Typed, numbers

FORMAT = 4


def of(page: nbformat.NotebookNode) -> list[Typed]:
    """Return the numbers in a notebook's prose, captions and alternative texts."""
    return [number for text in _texts(page) for number in numbers(text)]


def _texts(page: nbformat.NotebookNode) -> list[str]:
    texts = []
    for cell in page.cells:
        if cell.cell_type == "markdown":
            texts.append(cell.source)
        told = cell.metadata.get("mystnb", {})
        texts += [told.get("figure", {}).get("caption", "")]
        texts += [told.get("image", {}).get("alt", "")]
    return texts


def adrift(path: Path) -> list[Typed]:
    """Return the numbers in a page's prose that no output of the page contains.

    Of a page without outputs (`.md`) only the paragraphs that name a source are read.

    Raises:
        ValueError: a mark of a source names none.
    """
    if path.suffix == ".md":
        found = list(numbers(path.read_text("utf-8")))
        return [n for n in found if sources.named(n.paragraph) and not _is_named(n)]
    page = nbformat.read(path, as_version=FORMAT)
    shown = sources.of_page(page, path.stem)
    return [n for n in of(page) if not shown.holds(n) and not _is_named(n)]


def _is_named(number: Typed) -> bool:
    """Say whether a source that the number's paragraph names has it, or is believed."""
    return any(s is None or s.holds(number) for s in sources.named(number.paragraph))


def moved(before: nbformat.NotebookNode, after: nbformat.NotebookNode) -> list[Typed]:
    """Return the numbers in a page's prose that stand nowhere any more where they did.

    With hundreds of numbers on a page, one of two digits stands there by chance more
    often than not. What each place that had it (of the same cell and row) has lost is
    out of date, although `adrift` finds it elsewhere.
    """
    old, new = sources.of_page(before), sources.of_page(after)
    found = [(n, old.places(n)) for n in of(after) if not new.was_given(n)]
    return [n for n, places in found if places and not places & new.places(n)]


def report(path: Path, before: str | None = None) -> list[str]:
    """Return a line for each number of a page that is adrift, with its sentence.

    Args:
        before: the text of the notebook as it was; then also for those that moved.
    """
    gone = adrift(path)
    lines = [f"{path.stem}: not on the page: {_told(n)}" for n in gone]
    if before is not None and path.suffix == ".ipynb":
        pages = nbformat.reads(before, FORMAT), nbformat.read(path, FORMAT)
        there = [n for n in moved(*pages) if n not in gone]
        lines += [f"{path.stem}: not where it was: {_told(n)}" for n in there]
    return lines


def left_behind(path: Path, before: str | None) -> list[str]:
    """Return the `report` on a page that was written, or the line that refuses one."""
    try:
        return report(path, before)
    except ValueError as error:
        return [f"{path.stem}: {error}"]


def committed(path: Path, commit: str) -> str:
    """Return the text of a page as it was at a commit.

    Raises:
        ValueError: git knows no such commit, or it has no such page.
    """
    what = f"{commit}:./{path.name}"
    git = ["git", "-C", str(path.parent), "show", "--end-of-options", what]
    found = subprocess.run(git, capture_output=True, text=True, encoding="utf-8")
    allowed = f"--since must be a commit of git's that has {path.name}"
    require(found.returncode == 0, allowed, commit)
    return found.stdout


def _told(number: Typed) -> str:
    return f"{number.text} | {number.sentence}"
