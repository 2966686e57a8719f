"""Sections that are marked are folded; the others, and all that they hold, stay."""

import pytest
from bs4 import BeautifulSoup
from docutils.core import publish_doctree, publish_from_doctree

from lottolab.pages.site import folds

PAGE = """
Title
=====

Question
--------

A plain section of seven words, here.

Details: every score
--------------------

Two words.

=====  =====
one    two
=====  =====
1      2
=====  =====

.. figure:: a.png

   Four words of caption.

.. raw:: html

   <table class="dataframe"></table>

Deeper
......

Still inside.

Recap
-----

Outside again.
"""


@pytest.fixture
def page():
    tree = publish_doctree(PAGE)
    folds.fold(tree)
    html = publish_from_doctree(tree, writer_name="html5").decode()
    return BeautifulSoup(html, "html.parser")


def test_a_marked_section_is_closed_below_its_title(page):
    (folded,) = page.find_all("details")
    assert folded.parent.find("h2").text == "Details: every score"
    assert folded.find_previous_sibling().name == "h2"
    assert not folded.has_attr("open")
    inside = folded.text
    for words in ("Two words.", "Four words of caption.", "Still inside."):
        assert words in inside
    for words in ("A plain section", "Outside again."):
        assert words in page.text
        assert words not in inside


def test_it_says_what_it_holds(page):
    said = page.find("summary").text
    assert said == "Unfold: 1 figure, 2 tables, 4 words"


def test_nothing_is_lost_and_nothing_else_is_touched(page):
    plain = BeautifulSoup(
        publish_from_doctree(publish_doctree(PAGE), writer_name="html5").decode(),
        "html.parser",
    )
    page.find("summary").decompose()
    page.find("details").unwrap()
    assert page.text.split() == plain.text.split()
    assert [t.name for t in page.find_all()] == [t.name for t in plain.find_all()]
