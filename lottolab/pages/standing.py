"""Which measurements stand for a chapter at a scale, and what is read beside them."""

from collections.abc import Iterable

import pandas as pd

from lottolab.truth import results


def measured(scale: str, chapters: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return the results that stand for each chapter at a scale, where there are."""
    found = {name: results.read(name, results.shown(name, scale)) for name in chapters}
    return {name: table for name, table in found.items() if table is not None}


def beside(scale: str, chapters: Iterable[str]) -> dict[str, pd.DataFrame]:
    """Return what was measured at the scale that is read, for chapters of which a
    committed table of another scale is judged: claims may be younger than that one.

    A run that goes on, and the scale itself, have nothing beside them.
    """
    found = {}
    for chapter in chapters:
        read, at = (results.shown(chapter, s) for s in (results.EDITION, scale))
        path = results.find(chapter, at)
        if path and read != at and results.COMMITTED in path.parents:
            found[chapter] = results.read(chapter, read)
    return {name: table for name, table in found.items() if table is not None}
