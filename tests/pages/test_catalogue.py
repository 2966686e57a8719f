"""Tables whose rows unfold: whole without scripts, and with them found and sorted.

In the browser script and style are the book's own; the page around them is made here.
"""

from pathlib import Path

import pytest
from bs4 import BeautifulSoup
from pages import PATIENCE

from lottolab.pages.verdicts import catalogue

STATIC = Path(__file__).parents[2] / "book" / "_static"
PAGE = """<!doctype html><html lang=en><meta charset=utf-8><title>a</title>
<link rel=stylesheet href=custom.css><script src=catalogue.js></script>
<main class=bd-article>{0}</main>"""
WORDS = {"refuted": 10, "reproduced": 30, "inconclusive": 5}  # claims by verdict


def rows() -> list[catalogue.Row]:
    """Make 45 claims: each third on letters too, where they are all reproduced."""
    words = [word for word, count in WORDS.items() for _ in range(count)]
    made = []
    for i, word in enumerate(words):
        link = f"status.html#claim-{i}"
        tags = "clothes, digits" if i < 2 else "clothes"
        states = {"laptop": catalogue.State(word, link, tags)}
        if i % 3 == 0:
            states["cifar"] = catalogue.State("reproduced", "", "letters")
        more = {"": {"place": f"Table {i}", "none": ""}, "clothes": {"ours": "< 1 & 0"}}
        group = "1 one" if i < 25 else "2 two"
        says = f"{'zyx'[i % 3]} claim {i} <b>"
        made.append(catalogue.Row(f"claim-{i}", group, says, states, more, "one.html"))
    return made


def shown() -> str:
    kinds = {"noun": "claims", "group": "paper", "state": "verdict", "tag": "data set"}
    return catalogue.table(rows(), ["laptop", "cifar"], **kinds).data


def test_without_scripts_every_row_stands_there_and_unfolds():
    page = BeautifulSoup(shown(), "html.parser")
    heads = [th.text for th in page.find_all("th")]
    assert heads == ["paper", "claims", "laptop", "cifar"]
    body = page.find("tbody").find_all("tr")
    assert [tr["id"] for tr in body] == [f"claim-{i}" for i in range(45)]
    for i, tr in enumerate(body):
        folded = tr.find("details")
        assert not folded.has_attr("open")
        assert folded.find("summary").text == f"{'zyx'[i % 3]} claim {i} <b>"
        terms = [(dt.text, dt.find_next("dd").text) for dt in tr.find_all("dt")]
        assert terms == [("place", f"Table {i}"), ("ours", "< 1 & 0")]
        assert [p.text for p in tr.find_all("p")] == ["clothes"]
        last = tr.find_all("td")[-1]
        assert last.text == last["data-state"] == ("" if i % 3 else "reproduced")
        assert tr.find("td").find("a")["href"] == "one.html"
    assert page.find(["form", "select", "button", "script"]) is None


def test_what_has_nothing_to_unfold_does_not():
    row = catalogue.Row("a", "g", "says", {})
    kinds = {"noun": "claims", "group": "paper", "state": "verdict", "tag": "data set"}
    page = BeautifulSoup(catalogue.table([row], [], **kinds).data, "html.parser")
    assert page.find("details") is None
    assert page.find("td", class_="says").text == "says"
    assert page.find("a") is None


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalogue")
    for name in ("catalogue.js", "custom.css"):
        (folder / name).write_bytes((STATIC / name).read_bytes())
    page = folder / "page.html"
    page.write_text(PAGE.format(shown()), encoding="utf-8")
    return page.as_uri()


