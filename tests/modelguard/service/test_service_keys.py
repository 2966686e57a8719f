"""API keys: hashed at rest, read from a file or the environment, refused in a line."""

import hashlib
import os
import stat

import pytest

from lottolab import cli
from lottolab.modelguard.service import keys
from lottolab.modelguard.service.keys import Client, Keys

HASH = hashlib.sha256(b"secret").hexdigest()


def test_a_made_key_is_known_and_stands_nowhere(tmp_path, capsys):
    file = tmp_path / "keys"
    made = {}
    for name, more in (("ann", []), ("bob", ["--quota", "100"])):
        words = ["modelguard", "key", name, "--keys", str(file), *more]
        assert cli.main(words) == 0
        made[name] = capsys.readouterr().out.strip()
    assert len(set(made.values())) == 2
    assert all(len(text) >= 43 for text in made.values())  # 32 bytes
    text = file.read_text()
    assert not any(key in text for key in made.values())
    assert hashlib.sha256(made["ann"].encode()).hexdigest() in text
    if os.name != "nt":
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    known = keys.read(file)
    assert {name: known.name(key) for name, key in made.items()} == {
        "ann": "ann",
        "bob": "bob",
    }
    assert known.quotas == {"bob": 100}
    assert known.name("secret") is None
    assert known.name("") is None
    assert cli.main(["modelguard", "key", "ann", "--keys", str(file)]) == 2
    assert "must name each key once, got ann" in capsys.readouterr().err
    assert file.read_text() == text


def test_the_environment_holds_them_too(tmp_path):
    found = keys.read(None, {keys.VARIABLE: f"# mine\nann {HASH} 5;"})
    assert found.name("secret") == "ann"
    assert found.quotas == {"ann": 5}
    assert keys.read(None, {}) is None


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("", "must hold a key"),
        ("# none", "must hold a key"),
        ("ann secret", "got another line 1"),
        (f"ann {HASH}\nbob", "got another line 2"),
        (f"ann {HASH.upper()}", "got another line 1"),
        (f"ann {HASH} -5", "got another line 1"),
        (f"ann {HASH} 5 6", "got another line 1"),
        (f"{'a' * 49} {HASH}", "got another line 1"),
        (f"ann {HASH}\nbob {HASH}", "each key once, got bob"),
    ],
)
def test_a_file_that_holds_no_keys_is_refused_and_tells_none(text, part):
    with pytest.raises(ValueError, match=part) as refused:
        Keys(text, "the file")
    assert "secret" not in str(refused.value)


def test_odd_names_quotas_and_files_are_refused(tmp_path, capsys):
    for words, part in [
        (["a b"], "a key's name must be"),
        ([".hidden"], "a key's name must be"),
        (["ann", "--quota", "0"], "quota must be a whole number >= 1"),
    ]:
        file = tmp_path / "keys"
        assert cli.main(["modelguard", "key", *words, "--keys", str(file)]) == 2
        assert part in capsys.readouterr().err
        assert not file.exists()
    with pytest.raises(FileNotFoundError, match="keys is missing"):
        keys.read(tmp_path / "keys")


def test_a_turn_is_a_keys_or_an_addresss():
    assert Client("ann", "1").who == Client("ann", "2").who != Client("", "ann").who
    assert Client("", "1").who != Client("", "2").who
