"""The rendered book, opened in a browser with the network off.

`LOTTOLAB_HTML` names a rendered folder to look at; without it the sources are rendered.
"""

import base64
import json
import os
import re
import shutil
from pathlib import Path

import pages
import pytest

from lottolab.machine import capacity
from lottolab.pages.site.render import mathjax, render

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.browser
STEMS = sorted(
    p.stem for p in (ROOT / "book").glob("*") if p.suffix in (".md", ".ipynb")
)


@pytest.fixture(scope="session")
def chromium():
    path = capacity.chromium()
    if path is None:
        missing = "no Chromium, Chrome or Edge found (on Debian: apt install chromium)"
        if os.environ.get("CI") == "true":
            pytest.fail(missing)
        pytest.skip(missing)
    return path


@pytest.fixture(scope="session")
def html(tmp_path_factory):
    given = os.environ.get("LOTTOLAB_HTML")
    if given:
        assert (Path(given) / "index.html").is_file(), (
            f"LOTTOLAB_HTML must hold index.html, got {given}"
        )
        return Path(given)
    output = tmp_path_factory.mktemp("the book") / "html"
    return render(ROOT, output, strict=True).parent


@pytest.fixture(scope="session")
def visits(html, chromium):
    return pages.visit(html, chromium)


def test_every_page_is_visited_at_every_size(html, visits):
    assert html / "book" / "intro.html" in [html / page for page in pages.pages(html)]
    opened = [page for page in pages.pages(html) if page.name != "index.html"]
    assert len(visits) == len(opened) * len(pages.SIZES)


def test_no_link_leads_nowhere(html):
    assert pages.links(html) == []


@pytest.mark.parametrize(
    "check",
    [
        pages.console,
        pages.network,
        pages.math,
        pages.overflow,
        pages.cut,
        pages.images,
    ],
    ids=lambda check: check.__name__,
)
def test_pages_have_no_fault(visits, check):
    assert check(visits) == []


def test_in_the_dark_figures_are_turned_over_and_photographs_are_not(html, chromium):
    from playwright.sync_api import sync_playwright

    look = "e => getComputedStyle(e).filter"
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=chromium, args=pages._FLAGS)
        tab = browser.new_page(color_scheme="dark")
        tab.goto((Path(html) / "book/ownership.html").resolve().as_uri())
        plot, codes = (tab.locator(f"#{n} img") for n in ("fig-keys", "fig-codes"))
        dark = [image.evaluate(look) for image in (plot, codes)]
        tab.emulate_media(color_scheme="light")
        light = plot.evaluate(look)
        browser.close()
    assert ["invert" in said for said in dark] == [True, False]
    assert light == "none"


def test_the_pictures_that_stay_as_they_are_are_photographs_and_codes():
    sheet = (ROOT / "book/_static/custom.css").read_text(encoding="utf-8")
    drawn = {}
    for path in (ROOT / "book").glob("*.ipynb"):
        for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
            figure = cell["metadata"].get("mystnb", {}).get("figure", {})
            drawn[figure.get("name")] = "".join(cell["source"])
    shows = r"plots\.samples|contact_sheet|figures\.(codes|modules|examples)\("
    stay = {name for name, code in drawn.items() if re.search(shows, code)}
    assert stay
    assert stay == set(re.findall(r"#(fig-[a-z-]+)", sheet))


@pytest.mark.long
@pytest.mark.parametrize("size", pages.SIZES)
@pytest.mark.parametrize("page", STEMS)
def test_every_page_is_accessible(html, chromium, page, size):
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    assert pages.accessible(html, chromium, [page], [size]) == []


INACCESSIBLE = [
    ("<img src='dot.png'>", "image-alt", "light"),
    ("<button></button>", "button-name", "light"),
    ("<p style='color: #999; background: #fff'>words</p>", "color-contrast", "light"),
    ("<input>", "label", "light"),
    (
        "<style>@media (prefers-color-scheme: dark) {p {color: #999}}</style>"
        "<p>words</p>",
        "color-contrast",
        "dark",
    ),
]


@pytest.mark.long
def test_what_is_not_accessible_is_found(tmp_path, chromium):
    pytest.importorskip("axe_playwright_python", reason="axe-core is not installed")
    good = "<main><h1>a</h1><p>b</p></main>"
    bodies = {f"page{i}": body for i, (body, _, _) in enumerate(INACCESSIBLE)}
    folder = site(tmp_path, {"good": good, **bodies})
    for path in folder.glob("*.html"):
        text = path.read_text(encoding="utf-8")
        path.write_text(text.replace("<meta", "<html lang=en><meta", 1), "utf-8")
    faults = pages.accessible(folder, chromium)
    for i, (_, rule, scheme) in enumerate(INACCESSIBLE):
        for size in pages.SIZES:
            place = f"page{i}.html on {size}, {scheme}: {rule}:"
            assert any(fault.startswith(place) for fault in faults), place
    assert not [fault for fault in faults if fault.startswith("good")]


