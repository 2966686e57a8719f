"""Figures that a reader moves in the page, without a kernel and from a file.

What is made here is a committed PNG, which stands without scripts and on paper, a table
that unfolds, and all states of the figure as JSON within the cell's HTML.
`book/_static/moving.js` draws them: it chooses and formats numbers, and computes none.
On a `Grid` of modules it counts what a reader flipped, and chooses by the counts.

A figure has *controls*, each with a list of options. Whatever changes with some of them
is `by` their names: a list for each option of the first one, in it one for each of the
second, and so on. `parts` has what a figure is made of.
"""

import html
import json

import matplotlib.pyplot as plt
import numpy as np
from IPython.display import HTML, display
from matplotlib.figure import Figure

from lottolab.checks import one_of
from lottolab.pages import show
from lottolab.pages.moving.checking import FORMS, checked
from lottolab.pages.moving.parts import (
    Bars,
    By,
    Control,
    Grid,
    Moving,
    Plot,
    Readout,
    Series,
)

__all__ = ["Bars", "By", "Control", "Grid", "Moving", "Plot", "Readout", "Series"]
__all__ += ["checked", "markup", "shown", "text"]


def text(form: str, value) -> str:
    """Return a readout's cell as the page formats it.

    >>> text("percent", [0.1934, 0.0052, 0.2]), text("number", 0.5)
    ('19.3 % (0.52 to 20.0 %)', '0.50')
    """
    one_of("the form of a row", form, FORMS)
    if value is None or isinstance(value, str):
        return value or "–"
    middle, *ends = [_told(form, v) for v in np.atleast_1d(value)]
    unit = " %" if form == "percent" else ""
    between = f" ({' to '.join(ends)}{unit})" if ends else ""
    return f"{middle}{unit}{between}"


def _told(form: str, value: float) -> str:
    if form == "number":
        return f"{value:.2f}"
    value = 100 * value
    return f"{value:.{2 if value and abs(value) < 0.995 else 1}f}"


def shown(moving: Moving, still: Figure) -> HTML:
    """Show the still figure, and return what the page needs to move it.

    In a chapter these are two cells, `states = …` with the figure's caption and then
    `states`: each output of a cell with a caption would be a figure of that name.
    Raises ValueError as `checked` does.
    """
    found = markup(moving)
    display(still)
    plt.close(still)
    return HTML(found)


def markup(moving: Moving) -> str:
    """Return the HTML beside the figure: the folded table and the figure's states."""
    told = json.dumps(checked(moving), ensure_ascii=False, separators=(",", ":"))
    told = told.replace("<", "\\u003c")  # nothing in it can end the element
    table = show.table(moving.table, **moving.formats).data
    name = html.escape(moving.name)
    return (
        f'<div class="moving" data-figure="{name}">'
        f"<details><summary>Numbers of this figure</summary>{table}</details>"
        f'<script type="application/json">{told}</script></div>'
    )
