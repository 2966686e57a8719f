"""Look for faults in rendered pages. Each checker returns a list of faults.

What is too wide for the window may scroll in a box of its own (a `pre`, a formula, a
table's container, a cell's output), never with the page, and is never cut off.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
LOCAL = ("file:", "data:", "blob:", "about:")

PATIENCE = 300_000  # milliseconds, on a machine that is busy
_FLAGS = [
    "--no-sandbox",  # root in a container; only our own files are opened
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--host-resolver-rules=MAP * ~NOTFOUND",
]

_WCAG = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa"]
SCHEMES = {
    "light": {"runOnly": {"type": "tag", "values": _WCAG}},
    "dark": {"runOnly": {"type": "rule", "values": ["color-contrast"]}},
}
OUTSIDE = {"exclude": [["mjx-container"]]}
VIOLATIONS = {"resultTypes": ["violations"]}

_LOOK = Path(__file__).with_suffix(".js").read_text(encoding="utf-8")


@dataclass(frozen=True)
class Visit:
    """What a browser saw on one page at one size."""

    where: str
    console: list[str]
    requests: list[str]
    seen: dict[str, list[str]]


def pages(root: Path) -> list[Path]:
    """List the pages of a rendered book, the theme's own fragments left out."""
    every = (page.relative_to(root) for page in sorted(root.rglob("*.html")))
    return [page for page in every if page.parts[0] not in ("_static", "_sources")]


def visit(root: Path, browser_path: str) -> list[Visit]:
    """Open every page at every size with no network and write down what happens."""
    from playwright.sync_api import sync_playwright

    todo = [page for page in pages(root) if not _Page.of(root / page).redirects]
    visits = []
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=browser_path, args=_FLAGS)
        for size, (width, height) in SIZES.items():
            context = browser.new_context(viewport={"width": width, "height": height})
            context.set_offline(True)  # the files of the book stay within reach
            tab = context.new_page()
            console: list[str] = []
            requests: list[str] = []
            _listen(tab, console, requests)
            for page in todo:
                tab.goto((root / page).resolve().as_uri())
                seen = tab.evaluate(_LOOK)
                where = f"{page.as_posix()} on {size}"
                visits.append(Visit(where, console[:], requests[:], seen))
                console.clear()
                requests.clear()
        browser.close()
    return visits


def accessible(
    root: Path, browser_path: str, only: Sequence[str] = (), sizes: Sequence[str] = ()
) -> list[str]:
    """Violations of WCAG 2.1 A and AA, by axe-core: on every page at every size, or on
    those `only` with these stems and at these `sizes`, light and dark. What does not
    depend on colours is looked for once, and not at all within formulas, which are
    MathJax's and most of a chapter's elements."""
    from axe_playwright_python.sync_playwright import Axe
    from playwright.sync_api import sync_playwright

    axe, faults = Axe(), []
    with sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=browser_path, args=_FLAGS)
        for size in sizes or SIZES:
            width, height = SIZES[size]
            view = {"width": width, "height": height}
            context = browser.new_context(viewport=view, reduced_motion="reduce")
            context.set_offline(True)
            tab = context.new_page()
            for page in pages(root):
                if only and page.stem not in only:
                    continue
                if _Page.of(root / page).redirects:
                    continue
                tab.goto((root / page).resolve().as_uri())
                for scheme, rules in SCHEMES.items():
                    tab.emulate_media(color_scheme=scheme)
                    options = rules | VIOLATIONS
                    found = axe.run(tab, context=OUTSIDE, options=options).response
                    where = f"{page.as_posix()} on {size}, {scheme}"
                    faults += [_violated(where, fault) for fault in found["violations"]]
        browser.close()
    return faults


def _violated(where: str, fault: dict) -> str:
    places = [str(node["target"]) for node in fault["nodes"]]
    told = f"{len(places)} places, such as {', '.join(places[:3])}"
    return f"{where}: {fault['id']}: {fault['help']}: {told}"


def _listen(tab, console: list[str], requests: list[str]) -> None:
    def said(message):
        if message.type == "error":
            console.append(message.text)

    def asked(request):
        if not request.url.startswith(LOCAL):
            requests.append(request.url)

    tab.on("console", said)
    tab.on("pageerror", lambda error: console.append(str(error)))
    tab.on("request", asked)


def console(visits: list[Visit]) -> list[str]:
    """Errors that the page's scripts threw or printed."""
    return [f"{v.where}: {text}" for v in visits for text in v.console]


def network(visits: list[Visit]) -> list[str]:
    """Requests to any host."""
    return [f"{v.where}: asked for {url}" for v in visits for url in v.requests]


def math(visits: list[Visit]) -> list[str]:
    """Formulas that are not rendered, or rendered with an error."""
    return _seen(visits, "math")


def overflow(visits: list[Visit]) -> list[str]:
    """Pages that scroll sideways."""
    return _seen(visits, "overflow")


def cut(visits: list[Visit]) -> list[str]:
    """Code, tables, formulas and images that are cut off or leave their box."""
    return _seen(visits, "cut")


def images(visits: list[Visit]) -> list[str]:
    """Images that do not show, or that say nothing to those who cannot see them."""
    return _seen(visits, "images")


def _seen(visits: list[Visit], kind: str) -> list[str]:
    return [f"{v.where}: {text}" for v in visits for text in v.seen[kind]]


def links(root: Path) -> list[str]:
    """Links and sources that lead nowhere, by the files in the folder alone."""
    parsed = {page: _Page.of(root / page) for page in pages(root)}
    anchors = {(root / page).resolve(): page_.ids for page, page_ in parsed.items()}
    faults = []
    for page, page_ in parsed.items():
        for tag, url in page_.targets:
            fault = _follow(root.resolve(), (root / page).resolve(), tag, url, anchors)
            if fault:
                faults.append(f"{page}: <{tag}> {url}: {fault}")
    return faults


def _follow(root: Path, page: Path, tag: str, url: str, anchors: dict) -> str | None:
    parts = urlsplit(url)
    if parts.scheme in ("http", "https") or parts.netloc:
        return None if tag == "a" else "needs a network"
    if parts.scheme in ("mailto", "data", "javascript"):
        return None
    if parts.scheme or parts.path.startswith("/"):
        return "is absolute"
    path = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    if not path.is_relative_to(root) or not path.is_file():
        return "no such file"
    fragment = unquote(parts.fragment)
    if fragment and path in anchors and fragment not in anchors[path]:
        return "no such place in the page"
    return None


class _Page(HTMLParser):
    """The ids of a page, and what it points at."""

    def __init__(self) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.targets: list[tuple[str, str]] = []
        self.redirects = False

    @classmethod
    def of(cls, path: Path) -> _Page:
        page = cls()
        page.feed(path.read_text(encoding="utf-8"))
        return page

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {key: value or "" for key, value in attrs}
        self.ids.update(given[key] for key in ("id", "name") if key in given)
        for key in ("href", "src", "data", "poster", "action"):
            if given.get(key):
                self.targets.append((tag, given[key]))
        if tag == "meta" and given.get("http-equiv", "").lower() == "refresh":
            self.redirects = True
            url = re.search(r"url=(\S+)", given.get("content", ""), re.IGNORECASE)
            self.targets.append((tag, url[1] if url else "?"))