# Every checker must be able to find what it looks for. A page a fault, and one without.

DOT = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
GOOD = """
<main><h1 id="top">Good</h1><p>It costs 5 dollars. <code>\\( x \\)</code></p>
<script defer src="tex-svg.js"></script><span class="math">\\(x\\)</span>
<a href="good.html#top">up</a> <a href="https://example.org/">out</a>
<img src="dot.png" alt="a dot"><pre style="overflow-x: auto">WIDE</pre></main>
""".replace("WIDE", "x" * 400)
MATHJAX = "<script defer src='tex-svg.js'></script>"
SCROLLER = '<main style="overflow-x: auto"><div style="width: 3000px">a</div></main>'
HIDDEN = '<div style="overflow: hidden"><table style="width: 3000px"></table></div>'
BROKEN = [
    (pages.console, "<script>console.error('ouch')</script>", "ouch"),
    (pages.console, "<script>undefinedFunction()</script>", "undefinedFunction"),
    (pages.network, "<img src='https://example.org/a.png'>", "example.org/a.png"),
    (pages.network, "<script>fetch('http://10.0.0.1/x')</script>", "10.0.0.1"),
    (pages.math, r"<p>\( x \)</p>", "raw mathematics"),
    (pages.math, r"<p>\[ x \]</p>", "raw mathematics"),
    (pages.math, "<p>$$ x $$</p>", "raw mathematics"),
    (pages.math, "<p>$x_1$</p>", "raw mathematics"),
    (pages.math, r"<span class='math'>\(x\)</span>", "not rendered"),
    (pages.math, MATHJAX + r"<b class='math'>\(\nosuch\)</b>", "unknown command"),
    (pages.math, MATHJAX + r"<b class='math'>\(\frac{1}\)</b>", "with an error"),
    (pages.math, "<mjx-container>x</mjx-container>", "0 formulas but 1 rendered"),
    (pages.overflow, "<div style='width: 3000px'>a</div>", "px wide in a window of"),
    (pages.overflow, SCROLLER, "scrolls sideways"),
    (pages.cut, f"<pre style='overflow-x: hidden'>{'x' * 400}</pre>", "leaves its box"),
    (
        pages.cut,
        f"<pre style='overflow-x: visible'>{'x' * 400}</pre>",
        "leaves its box",
    ),
    (pages.cut, HIDDEN, "is cut off by div"),
    (pages.cut, "<table style='width: 3000px'></table>", "leaves the window"),
    (pages.images, "<img src='gone.png' alt='a'>", "not shown"),
    (pages.images, "<img src='dot.png' alt=' '>", "alternative text"),
    (pages.images, "<img src='dot.png'>", "alternative text"),
]
LOST = [
    ("<a href='gone.html'>a</a>", "no such file"),
    ("<img src='gone.png' alt='a'>", "no such file"),
    ("<a href='good.html#gone'>a</a>", "no such place"),
    ("<a href='#gone'>a</a>", "no such place"),
    ("<a href='../outside.html'>a</a>", "no such file"),
    ("<a href='/etc/passwd'>a</a>", "is absolute"),
    ("<script src='https://example.org/x.js'></script>", "needs a network"),
    ("<script src='//example.org/x.js'></script>", "needs a network"),
    ("<meta http-equiv='refresh' content='0; url=gone.html'>", "no such file"),
]


def site(folder: Path, bodies: dict[str, str]) -> Path:
    (folder / "dot.png").write_bytes(DOT)
    for name, body in bodies.items():
        page = f"<!doctype html><meta charset=utf-8><title>a</title>{body}"
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def broken(tmp_path_factory, chromium):
    bodies = {f"page{i:02}": body for i, (_, body, _) in enumerate(BROKEN)}
    folder = site(tmp_path_factory.mktemp("broken"), {"good": GOOD, **bodies})
    shutil.copy(mathjax()[0], folder)
    seen: dict[str, list[pages.Visit]] = {}
    for one in pages.visit(folder, chromium):
        seen.setdefault(one.where.split(".")[0], []).append(one)
    return seen


@pytest.mark.parametrize("case", range(len(BROKEN)))
def test_a_fault_is_found_at_both_sizes(broken, case):
    check, _, expected = BROKEN[case]
    faults = check(broken[f"page{case:02}"])
    assert len([fault for fault in faults if expected in fault]) == len(pages.SIZES)


CHECKS = list(dict.fromkeys(check for check, _, _ in BROKEN))


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_a_good_page_has_no_fault(broken, check):
    assert check(broken["good"]) == []


@pytest.mark.parametrize(("body", "expected"), LOST)
def test_a_link_that_leads_nowhere_is_found(tmp_path, body, expected):
    (tmp_path.parent / "outside.html").write_text("", encoding="utf-8")
    folder = site(tmp_path, {"good": GOOD, "bad": body})
    (folder / "tex-svg.js").touch()
    (fault,) = pages.links(folder)
    assert fault.startswith("bad.html")
    assert expected in fault
