"""Print the rendered book as one PDF, by a browser of the Chromium family.

The pages are joined into one that the browser prints, so that links between chapters
lead from page to page of the PDF. What folds is unfolded, but for the rows of tables
that a reader searches (`catalogue`): all of these would be longer than the book.
"""

import importlib.util
import os
import re
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from lottolab.pages.site import browser
from lottolab.runs import files

NO_BROWSER = (
    "a PDF is printed by Chromium, Chrome or Edge, and none is here: on Debian sudo "
    "apt install chromium, elsewhere install Chrome or Edge; or print pages yourself"
)
NO_DRIVER = "a PDF needs the package playwright; do: pip install 'playwright>=1.45,<2'"
LIMIT = 600_000  # milliseconds for the browser, on a machine that is busy
FOOT = (
    '<div style="font-size: 8px; width: 100%; text-align: center">'
    '<span class="pageNumber"></span></div>'
)
STYLE = """
@page { size: A4; }
body { background: #fff; font-size: 10pt; }
section.page { break-before: page; }
section.page pre { font-size: 7pt; white-space: pre-wrap; overflow-wrap: anywhere; }
section.page table { font-size: 7pt !important; min-width: 0 !important; }
section.page :is(td, th) { overflow-wrap: anywhere; min-width: 0 !important; }
section.page :is(div, table) { overflow: visible !important; max-width: 100%; }
section.page td.state { white-space: nowrap; }
section.page img { max-width: 100%; height: auto; }
section.page :is(h1, h2, h3, h4) { break-after: avoid; }
section.page figure, section.page tr { break-inside: avoid; }
"""
_MATH = re.compile(r"mathjax", re.IGNORECASE)
_PARSER = "html.parser"


def browser_that_prints() -> str:
    """Return the path of a browser that prints.

    Raises:
        RuntimeError: there is none, or nothing to drive it, and what to do.
    """
    path = browser.chromium()
    if path is None:
        raise RuntimeError(NO_BROWSER)
    if importlib.util.find_spec("playwright") is None:
        raise RuntimeError(NO_DRIVER)
    return path


def write(html: Path, target: Path, tool: str) -> Path:
    """Print the pages of a rendered book to one PDF, which appears whole or not at all.

    Args:
        html: the folder with `index.html`; nothing in it is changed.
        target: the PDF; replaced if it exists.
        tool: the browser's path.

    Returns:
        The path of the PDF.

    Raises:
        RuntimeError: the browser failed; an earlier PDF is as it was.
    """
    from playwright.sync_api import Error, sync_playwright

    given = {"suffix": ".html", "prefix": ".printed-", "dir": html / "book"}
    with tempfile.NamedTemporaryFile("w", encoding="utf-8", **given) as page:
        page.write(joined(html))
        page.flush()
        with files.replacing(target) as new:
            try:
                with sync_playwright() as driver:
                    _print(driver, tool, Path(page.name), new)
            except Error as error:
                said = str(error).strip().splitlines()[0]
                raise RuntimeError(f"the PDF was not printed: {said}") from error
    return target


def _print(driver, tool: str, page: Path, new: Path) -> None:
    flags = ["--no-sandbox"] if getattr(os, "geteuid", lambda: 1)() == 0 else []
    opened = driver.chromium.launch(executable_path=tool, args=flags, timeout=LIMIT)
    tab = opened.new_context(offline=True, color_scheme="light").new_page()
    tab.set_default_timeout(LIMIT)
    tab.goto(page.as_uri())
    tab.evaluate("window.MathJax?.startup?.promise")
    margin = {"top": "15mm", "bottom": "15mm", "left": "14mm", "right": "14mm"}
    shown = {"format": "A4", "print_background": True, "margin": margin}
    shown |= {"display_header_footer": True, "header_template": "<span></span>"}
    tab.pdf(path=new, outline=True, tagged=True, footer_template=FOOT, **shown)
    opened.close()


def joined(html: Path) -> str:
    """Return the book's pages as one, to lie in the folder `book` of a rendered book.

    Every anchor and every link within the book has its page's name before it.

    Raises:
        ValueError: there are no pages.
    """
    from bs4 import BeautifulSoup

    index = BeautifulSoup((html / "book" / "intro.html").read_text("utf-8"), _PARSER)
    names = list(dict.fromkeys(["intro", *_listed(index)]))
    style, script, body, titles = {}, {}, [], []
    for name in names:
        page = BeautifulSoup(
            (html / "book" / f"{name}.html").read_text("utf-8"), _PARSER
        )
        style |= {str(link): 0 for link in page.select("head link[rel=stylesheet]")}
        found = [s for s in page.select("script") if _MATH.search(str(s))]
        script |= {str(tag): 0 for tag in found}
        article = page.select_one("article")
        if article is None:
            raise ValueError(f"{name}.html has no article: is it a page of the book?")
        titles.append((name, article.h1.get_text().rstrip("#") if article.h1 else name))
        _own(article, name, set(names))
        body.append(f'<section class="page" id="{name}--">{article}</section>')
    lines = [f'<li><a href="#{name}--">{title}</a></li>' for name, title in titles]
    head = f"<meta charset='utf-8'><title>{titles[0][1]}</title>{''.join(style)}"
    return (
        f"<!doctype html><html lang='en' data-theme='light'><head>{head}"
        f"<style>{STYLE}</style>{''.join(script)}</head><body>"
        f"<h1>{titles[0][1]}</h1><ul>{''.join(lines)}</ul>{''.join(body)}</body></html>"
    )


def _listed(index) -> list[str]:
    """Return the pages in the order of the contents at the side."""
    links = index.select("nav a[href]")
    paths = [urlsplit(link["href"]).path for link in links]
    return [
        path.removesuffix(".html") for path in paths if re.fullmatch(r"\w+\.html", path)
    ]


def _own(article, name: str, names: set[str]) -> None:
    """Make a page's article part of the joined one, in place."""
    for tag in article.select("script, form, a.headerlink, button"):
        tag.decompose()
    for tag in article.select("[id]"):
        tag["id"] = f"{name}--{tag['id']}"
    for tag in article.select("details"):
        if not tag.find_parent(class_="catalogue"):
            tag["open"] = ""
    for link in article.select("a[href]"):
        parts = urlsplit(link["href"])
        if parts.scheme or parts.netloc:
            continue
        page = parts.path.removesuffix(".html") or name
        if page in names:
            link["href"] = f"#{page}--{parts.fragment}"
        else:  # a file beside the pages, which a PDF does not have
            del link["href"]
