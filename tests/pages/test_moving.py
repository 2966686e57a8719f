"""Figures that move: what is in the page, and what the script makes of it.

In the browser script and style are the book's own; the page around them is made here.
"""

import base64
import json
import math
import re

import matplotlib.pyplot as plt
import numpy as np
import pages
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lottolab.machine import setup
from lottolab.pages import moving

STATIC = setup.ROOT / "book" / "_static"
STYLES = ("theme.css", "pydata-sphinx-theme.css", "sphinx-book-theme.css")
PIXEL = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAA"
    "AABJRU5ErkJggg=="
)
PAGE = """<!doctype html><html lang=en><meta charset=utf-8><title>a</title>
<meta name=viewport content="width=device-width">{links}
<script>
const dark = matchMedia("(prefers-color-scheme: dark)");
const root = document.documentElement;
const set = () => root.dataset.theme = dark.matches ? "dark" : "light";
dark.addEventListener("change", set); set();
</script><script src=moving.js></script>
<div class=bd-content><main class=bd-article><h1>A page</h1><div class=cell_output>
<figure id=fig-a><img src=a.png alt="A still picture" width=80 height=60>
<figcaption>Caption</figcaption></figure><div class="output text_html">{html}</div>
</div></main></div>"""
RNG = np.random.default_rng(0)
WAYS, STEPS = ["one", "other </script>"], 5
FPR = np.sort(RNG.uniform(0.002, 0.9, (2, STEPS)))
TPR = np.sort(RNG.uniform(0.01, 1.0, (2, STEPS)))
CUTS = np.sort(RNG.normal(size=(2, STEPS)))
SHARES = RNG.dirichlet(np.ones(6), 2)
BARS = RNG.dirichlet(np.ones(3), (2, STEPS))
PLACES = RNG.uniform(0.2, 0.8, (STEPS, 2))  # of marks that a line joins
ENDS = np.stack([PLACES - 0.05, PLACES + 0.1], 2).reshape(STEPS, 4)
STANDING = RNG.uniform(0.1, 0.9, (3, 2))
CHANCE = 0.15


def cells(way: int, step: int) -> list:
    """Return a state's numbers: a rate and its interval, none, a number and a text."""
    rate = TPR[way, step]
    return [[[rate, rate / 2, min(1.0, 2 * rate)], None], [CUTS[way, step], "kept"]]


def plane(**changed) -> moving.Plot:
    """Return a panel of marks, of which those on a line are chosen by `cut`."""
    on = [moving.By([], PLACES[:, side]) for side in (0, 1)]
    moved = [[dot] * 2 for dot in (PLACES, ENDS)]
    parts = {
        part: moving.By(["way", "cut"], v)
        for part, v in zip(("dot", "reach"), moved, strict=True)
    }
    parts |= {"names": moving.By([], [f"step {k}" for k in range(STEPS)])}
    path = moving.Series("path", *on, look=2, kind="joined", **parts | changed)
    beside = [moving.By([], STANDING[:, side]) for side in (0, 1)]
    names = moving.By([], ["a", "b", "<c>"])
    rest = moving.Series("rest", *beside, look=5, kind="points", names=names)
    x, y = (("x (%)", "linear", 0.0, 1.0), ("y (%)", "linear", 0.0, 1.0))
    return moving.Plot("Plane", [path, rest], x, y, level=CHANCE)


