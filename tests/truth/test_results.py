"""What was measured is read back, and is stamped current only if a rerun agrees."""

import json
import shutil
from pathlib import Path

import pandas as pd
import pytest

from lottolab import jobs
from lottolab.jobs import named
from lottolab.nets import tickets
from lottolab.reruns import verify
from lottolab.runs import places, staging
from lottolab.truth import results

SETTING = {
    "dataset": "digits",
    "sizes": {"train": 64, "val": 32, "test": 32},
    "network": {"name": "cnn4", "width": 4},
    "recipe": {"epochs": 1, "batch": 32},
    "rewind_at": 0,
}
WRONG = "0123456789012345"  # digits alone, which a careless reader takes for a number


def measured(stage, seed: int, **more) -> list[dict]:
    setting = SETTING | more | {"seed": seed}
    accuracy = stage(**setting)["accuracy"]
    labels = {"arm": stage.__name__, "point": "fifth;sparsest", "claim": "a b"}
    return [
        results.row(stage, setting, metric=f"{k}_accuracy", value=v, **labels)
        for k, v in accuracy.items()
    ]


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    """Train three dense networks and a ticket, once; return the folder with all."""
    home = tmp_path_factory.mktemp("home")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTOLAB_STORE", str(home / "store"))
        patch.setenv("LOTTOLAB_RESULTS", str(home / "data/results"))
        rows = [row for seed in (2, 1, 3) for row in measured(tickets.dense, seed)]
        rows += measured(tickets.iterative, 1, rates=[0.5])
        results.write("ownership", "smoke", rows)
    return home


@pytest.fixture
def home(computed, tmp_path, monkeypatch):
    """Give each test a copy of its own: a store, and tables that are committed."""
    shutil.copytree(computed, tmp_path, dirs_exist_ok=True)
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    return tmp_path


def tables(home) -> list:
    folder = home / "data/results/ownership"
    return [folder / "smoke.csv", folder / "smoke.stages.csv"]


def falsify(home, column: str, value: str, like: str = "") -> dict:
    """Replace a column where the stage's place matches; return the texts before."""
    before = {}
    for path in tables(home):
        before[path] = path.read_text()
        table = pd.read_csv(path, dtype=str, keep_default_na=False)
        if column in table:
            table.loc[table["stage"].str.contains(like), column] = value
        table.to_csv(path, index=False, lineterminator="\n")
        assert column not in table or path.read_text() != before[path]
    return before


def test_rows_are_read_back_as_they_were_measured(home):
    table = results.read("ownership", "smoke")
    dense = table[table["arm"] == "dense"]
    assert dense["seed"].tolist() == [2, 2, 1, 1, 3, 3]
    assert set(table["metric"]) == {"val_accuracy", "test_accuracy"}
    assert set(table["point"]) == {"fifth;sparsest"}
    assert set(table["claim"]) == {"a b"}
    for _, row in dense.iterrows():
        split = row["metric"].removesuffix("_accuracy")
        outcome = tickets.dense(**SETTING, seed=row["seed"])
        assert row["value"] == outcome["accuracy"][split]  # to the last bit
        record = places.record(tickets.dense, **SETTING, seed=row["seed"])
        for key in ("seconds", "fingerprint"):
            assert row[key] == record[key]
        assert (places.root() / row["stage"] / "record.json").is_file()
    assert not table["stale"].any()


def test_each_stage_is_told_once_with_all_that_a_rerun_needs(home):
    stages = results.read_stages("ownership", "smoke")
    assert stages.columns.tolist() == results.STAGE
    assert len(stages) == 4
    assert stages["stage"].is_unique
    for _, stage in stages.iterrows():
        arguments, function = json.loads(stage["arguments"]), stage["function"]
        assert named.find(function)(**arguments)["accuracy"]["test"] <= 1
        record = places.record(named.find(function), **arguments)
        assert stage["digest"] == record["digest"]
        assert stage["data"] == record["data"]
        assert stage["peak_mb"] == record["peak_mb"] > 0
    assert set(stages["function"]) == {"tickets.dense", "tickets.iterative"}


