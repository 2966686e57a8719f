"""Numbers that are typed into prose, held against what their page shows.

A rerun changes tables and figures, and leaves sentences. `typed` finds the numbers in
these, `sources` those that a page shows; `adrift` is what is left over.
"""

from pathlib import Path

import nbformat

from lottolab.pages.prose import sources, typed


def adrift(path: Path) -> list[typed.Typed]:
    """Return the numbers in a page's prose that no output of the page contains."""
    shown = sources.of_page(path)
    cells = nbformat.read(path, as_version=4).cells
    texts = [cell.source for cell in cells if cell.cell_type == "markdown"]
    found = [number for text in texts for number in typed.numbers(text)]
    return [number for number in found if not shown.holds(number)]