def made(**changed) -> moving.Moving:
    by, both = ["way"], ["way", "cut"]
    edges = moving.By([], np.linspace(-3, 3, 7))
    steps = moving.Series("s", edges, moving.By([], SHARES[0]), kind="steps")
    dots = np.stack([FPR, TPR], 2)
    curve = moving.Series(
        "roc", moving.By(by, FPR), moving.By(by, TPR), moving.By(both, dots), look=1
    )
    log = ("accused (%)", "log", 0.001, 1.0)
    plots = [
        moving.Plot(
            "Scores",
            [steps],
            ("score", "linear", -3.0, 3.0),
            ("share (%)", "linear", 0.0, 1.0),
            moving.By(both, CUTS),
        ),
        moving.Plot(
            "ROC", [curve], log, ("found (%)", "log", 0.001, 1.0), diagonal=True
        ),
        moving.Bars(
            "Bars",
            moving.By(by, [["a", "b", "c"]] * 2),
            {"exact": moving.By(both, BARS)},
        ),
        plane(),
    ]
    options = [[f"{c:.2f}" for c in row] for row in CUTS]
    controls = [
        moving.Control("way", WAYS, slider=False),
        moving.Control("cut", options, 2, by="way"),
    ]
    numbers = moving.By(both, [[cells(w, s) for s in range(STEPS)] for w in range(2)])
    says = "{way}, {cut}: {rate|here} found."
    readout = moving.Readout(
        {"rate": "percent", "x": "number"}, ["here", "there"], numbers, says
    )
    table = pd.DataFrame({"way": WAYS, "auc": [0.25, 0.5]})
    parts = {"controls": controls, "panels": plots, "readout": readout}
    return moving.Moving("fig-a", **parts | changed, table=table)


def shown(rate: float) -> str:
    """Format a rate anew, from what the page's rule says and not by its code."""
    digits = 2 if 0 < 100 * rate < 0.995 else 1
    return f"{round(100 * rate, digits):.{digits}f}"


# ------------------------------------------------------------------ in the page


def test_the_page_holds_every_number_and_a_table_that_unfolds():
    page = BeautifulSoup(moving.markup(made()), "html.parser")
    box = page.find("div", class_="moving")
    assert box["data-figure"] == "fig-a"
    told = json.loads(box.find("script", type="application/json").string)
    cut, roc, bars, plane = told["panels"]
    np.testing.assert_allclose(cut["cut"]["values"], CUTS, rtol=1e-3)
    np.testing.assert_allclose(roc["series"][0]["y"]["values"], TPR, rtol=1e-3)
    np.testing.assert_allclose(bars["series"]["exact"]["values"], BARS, rtol=1e-3)
    np.testing.assert_allclose(plane["series"][0]["reach"]["values"][1], ENDS, 1e-3)
    rates = [
        [state[0][0] for state in way] for way in told["readout"]["cells"]["values"]
    ]
    np.testing.assert_allclose(np.array(rates)[..., 0], TPR, rtol=1e-4)
    assert [c["count"] for c in told["controls"]] == [2, STEPS]
    assert not box.find("details").has_attr("open")
    assert [td.text for td in box.find_all("td")] == ["one", "0.25", WAYS[1], "0.50"]
    assert len(page.find_all("script")) == 1  # no text of it ends the element


def test_the_still_figure_comes_first_and_is_closed(monkeypatch):
    seen, still = [], plt.figure()
    monkeypatch.setattr(moving, "display", seen.append)
    assert 'class="moving"' in moving.shown(made(), still).data
    assert seen == [still]
    assert not plt.fignum_exists(still.number)


def test_texts_are_those_of_the_page():
    assert moving.text("percent", [0.5, 0.001, 1]) == "50.0 % (0.10 to 100.0 %)"
    assert moving.text("percent", 0.0) == "0.0 %"
    assert moving.text("number", [1.005, -2, 3]) == "1.00 (-2.00 to 3.00)"
    assert moving.text("number", None) == "–"
    assert moving.text("percent", "kept") == "kept"


