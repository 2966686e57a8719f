"""Fold what is exhaustive: a section "Details: …" of a page opens when it is asked.

A Sphinx extension. A chapter's main path is what is left when these sections are
closed; in a notebook they are sections like any other. In their place a page says how
much there is to unfold.
"""

from docutils import nodes
from sphinx.application import Sphinx
from sphinx.transforms.post_transforms import SphinxPostTransform

MARK = "Details: "  # how a section's title begins that is folded


def fold(document: nodes.document) -> None:
    """Put the body of each such section into an HTML `details`, in place."""
    for section in list(document.findall(nodes.section)):
        if not section[0].astext().startswith(MARK):
            continue
        head, *body = section.children
        start = f'<details class="fold"><summary>Unfold: {holds(body)}</summary>'
        ends = [nodes.raw("", html, format="html") for html in (start, "</details>")]
        section.children = []
        section += [head, ends[0], *body, ends[1]]


def holds(body: list[nodes.Node]) -> str:
    """Say what a section holds, in a few words."""
    texts = [text for part in body for text in _all(part, "paragraph")]
    texts = [text for text in texts if not isinstance(text.parent, nodes.entry)]
    words = sum(len(text.astext().split()) for text in texts)
    counts = {
        "figure": sum(len(list(_all(part, "figure"))) for part in body),
        "table": sum(len(list(_all(part, "table"))) + _frames(part) for part in body),
    }
    told = [f"{n} {name}{'s' * (n > 1)}" for name, n in counts.items() if n]
    return ", ".join([*told, f"{words:,} words"])


def _all(part: nodes.Node, name: str):
    return part.findall(getattr(nodes, name))


def _frames(part: nodes.Node) -> int:
    """Count the tables that a notebook's cells show, which are raw HTML."""
    return sum("<table" in raw.astext() for raw in part.findall(nodes.raw))


class Fold(SphinxPostTransform):
    """Fold a page's sections when it is written as HTML."""

    default_priority = 900
    formats = ("html",)

    def run(self, **_) -> None:
        fold(self.document)


def setup(app: Sphinx) -> dict:
    """Register the transform; called by Sphinx."""
    app.add_post_transform(Fold)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
