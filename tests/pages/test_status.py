"""The status page says what the records say."""

import json
import re
from importlib.metadata import version

import matplotlib.pyplot as plt
import pandas as pd
import pytest
from bs4 import BeautifulSoup

from lottolab.jobs import named
from lottolab.pages import parameters, show
from lottolab.pages.parameters import SCALES
from lottolab.pages.verdicts import origins, status
from lottolab.truth import claims_file, results

CLAIMS = """\
- {id: ownership-holds, chapter: ownership, place: "§1", whose: paper,
   statement: It holds., test: [
   {kind: greater, a: {metric: m, arm: ticket}, b: {metric: m, arm: dense}}]}
- {id: ownership-moves, chapter: ownership, place: "§2", whose: paper,
   statement: "It <moves>.",
   test: [{kind: at_least, a: {metric: gone}, value: 0}]}
- {id: ownership-sells, chapter: ownership, place: "§3", whose: paper,
   statement: It sells.,
   not_testable: nothing here is for sale}
"""
CODE = {"tickets.dense": "new", "tickets.iterative": "new", "models.built": "new"}


def stage(name: str, seed: int, fingerprint="new", **more) -> dict:
    """Return a row of a table of stages."""
    row = {"stage": f"{name}/{seed}", "function": name, "data": "d", "digest": "x"}
    row |= {
        "arguments": json.dumps({"seed": seed, "dataset": "letters"}),
        "fingerprint": fingerprint,
    }
    row |= {"seconds": 60.0, "peak_mb": 500, "device": "a cpu", "versions": "v 1"}
    return row | {"finished": f"2026-01-0{1 + seed}T12:30:00+00:00"} | more


STAGES = [stage("tickets.dense", s) for s in range(3)]
STAGES += [stage("tickets.iterative", s, seconds=600.0) for s in range(3)]
STAGES += [stage("models.built", 7, seconds=90.0, peak_mb=1500, device="a gpu")]


def commit(folder, stages=STAGES) -> None:
    """Write the tables of a chapter; the last stage is nested."""
    folder.mkdir(parents=True, exist_ok=True)
    frame = pd.DataFrame(stages)[results.STAGE]
    frame.to_csv(folder / "laptop.stages.csv", index=False)
    names = {"tickets.dense": "dense", "tickets.iterative": "ticket"}
    rows = [
        {"claim": "", "arm": arm, "metric": "m", "value": 0.5, "seed": seed}
        | {"seconds": 60.0, "fingerprint": "new", "stage": f"{name}/{seed}"}
        for name, arm in names.items()
        for seed in range(3)
    ]
    pd.DataFrame(rows).to_csv(folder / "laptop.csv", index=False)


@pytest.fixture(autouse=True)
def committed(tmp_path, monkeypatch):
    """Commit one chapter at one scale; its code is `CODE`."""

    monkeypatch.setattr(named, "current_of", lambda name, full: CODE.get(name))
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    monkeypatch.setenv("LOTTOLAB_JOBS", "3")
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    monkeypatch.setattr(claims_file, "FILE", tmp_path / "claims.yaml")
    status.stages.cache_clear()
    commit(tmp_path / "data/results/ownership")
    yield tmp_path / "data/results/ownership"
    status.stages.cache_clear()


def rows_of(shown) -> list[list[str]]:
    """Return the cells of a table as text."""
    lines = re.findall(r"<tr.*?>(.*?)</tr>", shown.data, re.DOTALL)
    cells = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.DOTALL) for line in lines]
    return [[re.sub(r"<.*?>", "", cell) for cell in line] for line in cells]


def test_the_editions_page_is_about_the_laptops_runs_until_it_has_its_own(committed):
    at = {s: status.kinds(s).to_dict() for s in ("laptop", "edition", "paper")}
    assert at["laptop"] == at["edition"] != at["paper"]
    told = [origins.provenance(s).data.split("<div")[0] for s in ("laptop", "edition")]
    first, second = (text.split("</li>")[0] for text in told)
    assert first == second
    assert "1 ownership at laptop scale" in first
    cards = [cards_of(origins.provenance(s)) for s in ("laptop", "edition")]
    assert cards[0] == cards[1]
    assert len(rows_of(status.surroundings("edition"))) == 3
    for suffix in (".csv", ".stages.csv"):
        text = (committed / f"laptop{suffix}").read_text()
        (committed / f"edition{suffix}").write_text(text.replace("600.0", "900.0"))
    status.stages.cache_clear()
    assert status.kinds("edition")["seconds a run"].max() == 900
    assert "1 ownership at edition scale" in origins.provenance("edition").data


def test_a_row_says_what_was_run():
    head, row = rows_of(status.overview())
    facts = dict(zip(head, row, strict=True))
    assert facts == {
        "chapter": "ownership",
        "scale": "laptop",
        "measurements": "6",
        "stages": "6",
        "nested": "1",
        "stale": "0",
        "computing time": "34 min 30 s",  # 3 × 1 + 3 × 10 + 1.5
        "÷ 3": "11 min 30 s",
        "peak MB": "1,500",
        "first": "2026-01-01 12:30",
        "last": "2026-01-08 12:30",
    }


def test_what_was_not_run_is_said():
    text = status.missing().data
    others = [c for c in status.chapters() if c != "ownership"]
    assert f"- `laptop`: {', '.join(others)}\n" in text
    assert text.endswith("- `smoke`: all chapters\n- `paper`: all chapters")


def test_only_chapters_that_measure_are_listed():
    assert set(status.chapters()) <= set(claims_file.CHAPTERS)
    assert "scorecard" not in status.chapters()
    assert "ownership" in status.chapters()