WRONG = {
    "2 values by way": {"panels": [moving.Bars("b", moving.By(["way"], [["a"]]), {})]},
    "a control must be one of way, cut": {
        "panels": [moving.Bars("b", moving.By(["ways"], [["a"]]), {})]
    },
    "must be 1 bars": {
        "panels": [
            moving.Bars("b", moving.By([], ["a"]), {"s": moving.By([], [0.1, 0.2])})
        ]
    },
    "must be finite": {
        "panels": [
            moving.Bars("b", moving.By([], ["a"]), {"s": moving.By([], [math.nan])})
        ]
    },
    "start of way must be in": {"controls": [moving.Control("way", ["a"], 1)]},
    "controls must differ": {"controls": [moving.Control("way", ["a"])] * 2},
    "form of a row": {
        "readout": moving.Readout({"r": "per cent"}, [], moving.By([], [[]]), "")
    },
    "rows × columns": {
        "readout": moving.Readout({"r": "number"}, ["c"], moving.By([], [[]]), "")
    },
    "what a readout says": {
        "readout": moving.Readout(
            {"r": "number"}, ["c"], moving.By([], [[1.0]]), "{r|d}"
        )
    },
}


@pytest.mark.parametrize("told", WRONG)
def test_what_does_not_fit_is_refused(told):
    with pytest.raises(ValueError, match=told):
        moving.checked(made(**WRONG[told]))


@pytest.mark.parametrize(
    ("told", "changed"),
    {
        "a scale": {"xs": ("x", "logarithm", 0.1, 1.0)},
        "kind of a series": {"series": [("lines", 2, 2, 0)]},
        "x and y must fit": {"series": [("line", 3, 2, 0)]},
        "look must be": {"series": [("line", 2, 2, 6)]},
    }.items(),
)
def test_lines_that_do_not_fit_are_refused(told, changed):
    line = [("line", 2, 2, 0)]
    parts = {"xs": ("x", "linear", 0.1, 1.0), "series": line} | changed
    series = [
        moving.Series(
            "s", moving.By([], range(x)), moving.By([], range(y)), None, look, k
        )
        for k, x, y, look in parts["series"]
    ]
    plot = moving.Plot("p", series, parts["xs"], ("y", "linear", 0.0, 1.0))
    with pytest.raises(ValueError, match=told):
        moving.checked(made(panels=[plot]))


@pytest.mark.parametrize(
    ("told", "changed"),
    {
        "must be 5 names": {"names": moving.By([], ["one"])},
        "reach 4: wanted 4": {"reach": moving.By([], [0.1, 0.2])},
        "reach 4: wanted 2": {"dot": moving.By([], [0.1, 0.2, 0.3])},
        "values by cut": {"reach": moving.By(["cut"], ENDS[:2])},
    }.items(),
)
def test_marks_that_do_not_fit_are_refused(told, changed):
    with pytest.raises(ValueError, match=told):
        moving.checked(made(panels=[plane(**changed)]))


