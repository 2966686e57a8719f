"""A reference is the claimant's choice: what binds it, and what it proves without."""

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from dating import dated
from safetensors.torch import load_file, save_file
from scipy.optimize import linear_sum_assignment

from lottolab.cli import main
from lottolab.ownership import SignatureKey
from lottolab.ownership.defences import suspect
from lottolab.ownership.signatures import qr, signature
from lottolab.ownership.signatures.key import draw_secret, drawn_after

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


def crafted(key):
    """Make a reference before any suspect is there: only the code's kernels live."""
    code = signature._encode("Ada", key.ecc, version=key.version, mask=key.mask)[0]
    side, where = key.form.size, tuple(qr.places(key.version).T)
    lives = torch.zeros(side, side)
    lives[where] = torch.from_numpy(signature.covered(code, key)[where]).float()
    signs = torch.tensor([-1.0, 1, -1, 1, -1, 1, -1, 1, -1])
    weight = (lives[:, :, None] * signs).view(side, side, 3, 3).contiguous()
    small = replace(key, row=0, column=0, shape=(side, side), windows=1)
    return {"2.weight": weight}, small


def test_a_reference_that_was_made_to_fit_convicts_nobody(capsys):
    innocent = chain()
    key = key_of(innocent)
    save_file(innocent, "innocent")
    save_file(chosen(innocent, key), "reference")
    key.save("key")
    # The reader alone believes a reference that no p-value pays for.
    where = (Path("reference"), None)
    assert suspect.judged(innocent, key, "Ada", True, where)[1].accepted
    assert not suspect.judged(innocent, key, "Ada", True, None)[1].accepted
    ask = ["ownership", "verify", "innocent", "--key", "key", "--claim", "Ada"]
    told = dated("key", "Ada", "reference")
    assert main([*ask, *told[2:]]) == 1
    capsys.readouterr()
    for more in (told, told[:2]):
        assert main([*ask, *more]) == 2
        said = capsys.readouterr()
        assert "accepted" not in said.out + said.err
        assert "the very files that `embed` had" in said.err
    assert main([*ask[:5], *told[:2]]) == 2  # nor blindly


def test_nor_does_one_that_was_made_before_any_suspect_was_there(capsys):
    reference, key = crafted(key_of(chain()))
    save_file(reference, "reference")
    Path("groups").write_text("a: {2.weight: 0}\nb: {2.weight: 1}")
    key.save("key")
    told, hits = dated("key", "Ada", "reference", "groups"), 0
    for seed in range(12):  # about every second one is believed
        innocent = chain(seed + 5, density=0.2)
        where = (Path("reference"), Path("groups"))
        hits += suspect.judged(innocent, key, "Ada", True, where)[1].accepted
        if seed > 3:
            continue
        save_file(innocent, "innocent")
        ask = ["ownership", "verify", "innocent", "--key", "key", "--claim", "Ada"]
        assert main([*ask, *told]) == 2
        assert "after which the key's secret was drawn" in capsys.readouterr().err
    assert hits  # the reader alone would have believed it


def test_a_secret_is_drawn_after_a_reference_and_its_groups(capsys):
    save_file(chain(), "ticket")
    Path("groups").write_text("a: {0.weight: 0, 2.weight: 1}")
    save_file(load_file("ticket"), "other", metadata={"another": "file"})
    by_hand = {
        name: hashlib.sha256(Path(name).read_bytes()).hexdigest()
        for name in ("ticket", "groups")
    }
    for groups in ([], ["--groups", "groups"]):
        files = {"--output": f"signed{len(groups)}", "--key": f"key{len(groups)}"}
        words = ["ownership", "embed", "ticket", "--text", "Ada", *groups]
        assert main([*words, *(w for pair in files.items() for w in pair)]) == 0
        secret = SignatureKey.load(files["--key"]).secret
        given = [secret[:32], by_hand["ticket"], by_hand["groups"] if groups else None]
        digest = hashlib.sha256(json.dumps(given).encode()).hexdigest()
        assert secret[32:] == digest[:32]
        capsys.readouterr()
        ask = ["ownership", "verify", files["--output"], "--claim", "Ada"]
        ask += ["--key", files["--key"]]
        right = dated(files["--key"], "Ada", "ticket", *groups[1:])
        assert main([*ask, *right]) == 0
        turned = groups[1:] or ["groups"]
        wrong = dated(files["--key"], "Ada", "ticket", *([] if groups else turned))
        for more in (wrong, dated(files["--key"], "Ada", "other", *groups[1:])):
            assert main([*ask, *more]) == 2
            assert "the very files that `embed` had" in capsys.readouterr().err
        undated = right[: 2 + len(groups)]
        assert main([*ask, *undated]) == 2
        assert "proves nothing without a hash" in capsys.readouterr().err
    first, second = (draw_secret("0" * 64) for _ in range(2))
    assert first[:32] != second[:32]
    assert drawn_after(first, "0" * 64)
    assert not drawn_after(first, "0" * 63 + "1")
    assert not drawn_after(first, "0" * 64, "0" * 64)


@pytest.mark.parametrize("bad", ["no hash", "A" * 64, "0" * 63, None, 3])
def test_what_is_no_hash_binds_nothing(bad):
    with pytest.raises(ValueError, match="reference must be a sha256") as error:
        draw_secret(bad)
    assert "\n" not in str(error.value)
    if bad is not None:
        with pytest.raises(ValueError, match="groups must be a sha256"):
            draw_secret("0" * 64, bad)


def test_a_file_that_is_gone_is_told_in_a_line(capsys):
    save_file(chain(), "ticket")
    sign = ["ownership", "embed", "ticket", "--text", "Ada", "--key", "key"]
    assert main([*sign, "--output", "signed", "--groups", "gone"]) == 2
    assert "gone cannot be read" in capsys.readouterr().err
    assert {p.name for p in Path().iterdir()} == {"ticket"}
    assert main([*sign, "--output", "signed"]) == 0
    ask = ["ownership", "verify", "signed", "--key", "key", "--reference", "gone"]
    assert main(ask) == 2
    assert "gone cannot be read" in capsys.readouterr().err