def test_the_slowest_kind_comes_first():
    frame = status.kinds("laptop")
    assert frame["kind"].tolist() == [
        "tickets.iterative",
        "tickets.dense",
        "models.built",
    ]
    first = frame.iloc[0]
    assert (first["runs"], first["seconds a run"], first["minutes"]) == (3, 600, 30)
    assert frame["peak MB"].tolist() == [500, 500, 1500]


def test_the_bars_add_up_to_the_computing_time():
    figure = status.times(status.kinds("laptop"), most=1)
    (axis,) = figure.axes
    widths = [bar.get_width() for bar in axis.patches]
    assert widths == pytest.approx([30, 4.5])
    labels = [text.get_text() for text in axis.get_yticklabels()]
    assert labels == ["ownership: tickets.iterative", "ownership: 2 others"]
    plt.close(figure)


def test_each_device_has_a_row():
    head, *rows = rows_of(status.surroundings("laptop"))
    assert head == ["device", "versions", "torch here", "stages", "chapters"]
    another = f"another: {version('torch').partition('+')[0]}"
    assert rows == [
        ["a cpu", "v 1", another, "6", "ownership"],
        ["a gpu", "v 1", another, "1", "ownership"],
    ]


@pytest.mark.parametrize(
    ("versions", "said"),
    [
        ("python 3.11.7, torch {here}+cu130, numpy 2", "the same"),
        ("python 3.11.7, torch {here}", "the same"),
        ("python 3.11.7, torch {here}1, numpy 2", "another: {here}"),
        ("python {here}", "another: {here}"),
    ],
)
def test_results_of_another_torch_are_told(versions, said):
    here = version("torch").partition("+")[0]
    assert status._torch(versions.format(here=here)) == said.format(here=here)


def test_what_is_stale_says_why(committed):
    assert "Nothing is stale" in status.stale("laptop").data
    old = [stage("tickets.dense", 0, "old"), stage("tickets.dense", 1, "old")]
    commit(committed, [*old, *STAGES[2:], stage("tickets.lost", 0)])
    status.stages.cache_clear()
    _, *rows = rows_of(status.stale("laptop"))
    assert rows == [
        ["ownership", "tickets.dense", "2", status.CHANGED],
        ["ownership", "tickets.lost", "1", status.GONE],
    ]
    assert rows_of(status.overview())[1][5] == "3"


def cards_of(shown) -> dict[str, dict[str, str]]:
    """Return what each row of a table that unfolds says, by the row's anchor."""
    found = {}
    for row in BeautifulSoup(shown.data, "html.parser").select("tbody tr"):
        said = {"says": row.summary.text, "group": row.td.text}
        said |= {td["data-where"]: td.text for td in row.select("td.state")}
        said |= {dt.text: dt.find_next("dd").text for dt in row.find_all("dt")}
        found[row["id"]] = said
    return found


def test_a_claim_leads_to_its_rows_and_to_the_files(committed):
    shown = origins.provenance("laptop")
    for name in ("laptop.csv", "laptop.stages.csv"):
        assert f"'../_static/results/ownership/{name}'" in shown.data
    cards = cards_of(shown)
    assert list(cards) == ["ownership-holds", "ownership-moves"]  # tested ones
    assert cards["ownership-holds"] == {
        "says": "ownership-holds",
        "group": "1 ownership",
        "laptop": "current",
        "claim": "It holds.",
        "rows that decide it": "metric m, arm ticket; metric m, arm dense",
        "data set": "letters",
        "seeds": "0, 1, 2",
        "stages": "tickets.iterative, tickets.dense",
        "code": "new",
        "finished": "2026-01-01 12:30 to 2026-01-03 12:30",
    }
    moves = cards["ownership-moves"]
    assert (moves["laptop"], moves["claim"]) == ("not measured", "It <moves>.")
    assert "seeds" not in moves
    commit(committed, [stage("tickets.dense", 0, "old"), *STAGES[1:]])
    status.stages.cache_clear()
    old = cards_of(origins.provenance("laptop"))["ownership-holds"]
    assert (old["laptop"], old["code"]) == ("stale", "new, old")
    assert old["stale"] == status.CHANGED
    nothing = origins.provenance("smoke")
    assert "1 ownership: not run at smoke scale" in nothing.data
    assert cards_of(nothing) == {}


def test_verdicts_link_to_the_status_page_where_there_is_one(monkeypatch):
    linked = ["ownership-holds", "ownership-sells"]
    judged = pd.DataFrame({"claim": linked, "statement": "a < b"})
    judged["verdict"] = ["refuted", "not testable here"]
    link = '<a href="status.html#ownership-holds">refuted</a>'
    monkeypatch.setattr(parameters, "chapters", lambda: ["ownership"])
    assert "<a " not in show.claims_table(judged, "statement", "verdict").data
    monkeypatch.setattr(parameters, "chapters", lambda: ["ownership", "status"])
    shown = show.claims_table(judged, "statement", "verdict").data
    assert link in shown
    assert shown.count("<a ") == 1
    assert "a &lt; b" in shown
    monkeypatch.setenv(results.OWN, "1")  # a run that is read alone
    assert "<a " not in show.claims_table(judged, "statement", "verdict").data


def test_without_results_the_page_says_so(committed):
    for path in committed.glob("*.csv"):
        path.unlink()
    status.stages.cache_clear()
    assert status.missing().data.count("all chapters") == len(SCALES)
    assert status.kinds("smoke").empty
    plt.close(status.times(status.kinds("smoke")))
    assert "Nothing is stale" in status.stale("smoke").data
    for shown in (status.overview(), status.surroundings("smoke")):
        assert len(rows_of(shown)) <= 1