# --------------------------------------------------------------- in the browser


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Write a page with the book's style, and the theme's where it is installed."""
    root, names = tmp_path_factory.mktemp("moving"), []
    for module in ("pydata_sphinx_theme", "sphinx_book_theme"):
        try:
            home = next(iter(__import__(module).__path__))
        except ImportError:
            continue
        for path in sorted(type(STATIC)(home).glob("theme/*/static/styles/*.css")):
            if path.name in STYLES:
                names.append(f"{module}-{path.name}")
                (root / names[-1]).write_bytes(path.read_bytes())
    for name in ("moving.js", "moving.css", "custom.css"):
        (root / name).write_bytes((STATIC / name).read_bytes())
    (root / "a.png").write_bytes(PIXEL)
    for name, figure in {"page": made(), "grid": board()}.items():
        styles = [*names, "custom.css", "moving.css"]
        links = "".join(f"<link rel=stylesheet href={style}>" for style in styles)
        text = PAGE.replace("{links}", links).replace("{html}", moving.markup(figure))
        (root / f"{name}.html").write_text(text, encoding="utf-8")
    return root


def opened(browser, path):
    """Open a page, and see at its end that no script failed."""
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.set_default_timeout(pages.PATIENCE)
    faults = []
    page.on("pageerror", lambda error: faults.append(error))
    page.goto(path.as_uri())
    yield page
    context.close()
    assert faults == []


@pytest.fixture
def tab(browser, folder):
    yield from opened(browser, folder / "page.html")


def read(tab) -> list[list[str]]:
    rows = tab.locator(".moving-numbers tbody tr")
    texts = "rs => rs.map(r => [...r.cells].map(c => c.textContent))"
    return [[plain(cell) for cell in row] for row in rows.evaluate_all(texts)]


def plain(text: str) -> str:
    """Return a text with spaces at which a line may break, too."""
    return text.replace("\u00a0", " ")


def wanted(way: int, step: int) -> list[list[str]]:
    (rate, low, high), _ = cells(way, step)[0]
    first = f"{shown(rate)} % ({shown(low)} to {shown(high)} %)"
    return [["rate", first, "–"], ["x", f"{CUTS[way, step]:.2f}", "kept"]]


@pytest.mark.browser
def test_every_state_shows_its_own_numbers_by_the_keyboard(tab):
    assert read(tab) == wanted(0, 2)
    slider = tab.get_by_role("slider", name="cut")
    slider.focus()
    tab.keyboard.press("Home")
    for way in range(2):
        for step in range(STEPS):
            assert read(tab) == wanted(way, step)
            assert slider.get_attribute("aria-valuetext") == f"{CUTS[way, step]:.2f}"
            tab.keyboard.press("ArrowRight")
        tab.keyboard.press("Home")
        tab.get_by_role("combobox", name="way").focus()
        tab.keyboard.press("ArrowDown")
        slider.focus()
    assert (
        tab.get_by_role("combobox").evaluate("e => e.selectedOptions[0].text")
        == WAYS[1]
    )


@pytest.mark.browser
def test_a_sentence_is_read_aloud_once_the_slider_stops(tab):
    status = tab.get_by_role("status")
    assert (
        plain(status.inner_text())
        == f"one, {CUTS[0, 2]:.2f}: {shown(TPR[0, 2])} % found."
    )
    tab.get_by_role("slider").focus()
    tab.keyboard.press("End")
    said = f"one, {CUTS[0, -1]:.2f}: {shown(TPR[0, -1])} % found."
    tab.get_by_text(said).wait_for()
    assert plain(status.inner_text()) == said


def ticks(tab, panel: int, anchor: str, axis: str) -> dict[float, float]:
    """Return where on an axis its labels stand; a label is in percent."""
    texts = tab.locator(f".moving-panel >> nth={panel}").locator(
        f"text[text-anchor={anchor}]"
    )
    told = texts.evaluate_all(
        f"ts => ts.map(t => [t.textContent, t.getAttribute('{axis}')])"
    )
    found = {}
    for words, place in told:
        try:
            found[float(words.replace("−", "-"))] = float(place)
        except ValueError:  # the axis's name
            continue
    return found


def along(places: dict[float, float], value: float, log: bool) -> float:
    """Return where a value is on an axis, by its lowest and its highest label."""
    f = math.log10 if log else float
    low, high = min(places), max(places)
    share = (f(value) - f(low)) / (f(high) - f(low))
    return places[low] + share * (places[high] - places[low])


@pytest.mark.browser
@pytest.mark.parametrize("step", [0, 2, 4])
def test_dot_and_cut_stand_where_their_axes_say(tab, step):
    tab.get_by_role("slider").fill(str(step))
    dot = tab.locator(".moving-panel circle")
    x, y = (float(dot.get_attribute(name)) for name in ("cx", "cy"))
    across, up = ticks(tab, 1, "middle", "x"), ticks(tab, 1, "end", "y")
    assert sorted(across) == [0.1, 1, 10, 100]
    assert x == pytest.approx(along(across, 100 * FPR[0, step], True), abs=0.2)
    assert y == pytest.approx(along(up, 100 * TPR[0, step], True) - 4, abs=0.2)
    line = tab.locator(".moving-panel path.cut").get_attribute("d")
    places = ticks(tab, 0, "middle", "x")
    place = float(line.removeprefix("M").split(" ")[0])
    assert place == pytest.approx(along(places, CUTS[0, step], False), abs=0.2)


def at(path) -> list[float]:
    """Return where a mark stands, in the picture's units."""
    told = path.get_attribute("transform")
    return [float(v) for v in told.removeprefix("translate(").rstrip(")").split(" ")]