@pytest.fixture
def tab(browser, file):
    context = browser.new_context(offline=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    faults = []
    page.on("pageerror", lambda error: faults.append(error))
    page.goto(file)
    yield page
    context.close()
    assert faults == []


def seen(tab) -> list[int]:
    """Return which claims are seen, in their order."""
    ids = tab.locator("tbody tr:visible").evaluate_all("rows => rows.map(r => r.id)")
    return [int(name.removeprefix("claim-")) for name in ids]


def told(tab) -> str:
    return tab.get_by_role("status").inner_text()


@pytest.mark.browser
def test_it_shows_the_first_rows_and_all_when_asked(tab):
    assert seen(tab) == list(range(20))
    assert told(tab) == "Showing 20 of 45 claims."
    tab.get_by_role("button", name="Show all 45").click()
    assert seen(tab) == list(range(45))
    tab.get_by_role("button", name="Show fewer").click()
    assert seen(tab) == list(range(20))


@pytest.mark.browser
def test_it_filters_by_paper_verdict_and_data_set_together(tab):
    tab.get_by_label("verdict").select_option("refuted")
    assert seen(tab) == list(range(10))
    assert told(tab) == "Showing 10 of 10 claims that fit, of 45 in all."
    tab.get_by_label("data set").select_option("letters")
    assert seen(tab) == []  # refuted on clothes, but on letters never
    assert "None of 45 claims fits" in told(tab)
    tab.get_by_label("data set").select_option("clothes")
    assert seen(tab) == list(range(10))
    tab.get_by_label("data set").select_option("digits")
    assert seen(tab) == [0, 1]
    tab.get_by_label("verdict").select_option("reproduced")
    tab.get_by_label("data set").select_option("letters")
    tab.get_by_label("paper").select_option("2 two")
    assert seen(tab) == [i for i in range(25, 45) if i % 3 == 0]


@pytest.mark.browser
def test_it_searches_all_that_a_row_unfolds(tab):
    tab.get_by_label("Search").fill("table 33")
    assert seen(tab) == [33]
    tab.get_by_label("Search").fill("33 TABLE  x")
    assert seen(tab) == []  # the claim begins with z
    tab.get_by_label("Search").press("Enter")  # submits nothing
    assert tab.url.endswith("page.html")


@pytest.mark.browser
def test_it_sorts_and_keeps_the_books_order_among_equals(tab):
    tab.get_by_role("button", name="Show all").click()
    tab.get_by_label("Sort by").select_option("claims")
    letters = ["zyx"[i % 3] for i in seen(tab)]
    assert letters == sorted(letters)
    tab.get_by_label("Sort by").select_option("laptop")
    assert seen(tab) == [*range(40, 45), *range(10), *range(10, 40)]
    tab.get_by_label("Sort by").select_option("cifar")  # most have no such verdict
    assert seen(tab)[:15] == [i for i in range(45) if i % 3 == 0]
    tab.get_by_label("Sort by").select_option("")
    assert seen(tab) == list(range(45))


@pytest.mark.browser
def test_a_row_unfolds_in_place_by_the_keyboard(tab):
    tab.locator("#claim-3 summary").focus()
    assert not tab.get_by_text("Table 3", exact=True).is_visible()
    tab.keyboard.press("Enter")
    assert tab.get_by_text("Table 3", exact=True).is_visible()
    tab.get_by_role("button", name="Unfold all").click()
    assert tab.get_by_text("Table 19", exact=True).is_visible()
    tab.get_by_role("button", name="Fold all").click()
    assert not tab.get_by_text("Table 3", exact=True).is_visible()


@pytest.mark.browser
def test_a_link_to_a_row_shows_it_whatever_is_filtered(tab, file):
    tab.get_by_label("verdict").select_option("refuted")
    tab.evaluate("location.hash = '#claim-42'")
    tab.wait_for_function("document.querySelector('#claim-42 details').open")
    assert seen(tab) == list(range(45))
    tab.goto("about:blank")
    tab.goto(f"{file}#claim-30")
    assert tab.get_by_text("Table 30", exact=True).is_visible()
    tab.evaluate("location.hash = '#%'")  # no text, and no row
    tab.evaluate("location.hash = '#elsewhere'")


@pytest.mark.browser
def test_what_is_printed_are_all_rows_that_fit(tab):
    tab.get_by_label("verdict").select_option("reproduced")
    tab.emulate_media(media="print")
    assert len(seen(tab)) == 30 + 4 + 1  # and those that are so on letters
    assert not tab.get_by_label("verdict").is_visible()


@pytest.mark.browser
@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_leaves_the_window(tab, width):
    tab.set_viewport_size({"width": width, "height": 800})
    tab.get_by_role("button", name="Unfold all").click()
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.locator("#claim-0").get_by_text("reproduced").is_visible()


@pytest.mark.browser
def test_with_scripts_off_all_rows_stand_there_and_unfold(browser, file):
    context = browser.new_context(java_script_enabled=False, offline=True)
    page = context.new_page()
    page.set_default_timeout(PATIENCE)
    page.goto(file)
    assert page.locator("tbody tr:visible").count() == 45
    page.locator("#claim-40 summary").click()
    assert page.get_by_text("Table 40", exact=True).is_visible()
    assert page.locator("form").count() == 0
    context.close()
