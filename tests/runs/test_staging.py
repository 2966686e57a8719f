"""A stage is computed once, read back exactly, and never half there."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import lottolab
from lottolab import jobs
from lottolab.reruns import verify
from lottolab.runs import places, staging, store

STAGES = '''
import os, sys
import torch
from lottolab import runs
from lottolab.nets import models, train

@runs.stage("test_staging.training")
def training(*, epochs, seed):
    """Train a small network long enough to be killed."""
    g = torch.Generator().manual_seed(seed)
    images = torch.randint(256, (256, 1, 12, 12), dtype=torch.uint8, generator=g)
    labels = torch.randint(4, (256,), generator=g)
    model = models.build("cnn4", channels=1, classes=4, width=8, size=12, seed=seed)
    r = train.Recipe(epochs=epochs, batch=32)
    fitted = train.fit(model, images, labels, r, seed=seed, rewind_at=1)
    return {"weights": model.state_dict(), "rewind": fitted.rewind,
            "history": fitted.history}

@runs.stage("test_staging.counted")
def counted(*, x, log):
    import time
    with open(log, "a") as file:
        file.write(f"{os.getpid()}\\n")
    time.sleep(0.5)
    return {"square": x * x}

if __name__ == "__main__":
    import json
    stage, arguments = sys.argv[1], json.loads(sys.argv[2])
    globals()[stage](**arguments)
    print(runs.record(globals()[stage], **arguments)["digest"])
'''


@pytest.fixture
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("LOTTOLAB_STORE", str(tmp_path / "store"))
    return tmp_path


@staging.stage("test_staging.everything")
def everything(*, scale: float, n=3):
    """Return one value of each kind."""
    return {
        "tensor": torch.arange(n) * scale,
        "array": np.eye(n, dtype=np.float32),
        "state": {"a.weight": torch.full((2, 2), 1 / 3), "mask": torch.tensor([True])},
        "table": pd.DataFrame({"x": [0.1, 1 / 3], "name": ["NA", "b"]}),
        "number": 1 / 3,
        "list": [1, None, "three"],
    }


calls: list[int] = []


@staging.stage("test_staging.noted")
def noted(*, seed, parts=1):
    calls.append(seed)
    return {"value": seed * parts}


def test_what_is_read_is_what_was_computed(home):
    first, second = everything(scale=2), everything(scale=2.0)
    for result in (first, second):
        assert result["tensor"].tolist() == [0.0, 2.0, 4.0]
        assert result["array"].dtype == np.float32
        assert (result["array"] == np.eye(3)).all()
        assert torch.equal(result["state"]["a.weight"], torch.full((2, 2), 1 / 3))
        assert result["state"]["mask"].dtype == torch.bool
        assert result["table"]["x"].tolist() == [0.1, 1 / 3]
        assert result["table"]["name"].tolist() == ["NA", "b"]
        assert result["number"] == 1 / 3
        assert result["list"] == [1, None, "three"]
    record = places.record(everything, scale=2)
    assert record["arguments"] == {"scale": 2.0, "n": 3}
    assert not record["stale"]


def test_tensors_that_share_memory_are_kept(tmp_path):
    tied = torch.arange(4.0)
    store.write({"state": {"a": tied, "b": tied, "part": tied[1:]}}, tmp_path, {})
    found = store.read(tmp_path)["state"]
    assert {k: v.tolist() for k, v in found.items()} == {
        "a": [0, 1, 2, 3],
        "b": [0, 1, 2, 3],
        "part": [1, 2, 3],
    }


def test_is_computed_once_per_arguments(home):
    calls.clear()
    assert [noted(seed=s)["value"] for s in (1, 2, 1, 2)] == [1, 2, 1, 2]
    assert noted(seed=2, parts=1)["value"] == 2  # a default is the same as given
    assert noted(seed=2, parts=5)["value"] == 10
    assert calls == [1, 2, 2]


@pytest.mark.parametrize("bad", [float("nan"), {1}, torch.ones(1), len])
def test_arguments_are_json(home, bad):
    with pytest.raises(TypeError, match="noted: arguments must be"):
        noted(seed=bad)
    assert not list(home.rglob("record.json"))


def test_values_are_of_known_kinds(home):
    @staging.stage("test_staging.bad")
    def bad():
        return {"model": object()}

    with pytest.raises(TypeError, match="'model' must be a tensor"):
        bad()
    assert not list(places.root().glob("*/*/record.json"))


def test_the_disk_holds_all_of_a_result_before_its_name(home, monkeypatch):
    place, synced, sync = places.place(everything, scale=3), [], store._sync

    def noting(path):
        sync(path)
        synced.append((path.name, place.exists()))

    monkeypatch.setattr(store, "_sync", noting)
    everything(scale=3)
    files = [path.name for path in place.iterdir()]
    assert sorted(synced[:-1]) == sorted((name, False) for name in files)
    assert synced[-1] == ("result", False)  # the folder, after what it holds


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flip":
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
    elif how == "cut":
        path.write_bytes(content[: len(content) // 2])
    else:
        path.unlink()


@pytest.mark.parametrize("how", ["flip", "cut", "remove"])
@pytest.mark.parametrize("file", ["state.safetensors", "table.csv", "list.json"])
def test_damage_is_noticed_reported_and_repaired(home, capfd, how, file):
    everything(scale=1)
    path = places.place(everything, scale=1) / file
    sound = path.read_bytes()
    damage(path, how)
    everything(scale=1)
    assert f"{file} is missing or damaged" in capfd.readouterr().err
    assert path.read_bytes() == sound


def test_a_record_that_cannot_be_read_is_no_record(home):
    calls.clear()
    noted(seed=3)
    (places.place(noted, seed=3) / "record.json").write_text('{"stage": ')
    assert places.record(noted, seed=3) is None
    assert noted(seed=3)["value"] == 3
    assert calls == [3, 3]


class Bomb:
    """A pickle that writes a file when it is opened."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