@pytest.mark.browser
@pytest.mark.parametrize("step", [0, 2, 4])
def test_marks_and_the_chosen_one_stand_where_their_axes_say(tab, step):
    tab.get_by_role("slider").fill(str(step))
    across, up = ticks(tab, 3, "middle", "x"), ticks(tab, 3, "end", "y")
    across, up = ({k / 100: v for k, v in axis.items()} for axis in (across, up))

    def place(x, y):
        return [along(across, x, False), along(up, y, False) - 4]

    panel = tab.locator(".moving-panel >> nth=3").locator("svg[role=img]")
    for look, wanted in ((2, PLACES), (5, STANDING)):
        marks = panel.locator(f"path.mark.look-{look}").all()
        assert len(marks) == len(wanted)
        for mark, (x, y) in zip(marks, wanted, strict=True):
            assert at(mark) == pytest.approx(place(x, y), abs=0.2)
    assert at(panel.locator("path.dot")) == pytest.approx(place(*PLACES[step]), abs=0.2)
    left, right, low, high = ENDS[step]
    cross = panel.locator("path.reach").get_attribute("d")
    found = [float(v) for v in re.findall(r"[\d.]+", cross)]
    (x0, y0), (x1, y1) = place(left, low), place(right, high)
    x, y = place(*PLACES[step])
    assert found == pytest.approx([x0, y, x1, x, y0, y1], abs=0.2)
    level = re.findall(r"[\d.]+", panel.locator("path.chance").get_attribute("d"))
    assert float(level[1]) == pytest.approx(place(0, CHANCE)[1], abs=0.2)


@pytest.mark.browser
def test_marks_differ_by_shape_tell_their_names_and_stand_in_the_legend(tab):
    panel = tab.locator(".moving-panel >> nth=3")
    titles = panel.locator("svg[role=img] path.mark title").evaluate_all(
        "ts => ts.map(t => t.textContent)"
    )
    assert titles == [*(f"step {k}" for k in range(STEPS)), "a", "b", "<c>"]
    drawn = {}
    for name in ("path", "rest"):
        entry = panel.locator("li", has_text=name)
        drawn[name] = [p.get_attribute("d") for p in entry.locator("path").all()]
    assert [len(paths) for paths in drawn.values()] == [2, 1]  # a line and a mark
    assert drawn["path"][1] != drawn["rest"][0]
    marks = panel.locator("svg[role=img] path.mark")
    shapes = marks.evaluate_all("ps => ps.map(p => p.getAttribute('d'))")
    assert shapes == [drawn["path"][1]] * STEPS + drawn["rest"] * len(STANDING)
    lines = panel.locator("svg[role=img] > path:not([transform]):not(.reach)")
    looks = lines.evaluate_all("ps => ps.map(p => p.getAttribute('class'))")
    assert [c for c in looks if c.startswith("look-")] == ["look-2"]


@pytest.mark.browser
def test_bars_are_as_long_as_their_numbers(tab):
    bars = tab.locator(".moving-panel >> nth=2").locator("svg[role=img] rect")
    long = bars.evaluate_all("bs => bs.map(b => Number(b.getAttribute('width')))")
    places = ticks(tab, 2, "middle", "x")
    unit = (places[100] - places[0]) / 100
    assert long == pytest.approx([100 * unit * v for v in BARS[0, 2]], abs=0.2)
    tab.get_by_text("These bars as numbers").click()
    cells = tab.locator(".moving-panel details td").all_inner_texts()
    assert [plain(c) for c in cells] == [f"{shown(v)} %" for v in BARS[0, 2]]
    tab.get_by_role("slider").fill("3")  # what was unfolded stays so
    cells = tab.locator(".moving-panel details td").all_inner_texts()
    assert [plain(c) for c in cells] == [f"{shown(v)} %" for v in BARS[0, 3]]


