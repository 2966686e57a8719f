"""A table whose rows unfold, which a reader filters, searches and sorts in the page.

What is made here is plain HTML: without scripts all rows stand there, and each unfolds.
`book/_static/catalogue.js` adds the controls. It takes from the table's attributes what
rows are called, and from each row the group and the states that it is filtered by.
"""

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from IPython.display import HTML


@dataclass(frozen=True)
class State:
    """Hold a word such as a verdict, where it leads ("" for nowhere), and what it may
    be found by beside it: `tags`, separated by ", "."""

    word: str
    link: str = ""
    tags: str = ""


@dataclass(frozen=True)
class Row:
    """Hold one row: what is seen of it, and what it unfolds.

    `name` is its anchor and `group` a text such as a chapter's, to which `link` leads,
    if given. `states` are those in the table's columns, where there is one. `more` are
    headings, each with terms and texts.
    """

    name: str
    group: str
    says: str
    states: Mapping[str, State]
    more: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    link: str = ""


def table(
    rows: Sequence[Row],
    where: Sequence[str],
    *,
    noun: str,
    group: str,
    state: str,
    tag: str,
) -> HTML:
    """Show rows in a table with a column for each place `where` they have a state.

    Args:
        where: the columns behind the first two, such as scales.
        noun: what rows are called, in the plural.
        group: what the first column is called.
        state: what a state is called, such as a verdict.
        tag: what a state's tags are called, such as data sets.
    """
    names = [group, noun, *where]
    told = {"noun": noun, "group": group, "state": state, "tag": tag}
    given = "".join(f' data-{k}="{html.escape(v)}"' for k, v in told.items())
    head = "".join(f'<th role="columnheader">{html.escape(n)}</th>' for n in names)
    body = "\n".join(_row(row, where) for row in rows)
    return HTML(
        f'<div class="catalogue"{given}><table class="dataframe" role="table">\n'
        f'<thead role="rowgroup"><tr role="row">{head}</tr></thead>\n'
        f'<tbody role="rowgroup">\n{body}\n</tbody></table></div>'
    )


def _row(row: Row, where: Sequence[str]) -> str:
    group, says = html.escape(row.group), html.escape(row.says)
    if row.link:
        group = f'<a href="{html.escape(row.link)}">{group}</a>'
    more = "".join(_part(title, terms) for title, terms in row.more.items())
    if more:
        says = f"<details><summary>{says}</summary>{more}</details>"
    cells = [f'<td role="cell" class="group">{group}</td>']
    cells.append(f'<td role="cell" class="says">{says}</td>')
    cells += [_state(place, row.states.get(place, State(""))) for place in where]
    name, of = html.escape(row.name), html.escape(row.group)
    return f'<tr role="row" id="{name}" data-group="{of}">{"".join(cells)}</tr>'


def _state(place: str, state: State) -> str:
    shown = html.escape(state.word)
    if state.link:
        shown = f'<a href="{html.escape(state.link)}">{shown}</a>'
    told = {"where": place, "state": state.word, "tags": state.tags}
    given = "".join(f' data-{k}="{html.escape(v)}"' for k, v in told.items())
    return f'<td role="cell" class="state"{given}>{shown}</td>'


def _part(title: str, terms: Mapping[str, str]) -> str:
    """Return a heading, if there is one, and its terms; empty texts are left out."""
    told = {term: text for term, text in terms.items() if text}
    items = "".join(
        f"<dt>{html.escape(term)}</dt><dd>{html.escape(text)}</dd>"
        for term, text in told.items()
    )
    head = f'<p class="part">{html.escape(title)}</p>' if title else ""
    return f"{head}<dl>{items}</dl>" if items else head