def test_what_a_stage_asked_for_is_told_after_it_however_deep(home):
    rows = measured(tickets.iterative, 1, **TWICE)
    written = results.write("ownership", "smoke", rows)
    assert set(written["stage"]) == {"tickets.iterative/" + last_place().name}
    stages = results.read_stages("ownership", "smoke")
    rates = [json.loads(text).get("rates") for text in stages["arguments"]]
    assert rates == [[0.5, 0.5], None, [0.5]]
    assert stages["function"][1] == "tickets.dense"
    assert not written["stale"].any()

    path = last_place() / "record.json"  # as it was before records told
    record = json.loads(path.read_text())
    del record["asked"]
    path.write_text(json.dumps(record))
    results.write("ownership", "smoke", rows)
    assert len(results.read_stages("ownership", "smoke")) == 1


TWICE = {"rates": [0.5, 0.5]}


def last_place():
    return places.place(tickets.iterative, **SETTING, **TWICE, seed=1)


def test_a_row_needs_a_result(home):
    with pytest.raises(LookupError, match=r"tickets.dense has no result for .*'seed'"):
        results.row(tickets.dense, SETTING | {"seed": 99}, metric="m", value=1.0)


def test_there_may_be_no_table(home):
    assert results.read("ownership", "paper") is None
    assert results.read_stages("ownership", "paper").columns.tolist() == results.STAGE


def test_another_fingerprint_makes_a_measurement_stale(home):
    falsify(home, "fingerprint", WRONG, like="iterative")
    table = results.read("ownership", "smoke")
    assert table["stale"].tolist() == (table["arm"] == "iterative").tolist()
    assert set(table.loc[table["stale"], "fingerprint"]) == {WRONG}
    assert verify.stale("ownership", "smoke")["function"].tolist() == [
        "tickets.iterative"
    ]


def test_code_that_changed_makes_its_measurements_stale(home, monkeypatch):
    monkeypatch.setattr(named, "current_of", lambda stage, full: WRONG)
    assert results.read("ownership", "smoke")["stale"].all()
    assert len(verify.stale("ownership", "smoke")) == 4


@pytest.mark.parametrize("digits", ["1234567890123456", "1234567e89012345"])
def test_a_fingerprint_of_digits_is_no_number(home, monkeypatch, digits):
    falsify(home, "fingerprint", digits)
    falsify(home, "digest", digits)
    monkeypatch.setattr(named, "current_of", lambda stage, full: digits)
    assert not results.read("ownership", "smoke")["stale"].any()
    assert verify.stale("ownership", "smoke").empty
    assert set(results.read_stages("ownership", "smoke")["digest"]) == {digits}


def test_the_run_that_goes_on_comes_before_the_committed(home, monkeypatch):
    running = home / "running/ownership"
    shutil.copytree(home / "data/results/ownership", running)
    for path in running.iterdir():
        text = path.read_text().replace("dense,", "sparse,").splitlines()[:-1]
        path.write_text("\n".join(text) + "\n")
    monkeypatch.setenv("LOTTOLAB_RESULTS", str(home / "running"))
    assert len(results.read("ownership", "smoke")) == 7
    assert len(results.read_stages("ownership", "smoke")) == 3
    shutil.rmtree(running)  # it has not written yet
    assert len(results.read("ownership", "smoke")) == 8
    assert len(results.read_stages("ownership", "smoke")) == 4


