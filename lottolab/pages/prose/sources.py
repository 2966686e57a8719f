"""Read the numbers that a page of the book shows, or was given.

They are those of its outputs and, to the letter, those of its code (parameters and
constants) and of its scales' files. A caption is typed as prose is, and no source. What
only a picture shows is none either: a table has to say it.
"""

import html
import re
from collections.abc import Iterable, Iterator
from functools import cache

import nbformat

from lottolab.checks import require
from lottolab.pages import parameters
from lottolab.pages.prose.typed import Typed

UNSEEN = {"remove-cell", "remove-output"}  # tags of cells whose outputs no page shows
Place = tuple[str, int, int]  # a cell, a row of its outputs, a number of the row
Part = tuple[float, float]  # of a typed number: see there
Reading = tuple[float, ...]  # a number and, where it may be a share, its percentage
_NUMBER = re.compile(
    r"(?<![\w.])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)(e[-+]?\d+)?"
    r"(?![\w.]?\d|[a-zA-Z_])( ?%)?"
)
_UNREAD = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.DOTALL)
_ROW = re.compile(r"</(?:tr|p|div|li)>")
_LINK = re.compile(r"\]\((\w+)\.ipynb[)#]")
_MARK = re.compile(r"<!-- *from: *(.*?) *-->", re.DOTALL)


class Shown:
    """The numbers of a page's outputs by their rows, and those that it was given."""

    def __init__(self, rows: dict[tuple[str, int], str], given: Iterable[str] = ()):
        """Read them in the rows' texts, and in other texts."""
        self.rows = {place: read(text) for place, text in rows.items()}
        self.given = {round(v, 9) for text in given for r in read(text) for v in r}

    def places(self, typed: Typed) -> set[Place]:
        """Return where the number stands or, of an interval, its first number.

        The numbers of an interval must follow each other, its ends in either order.
        """
        found, ways = set(), _ways(typed.parts)
        for place, row in self.rows.items():
            for parts in ways:
                starts = range(len(row) - len(parts) + 1)
                held = [i for i in starts if _hold(row[i:], parts, typed.shares)]
                found |= {(*place, i) for i in held}
        return found

    def was_given(self, typed: Typed) -> bool:
        """Say whether a number, but no interval, is one of the given to the letter."""
        return len(typed.parts) == 1 and round(typed.parts[0][0], 9) in self.given

    def holds(self, typed: Typed) -> bool:
        """Say whether a number was given, or stands somewhere."""
        return self.was_given(typed) or bool(self.places(typed))


def read(text: str) -> list[Reading]:
    """Return the numbers in a text without their signs.

    >>> read("84.5% [-0.12, 1,500]")
    [(84.5, 0.845), (0.12, 12.0), (1500.0,)]
    """
    readings = []
    for found in _NUMBER.finditer(text.replace("−", "-")):
        value = float(found[1].replace(",", "") + (found[2] or ""))
        if found[3]:
            readings.append((value, value / 100))
        else:
            readings.append((value, 100 * value) if value <= 1 else (value,))
    return readings


def _ways(parts: tuple[Part, ...]) -> list[tuple[Part, ...]]:
    """Return a number's parts in the orders that mean the same."""
    return [parts] if len(parts) == 1 else [parts, (*parts[:-2], parts[-1], parts[-2])]


def _hold(row: list[Reading], parts: tuple[Part, ...], shares: bool) -> bool:
    """Say whether the first numbers of a row round to the typed ones.

    A share counts as its percentage only where percent is meant.
    """
    return all(
        any(abs(v - value) <= unit / 2 * (1 + 1e-6) for v in r if shares or v <= r[0])
        for r, (value, unit) in zip(row, parts, strict=False)
    )


def of_page(page: nbformat.NotebookNode, name: str = "") -> Shown:
    """Return the numbers that a notebook shows in its outputs, or was given.

    Args:
        name: the page's, to find its scales' files by.
    """
    scales = parameters.BOOK.glob(f"scales/*/{name}.yaml")
    rows, given = {}, [scale.read_text("utf-8") for scale in scales]
    for cell in page.cells:
        if cell.cell_type != "code":
            continue
        given.append(cell.source)
        if not UNSEEN & set(cell.metadata.get("tags", [])):
            shown = enumerate(outputs(cell))
            rows |= {(cell.get("id", ""), i): text for i, text in shown}
    return Shown(rows, given)


def outputs(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Yield the rows of a cell's outputs as a reader sees them; code is none."""
    for output in cell.outputs:
        data = output.get("data", {})
        if "text/html" in data:
            rows = _ROW.split(re.sub(r"\s+", " ", data["text/html"]))
            yield from (html.unescape(_UNREAD.sub(" ", row)) for row in rows)
        elif "image/png" not in data:
            text = data.get("text/markdown", data.get("text/plain", ""))
            text = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
            yield from (text + output.get("text", "")).splitlines()


def named(paragraph: str) -> list[Shown | None]:
    """Return the sources that a paragraph names: pages that it links to, and marks.

    A mark is `<!-- from: NAME, NAME -->`. In a page of the book, and in a table of the
    project (`data/results/throughput.csv`), the numbers must stand. Another file
    (`benchmarks/bench_service.py`), or a key of the references, is believed: None.

    Raises:
        ValueError: a mark's name is none of these.
    """
    names = _LINK.findall(paragraph)
    for mark in _MARK.findall(paragraph):
        names += re.split(r"\s*,\s*", mark)
    return [_source(name) for name in names]


@cache
def _source(name: str) -> Shown | None:
    book = parameters.BOOK
    page, file = book / f"{name}.ipynb", book.parent / name
    if page.is_file():
        return of_page(nbformat.read(page, as_version=4), name)
    if file.is_file() and file.suffix == ".csv":
        lines = file.read_text("utf-8").splitlines()
        return Shown({("", i): line for i, line in enumerate(lines)})
    cited = f"{{{name}," in (book / "references.bib").read_text("utf-8")
    what = "<!-- from: NAME --> must name a page of the book, a file or a reference"
    require(file.is_file() or cited, what, repr(name))
    return None
