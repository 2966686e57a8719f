"""Give the works of a bibliography a role that is still in use.

A Sphinx extension. docutils writes each work as `doc-biblioentry` within a list, a
role that DPUB-ARIA 1.1 deprecates in favour of `listitem`, and axe-core finds fault
with.
"""

from docutils import nodes
from sphinx.application import Sphinx

DEPRECATED, PRESENT = 'role="doc-biblioentry"', 'role="listitem"'


def visit(translator, work: nodes.citation) -> None:
    """Open a work as the translator's class does, with the present role."""
    type(translator).visit_citation(translator, work)
    translator.body[-1] = translator.body[-1].replace(DEPRECATED, PRESENT)


def depart(translator, work: nodes.citation) -> None:
    """Close it as the translator's class does."""
    type(translator).depart_citation(translator, work)


def setup(app: Sphinx) -> dict:
    """Register the two; called by Sphinx."""
    app.add_node(nodes.citation, override=True, html=(visit, depart))
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