def test_a_pickle_is_refused_and_never_executed(home, capfd):
    everything(scale=1)
    place, mark = places.place(everything, scale=1), home / "executed"
    path = place / "state.safetensors"
    sound = path.read_bytes()
    torch.save({"a.weight": Bomb(mark)}, path)
    record = json.loads((place / "record.json").read_text())
    record["files"]["state"]["sha256"] = store.sha256(path)  # the forger is thorough
    (place / "record.json").write_text(json.dumps(record))
    result = everything(scale=1)
    assert not mark.exists()
    assert "cannot be read" in capfd.readouterr().err
    assert path.read_bytes() == sound
    assert torch.equal(result["state"]["a.weight"], torch.full((2, 2), 1 / 3))


def changed(monkeypatch, stage):
    """Make the stage look as if its code had changed."""
    monkeypatch.setattr(stage, "_fingerprints", {frozenset(): "0" * 16}, raising=False)


def test_a_stale_result_stays_until_it_is_asked_for(home, monkeypatch):
    calls.clear()
    noted(seed=4)
    changed(monkeypatch, noted)
    assert places.record(noted, seed=4)["stale"]
    assert store.read(places.place(noted, seed=4)) == {"value": 4}
    noted(seed=4)
    assert calls == [4, 4]
    assert not places.record(noted, seed=4)["stale"]


def test_a_record_names_what_was_asked_of_other_stages_and_leaves_out_its_seconds(home):
    @staging.stage("test_staging.outer")
    def outer(*, x):
        noted(seed=x)
        slow(x=x)
        slow(x=x)
        return {}

    noted(seed=1)  # what the store has was asked for all the same
    outer(x=1)
    assert places.record(slow, x=1)["seconds"] > 0.3
    assert places.record(outer, x=1)["seconds"] < places.record(slow, x=1)["seconds"]
    asked = [places.place(noted, seed=1), places.place(slow, x=1)]
    there = [str(path.relative_to(places.root())) for path in asked]
    assert places.record(outer, x=1)["asked"] == there
    assert places.record(slow, x=1)["asked"] == []


@staging.stage("test_staging.slow")
def slow(*, x):
    time.sleep(0.4)
    return {}


