"""What is written is whole or not there, and read by whom it should be."""

import errno
import os
import stat

import pandas as pd
import pytest
import safetensors.torch
import torch
from safetensors import SafetensorError

from lottolab.nets import checkpoint, models
from lottolab.ownership.signatures.key import SignatureKey
from lottolab.pages.site import render
from lottolab.runs import files, store

STATE = {"a": torch.arange(6.0).view(2, 3), "b": torch.tensor([True])}
KEY = SignatureKey("fc", (32, 32), 0, 0, 1, "H", 0, "ab" * 16, 144, 0.0, "0" * 64)
# As safetensors 0.8 says it on a small tmpfs.
NO_ROOM = "Error while serializing: I/O error: No space left on device (os error 28)"


@pytest.fixture(params=[0o022, 0o027, 0o077, 0o000], ids=oct)
def umask(request):
    before = os.umask(request.param)
    yield request.param
    os.umask(before)


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def names(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_networks_and_the_store_are_readable_as_the_umask_says(tmp_path, umask):
    models.save(STATE, tmp_path / "net")
    table = pd.DataFrame({"x": [1]})
    store.write({"s": STATE, "t": table, "j": 1}, tmp_path / "stage", {})
    net = torch.nn.Linear(2, 2)
    checkpoint.save_training(tmp_path, net, torch.optim.SGD(net.parameters()), [], {})
    found = [p for p in tmp_path.rglob("*") if p.is_file()]
    assert len(found) == 6
    assert {mode(path) for path in found} == {0o666 & ~umask}


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
def test_a_key_is_its_owners_alone_from_the_first_byte(tmp_path, umask, monkeypatch):
    seen = []
    path = tmp_path / "key.json"
    path.write_text("of before, when it was as the umask says")
    real = type(path).write_text

    def noted(file, text, *rest):
        seen.append((mode(file), file.stat().st_size))
        return real(file, text, *rest)

    monkeypatch.setattr(type(path), "write_text", noted)
    KEY.save(path)
    assert seen == [(0o600, 0)]
    assert mode(path) == 0o600
    assert SignatureKey.load(path) == KEY
    assert names(tmp_path) == ["key.json"]


def test_the_bytes_of_a_network_are_those_of_safetensors(tmp_path):
    for texts in (None, {}, {"rows": "[]"}):
        safetensors.torch.save_file(STATE, tmp_path / "a", metadata=texts)
        files.tensors(STATE, tmp_path / "b", texts)
        assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_what_fails_leaves_the_older_file_and_a_link_leads_where_it_led(tmp_path):
    path, link = tmp_path / "a", tmp_path / "link"
    path.write_text("older")
    link.symlink_to(path)

    def fail():
        with files.replacing(link) as new:
            new.write_text("half of i")
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert path.read_text() == "older"
    with files.replacing(link) as new:
        new.write_text("newer")
    assert path.read_text() == "newer"
    assert link.is_symlink()
    assert names(tmp_path) == ["a", "link"]


# A full disk


def full(path):
    """Write half of a file, as far as there was room."""
    with open(path, "w") as file:
        file.write("half of i")
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_it_is_said_which_disk_is_full_and_what_to_do(tmp_path, code):
    missing = tmp_path / "not" / "there"
    with pytest.raises(files.DiskFull) as caught, files.room(missing):
        raise OSError(code, os.strerror(code))
    said = str(caught.value)
    assert said.startswith(f"the disk of {tmp_path} is full (")
    assert "MB are free" in said
    assert "LOTTOLAB_STORE" in said
    with pytest.raises(OSError, match="disk") as outer, files.room("/elsewhere/x"):
        raise caught.value  # the inner place is the one that is full
    assert outer.value is caught.value


@pytest.mark.parametrize("error", [FileNotFoundError(2, "no"), RuntimeError("no")])
def test_another_error_is_no_full_disk(tmp_path, error):
    with pytest.raises(type(error)) as caught, files.room(tmp_path):
        raise error
    assert caught.value is error


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_the_words_are_those_of_the_system(tmp_path):
    with pytest.raises(files.DiskFull), files.room(tmp_path):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")


def test_a_full_disk_leaves_the_older_network(tmp_path, monkeypatch):
    path = tmp_path / "net"
    models.save(STATE, path)
    before = path.read_bytes()

    def save(state, file, metadata):
        file.write_bytes(b"half of i")
        raise SafetensorError(NO_ROOM)

    monkeypatch.setattr("safetensors.torch.save_file", save)
    with pytest.raises(files.DiskFull, match="is full"):
        models.save(STATE, path)
    assert path.read_bytes() == before
    assert names(tmp_path) == ["net"]


def test_a_full_disk_leaves_nothing_of_a_new_result_and_all_of_the_older(
    tmp_path, monkeypatch
):
    older, new = tmp_path / "a", tmp_path / "a.partial" / "result"
    store.write({"x": 1}, new, {"fingerprint": "f"})
    store.publish(new, older)
    monkeypatch.setattr(pd.DataFrame, "to_csv", lambda self, path, **_: full(path))
    with pytest.raises(files.DiskFull, match="LOTTOLAB_STORE"):
        store.write({"x": 2, "t": pd.DataFrame({"x": [1]})}, new, {})
    assert not new.exists()
    assert store.read(older) == {"x": 1}

    monkeypatch.setattr(store, "_sync", lambda path: full(tmp_path / "x"))
    store.write({"x": 2}, new, {"fingerprint": "f"})
    with pytest.raises(files.DiskFull, match="LOTTOLAB_STORE"):
        store.publish(new, older)
    assert store.read(older) == {"x": 1}


def test_a_full_disk_leaves_the_older_pages(tmp_path, monkeypatch):
    source, output = tmp_path / "source", tmp_path / "out" / "html"
    output.mkdir(parents=True)
    (output / "index.html").write_text("older")

    def build(work, strict):
        raise RuntimeError(f"the book was not rendered:\n  {NO_ROOM}")

    monkeypatch.setattr(render, "_build", build)
    with pytest.raises(files.DiskFull, match=f"disk of {output.parent} is full"):
        render._render(source, output, False, lambda work: None)
    assert names(tmp_path / "out") == ["html"]
    assert (output / "index.html").read_text() == "older"
