"""A sweep of one stage: what is swept finds its place, the rest is as it was."""

import json
import os

import pandas as pd
import pytest

from lottolab import cli
from lottolab.jobs import named
from lottolab.reruns import execute
from lottolab.reruns.sweeps import one_stage
from lottolab.runs import places, staging
from lottolab.truth import results


@staging.stage("test_one_stage.curve")
def curve(*, defence: dict, recipe: dict, seed: int) -> dict:
    if defence["epsilon"] > 1:
        raise ValueError("too much")
    value = defence["epsilon"] * recipe["epochs"] + seed
    return {"metrics": {"height": value, "name": float(len(defence["name"]))}}


@staging.stage("test_one_stage.flat")
def flat(*, seed: int) -> dict:
    return {"metrics": {"height": 0.0}}


RUNS = [
    {"defence": {"name": "W", "beta": 1.0}, "recipe": {"epochs": 2}, "seed": 0},
    {"defence": {"name": "W", "epsilon": 0.1}, "recipe": {"epochs": 2}, "seed": 0},
    {"defence": {"name": "long", "epsilon": 0.1}, "recipe": {"epochs": 3}, "seed": 7},
]


@pytest.fixture
def edition(tmp_path, monkeypatch):
    """Commit runs of two stages of chapter 4, and point everything else away."""
    rows = [{"function": "far.away.curve", "arguments": json.dumps(a)} for a in RUNS]
    rows.append({"function": "far.away.flat", "arguments": '{"seed": 0}'})
    (tmp_path / "committed/modelguard").mkdir(parents=True)
    table = pd.DataFrame(rows, columns=results.STAGE)
    table.to_csv(tmp_path / "committed/modelguard/laptop.stages.csv", index=False)
    known = {"curve": curve, "flat": flat}
    monkeypatch.setattr(named, "find", lambda name: known[name.rpartition(".")[2]])
    now = lambda name, full: places.current(named.find(name), full)  # noqa: E731
    monkeypatch.setattr(named, "current_of", now)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "committed")
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    for key in [k for k in os.environ if k.startswith("LOTTOLAB_")]:
        monkeypatch.delenv(key)
    monkeypatch.setenv("LOTTOLAB_RESULTS", "")  # so that it is put back afterwards
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    return tmp_path


def swept(*words):
    return cli.main(["sweep", "modelguard", "--stage", "curve", *words])


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ({"epsilon": ["0.5", "1"]}, 1),
        ({"defence.epsilon": ["0.5", "1"]}, 1),
        ({"epsilon": ["0.5", "1"], "seed": ["7"]}, 2),
        ({"epsilon": ["0.5", "1"], "seed": ["7", "0"]}, 1),
        ({"epsilon": ["0.5"], "defence.name": ["long"]}, 2),
        ({"epochs": ["9"]}, 0),
    ],
)
def test_the_first_run_that_fits_best_is_the_base(edition, given, number):
    function, base, read = one_stage.find("modelguard", "laptop", "curve", given)
    assert function == "far.away.curve"
    assert base == RUNS[number]
    assert set(read) == set(given)
    whole = {"epsilon": ("defence", "epsilon"), "epochs": ("recipe", "epochs")}
    for name, (place, _) in read.items():
        assert place == whole.get(name, tuple(name.split(".")))


@pytest.mark.parametrize(
    ("words", "parts"),
    [
        (["-p", "epsilo=1"], ["'epsilo'", "did you mean epsilon"]),
        (["-p", "epsilon=a"], ["epsilon must be float", "'a'"]),
        (["-p", "epochs=2.5"], ["epochs must be int", "2.5"]),
        (["-p", "epsilon=1,1.0"], ["must differ"]),
        (
            ["-p", "beta=1", "-p", "epsilon=1"],
            ["must have each of", "beta and epsilon"],
        ),
        (["-p", "seed=1", "--stage", "curv"], ["'curv'", "did you mean curve"]),
        (["-p", "seed=1", "--scale", "smoke"], ["must have results", "'smoke'"]),
    ],
)
def test_a_bad_grid_of_a_stage_is_one_line_and_nothing_runs(
    edition, capfd, words, parts
):
    assert swept(*words) == 2
    said = capfd.readouterr().err
    assert len(said.splitlines()) == 1
    assert all(part in said for part in parts)
    assert not (edition / "_build").exists()
    assert not (edition / "store").exists()


def test_a_stage_is_swept_and_what_is_there_is_not_run_again(edition, capfd):
    words = ["-p", "epsilon=0.5,1,2", "-p", "defence.name=long", "-p", "seed=0:2"]
    assert swept(*words) == 1
    out, err = capfd.readouterr()
    assert (
        "epsilon=2.0 defence.name=long seed=1: RunsFailed: test_one_stage.curve(" in out
    )
    assert "points that failed: 2" in err
    folder = edition / "_build/sweeps/modelguard"
    table = pd.read_csv(folder / "table.csv")
    heights = table[table["metric"] == "height"]
    assert heights["value"].tolist() == [1.5, 2.5, 3.0, 4.0]  # epochs are the base's
    assert heights["p_epsilon"].tolist() == [0.5, 0.5, 1.0, 1.0]
    assert heights["seed"].tolist() == [0, 1, 0, 1]
    assert set(table.loc[table["metric"] == "name", "value"]) == {4.0}
    said = table["error"].dropna()
    assert len(said) == 2
    assert said.str.endswith("): ValueError: too much").all()
    assert (folder / "figure.png").exists()
    assert swept("-p", "epsilon=1", "-p", "defence.name=long", "-p", "seed=0:3") == 0
    assert "3 points, 2 of them are there" in capfd.readouterr().out
    assert swept("-p", "epsilon=1", "-p", "defence.name=W", "-p", "seed=0") == 0
    assert "1 points, 0 of them are there" in capfd.readouterr().out