def test_plan_counts_what_is_left(home):
    work = [(noted, {"seed": s}) for s in range(4)] + [(slow, {"x": 1})]
    noted(seed=0)
    noted(seed=1)
    table = jobs.plan(work).set_index("stage")
    assert table.loc["test_staging.noted", ["runs", "in store"]].tolist() == [4, 2]
    assert np.isnan(table.loc["test_staging.slow", "seconds"])


def test_verify_of_nothing_is_empty(home, monkeypatch):
    monkeypatch.setattr("lottolab.truth.results.COMMITTED", home / "none")
    assert verify.committed() == []


@pytest.fixture
def script(home):
    path = home / "test_one_stage.py"
    path.write_text(STAGES)
    return path


def start(script, stage, **arguments):
    return subprocess.Popen(
        [sys.executable, str(script), stage, json.dumps(arguments)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )


def test_two_processes_compute_a_stage_once(script, home):
    log = str(home / "log")
    both = [start(script, "counted", x=3, log=log) for _ in range(2)]
    digests = [process.communicate()[0] for process in both]
    assert [p.returncode for p in both] == [0, 0]
    assert digests[0] == digests[1] != ""
    assert len(Path(log).read_text().splitlines()) == 1


def campaign(script, monkeypatch, home, kills: int, seed: int):
    """Kill the training `kills` times, spread over its epochs, until it ends."""
    arguments = {"epochs": 30, "seed": 1}
    monkeypatch.setenv("LOTTOLAB_STORE", str(home / "undisturbed"))
    whole = start(script, "training", **arguments).communicate()[0]
    monkeypatch.setenv("LOTTOLAB_STORE", str(home / f"killed-{seed}"))
    chance, killed = random.Random(seed), 0
    seen = []
    while True:
        process = start(script, "training", **arguments)
        if killed < kills:
            wait_for_epochs(home / f"killed-{seed}", chance.randint(1, 3), process)
            time.sleep(chance.random() * 0.05)
        if process.poll() is None and killed < kills:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed += 1
            seen.append(list((home / f"killed-{seed}").rglob("record.json")))
        else:
            assert process.communicate()[0] == whole
            break
    assert killed == kills
    assert not any(path for paths in seen for path in paths)


def wait_for_epochs(folder, count, process):
    """Wait until the checkpoint has been written anew `count` times."""
    written = set()
    while len(written) < count and process.poll() is None:
        for path in folder.rglob("checkpoint.safetensors"):
            try:
                written.add(path.stat().st_mtime_ns)
            except FileNotFoundError:
                continue
        time.sleep(0.002)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
def test_a_killed_training_resumes_bit_for_bit(script, monkeypatch, home):
    campaign(script, monkeypatch, home, kills=2, seed=0)


@pytest.mark.long
@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no SIGKILL")
@pytest.mark.parametrize("seed", range(1, 11))
def test_fifty_killed_trainings_resume_bit_for_bit(script, monkeypatch, home, seed):
    campaign(script, monkeypatch, home, kills=5, seed=seed)


def test_fingerprints_are_found_once_and_again_when_code_changes(tmp_path):
    """What a process finds is kept for the next one, until any code changes."""
    package = tmp_path / "lottolab"
    shutil.copytree(Path(lottolab.__file__).parent, package)
    store = tmp_path / "store"
    code = """from lottolab.jobs import named
from lottolab.runs import fingerprint as f
print(named.current_of("tickets.dense", {}), f._piece.cache_info().misses)"""

    def found() -> list[str]:
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ
            | {"PYTHONPATH": str(tmp_path), "LOTTOLAB_STORE": str(store)},
            cwd=tmp_path,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.split()

    first, pieces = found()
    assert int(pieces) > 50
    assert found() == [first, "0"]
    path = package / "nets/masks.py"
    text = path.read_text("utf-8")
    path.write_text(text + "\n# a comment\n", "utf-8")
    assert found() == [first, pieces]  # looked for again, and the same
    (store / "fingerprints.json").write_text("{")  # cut off, or by another hand
    assert found() == [first, pieces]
    path = package / "nets/train.py"
    path.write_text(path.read_text("utf-8").replace("lr", "rl"), "utf-8")
    assert found()[0] != first
