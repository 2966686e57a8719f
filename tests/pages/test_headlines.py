"""What the head of the scorecard shows, where each verdict is known by construction."""

import re

import pandas as pd
import pytest

from lottolab.pages import parameters
from lottolab.pages.verdicts import headlines
from lottolab.truth import claims, claims_file, results

SAID = "headline: {{says: It {0} & well., words: {0} & well, place: abstract, here: how"
CLAIMS = f"""\
- {{id: together-late, chapter: together, place: "§1", whose: ours,
   statement: It is late., {SAID.format("comes")} late}},
   test: [{{kind: at_least, a: {{metric: late}}, value: 0.5}}]}}
- {{id: ownership-clear, chapter: ownership, place: "§1", whose: paper,
   statement: It is clear., {SAID.format("works")} clear}},
   test: [{{kind: at_least, a: {{metric: clear}}, value: 0.5}}]}}
- {{id: ownership-close, chapter: ownership, place: "§2", whose: paper,
   statement: It is close., {SAID.format("nearly works")} close}},
   test: [{{kind: at_least, a: {{metric: close}}, value: 0.5}}]}}
- {{id: ownership-side, chapter: ownership, place: "§3", whose: table,
   replaces: ownership-old, statement: It is aside.,
   test: [{{kind: at_least, a: {{metric: clear}}, value: 0.1}}]}}
- {{id: ownership-old, chapter: ownership, place: "§3", whose: table,
   withdrawn: It had no margin., statement: It was aside.,
   test: [{{kind: at_least, a: {{metric: clear}}, value: 0.99}}]}}
"""
VALUES = {"clear": [0.9, 0.91, 0.9, 0.91], "close": [0.51, 0.53, 0.55, 0.52]}
VALUES["late"] = [0.2, 0.8, 0.5, 0.4]


@pytest.fixture
def measured(tmp_path, monkeypatch):
    """Two chapters measured at `laptop`, one of them at `cifar` on other data too."""
    (tmp_path / "claims.yaml").write_text(CLAIMS, encoding="utf-8")
    monkeypatch.setattr(claims_file, "FILE", tmp_path / "claims.yaml")
    rows = [(m, s, v) for m, values in VALUES.items() for s, v in enumerate(values)]
    table = pd.DataFrame(rows, columns=["metric", "seed", "value"])

    def read(chapter, scale):
        if scale == "cifar" and chapter != "ownership":
            return None
        there = table["metric"].where(table["metric"] == "close", scale)
        return table.assign(stage=there, stale=chapter == "together")

    monkeypatch.setattr(results, "read", read)
    monkeypatch.setattr(parameters, "chapters", lambda: ["ownership", "together"])
    monkeypatch.delenv(results.OWN, raising=False)


def lines(html) -> list[str]:
    return [row for row in html.data.split("<tr") if "<td>" in row]


def test_a_line_a_claim_in_the_chapters_order(measured):
    rows = headlines.judged("laptop", "cifar")
    assert len(rows) == 5  # chapter 6 was not run at the second scale
    clear, close, late = lines(headlines.table(rows))
    assert '<span title="It works &amp; well. (abstract)">“works &amp; well”' in clear
    assert re.search(r"n = 4\">how clear: 0\.905 \[[^,]+, [^,]+\]</span>", clear)
    assert clear.count(">reproduced<") == 2
    assert '<span title="alone: reproduced">inconclusive*</span>' in close
    assert "the same measurements" in close  # its rows are those of the first scale
    assert "<td>6</td>" in late or ">6</a>" in late
    assert "(stale)" in late
    assert "(stale)" not in clear


def test_verdicts_link_to_their_rows_only_where_these_are(measured, monkeypatch):
    rows = headlines.judged("laptop")
    assert "status.html" not in headlines.table(rows).data
    names = ["ownership", "together", "status"]
    monkeypatch.setattr(parameters, "chapters", lambda: names)
    assert '"status.html#ownership-clear"' in headlines.table(rows).data
    monkeypatch.setenv(results.OWN, "1")
    assert "status.html" not in headlines.table(rows).data


def test_they_are_counted_and_told_from_the_others(measured):
    rows = headlines.judged("laptop", "cifar")
    assert headlines.told(rows).data == (
        "Headline claims, 3 at `laptop` scale: 2 inconclusive, 1 reproduced; "
        "2 at `cifar` scale: 1 reproduced, 1 the same measurements."
    )
    tables = {c: results.read(c, "laptop") for c in ("ownership", "together")}
    card = claims.scorecard(tables)
    assert headlines.exploratory(card)["claim"].tolist() == ["ownership-side"]
    paper, table, ours = lines(headlines.whose(card))
    assert "stated by the paper" in paper
    assert "<td>2</td>" in paper
    assert "implied by its numbers" in table
    assert "added by this book" in ours


def test_a_chapter_without_an_edition_is_judged_at_laptop_scale(measured, monkeypatch):
    there = {"edition": {"ownership"}, "laptop": {"ownership", "together"}}
    find = lambda chapter, scale, *_: chapter in there.get(scale, ()) or None  # noqa: E731
    monkeypatch.setattr(results, "find", find)
    rows = headlines.judged("edition", "cifar")
    scales = rows.groupby("claim")["scale"].apply(list).to_dict()
    assert scales.pop("together-late") == ["laptop"]
    assert {*map(tuple, scales.values())} == {("edition", "cifar")}
    there["edition"].clear()
    pd.testing.assert_frame_equal(
        headlines.judged("edition", "cifar"), headlines.judged("laptop", "cifar")
    )


def test_an_edition_and_the_laptop_that_is_read_for_it_share_a_column(measured):
    rows = headlines.judged("laptop")
    assert "verdict, laptop<" in headlines.table(rows).data
    mixed = rows.assign(scale=["edition", *rows["scale"][1:]])
    told = headlines.table(mixed).data
    assert "verdict, edition or laptop<" in told
    assert len(re.findall("<th[^>]*>verdict", told)) == 1
