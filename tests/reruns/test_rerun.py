"""A run of one's own lies beside the edition, under a name that says what it is."""

import gzip
import json
import re

import pandas as pd
import pytest
from chapters import chapter
from nbformat import write

from lottolab.pages import parameters
from lottolab.reruns import execute, rerun
from lottolab.truth import results

PARAMETERS = """\
scale: str = "laptop"  # one of smoke, laptop
count: int = 3  # in [1, 5]
rate: float = 0.5  # in [-1, 1]
seeds: list[int] = [0, 1]  # in [0, 99]
note: str = "plain"  # anything"""
WORK = """\
import os, pathlib
folder = pathlib.Path(os.environ["LOTTOLAB_RESULTS"]) / "first"
folder.mkdir(parents=True, exist_ok=True)
lines = [f",m,{count * (s + 1)},{s},1,f,s/1" for s in seeds]
head = "claim,metric,value,seed,seconds,fingerprint,stage"
_ = (folder / f"{scale}.csv").write_text("\\n".join([head, *lines]) + "\\n")
print("own:", os.environ["LOTTOLAB_OWN"])"""


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Make a book of one chapter, whose numbers are its parameters'."""
    folder = tmp_path / "book"
    (folder / "scales/smoke").mkdir(parents=True)
    (folder / "scales/smoke/first.yaml").write_text("count: 1\n")
    (tmp_path / "_toc.yml").write_text("format: jb-book\nroot: book/first\n")
    write(chapter(PARAMETERS, WORK, title="# First"), folder / "first.ipynb")
    monkeypatch.setattr(parameters, "BOOK", folder)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    monkeypatch.setattr(rerun.compare.claims, "CHAPTERS", ("first",))
    return tmp_path


@pytest.fixture
def pages(book, monkeypatch):
    """Note what is rendered instead of rendering it."""
    seen = []

    def page(source, output, notebook, note):
        seen.append((source, output, notebook, note))
        path = output / "book" / f"{notebook.stem}.html"
        path.parent.mkdir(parents=True)
        path.write_text("a page")
        return path

    monkeypatch.setattr(rerun.render, "render_page", page)
    return seen


def name(scale="laptop", **given) -> str:
    return rerun.name("first", scale, rerun.changed("first", scale, given))


def test_the_same_parameters_have_the_same_name(book):
    same = name(count="4", rate="1")
    assert same == name(rate="1.0", count=" 4") == name(count=4, rate=1.0)
    assert same == name(count="4", rate="1", note="plain")  # that is the default
    assert re.fullmatch(r"first-count-4-rate-1.0-[0-9a-f]{6}", same)


def test_other_parameters_have_another_name(book):
    given = [{}, {"count": "4"}, {"count": "5"}, {"rate": "0.25"}, {"rate": "-0.25"}]
    given += [{"note": text} for text in ("a b", "a=b", "a-b", "A-b", "ä-b", "x" * 99)]
    given += [{"note": "x" * 98}, {"seeds": "[1]"}, {"seeds": "[1, 0]"}]
    names = [name(scale, **g) for g in given for scale in ("laptop", "smoke")]
    assert len(set(names)) == len(names)
    assert len({n.lower() for n in names}) == len(names)
    assert "first-smoke-count-4-" in names[3]
    for one in names:
        assert len(one) <= 48
        assert re.fullmatch(r"[a-z0-9][a-z0-9_.-]*[a-z0-9]", one)


BAD = ["", ".", "..", "a/b", "a\\b", "a:b", "a b", "-a", ".a", "a.", "ä", "a" * 49]
BAD += ["con", "CON", "nul.txt", "com1", "a\nb", "a\n"]


@pytest.mark.parametrize("bad", BAD)
def test_a_name_that_no_folder_may_have_is_refused(book, bad):
    with pytest.raises(ValueError, match="a run's name must"):
        rerun.rerun("first", "laptop", {"count": "4"}, bad)
    assert not (book / "_build").exists()


@pytest.mark.parametrize("good", ["a", "A1", "half-the-data_2.v1", "a" * 48, "console"])
def test_a_name_may_be_chosen(book, good):
    folder = rerun.reserve(good, "first", "laptop", {})
    assert folder == book / "_build/runs" / good
    assert rerun.reserve(good, "first", "laptop", {}) == folder  # it is its own


def test_a_name_that_another_run_has_is_refused(book):
    folder = rerun.reserve("mine", "first", "laptop", {"count": 4})
    before = (folder / "run.json").read_bytes()
    with pytest.raises(ValueError, match=r'another run .*"count": 4.*--name mine'):
        rerun.rerun("first", "laptop", {"count": "5"}, "mine")
    with pytest.raises(ValueError, match="another run"):
        rerun.rerun("first", "smoke", {"count": "4"}, "mine")
    assert (folder / "run.json").read_bytes() == before
    (book / "_build/runs/photos").mkdir()
    with pytest.raises(ValueError, match="something else"):
        rerun.rerun("first", "laptop", {}, "photos")


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"cuont": "4"}, "did you mean count"),
        ({"count": "9"}, r"count must be in \[1, 5\], got 9"),
        ({"scale": "smoke"}, "--scale"),
    ],
)
def test_bad_parameters_make_no_folder(book, given, said):
    with pytest.raises(ValueError, match=said):
        rerun.rerun("first", "laptop", given)
    assert not (book / "_build").exists()