def test_what_was_just_written_is_what_is_read(home, monkeypatch):
    """In Jupyter nobody has said where results go, and committed ones lie there."""
    monkeypatch.setenv("LOTTOLAB_RESULTS", "")  # so that it is put back afterwards
    before = [path.read_bytes() for path in tables(home)]
    rows = measured(tickets.dense, 1)
    rows[0]["value"] = rows[1]["value"] = 0.125
    written = results.write("ownership", "smoke", rows)
    assert written["value"].tolist() == [0.125, 0.125]
    assert results.read("ownership", "smoke")["value"].tolist() == [0.125, 0.125]
    assert len(results.read_stages("ownership", "smoke")) == 1
    assert (home / "_build/smoke/results/ownership/smoke.csv").is_file()
    assert [path.read_bytes() for path in tables(home)] == before


def test_a_table_appears_whole_or_not_at_all(home, monkeypatch):
    def half(table, path, **_):
        path.write_text("claim,ar")
        raise OSError("no space left on device")

    monkeypatch.setenv("LOTTOLAB_RESULTS", str(results.COMMITTED))
    before = [path.read_bytes() for path in tables(home)]
    rows = measured(tickets.dense, 1)
    monkeypatch.setattr(pd.DataFrame, "to_csv", half)
    with pytest.raises(OSError, match="no space"):
        results.write("ownership", "smoke", rows)
    assert [path.read_bytes() for path in tables(home)] == before


# The committed tables.


def test_the_editions_tables_are_compressed_and_read_as_they_were(home, monkeypatch):
    rows = measured(tickets.dense, 1)
    monkeypatch.setenv("LOTTOLAB_RESULTS", str(home / "_build/edition/results"))
    before = results.write("ownership", "edition", rows)
    monkeypatch.delenv("LOTTOLAB_RESULTS")
    results.commit(home / "_build/edition/results", "ownership", "edition")
    names = {"edition.csv.gz", "edition.stages.csv.gz"}
    folder = results.COMMITTED / "ownership"
    paths = [path for path in folder.iterdir() if path.name in names]
    assert len(paths) == 2
    pd.testing.assert_frame_equal(results.read("ownership", "edition"), before)
    packed = [path.read_bytes() for path in paths]
    results.commit(home / "_build/edition/results", "ownership", "edition")
    assert [path.read_bytes() for path in paths] == packed  # and no time in it
    assert not before["stale"].any()
    place = before["stage"].iloc[0]
    results.restamp("ownership", "edition", {place: "other"})
    assert results.read("ownership", "edition")["stale"].all()
    assert results.read_stages("ownership", "edition")["fingerprint"].eq("other").any()


def oversized(folder: Path, most: float = 40e6) -> str:
    """Say that the tables in a folder are more than a repository should carry."""
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
    return f"{size / 1e6:.1f} MB of tables" if size >= most else ""


def test_the_committed_tables_are_under_40_mb(tmp_path):
    assert oversized(results.COMMITTED) == ""
    (tmp_path / "chapter").mkdir()
    (tmp_path / "chapter/edition.csv").write_bytes(bytes(41))
    assert oversized(tmp_path, 41) == "0.0 MB of tables"
    assert oversized(tmp_path, 42) == ""


# Asking and measuring.


@staging.stage("test_results.powers")
def powers(*, x, seed):
    """Return two measurements, and more that is none."""
    found = {"accuracy": {"test": 0.5}, "density": 1 / x, "weights": [x]}
    return found | {"metrics": {"square": x * x, "cube": x**3 + seed}}


@staging.stage("test_results.line")
def line(*, x, seed):
    return {"metrics": {"double": 2 * x}}


def test_a_cross_asks_for_each_combination_at_each_setting():
    settings = [{"seed": 0, "share": 9, "rates": [0.5]}, {"seed": 1}]
    columns = {"arm": "locked"}
    axes = {"share": (0.1, 0.5), "score": ("ewp", "random", "magnitude")}
    asked = results.cross(print, settings, columns, **axes)
    assert len(asked) == 2 * 3 * 2
    expected = [
        (
            {"arm": "locked", "share": share, "score": score},
            print,
            setting | {"share": share, "score": score},
        )
        for share in axes["share"]
        for score in axes["score"]
        for setting in settings
    ]
    for one in expected:
        assert asked.count(one) == 1
    assert settings == [{"seed": 0, "share": 9, "rates": [0.5]}, {"seed": 1}]
    assert columns == {"arm": "locked"}


