"""What a claim's card says, where verdicts and rows are known by construction."""

import json

import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lottolab.jobs import named
from lottolab.pages import parameters
from lottolab.pages.verdicts import cards, status
from lottolab.truth import claims_file, results

CLAIMS = """\
- {id: ownership-clear, chapter: ownership, place: "§1", whose: paper,
   statement: It is <clear>., paper: {dense: 0.9}, headline: {says: It is clear now.,
   words: is clear, place: abstract, here: how clear},
   test: [{kind: at_least, a: {metric: clear}, value: 0.5}]}
- {id: ownership-close, chapter: ownership, place: "§2", whose: ours,
   replaces: ownership-old, statement: It is close.,
   test: [{kind: at_least, a: {metric: close}, value: 0.5}]}
- {id: ownership-sells, chapter: ownership, place: "§3", whose: table,
   statement: It sells., not_testable: nothing here is for sale}
- {id: ownership-old, chapter: ownership, place: "§4", whose: table,
   withdrawn: It had no <margin>., statement: It was close.,
   test: [{kind: at_least, a: {metric: clear}, value: 0.99}]}
"""
# measured anew at the second scale is `clear` only, where it is not so
VALUES = {"clear": [0.9, 0.91, 0.9], "close": [0.52, 0.58, 0.49]}
OTHER = {"clear": [0.1, 0.11, 0.1], "close": VALUES["close"]}


def write(folder, scale: str, values: dict, sets: dict) -> None:
    """Write a chapter's two tables: a stage for each metric and seed."""
    rows, stages = [], []
    for metric, each in values.items():
        for seed, value in enumerate(each):
            place = f"s.{metric}/{sets[metric]}-{seed}"
            rows.append({"metric": metric, "value": value, "seed": seed})
            rows[-1] |= {"claim": "", "seconds": 1, "fingerprint": "f", "stage": place}
            told = {"seed": seed, "dataset": sets[metric]}
            if scale == "cifar" and metric == "clear" and seed == 2:
                told["dataset"] = {"name": "letters", "images": 9}
            row = {"stage": place, "function": f"s.{metric}", "data": "d"}
            row |= {"arguments": json.dumps(told), "fingerprint": "f", "digest": "x"}
            row |= {"seconds": 1.0, "peak_mb": 1, "device": "a", "versions": "v"}
            stages.append(row | {"finished": "2026-01-01T12:30:00+00:00"})
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(rows).to_csv(folder / f"{scale}.csv", index=False)
    frame = pd.DataFrame(stages)[results.STAGE]
    frame.to_csv(folder / f"{scale}.stages.csv", index=False)


@pytest.fixture(autouse=True)
def committed(tmp_path, monkeypatch):
    """Commit a chapter at two scales; what `close` is was measured once for both."""
    clothes = dict.fromkeys(VALUES, "clothes")
    folder = tmp_path / "data/results/ownership"
    write(folder, "laptop", VALUES, clothes)
    write(folder, "cifar", OTHER, clothes | {"clear": "animals"})
    (tmp_path / "claims.yaml").write_text(CLAIMS, encoding="utf-8")
    monkeypatch.setattr(claims_file, "FILE", tmp_path / "claims.yaml")
    monkeypatch.setattr(named, "current_of", lambda name, full: "f")
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.setattr(parameters, "chapters", lambda: ["ownership", "status"])
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    monkeypatch.delenv(results.OWN, raising=False)
    status.stages.cache_clear()
    yield folder
    status.stages.cache_clear()


def rows_of(shown) -> dict:
    body = BeautifulSoup(shown.data, "html.parser").select("tbody tr")
    return {row["id"]: row for row in body}


def states(row) -> dict[str, str]:
    return {td["data-where"]: td.text for td in row.select("td.state")}


def terms(row) -> list[tuple[str, str]]:
    return [(dt.text, dt.find_next("dd").text) for dt in row.find_all("dt")]


HERE, THERE = "laptop", "cifar"


def test_a_card_says_all_that_a_verdict_stands_on():
    rows = rows_of(cards.table("laptop", "cifar"))
    assert list(rows) == ["ownership-clear", "ownership-close", "ownership-sells"]
    clear = rows["ownership-clear"]
    assert states(clear) == {HERE: "reproduced", THERE: "refuted"}
    assert clear.summary.text == "It is <clear>."
    assert [a["href"] for a in clear.select("a")] == [
        "ownership.html",
        "status.html#ownership-clear",
        "status.html#ownership-clear",
    ]
    parts = [p.text for p in clear.select("p.part")]
    assert parts == [f"{HERE}: reproduced", f"{THERE}: refuted"]
    about, first, second = (terms(dl) for dl in clear.select("dl"))
    assert about == [
        ("claim", "ownership-clear"),
        ("whose", "stated by the paper"),
        ("place", "§1"),
        ("headline claim", "“It is clear now.” (abstract)"),
        ("the paper’s numbers", "dense 0.9"),
    ]
    facts = dict(first)
    assert "0.903" in facts["ours"]
    assert "n = 3" in facts["ours"]
    assert "clear ≥ 0.5" in facts["what was asked"]
    assert facts["rows that decide it"] == "metric clear"
    assert facts["seeds"] == "0, 1, 2"
    tags = [td["data-tags"] for td in clear.select("td.state")]
    assert tags == [facts["data set"], dict(second)["data set"]]
    assert tags == ["clothes", "animals, letters"]
    assert facts["stages"] == "s.clear"
    assert facts["finished"] == "2026-01-01 12:30"
    assert "0.103" in dict(second)["ours"]


def test_what_was_measured_once_is_judged_once():
    close = rows_of(cards.table("laptop", "cifar"))["ownership-close"]
    assert states(close) == {HERE: "inconclusive", THERE: "the same measurements"}
    assert [p.text for p in close.select("p.part")] == [f"{HERE}: inconclusive"]
    assert int(dict(terms(close))["seeds that would decide"]) > 3


def test_what_cannot_be_tested_says_why_once():
    sells = rows_of(cards.table("laptop", "cifar"))["ownership-sells"]
    assert states(sells) == {HERE: "not testable here", THERE: ""}
    assert "nothing here is for sale" in sells.text
    assert len(sells.select("a")) == 1  # to the chapter; there are no rows to link to


def test_a_scale_that_stands_for_another_is_shown_once(committed):
    same = cards.table("edition", "laptop").data
    assert same == cards.table("laptop").data
    assert list(states(rows_of(cards.table("laptop"))["ownership-clear"])) == [HERE]
    assert rows_of(cards.table("smoke"))["ownership-clear"].select("td.state") == []


def test_without_a_status_page_nothing_links_there(monkeypatch):
    monkeypatch.setenv(results.OWN, "1")
    assert "status.html" not in cards.table("laptop").data


def test_what_was_withdrawn_is_told_with_its_fate():
    (gone,) = rows_of(cards.withdrawn("laptop")).values()
    facts = dict(terms(gone))
    assert facts["why it was withdrawn"] == "It had no <margin>."
    assert facts["followed by"] == "ownership-close"
    assert states(gone) == {"last verdict": "refuted"}


def test_what_was_withdrawn_and_is_measured_no_more_says_so(tmp_path, monkeypatch):
    text = CLAIMS.replace("{metric: clear}, value: 0.99", "{metric: gone}, value: 0.99")
    (tmp_path / "claims.yaml").write_text(text, encoding="utf-8")
    (gone,) = rows_of(cards.withdrawn("laptop")).values()
    assert states(gone) == {"last verdict": cards.GONE}
