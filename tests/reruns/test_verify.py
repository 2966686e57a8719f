"""Code that gives the bytes of an older revision is stamped current, and no other."""

import json
import subprocess

import pandas as pd
import pytest

from lottolab.jobs import named
from lottolab.reruns import execute, verify
from lottolab.runs import store
from lottolab.truth import results

NOW = {"a.same": "new-same", "a.other": "new-other", "a.deep": "new-deep"}


@pytest.fixture
def book(tmp_path, monkeypatch):
    """Commit a run of each stage, and one that was stale at the older revision."""
    folder = tmp_path / "results" / "ownership"
    folder.mkdir(parents=True)
    monkeypatch.setattr(results, "COMMITTED", tmp_path / "results")
    monkeypatch.setattr(execute, "ROOT", tmp_path)
    monkeypatch.delenv("LOTTOLAB_RESULTS", raising=False)
    monkeypatch.setenv("LOTTOLAB_JOBS", "1")
    monkeypatch.setattr(named, "current_of", lambda name, full: NOW[name])
    runs = {"a.same/1": 1.0, "a.same/2": 2.0, "a.other/1": 1.0, "a.deep/1": 9.0}
    stages = [
        {"stage": p, "function": p[:-2], "arguments": json.dumps({"seed": int(p[-1])})}
        | {"fingerprint": "old", "digest": "d", "seconds": s}
        for p, s in runs.items()
    ]
    table = pd.DataFrame(stages).reindex(columns=results.STAGE)
    table.to_csv(folder / "laptop.stages.csv", index=False)
    rows = {"stage": list(runs), "fingerprint": "old", "claim": "", "value": 1}
    pd.DataFrame(rows).to_csv(folder / "laptop.csv", index=False)

    def git(*words):
        name = ["-c", "user.name=t", "-c", "user.email=t@t"]
        subprocess.run(["git", *name, *words], cwd=tmp_path, check=True)

    git("init", "-q")
    git("commit", "-q", "--allow-empty", "-m", "one")
    return folder


def stamps() -> list[str]:
    return results.read_stages("ownership", "laptop")["fingerprint"].tolist()


def test_what_gives_the_same_bytes_is_stamped(book, tmp_path, monkeypatch):
    digests = {"a.same": ("x", "x"), "a.other": ("x", "y"), "a.deep": ("z", "z")}
    asked = []

    def python(tree, place, *call):
        """Stand for the book's smoke run, and for the run of one stage."""
        asked.append(call)
        if call[1] == verify.STALE:
            return '["a.same/2"]'
        for name in [call[2]] if call[0] == "-c" else ["a.same", "a.other"]:
            folder = place / name / "0"
            folder.mkdir(parents=True, exist_ok=True)
            digest = digests[name][tree == tmp_path]
            record = {"stage": name, "arguments": {}, "digest": digest, "files": {}}
            record |= {"fingerprint": NOW[name] if tree == tmp_path else "old"}
            (folder / "record.json").write_text(json.dumps(record))
        return ""

    monkeypatch.setattr(verify, "_python", python)
    found = verify.against("HEAD")
    book_has = [next(found), next(found)]
    assert book_has == [
        ("a.other", "new-other", 1, "differs"),
        ("a.same", "new-same", 1, "current again"),
    ]
    assert stamps() == ["new-same", "old", "old", "old"]  # whatever comes after
    assert list(found) == [("a.deep", "new-deep", 1, "current again")]
    assert stamps() == ["new-same", "old", "old", "new-deep"]  # a.same/2 was stale
    deep = [call for call in asked if call[1] == verify.RUN]
    assert {call[2] for call in deep} == {"a.deep"}  # the book has all else
    assert len(deep) == 2  # once with each code


def test_what_did_not_run_with_both_codes_is_not_stamped(book, monkeypatch):
    monkeypatch.setattr(verify, "_python", lambda *_: "[]")
    assert {row[3] for row in verify.against("HEAD")} == {"not run: see above"}
    assert set(stamps()) == {"old"}


def test_a_result_of_yet_another_code_proves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(named, "current_of", lambda name, full: "now")
    for name, code in (("old", "old"), ("new", "between")):
        folder = tmp_path / name / "a.f" / "0"
        folder.mkdir(parents=True)
        record = {"stage": "a.f", "arguments": {}, "digest": "x", "files": {}}
        record |= {"fingerprint": code}
        (folder / "record.json").write_text(json.dumps(record))
    assert verify._compared(tmp_path / "old", tmp_path / "new") == {}
    assert store.read_record(folder)["fingerprint"] == "between"


def test_a_commit_that_is_none_is_refused(book):
    with pytest.raises(ValueError, match="must be a commit of git's, got nowhere"):
        next(verify.against("nowhere"))