def test_a_cross_without_axes_asks_once_a_setting():
    settings = [{"seed": 0}, {"seed": 1}]
    assert results.cross(print, settings) == [({}, print, s) for s in settings]
    assert results.cross(print, [], share=(0.1, 0.5)) == []
    assert results.cross(print, settings, share=()) == []


def test_what_is_measured_is_what_the_stages_returned(home, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    seeds = [{"seed": 5}, {"seed": 4}]
    asked = results.cross(powers, seeds, {"arm": "a", "claim": "c"}, x=(2, 4))
    asked += results.cross(line, seeds[:1], {"arm": "b"}, x=(3,))
    rows = results.measure(asked)
    table = [
        (row["arm"], row["claim"], row["x"], row["seed"], row["metric"], row["value"])
        for row in rows
    ]
    assert table == [
        ("a", "c", x, seed, metric, value)
        for x in (2, 4)
        for seed in (5, 4)
        for metric, value in (("square", x * x), ("cube", x**3 + seed))
    ] + [("b", "", 3, 5, "double", 6)]
    assert [row.get("density") for row in rows] == [0.5] * 4 + [0.25] * 4 + [None]
    for row in rows:
        stage = powers if row["arm"] == "a" else line
        record = places.record(stage, x=row["x"], seed=row["seed"])
        kept = {k: row[k] for k in ("seconds", "fingerprint")}
        assert kept == {k: record[k] for k in kept}
        place = places.place(stage, x=row["x"], seed=row["seed"])
        assert places.root() / row["stage"] == place
    assert results.measure([]) == []


def test_the_accuracies_of_a_network_are_measurements(home, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    settings = [SETTING | {"seed": seed} for seed in (3, 1)]
    asked = results.cross(tickets.dense, settings, {"arm": "dense"})
    asked += results.cross(
        tickets.iterative, settings[1:], {"arm": "ticket"}, rates=([0.5],)
    )
    rows = results.measure(asked)
    outcomes = [stage(**given) for _, stage, given in asked]
    found = [(row["metric"], row["value"], row["density"]) for row in rows]
    assert found == [
        (f"{part}_accuracy", outcome["accuracy"][part], outcome["density"])
        for outcome in outcomes
        for part in ("val", "test")
    ]
    assert [row["seed"] for row in rows] == [3, 3, 1, 1, 1, 1]
    assert [row["density"] < 0.51 for row in rows] == [False] * 4 + [True] * 2
    monkeypatch.setenv("LOTTOLAB_RESULTS", str(home / "running"))
    written = results.write("ownership", "smoke", rows)
    assert written["value"].tolist() == [row["value"] for row in rows]
    assert written["arm"].tolist() == ["dense"] * 4 + ["ticket"] * 2
    assert not written["stale"].any()


def test_what_fails_is_not_passed_over(home, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    asked = results.cross(powers, [{"seed": 0}], x=(1, 0))
    with pytest.raises(jobs.RunsFailed, match="ZeroDivisionError"):
        results.measure(asked)


# Verification.


class Counter:
    """Count how often a stage's body runs."""

    def __init__(self, stage, monkeypatch):
        self.seeds, self.body = [], stage.__wrapped__
        monkeypatch.setattr(stage, "__wrapped__", self)

    def __call__(self, **arguments):
        self.seeds.append(arguments["seed"])
        return self.body(**arguments)


def test_one_seed_is_rerun_and_all_are_stamped(home, monkeypatch):
    before = falsify(home, "fingerprint", WRONG)
    for path in places.root().rglob("record.json"):  # the store's code is as old
        record = json.loads(path.read_text()) | {"fingerprint": WRONG}
        path.write_text(json.dumps(record))
    ran = Counter(tickets.dense, monkeypatch)
    assert results.read("ownership", "smoke")["stale"].all()

    outcomes = verify.verify("ownership", "smoke").set_index("function")
    assert outcomes["outcome"].to_dict() == {
        "tickets.dense": "current again",
        "tickets.iterative": "current again",
    }
    assert outcomes["runs"].to_dict() == {"tickets.dense": 3, "tickets.iterative": 1}
    assert "seed" not in json.loads(outcomes.loc["tickets.dense", "arguments"])
    assert ran.seeds == [1]
    assert {path: path.read_text() for path in tables(home)} == before
    assert not results.read("ownership", "smoke")["stale"].any()
    assert verify.verify("ownership", "smoke").empty
    assert verify.committed() == [("ownership", "smoke")]


def test_other_bytes_are_not_stamped(home):
    falsify(home, "fingerprint", WRONG)
    falsify(home, "digest", WRONG, like=r"tickets\.dense")
    before = {path: path.read_text() for path in tables(home)}
    outcomes = verify.verify("ownership", "smoke").set_index("function")["outcome"]
    assert outcomes["tickets.dense"].startswith("differs")
    assert outcomes["tickets.iterative"] == "current again"
    after = {path: path.read_text() for path in tables(home)}
    for path, text in before.items():
        pairs = zip(text.splitlines(), after[path].splitlines(), strict=True)
        changed = [new for old, new in pairs if old != new]
        assert changed
        assert all("iterative" in line for line in changed)
        assert not any(WRONG in line for line in changed)
    table = results.read("ownership", "smoke")
    assert table["stale"].tolist() == (table["arm"] == "dense").tolist()


def test_a_rerun_that_gives_other_bytes_differs(home, monkeypatch):
    falsify(home, "fingerprint", WRONG, like=r"tickets\.dense")
    before = {path: path.read_text() for path in tables(home)}
    for path in places.root().glob("tickets.dense/*/record.json"):
        record = json.loads(path.read_text()) | {"fingerprint": WRONG}
        path.write_text(json.dumps(record))
    other = dict(tickets.dense(**SETTING, seed=7))
    monkeypatch.setattr(tickets.dense, "__wrapped__", lambda **_: other)
    outcomes = verify.verify("ownership", "smoke")
    assert outcomes["outcome"].tolist() == ["differs: run the chapter again"]
    assert {path: path.read_text() for path in tables(home)} == before


@pytest.mark.parametrize("name", ["tickets.sparse", "nowhere.dense"])
def test_a_function_that_is_gone_is_said_to_be(home, name):
    falsify(home, "function", name, like=r"tickets\.dense")
    before = {path: path.read_text() for path in tables(home)}
    table = results.read("ownership", "smoke")
    assert table["stale"].tolist() == (table["arm"] == "dense").tolist()
    outcomes = verify.verify("ownership", "smoke")
    assert outcomes["function"].tolist() == [name]
    assert outcomes["outcome"].item().startswith("gone: ")
    assert name in outcomes["outcome"].item()
    assert {path: path.read_text() for path in tables(home)} == before


def test_an_argument_that_is_gone_is_said_to_be(home):
    stages = pd.read_csv(tables(home)[1], dtype=str, keep_default_na=False)
    old = stages["arguments"].str.replace('"rewind_at"', '"rewind_epoch"')
    stages.assign(arguments=old, fingerprint=WRONG).to_csv(tables(home)[1], index=False)
    outcomes = verify.verify("ownership", "smoke")["outcome"]
    assert outcomes.str.startswith("gone: ").all()
    assert outcomes.str.contains("rewind").all()


def test_an_empty_store_is_no_hindrance(home, monkeypatch):
    before = falsify(home, "fingerprint", WRONG)
    shutil.rmtree(home / "store")
    ran = Counter(tickets.dense, monkeypatch)
    outcomes = verify.verify("ownership", "smoke")
    assert set(outcomes["outcome"]) == {"current again"}
    assert ran.seeds == [1]
    assert {path: path.read_text() for path in tables(home)} == before