@pytest.mark.browser
def test_on_paper_stands_the_still_picture(tab):
    picture = tab.get_by_alt_text("A still picture")
    assert not picture.is_visible()
    tab.emulate_media(media="print")
    assert picture.is_visible()
    assert not tab.get_by_role("slider").is_visible()
    assert not tab.locator(".moving-numbers").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_leaves_the_window(tab, width):
    tab.set_viewport_size({"width": width, "height": 800})
    tab.wait_for_function(
        "w => [...document.querySelectorAll('.moving-panel svg[role=img]')]"
        ".every(s => s.getBoundingClientRect().right <= w)",
        arg=width,
    )
    assert tab.evaluate("document.documentElement.scrollWidth") <= width


@pytest.mark.browser
def test_with_scripts_off_the_picture_and_the_table_stand(browser, folder):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.set_default_timeout(pages.PATIENCE)
    page.goto((folder / "page.html").as_uri())
    assert page.get_by_alt_text("A still picture").is_visible()
    assert page.locator("form, svg").count() == 0
    page.get_by_text("Numbers of this figure").click()
    assert page.get_by_role("cell", name="0.25").is_visible()
    context.close()


@pytest.mark.browser
def test_no_rule_of_accessibility_is_broken(browser, folder):
    pytest.importorskip("axe_playwright_python")
    if not list(folder.glob("*theme*.css")):
        pytest.skip("the theme, whose colours these are, is not installed")
    assert accessible(browser, folder) == []


def accessible(browser, folder, name="page.html") -> list[str]:
    """Ask axe-core about the page, light and dark; everything unfolded."""
    from axe_playwright_python.sync_playwright import Axe

    found = []
    for scheme in ("light", "dark"):
        context = browser.new_context(offline=True, color_scheme=scheme)
        page = context.new_page()
        page.set_default_timeout(pages.PATIENCE)
        page.goto((folder / name).as_uri())
        page.evaluate(
            "document.querySelectorAll('details').forEach(d => d.open = true)"
        )
        told = Axe().run(page, options=pages.SCHEMES["light"]).response["violations"]
        found += [f"{scheme}: {v['id']}: {v['nodes'][0]['html']}" for v in told]
        context.close()
    return found


# ------------------------------------------------------------- a grid of modules

