"""Read the numbers that a page of the book shows, or was given.

They are those of its outputs, of its code (parameters and constants), of its scales'
files, and of its paper: the entries of `data/papers` and what the claims say. A caption
is typed as prose is, and no source. What only a picture shows is none either: a table
has to say it.
"""

import html
import re
from bisect import bisect_left
from collections.abc import Iterator
from pathlib import Path

import nbformat

from lottolab.pages.parameters import BOOK
from lottolab.pages.prose.typed import Typed
from lottolab.truth import claims_file

ROOT = BOOK.parent
UNSEEN = {"remove-cell", "remove-output"}  # tags of cells whose outputs no page shows
_NUMBER = re.compile(
    r"(?<![\w.])(\d{1,3}(?:,\d{3})+(?:\.\d+)?|\d*\.?\d+)(e[-+]?\d+)?(?![\w.]?\d|[a-zA-Z_])"
    r"( ?%)?"
)
_UNREAD = re.compile(r"<(script|style)\b.*?</\1>|<[^<>]*>", re.DOTALL)


class Numbers:
    """Numbers that are there; `holds` says whether a typed one is among them."""

    def __init__(self, texts: Iterator[str] | list[str]):
        """Read the numbers in texts; a percentage is a share, too."""
        found = [m for text in texts for m in _NUMBER.finditer(text.replace("−", "-"))]
        values = [float(m[1].replace(",", "") + (m[2] or "")) for m in found]
        shares = [v / 100 for v, m in zip(values, found, strict=True) if m[3]]
        self.values = sorted({*values, *shares})
        self.percents = sorted({100 * value for value in self.values if value <= 1})

    def holds(self, typed: Typed) -> bool:
        """Say whether a number, or as a percentage a share, rounds to the typed one."""
        lists = [self.values, *([self.percents] if typed.shares else [])]
        reach = typed.unit / 2 * (1 + 1e-6)
        return any(
            place < len(numbers) and numbers[place] <= typed.value + reach
            for numbers in lists
            for place in [bisect_left(numbers, typed.value - reach)]
        )


def of_page(path: Path) -> Numbers:
    """Return the numbers that a page shows in its outputs, or was given."""
    page = nbformat.read(path, as_version=4)
    code = [cell for cell in page.cells if cell.cell_type == "code"]
    texts = [cell.source for cell in code]
    for cell in code:
        if not UNSEEN & set(cell.metadata.get("tags", [])):
            texts += outputs(cell)
    files = [*BOOK.glob(f"scales/*/{path.stem}.yaml")]
    files += ROOT.glob(f"data/papers/{path.stem}.csv")
    texts += [file.read_text(encoding="utf-8") for file in files]
    return Numbers([*texts, *_claims(path.stem)])


def outputs(cell) -> Iterator[str]:
    """Yield the texts of a cell's outputs as a reader sees them."""
    for output in cell.outputs:
        yield output.get("text", "")
        data = output.get("data", {})
        for kind in ("text/html", "text/markdown", "text/plain"):
            if kind in data:
                yield html.unescape(_UNREAD.sub(" ", "".join(data[kind])))
                break


def _claims(chapter: str) -> Iterator[str]:
    for claim in claims_file.load():
        if claim.chapter == chapter:
            yield f"{claim.statement} {claim.paper} {claim.tests} {claim.given}"
