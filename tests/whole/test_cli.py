"""Commands do what they say; bad input is one line, exit code 2, and nothing runs."""

import sys
import types

import pandas as pd
import pytest
import typer

from lottolab import cli
from lottolab.jobs import named
from lottolab.pages import parameters
from lottolab.reruns import execute
from lottolab.truth import claims, results


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Point all that a command may write or remove to a folder of its own."""
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.setattr(cli.console, "_width", 200, raising=False)
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")  # other processes lack the patches
    return tmp_path


@pytest.fixture
def nothing_runs(monkeypatch):
    def run(*_, **__):
        raise AssertionError("a notebook was run")

    monkeypatch.setattr("papermill.execute_notebook", run)


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["rum"], ["'rum'", "did you mean run?"]),
        (["xyzzy"], ["one of book, render, publish", "got 'xyzzy'"]),
        (["run", "ownershp"], ["'ownershp'", "did you mean ownership"]),
        (["run", "zzz"], ["'zzz'", "one of ownership, membership, ensembles, model"]),
        (["run", "ownership", "--scale", "smok"], ["'smok'", "did you mean smoke"]),
        (["book", "--scale", "papr"], ["'papr'", "did you mean paper"]),
        (["run", "ownership", "-p", "epoch=2"], ["'epoch'", "did you mean epochs"]),
        (["run", "ownership", "-p", "rounds=2.5"], ["rounds must be int", "2.5"]),
        (["run", "ownership", "-p", "rounds="], ["rounds must be int", "''"]),
        (["run", "ownership", "-p", "rounds=99"], ["[1, 40]", "got 99"]),
        (["run", "ownership", "-p", "seeds=1"], ["list[int]", "seeds=[3, 4, 5]"]),
        (["run", "ownership", "-p", "stem=strid"], ["'strid'", "stride2"]),
        (["run", "ownership", "-p", "seeds={[]:1}"], ["list[int]", "'{[]:1}'"]),
        (["run", "ownership", "-p", "=2"], ["''", "epochs"]),
        (["run", "ownership", "-p", "rounds 2"], ["NAME=VALUE", "'rounds 2'"]),
        (["run", "ownership", "-p", "scale=smoke"], ["--scale", "smoke"]),
        (["run", "scorecard", "-p", "seeds=[0]"], ["'seeds'", "one of scale"]),
        (["run"], ["a chapter", "--all"]),
        (["run", "ownership", "--all"], ["a chapter", "or --all"]),
        (["run", "--all", "-p", "rounds=2"], ["-p", "one chapter"]),
        (["run", "--all", "--name", "a"], ["--name", "one chapter"]),
        (["run", "ownership", "--name", "a/b"], ["a run's name must", "'a/b'"]),
        (["run", "ownership", "--scael", "smoke"], ["--scael", "--scale"]),
        (["book", "--scale"], ["--scale", "argument"]),
        (["status", "ownership"], ["ownership"]),
        (["power", "--scale", "laptp"], ["'laptp'", "did you mean laptop"]),
    ],
)
def test_bad_input_is_one_line_and_nothing_runs(
    home, nothing_runs, capfd, words, parts
):
    assert cli.main(words) == 2
    said = capfd.readouterr().err
    assert said.startswith("lottolab: ")
    assert len(said.splitlines()) == 1
    for part in parts:
        assert part in said
    assert list(home.iterdir()) == []


@pytest.mark.parametrize("words", [["--help"], ["run", "--help"], ["clean", "--help"]])
def test_help_is_no_failure(home, capfd, words):
    assert cli.main(words) == 0
    out, err = capfd.readouterr()
    assert "Usage" in out
    assert err == ""


def test_no_command_shows_the_commands(home, capfd):
    assert cli.main([]) == 2
    out, err = capfd.readouterr()
    shown = out + err
    for command in (
        "book",
        "render",
        "publish",
        "run",
        "test",
        "status",
        "verify",
        "power",
    ):
        assert f" {command} " in shown
    assert "lottolab: \n" not in shown


def test_run_hands_on_what_was_given(home, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lottolab.reruns.rerun.rerun", lambda *given: seen.append(given)
    )
    words = ["run", "ownership", "-p", "rounds=3", "--parameter", " text = a=b "]
    assert cli.main(words) == 0
    assert cli.main(["run", "ownership", "--scale", "smoke", "--name", "mine"]) == 0
    given = {"rounds": "3", "text": "a=b"}
    first, second = seen
    assert first == ("ownership", "laptop", given, None)
    assert second == ("ownership", "smoke", {}, "mine")


def test_a_plain_run_is_the_editions_and_prints_its_path(home, monkeypatch, capfd):
    seen = []

    def run(chapter, scale):
        seen.append((chapter, scale))
        return home / "there.ipynb"

    monkeypatch.setattr(execute, "execute", run)
    assert cli.main(["run", "ownership"]) == 0
    assert seen == [("ownership", "laptop")]
    out = capfd.readouterr().out
    assert out.splitlines()[-1] == str(home / "there.ipynb")
    assert out.startswith("ownership at laptop scale")


def test_run_all_goes_on_after_a_failure_and_names_it(home, monkeypatch, capfd):
    ran = []

    def run(chapter, scale):
        ran.append(chapter)
        if chapter == "membership":
            raise execute.Failed("membership stopped: no")
        return home / f"{chapter}.ipynb"

    monkeypatch.setattr(execute, "execute", run)
    assert cli.main(["run", "--all", "--scale", "smoke"]) == 1
    assert ran == [n for n in parameters.chapters() if "smoke" in parameters.scales(n)]
    err = capfd.readouterr().err
    assert err.startswith("lottolab: 1 of ")
    assert err.endswith("chapters failed: membership stopped: no\n")


def test_book_runs_every_chapter_of_the_scale_and_prints_the_page_last(
    home, monkeypatch, capfd
):
    ran, rendered = [], []

    def run(chapter, scale):
        ran.append((chapter, scale))
        print(f"{chapter} is running")
        return home / f"{chapter}.ipynb"

    def build(source, output, **options):
        rendered.append((source, output, options))
        return output / "index.html"

    monkeypatch.setattr(execute, "execute", run)
    monkeypatch.setattr("lottolab.pages.site.render.render", build)
    assert cli.main(["book"]) == 0
    names = [n for n in parameters.chapters() if "smoke" in parameters.scales(n)]
    assert names
    assert ran == [(name, "smoke") for name in names]
    html = home / "_build/smoke/html"
    notebooks = {name: home / f"{name}.ipynb" for name in names}
    assert rendered == [(home, html, {"strict": True, "notebooks": notebooks})]
    assert capfd.readouterr().out.splitlines()[-1] == str(html / "index.html")

    ran.clear()
    assert cli.main(["render"]) == 0
    assert ran == []
    html = home / "_build/edition/html"
    assert rendered[1:] == [(home, html, {"strict": True, "notebooks": {}})]


def test_a_chapter_that_fails_costs_the_book_its_exit_code(home, monkeypatch, capfd):
    def run(chapter, scale):
        if chapter in ("membership", "scorecard"):
            raise execute.Failed(f"{chapter} stopped: no")
        return home / f"{chapter}.ipynb"

    def build(source, output, *, strict, notebooks):
        assert not strict
        names = {name: path.name for name, path in notebooks.items()}
        assert names["ownership"] == "ownership.ipynb"
        assert names["membership"] == "membership.unfinished.ipynb"
        return output / "index.html"

    monkeypatch.setattr(execute, "execute", run)
    monkeypatch.setattr("lottolab.pages.site.render.render", build)
    assert cli.main(["book"]) == 1
    said = capfd.readouterr()
    assert said.out.splitlines()[-1] == str(home / "_build/smoke/html/index.html")
    failed = [f"lottolab: {name} stopped: no" for name in ("membership", "scorecard")]
    assert said.err.splitlines()[-2:] == failed


def test_publish_says_what_it_wrote_and_what_it_left(home, monkeypatch, capfd):
    done = {"edition": (["ownership"], ["membership"]), "cifar": (["membership"], [])}
    monkeypatch.setattr("lottolab.reruns.edition.publish", done.get)
    assert cli.main(["publish"]) == cli.main(["publish", "--scale", "cifar"]) == 0
    assert capfd.readouterr().out.splitlines() == [
        "edition scale: written to data/results: ownership",
        "not run to their ends, and left as they are: membership",
        "cifar scale: written to data/results: membership",
    ]
    assert cli.main(["publish", "--scale", "editon"]) == 2
    assert "did you mean edition" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (execute.Failed("ownership stopped: E: no"), 1, "ownership stopped: E: no"),
        (RuntimeError("the book was not rendered"), 1, "the book was not rendered"),
        (FileNotFoundError("put the file there"), 1, "put the file there"),
        (ValueError("lr must be in (0, 10]"), 2, "lr must be in (0, 10]"),
        (LookupError("no result for it"), 2, "no result for it"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_is_one_line_and_a_code(home, monkeypatch, capfd, error, code, said):
    def run(*_):
        raise error

    monkeypatch.setattr(execute, "execute", run)
    assert cli.main(["run", "ownership"]) == code
    assert capfd.readouterr().err.strip() == f"lottolab: {said}"


def test_a_bug_is_not_hidden(home, monkeypatch):
    def run(*_):
        raise ZeroDivisionError

    monkeypatch.setattr(execute, "execute", run)
    with pytest.raises(ZeroDivisionError):
        cli.main(["run", "ownership"])


def test_test_hands_on_how_it_went(home, monkeypatch):
    seen = []
    monkeypatch.setattr(
        "lottolab.machine.testing.run_all", lambda full: seen.append(full) or 1
    )
    assert cli.main(["test"]) == 1
    assert cli.main(["test", "--full"]) == 1
    assert seen == [False, True]


# Commands that read results.


def noted(*, seed):
    """Stand for a stage; `named.find` is made to find it."""


@pytest.fixture
def committed(home, monkeypatch):
    """Commit three measurements of two stages, one of which is stale."""
    monkeypatch.setattr(named, "find", lambda name: noted)
    monkeypatch.setattr(named, "current_of", lambda name, full: "new")
    folder = home / "data/results/ownership"
    folder.mkdir(parents=True)
    common = {"seconds": 100, "device": "cpu", "versions": "v"}
    stages = [
        {"stage": f"noted/{i}", "function": "noted", "arguments": f'{{"seed": {i}}}'}
        | {"data": "d", "fingerprint": f, "digest": "x", "peak_mb": 9, **common}
        | {"finished": f"2026-01-0{i}T12:30:00+00:00"}
        for i, f in ((1, "old"), (2, "new"))
    ]
    pd.DataFrame(stages)[results.STAGE].to_csv(
        folder / "laptop.stages.csv", index=False
    )
    rows = [
        {"claim": "", "metric": "m", "value": 0.5, "seed": i, **common}
        | {"fingerprint": f, "stage": f"noted/{i}"}
        for i, f in ((1, "old"), (2, "new"), (2, "new"))
    ]
    pd.DataFrame(rows).to_csv(folder / "laptop.csv", index=False)
    return folder


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.replace("┃", "│").split("│")[1:-1]]


def test_status_counts_what_there_is(committed, home, capfd):
    (home / "store/stage/abc").mkdir(parents=True)
    (home / "store/stage/abc/value").write_bytes(b"0" * 3 * 2**20)
    assert cli.main(["status"]) == 0
    out = capfd.readouterr().out
    row = next(cells(line) for line in out.splitlines() if "ownership" in line)
    assert row[:5] == ["ownership", "laptop", "3", "2", "1"]
    assert row[5:] == ["3 min 20 s", "2026-01-02 12:30"]
    assert f"{home / 'store'}, 3 MB" in out


def test_status_of_nothing(home, capfd):
    assert cli.main(["status"]) == 0
    assert "0 MB" in capfd.readouterr().out
    assert list(home.iterdir()) == []


@pytest.mark.parametrize(
    ("outcomes", "code"),
    [
        ([], 0),
        (["current again"], 0),
        (["current again", "differs: run the chapter again"], 1),
        (["gone: it", "current again"], 1),
    ],
)
def test_verify_tells_each_outcome(committed, monkeypatch, capfd, outcomes, code):
    frame = pd.DataFrame({"function": "noted", "outcome": outcomes})
    monkeypatch.setattr("lottolab.reruns.verify.verify", lambda *_: frame)
    assert cli.main(["verify"]) == code
    lines = capfd.readouterr().out.splitlines()
    expected = [f"ownership laptop: noted: {o}" for o in outcomes]
    assert lines == (expected or ["ownership laptop: nothing is stale"])


def test_claims_prints_every_claim(home, capfd):
    assert cli.main(["claims"]) == 0
    out = capfd.readouterr().out
    for claim in claims.load():
        assert claim.id in out
    tested = [claim for claim in claims.load() if not claim.not_testable]
    out, _, verdicts = out.partition(" claims at `edition` scale: ")
    assert "failed or not run: ownership" in verdicts
    assert out.count("not run at this scale") == len(tested)


@pytest.mark.parametrize("store", [False, True])
def test_clean_removes_what_it_says_and_no_more(home, capfd, store):
    gone = ["_build/smoke/html", "store/s/abc.partial-123", "store/s/abc.old"]
    kept = ["store/s/abc", "data/results/ownership", "book"]
    for name in gone + kept:
        (home / name).mkdir(parents=True)
        (home / name / "file").write_text("content")
    assert cli.main(["clean", *(["--store"] if store else [])]) == 0
    assert not any((home / name).exists() for name in gone)
    there = {name for name in kept if (home / name / "file").exists()}
    assert there == set(kept[1:] if store else kept)
    said = capfd.readouterr().out
    for name in ["_build", "store"] if store else ["_build", *gone[1:]]:
        assert f"removed {home / name}\n" in said


def test_clean_of_nothing_is_no_failure(home, capfd):
    assert cli.main(["clean", "--store"]) == 0
    assert capfd.readouterr().out == ""


# Rooms.


@pytest.fixture
def room(tmp_path, monkeypatch):
    """Give the room `ownership` a command that exits with the code it is given."""
    module = types.ModuleType("lottolab.ownership.commands")
    module.app = typer.Typer(help="Hide a signature.")

    @module.app.command()
    def embed(text: str, code: int = 0) -> None:
        """Hide a text."""
        print(f"embedded {text}")
        raise typer.Exit(code)

    @module.app.command()
    def extract() -> None:
        """Find a text."""

    monkeypatch.setitem(sys.modules, module.__name__, module)
    folder = tmp_path / "rooms/ownership"
    folder.mkdir(parents=True)
    (folder / "commands.py").touch()
    (tmp_path / "rooms/membership").mkdir()  # a room without commands
    monkeypatch.setattr(cli, "ROOMS", folder.parent)
    monkeypatch.setattr(cli.app, "registered_groups", [])


def test_a_room_brings_its_own_commands(home, room, capfd):
    assert cli.main(["ownership", "embed", "hello"]) == 0
    assert capfd.readouterr().out == "embedded hello\n"
    assert cli.main(["ownership", "embed", "hello", "--code", "3"]) == 3
    assert cli.main(["--help"]) == 0
    assert "Hide a signature." in capfd.readouterr().out
    assert cli.main(["ownershi"]) == 2
    assert "did you mean ownership?" in capfd.readouterr().err
    assert cli.main(["ownership", "embed"]) == 2
    assert len(capfd.readouterr().err.splitlines()) == 1


def test_a_room_without_commands_has_none(home, room, capfd):
    assert cli.main(["membership"]) == 2
    assert "got 'membership'" in capfd.readouterr().err