SIZE, FREE = 5, 20  # modules a side, the first row is a pattern; 18 are in a byte
BYTE = [None] * SIZE + [k // 3 for k in range(18)] + [-1, -1]
BLOCK, CORRECTS = [0, 1, 0, 1, 0, 1], [1, 1]
OWNER = ["".join(map(str, RNG.integers(0, 2, SIZE**2))) for _ in WAYS]
WRONG_AT = [[[], [6], [6, 9], [6, 12], [24]], [[], [7, 8], [7, 14], [7, 13], [5]]]
LOGS = np.minimum(0, 3 - 1.37 * np.arange(FREE + 1))
NEEDED = 18
NAMED = ["modules that agree, of 20", "damaged bytes of 3 in block 1; 1 may be"]
NAMED += ["damaged bytes of 3 in block 2; 1 may be", "text, by error correction alone"]
NAMED += ["log₁₀ of the claim’s p-value", "claim of the text"]
STATES = [
    ["".join("10"[int(m)] if i in at else m for i, m in enumerate(own)) for at in row]
    for own, row in zip(OWNER, WRONG_AT, strict=True)
]


def board(**changed) -> moving.Moving:
    """Return a figure with a grid, by the same controls as `made`."""
    parts = {
        "title": "The code",
        "modules": moving.By(["way", "cut"], STATES),
        "owner": moving.By(["way"], OWNER),
        "byte": BYTE,
        "block": BLOCK,
        "corrects": CORRECTS,
        "logs": moving.By([], LOGS),
        "needed": moving.By([], NEEDED),
        "columns": ("as it is", "with your flips"),
        "says": "{flips} flips: {agree}, {damaged}, {read}, {p}, {claim}.",
    }
    return made(panels=[moving.Grid(**parts | changed)])


def counted(way: int, step: int, flips: set[int]) -> list[str]:
    """Count anew what the table says of a state and a reader's flips."""
    wrong = {i for i in {*WRONG_AT[way][step]} ^ flips if BYTE[i] is not None}
    agree = FREE - len(wrong)
    hit = {BYTE[i] for i in wrong if BYTE[i] >= 0}
    blocks = [sum(BLOCK[b] == k for b in hit) for k in (0, 1)]
    right = all(n <= 1 for n in blocks)
    return [
        str(agree),
        *map(str, blocks),
        "read" if right else "not read",
        f"{LOGS[agree]:.1f}".replace("-", "−"),
        "accepted" if agree >= NEEDED else "not accepted",
    ]


@pytest.mark.parametrize(
    ("told", "changed"),
    {
        "a grid must be square": {"byte": BYTE[:-1]},
        "a text of 25 times 0 or 1": {"owner": moving.By([], "01")},
        "times 0 or 1": {"owner": moving.By([], "2" * 25)},
        "each byte must have modules": {"block": [*BLOCK, 1]},
        "each block must have bytes": {"corrects": [1, 1, 1]},
        "must be 21 logs": {"logs": moving.By([], LOGS[1:])},
        "needed must be": {"needed": moving.By([], 22)},
        "what a grid says": {"says": "{flops}"},
        "5 values by cut": {"modules": moving.By(["cut"], STATES[0][1:])},
    }.items(),
)
def test_a_grid_that_does_not_fit_is_refused(told, changed):
    with pytest.raises(ValueError, match=told):
        moving.checked(board(**changed))


@pytest.fixture
def code(browser, folder):
    """Open a page with a grid, and return its tab."""
    yield from opened(browser, folder / "grid.html")


def column(tab, place: int) -> list[str]:
    rows = tab.locator(".moving-side tbody tr")
    return rows.evaluate_all(f"rs => rs.map(r => r.cells[{place}].textContent)")


def module(tab, place: int):
    return tab.get_by_role("gridcell").nth(place)


@pytest.mark.browser
def test_each_state_of_a_grid_is_drawn_and_counted(code):
    slider = code.get_by_role("slider", name="cut")
    for way in range(2):
        code.get_by_role("combobox", name="way").select_option(str(way))
        for step in range(STEPS):
            slider.fill(str(step))
            dark = code.get_by_role("gridcell").evaluate_all(
                "cs => cs.map(c => c.classList.contains('dark') ? '1' : '0').join('')"
            )
            assert dark == STATES[way][step]
            assert column(code, 1) == column(code, 2) == counted(way, step, set())
            assert column(code, 0) == NAMED
            wrong = code.locator(".moving-code .wrong")
            assert wrong.count() == len(WRONG_AT[way][step])


@pytest.mark.browser
def test_clicks_flip_modules_on_top_of_every_state(code):
    slider, flips = code.get_by_role("slider", name="cut"), set()
    for place in (6, 15, 20, 24, 15):
        module(code, place).click()
        flips ^= {place}
        for step in (0, 3):
            slider.fill(str(step))
            assert column(code, 1) == counted(0, step, set())
            assert column(code, 2) == counted(0, step, flips)
    module(code, 2).click()  # a pattern stays as it is
    assert column(code, 2) == counted(0, 3, flips)
    assert code.locator(".moving-code .mine").count() == len(flips)
    slider.fill("1")  # this state's only damage is mended by a flip of it
    assert column(code, 1)[0] == "19"
    assert "wrong" not in module(code, 6).get_attribute("class")
    code.get_by_role("button", name="Take my flips back").click()
    assert column(code, 2) == counted(0, 1, set())


@pytest.mark.browser
def test_the_keyboard_goes_through_a_grid_and_flips(code):
    code.get_by_role("slider", name="cut").fill("0")
    code.get_by_role("grid").locator("[tabindex='0']").focus()
    place = SIZE  # the first module that is no pattern
    moves = [("ArrowDown", 10), ("ArrowRight", 11), ("End", 14), ("ArrowRight", 14)]
    moves += [("ArrowUp", 9), ("Home", 5), ("ArrowLeft", 5), ("ArrowUp", 0)]
    moves += [("ArrowUp", 0), ("ArrowDown", 5)]
    for key, place in moves:
        code.keyboard.press(key)
        focused = code.evaluate(
            "[...document.querySelectorAll('[role=gridcell]')]"
            ".indexOf(document.activeElement)"
        )
        assert focused == place
        assert code.locator(".moving-code [tabindex='0']").count() == 1
    flips = set()
    for key in ("Enter", " "):
        code.keyboard.press("ArrowDown" if flips else "ArrowRight")
        place += SIZE if flips else 1
        code.keyboard.press(key)
        flips ^= {place}
        assert column(code, 2) == counted(0, 0, flips)
        assert code.evaluate("document.activeElement.role") == "gridcell"
    code.keyboard.press("Tab")
    assert code.evaluate("document.activeElement.tagName") == "BUTTON"


@pytest.mark.browser
def test_a_module_says_what_it_is_and_a_flip_what_it_did(code):
    code.get_by_role("slider", name="cut").fill("1")
    shade = "dark" if STATES[0][1][6] == "1" else "light"
    name = f"row 2, column 2: {shade}, differs from the owner’s code, byte 1 of block 1"
    assert module(code, 6).get_attribute("aria-label") == f"{name}, damaged"
    module(code, 6).click()
    other = "light" if shade == "dark" else "dark"
    name = f"row 2, column 2: {other}, byte 1 of block 1, flipped by you"
    assert module(code, 6).get_attribute("aria-label") == name
    assert code.locator(".moving-side .told").inner_text() == name
    assert code.locator(".moving-code .same").count() == 3
    assert module(code, 23).get_attribute("aria-label").endswith("in no byte")
    assert module(code, 0).get_attribute("aria-label").endswith("fixed pattern")
    agree, *_, p, claim = counted(0, 1, {6})
    said = f"1 flips: {agree} of {FREE}, 0 of 6, read, {p}, {claim}."
    code.get_by_text(said).wait_for()
    assert plain(code.get_by_role("status").inner_text()).endswith(f"found. {said}")


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_a_grid_is_square_and_stays_in_the_window(code, width):
    code.set_viewport_size({"width": width, "height": 900})
    assert code.evaluate("document.documentElement.scrollWidth") <= width
    box = code.get_by_role("grid").bounding_box()
    assert box["width"] == pytest.approx(box["height"], abs=1)
    assert box["width"] > 200
    sizes = code.get_by_role("gridcell").evaluate_all(
        "cs => cs.map(c => c.getBoundingClientRect()).flatMap(r => [r.width, r.height])"
    )
    assert max(sizes) - min(sizes) < 1


@pytest.mark.browser
def test_no_rule_of_accessibility_is_broken_by_a_grid(browser, folder):
    pytest.importorskip("axe_playwright_python")
    if not list(folder.glob("*theme*.css")):
        pytest.skip("the theme, whose colours these are, is not installed")
    assert accessible(browser, folder, "grid.html") == []
