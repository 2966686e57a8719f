"""The book as one PDF: links lead within it, and it is written whole or not at all."""

import re
from pathlib import Path

import pytest
from bs4 import BeautifulSoup

from lottolab.pages.site import browser, printed
from lottolab.reruns import commands

NAV = '<nav><a href="#">A</a><a href="one.html">1</a><a href="two.html">2</a></nav>'
INTRO = """<article><h1 id="top">The book<a class="headerlink" href="#top">#</a></h1>
<a href="one.html#there">see</a><a href="two.html">all</a></article>"""
ONE = """<article><h1>First</h1><p id="there">There</p><a href="#there">up</a>
<details><summary>s</summary>folded</details><script>0</script>
<a href="https://example.org/">out</a>
<a href="../_static/a.csv">rows</a></article>"""
TWO = """<article><h1>Second</h1><p id="there">Other</p><button>copy</button>
<div class="catalogue"><details><summary>r</summary>row</details></div></article>"""
PAGES = {"intro": INTRO, "one": ONE, "two": TWO}


@pytest.fixture
def html(tmp_path):
    folder = tmp_path / "html" / "book"
    folder.mkdir(parents=True)
    for name, body in PAGES.items():
        text = f'<head><link rel="stylesheet" href="a.css"></head>{NAV}{body}'
        (folder / f"{name}.html").write_text(text, encoding="utf-8")
    return folder.parent


def test_the_pages_stand_in_one_in_the_order_of_the_contents(html):
    page = BeautifulSoup(printed.joined(html), "html.parser")
    ids = [section["id"] for section in page.select("section.page")]
    assert ids == ["intro--", "one--", "two--"]
    assert [li.text for li in page.select("ul > li")] == ["The book", "First", "Second"]
    assert len(page.select("head link")) == 1  # that all pages share
    assert page.find(["script", "button", "nav"]) is None


def test_every_link_leads_within_the_page_or_out_of_the_book(html):
    page = BeautifulSoup(printed.joined(html), "html.parser")
    ids = [tag["id"] for tag in page.select("[id]")]
    assert len(ids) == len(set(ids))
    links = {a.text: a.get("href") for a in page.select("section.page a")}
    assert links.pop("out") == "https://example.org/"
    assert links.pop("rows") is None
    assert links == {"see": "#one--there", "all": "#two--", "up": "#one--there"}
    assert {link[1:] for link in links.values()} <= set(ids)


def test_what_folds_is_unfolded_but_for_the_rows_of_a_catalogue(html):
    page = BeautifulSoup(printed.joined(html), "html.parser")
    opened = {tag.summary.text: tag.has_attr("open") for tag in page.select("details")}
    assert opened == {"s": True, "r": False}


def test_without_a_browser_nothing_is_rendered_and_the_reason_is_a_line(monkeypatch):
    monkeypatch.setattr(browser, "chromium", lambda: None)
    monkeypatch.setattr(commands, "_render", lambda *_: pytest.fail("rendered"))
    with pytest.raises(RuntimeError, match="apt install chromium") as caught:
        commands.render(pdf=True)
    assert "\n" not in str(caught.value)


def test_without_a_driver_the_reason_is_a_line(monkeypatch):
    monkeypatch.setattr(browser, "chromium", lambda: "chromium")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(RuntimeError, match="pip install 'playwright"):
        printed.browser_that_prints()


def test_a_browser_that_fails_leaves_the_earlier_pdf_and_nothing_else(html, tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed")
    target = tmp_path / "book.pdf"
    target.write_bytes(b"earlier")
    before = sorted(html.rglob("*"))
    with pytest.raises(RuntimeError, match="the PDF was not printed: "):
        printed.write(html, target, str(tmp_path / "no such browser"))
    assert target.read_bytes() == b"earlier"
    assert sorted(html.rglob("*")) == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["book.pdf", "html"]


@pytest.mark.browser
def test_the_pdf_has_every_page(html, tmp_path):
    pytest.importorskip("playwright", reason="playwright is not installed")
    if (path := browser.chromium()) is None:
        pytest.skip("no Chromium, Chrome or Edge found")
    before = sorted(html.rglob("*"))
    done = printed.write(html, tmp_path / "book.pdf", path)
    bytes_ = Path(done).read_bytes()
    assert bytes_.startswith(b"%PDF-")
    assert bytes_.rstrip().endswith(b"%%EOF")
    assert len(re.findall(rb"/Type\s*/Page\b", bytes_)) == 4  # contents, and three
    assert sorted(html.rglob("*")) == before