def test_a_run_lies_beside_the_edition_and_tells_what_changed(book, pages, capfd):
    plain = execute.execute("first", "laptop")
    committed = book / "data/results/first"
    committed.parent.mkdir(parents=True)
    (book / "_build/laptop/results/first").rename(committed)
    before = plain.read_bytes(), (committed / "laptop.csv").read_bytes()

    given = {"count": "4", "seeds": "[0, 1, 2]"}
    rerun.rerun("first", "laptop", given)
    folder = next((book / "_build/runs").iterdir())
    noted = {"chapter": "first", "scale": "laptop"}
    noted["parameters"] = {"count": 4, "seeds": [0, 1, 2]}
    assert json.loads((folder / "run.json").read_text()) == noted
    measured = results.load(folder / "results/first/laptop.csv")
    assert measured["value"].tolist() == [4, 8, 12]
    assert "own: 1" in (folder / "notebooks/first.ipynb").read_text()
    assert before == (plain.read_bytes(), (committed / "laptop.csv").read_bytes())
    assert list((book / "_build/laptop/results").iterdir()) == []

    [(source, output, notebook, note)] = pages
    assert (source, output) == (book, folder / "html")
    assert notebook == folder / "notebooks/first.ipynb"
    assert "`count=4`, `seeds=[0, 1, 2]`" in note
    out = capfd.readouterr().out
    assert "measurements against data/results/first/laptop.csv: 1 changed" in out
    row = next(line for line in out.splitlines() if line.startswith("│"))
    assert [c.strip() for c in row.split("│")[1:-1]] == [
        "m",
        "4.5",
        "8",
        "2 → 3",
        "changed",
    ]
    changes = pd.read_csv(folder / "changes.csv")
    assert changes["what"].tolist() == ["changed"]
    assert out.splitlines()[-1].split() == ["page", str(output / "book/first.html")]


def test_a_run_that_changes_nothing_says_so_in_one_line(book, pages, capfd):
    execute.execute("first", "smoke")
    rerun.rerun("first", "smoke", {"rate": "0.25"})
    lines = capfd.readouterr().out.splitlines()
    shown = "_build/smoke/results/first/smoke.csv"
    assert lines[0] == f"nothing changed against {shown}: all 1 measurements agree"
    assert [line.split()[0] for line in lines[1:]] == ["notebook", "table", "page"]


def test_without_another_table_there_is_nothing_to_compare(book, pages, capfd):
    rerun.rerun("first", "smoke", {"count": "2"}, "mine")
    first = capfd.readouterr().out.splitlines()[0]
    assert first == "there is no other table at smoke scale to compare with"


def test_a_long_comparison_is_cut_and_the_rest_is_in_a_file(book, pages, capfd):
    folder = book / "data/results/first"
    folder.mkdir(parents=True)
    head = "claim,metric,value,seed,seconds,fingerprint,stage\n"
    lines = [f",m{i},1,0,1,f,s/1\n" for i in range(100)]
    (folder / "laptop.csv").write_text(head + "".join(lines))
    rerun.rerun("first", "laptop", {"count": "4"}, "mine")
    out = capfd.readouterr().out
    assert "100 only before, 1 only now" in out
    assert sum(line.startswith("│") for line in out.splitlines()) == 6
    assert "all are in changes.csv" in out
    assert len(pd.read_csv(book / "_build/runs/mine/changes.csv")) == 101


def test_a_change_stands_beside_what_another_machine_does(book, monkeypatch, capfd):
    monkeypatch.setattr(rerun.verify, "stale", lambda *pair: [])
    folder = book / "data/results/first"
    folder.mkdir(parents=True)
    now = book / "_build/runs/mine/results/first/edition.csv"
    now.parent.mkdir(parents=True)
    head = "claim,metric,value,seed,seconds,fingerprint,stage\n"
    before = head + "".join(f",{m},0.5,0,1,f,s/1\n" for m in ("a", "b", "c"))
    (folder / "edition.csv.gz").write_bytes(gzip.compress(before.encode()))
    values = {"a": 0.51, "b": 0.6, "c": 0.6}
    now.write_text(head + "".join(f",{m},{v},0,1,f,s/1\n" for m, v in values.items()))
    assert rerun.baseline("first", "edition") == folder / "edition.csv.gz"
    rerun._report("first", "edition", now)
    out = capfd.readouterr().out
    assert "is not known: lottolab machines first --scale edition" in out
    rows = [
        f"{m},{0.5 + 0.01 * i},{s},{who}\n"
        for m in ("a", "b")
        for s in range(3)
        for i, who in enumerate(("native", "other"))
    ]
    text = "metric,value,seed,machine\n" + "".join(rows)
    (folder / "edition.machines.csv").write_text(text)
    rerun._report("first", "edition", now)
    out = capfd.readouterr().out
    assert "another machine does: 1 within, 1 beyond, 1 not known" in out
    changes = pd.read_csv(now.parents[2] / "changes.csv").set_index("metric")
    assert changes["machine"].fillna("").to_dict() == {
        "a": "within",
        "b": "beyond",
        "c": "",
    }
