"""A reference is the claimant's choice: what binds it, and what it proves without."""

import hashlib
import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dating import NONCE, dated
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment

from lottolab import ownership
from lottolab.cli import main
from lottolab.ownership import SignatureKey
from lottolab.ownership.defences import suspect
from lottolab.ownership.signatures import qr, signature

pytestmark = pytest.mark.usefixtures("on_one_thread")
CHAIN = {"0.weight": (40, 3, 3, 3), "2.weight": (40, 40, 3, 3), "4.weight": (10, 40)}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def chain(seed=0, density=0.1):
    """Return a sparse network that nobody signed."""
    generator = torch.Generator().manual_seed(seed)
    state = {n: torch.randn(s, generator=generator) for n, s in CHAIN.items()}
    kept = torch.rand(CHAIN["2.weight"], generator=generator) < density
    return state | {"2.weight": state["2.weight"] * kept}


def key_of(state):
    """Return the key of a claimant, who drew its secret before he saw the network."""
    masks = {"2.weight": state["2.weight"] != 0}
    _, key = signature.choose(masks, "Ada", "5" * 64, layer="2.weight")
    return replace(key, row=3, column=3, threshold=0.1)


def chosen(state, key):
    """Order an innocent network's channels so that it agrees with a key's code.

    Rows and columns in turn get the order that agrees most, the other's held fixed.
    """
    code = signature._encode("Ada", key.ecc, version=key.version, mask=key.mask)[0]
    wanted, where = np.zeros(key.shape), tuple(qr.places(key.version).T)
    inside = wanted[key.window]
    inside[where] = np.where(signature.covered(code, key)[where], 1.0, -1.0)
    lives = np.where(signature.alive(state["2.weight"], key.threshold), 1.0, -1.0)
    rows, columns = np.arange(40), np.arange(40)
    for _ in range(20):
        gain = wanted @ lives[:, columns].T
        rows = linear_sum_assignment(gain, maximize=True)[1]
        gain = wanted.T @ lives[rows]
        columns = linear_sum_assignment(gain, maximize=True)[1]
    rows, columns = map(torch.from_numpy, (rows, columns))
    found = {"0.weight": state["0.weight"][columns], "4.weight": state["4.weight"]}
    found["4.weight"] = found["4.weight"][:, rows].contiguous()
    return found | {"2.weight": state["2.weight"][rows][:, columns].contiguous()}


def test_a_reference_that_was_chosen_to_fit_convicts_nobody(capsys):
    innocent = chain()
    key = key_of(innocent)
    save_file(innocent, "innocent")
    save_file(chosen(innocent, key), "chosen")
    key.save("key")
    # Without a hash that binds it, a reference does what no p-value pays for.
    where = (Path("chosen"), None)
    assert suspect.judged(innocent, key, "Ada", True, where)[1].accepted
    assert not suspect.judged(innocent, key, "Ada", True, None)[1].accepted
    ask = ["ownership", "verify", "innocent", "--key", "key", "--claim", "Ada"]
    before = ownership.commit(key, "Ada", nonce=NONCE)  # as the claimant published it
    told = ["--published", before, "--nonce", NONCE]
    assert main([*ask, *told]) == 1
    capsys.readouterr()
    for more in (told, []):
        assert main([*ask, "--reference", "chosen", *more]) == 2
        said = capsys.readouterr()
        assert "accepted" not in said.out + said.err
        assert "reference" in said.err
    assert main([*ask[:5], "--reference", "chosen"]) == 2  # nor blindly


def test_a_hash_binds_key_text_reference_and_groups(capsys):
    save_file(chain(), "ticket")
    words = ["ownership", "embed", "ticket", "--text", "Ada", "--output", "signed"]
    assert main([*words, "--key", "key"]) == 0
    Path("groups").write_text("a: {0.weight: 0, 2.weight: 1}")
    save_file(load_file("signed"), "other")
    files = {"reference": "ticket", "groups": "groups"}
    owner = SignatureKey.load("key")
    by_hand = {n: hashlib.sha256(Path(p).read_bytes()) for n, p in files.items()}
    by_hand = {name: digest.hexdigest() for name, digest in by_hand.items()}
    bind = ["ownership", "commit", "--key", "key", "--text", "Ada", "--nonce", NONCE]
    for bound in ({}, {"reference": "ticket"}, files):
        capsys.readouterr()
        options = [word for n, p in bound.items() for word in (f"--{n}", p)]
        assert main([*bind, *options]) == 0
        (published,) = capsys.readouterr().out.splitlines()[0].split()[1:]
        told = {n: by_hand[n] if n in bound else None for n in files}
        content = [asdict(owner), "Ada", NONCE, *([told] if bound else [])]
        text = json.dumps(content, sort_keys=True)
        assert published == hashlib.sha256(text.encode()).hexdigest()
        ask = ["ownership", "verify", "signed", "--key", "key", "--claim", "Ada"]
        ask += ["--published", published, "--nonce", NONCE]
        assert main([*ask, *options]) == 0
        for others in ({}, {"reference": "ticket"}, {"reference": "other"}, files):
            if others != bound:
                more = [word for n, p in others.items() for word in (f"--{n}", p)]
                capsys.readouterr()
                assert main([*ask, *more]) == 2
                assert "must be the hash of just key" in capsys.readouterr().err
    assert dated("key", "Ada", *files.values()) == [*options, *ask[-4:]]


def test_what_binds_nothing_is_refused(capsys):
    key = key_of(chain())
    for more, message in (
        ({"reference": "no hash"}, "reference must be a sha256"),
        ({"reference": "A" * 64}, "reference must be a sha256"),
        ({"groups": "0" * 64}, "groups must be given with a reference"),
    ):
        with pytest.raises(ValueError, match=message) as error:
            ownership.commit(key, "Ada", nonce=NONCE, **more)
        assert "\n" not in str(error.value)
    key.save("key")
    bind = ["ownership", "commit", "--key", "key", "--text", "Ada"]
    for more, message in (
        (["--reference", "gone"], "gone cannot be read"),
        (["--groups", "gone"], "give one"),
    ):
        assert main([*bind, *more]) == 2
        told = capsys.readouterr()
        assert message in told.err
        assert not told.out
