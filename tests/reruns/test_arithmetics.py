"""What decides claims is computed again, in the arithmetic of another CPU."""

import math

import numpy as np
import pandas as pd
import pytest
import torch

from lottolab.nets import tickets
from lottolab.pages.verdicts import machines as pages
from lottolab.reruns import arithmetics, execute
from lottolab.truth import claims_file, results

SETTING = {
    "dataset": "digits",
    "sizes": {"train": 64, "val": 32, "test": 32},
    "network": {"name": "cnn4", "width": 4},
    "recipe": {"epochs": 1, "batch": 32},
    "rewind_at": 0,
}
CLAIMS = """\
- {id: ownership-more, chapter: ownership, place: "1", whose: paper,
   statement: More., test: [
   {kind: at_least, a: {metric: test_accuracy, arm: dense}, value: 0}]}
- {id: ownership-lost, chapter: ownership, place: "1", whose: paper,
   statement: No., test: [
   {kind: at_least, a: {metric: derived, arm: dense}, value: 0}]}
"""


@pytest.mark.parametrize(
    ("native", "able"), [("AVX512", ["avx2", "sse41"]), ("AVX2", ["sse41"])]
)
def test_an_arithmetic_is_another_than_this_machines(monkeypatch, native, able):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: native)
    assert arithmetics.other() == able[0]
    assert [arithmetics.other(name) for name in able] == able
    with pytest.raises(ValueError, match=f"must be one of {', '.join(able)}"):
        arithmetics.other("avx2" if native == "AVX2" else "vsx")


def test_a_machine_without_instructions_to_leave_out_says_so(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "DEFAULT")
    with pytest.raises(ValueError, match="no instructions"):
        arithmetics.other()


def test_a_row_is_found_in_what_its_stage_returns():
    row = pd.Series({"metric": "auc", "attack": "lira", "level": 1.0, "arm": "x"})
    columns = ["metric", "attack", "level", "value"]
    rows = [("auc", "lira", 1, 0.7), ("auc", "lira", 2, 0.8), ("auc", "loss", 1, 0.9)]
    result = {"measurements": pd.DataFrame(rows, columns=columns)}
    assert arithmetics.value(result, row) == 0.7
    assert arithmetics.value({"metrics": {"auc": 0.6}}, row) == 0.6
    trained = {"accuracy": {"test": 0.5}, "density": 0.1}
    assert arithmetics.value(trained, pd.Series({"metric": "test_accuracy"})) == 0.5
    assert math.isnan(arithmetics.value(trained, row))
    twice = {"measurements": pd.DataFrame([rows[0], rows[0]], columns=columns)}
    assert math.isnan(arithmetics.value(twice, row))
    result["measurements"]["level"] = np.nan  # a row without a level is no row of 1
    assert math.isnan(arithmetics.value(result, row))


@pytest.fixture
def home(tmp_path, monkeypatch):
    """Commit three small trainings, of which one row is made from others."""
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    monkeypatch.setenv("LOTTOLAB_RESULTS", "")  # what `write` sets is put back
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "data/results")
    monkeypatch.setattr(claims_file, "FILE", tmp_path / "claims.yaml")
    (tmp_path / "claims.yaml").write_text(CLAIMS)
    return tmp_path


@pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="nothing to leave out"
)
def test_both_arithmetics_stand_beside_the_results(home, monkeypatch):
    with pytest.raises(ValueError, match="run and publish it"):
        arithmetics.compute("ownership", "edition")
    rows = []
    for seed in range(3):
        setting = SETTING | {"seed": seed}
        accuracy = tickets.dense(**setting)["accuracy"]["test"]
        for metric in ("test_accuracy", "derived"):
            more = {"metric": metric, "value": accuracy, "arm": "dense"}
            rows.append(results.row(tickets.dense, setting, **more))
    results.write("ownership", "edition", rows)
    monkeypatch.delenv("LOTTOLAB_RESULTS")
    results.commit(home / "_build/edition/results", "ownership", "edition")
    monkeypatch.setenv("LOTTOLAB_RESULTS", "")

    path, lost = arithmetics.compute("ownership", "edition")
    assert (path.name, lost) == ("edition.machines.csv", 3)
    both = pages.read("ownership", "edition")
    assert both["machine"].value_counts().to_dict() == {"native": 3, "other": 3}
    native = both[both["machine"] == "native"]
    assert native["value"].tolist() == [r["value"] for r in rows[::2]]
    assert set(both["arithmetic"]) == {"as this CPU does", arithmetics.other()}
    there = home / "_build/machines" / arithmetics.other()
    assert len(list(there.glob("tickets.dense/*/record.json"))) == 3
    assert len(pages.agreement("ownership", "edition")) == 2


def test_another_machines_table_stands_beside_the_results(home, monkeypatch):
    for machine, moved in (("theirs", 0.25), ("mine", 0.0)):
        rows = []
        for seed in range(3):
            setting = SETTING | {"seed": seed}
            value = tickets.dense(**setting)["accuracy"]["test"] + moved * (1 + seed)
            more = {"metric": "test_accuracy", "value": value, "arm": "dense"}
            rows.append(results.row(tickets.dense, setting, **more))
        results.write("ownership", "edition", rows)
        monkeypatch.delenv("LOTTOLAB_RESULTS")
        results.commit(home / "_build/edition/results", "ownership", "edition")
        monkeypatch.setenv("LOTTOLAB_RESULTS", "")
        folder = home / "data/results/ownership"
        if machine == "theirs":
            for path in folder.glob("edition*.csv.gz"):
                path.rename(home / path.name)
    theirs = home / "edition.csv.gz"
    other = pd.read_csv(theirs)
    other.loc[2, "fingerprint"] = "of other code"
    other.to_csv(theirs, index=False)

    path, lost = arithmetics.beside("ownership", "edition", theirs)
    assert (path.name, lost) == ("edition.machines.csv", 1)
    both = pages.read("ownership", "edition").set_index("machine")
    apart = both.loc["other", "value"].to_numpy() - both.loc["native", "value"]
    assert apart.tolist() == pytest.approx([0.25, 0.5])
    (device,) = set(both.loc["other", "arithmetic"])
    assert device in pages.told(["ownership"], "edition").data
    other.assign(fingerprint="of other code").to_csv(theirs, index=False)
    with pytest.raises(ValueError, match="must hold a row of the headline claims"):
        arithmetics.beside("ownership", "edition", theirs)
    with pytest.raises(ValueError, match="must be a table of results"):
        arithmetics.beside("ownership", "edition", home / "nowhere.csv")


def test_a_process_gets_the_variables_and_a_failure_is_told(home):
    variables = arithmetics.ARITHMETICS["sse41"]
    arithmetics._child([], home / "there", variables)
    with pytest.raises(RuntimeError, match=r"failed with .*SSE41"):
        arithmetics._child([["no.such", {}]], home / "there", variables)
