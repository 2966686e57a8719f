"""The chapter's stages and commands on signatures, on small networks and digits."""

import json

import pytest
import torch

from lottolab import masks as masking
from lottolab import models, ownership, runs, tickets
from lottolab.cli import main
from lottolab.ownership import experiments

SETTING = {
    "dataset": "digits",
    "sizes": {"train": 300, "val": 50, "test": 100},
    "network": {"name": "cnn4", "width": 16},
    "recipe": {"epochs": 2, "batch": 50, "crop": 0},
    "rewind_at": 1,
    "seed": 0,
}
GIVEN = SETTING | {"rate": 0.7, "rounds": 1, "text": "lottolab", "ecc": "M"}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTOLAB_STORE", str(tmp_path_factory.mktemp("store")))
        yield


def test_a_signed_network_is_trained_and_read_blindly():
    found = experiments.signed(**GIVEN)
    ticket = tickets.iterative(**SETTING, rate=0.7, rounds=1)
    assert masking.sizes(found["masks"]) == masking.sizes(ticket["masks"])
    for name, mask in found["masks"].items():
        assert (found["weights"][name][~mask] == 0).all()
    key = ownership.SignatureKey(**found["key"])
    assert key.threshold > 0
    assert ownership.verify(found["weights"], key).text == "lottolab"
    unsigned = ownership.verify(ticket["weights"], key, claim="lottolab")
    assert not unsigned.accepted


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_pruning_damages_more_the_more_it_removes(method):
    attacks = [
        experiments.pruning_attack(**GIVEN, method=method, amount=a)
        for a in (0.0, 0.6, 0.95)
    ]
    agreement = [attack["modules"] for attack in attacks]
    assert agreement[0] == 1.0 > agreement[1] > agreement[2]
    assert [attack["lost"] for attack in attacks[:1]] == [0.0]
    assert 0 < attacks[1]["lost"] < attacks[2]["lost"] < 1
    assert attacks[0]["decoded"]
    assert attacks[0]["accepted"]
    assert not attacks[2]["decoded"]
    assert attacks[0]["accuracy"] == experiments.signed(**GIVEN)["accuracy"]["test"]


def test_an_unknown_attack_is_refused():
    with pytest.raises(ValueError, match="method must be one of magnitude, random"):
        experiments.pruning_attack(**GIVEN, method="magnitud", amount=0.1)


def test_other_peoples_secrets_claim_nothing_but_the_owners_does():
    counts = experiments.false_claims(**GIVEN, keys=50)
    assert counts == {"read": 0, "accepted blindly": 0, "accepted": 0, "keys": 50}
    signed = experiments.signed(**GIVEN)
    both = [tickets.iterative(**SETTING, rate=0.7, rounds=1), signed]
    table = experiments.unmarked(both, [signed["key"]], "lottolab")
    assert table["accepted"].tolist() == [False, True]
    assert table["accepted blindly"].tolist() == [False, True]


def test_texts_of_every_length_that_fits_are_read():
    masks = tickets.iterative(**SETTING, rate=0.7, rounds=1)["masks"]
    most = experiments.longest(masks, "M")
    texts = ["a" * n for n in (1, most // 2, most)]
    assert experiments.blind_reads(masks, texts, "M").all()
    with pytest.raises(ValueError, match=f"1 to {most} bytes"):
        ownership.embed(masks, "a" * (most + 1), ecc="M")


@pytest.fixture
def network(tmp_path):
    masks = tickets.iterative(**SETTING, rate=0.7, rounds=1)
    path = tmp_path / "ticket.safetensors"
    models.save(masks["weights"], path)
    return path


def test_the_commands_sign_calibrate_and_verify(network, tmp_path, capsys):
    signed, key = tmp_path / "signed.safetensors", tmp_path / "key.json"
    files = ["--key", str(key)]
    embed = ["ownership", "embed", str(network), "--text", "mine", *files]
    embed += ["--output", str(signed)]
    assert main(embed) == 0
    before, after = models.load_state(network), models.load_state(signed)
    changed = [n for n in before if not torch.equal(before[n], after[n])]
    assert changed == [json.loads(key.read_text())["layer"]]
    assert all((before[n] != 0).sum() == (after[n] != 0).sum() for n in changed)
    assert main(["ownership", "calibrate", str(signed), *files]) == 0
    assert json.loads(key.read_text())["threshold"] > 0
    capsys.readouterr()
    assert main(["ownership", "verify", str(signed), *files]) == 0
    assert "text 'mine', 100.0% of the modules agree" in capsys.readouterr().out
    claim = ["--claim", "mine"]
    assert main(["ownership", "verify", str(signed), *files, *claim]) == 0
    assert main(["ownership", "verify", str(network), *files]) == 1
    assert main(["ownership", "verify", str(signed), *files, "--claim", "x"]) == 2


def test_a_command_that_is_refused_writes_nothing(network, tmp_path, capsys):
    signed, key = tmp_path / "signed.safetensors", tmp_path / "key.json"
    rest = ["--output", str(signed), "--key", str(key)]
    embed = ["ownership", "embed", str(network), *rest]
    assert main([*embed, "--text", "x" * 5000]) == 2
    assert "must have 1 to" in capsys.readouterr().err
    dense = tmp_path / "dense.safetensors"
    models.save({"conv": torch.ones(32, 32, 3, 3)}, dense)
    assert main(["ownership", "embed", str(dense), *rest, "--text", "x"]) == 2
    assert "pruned weights" in capsys.readouterr().err
    (tmp_path / "pickle.safetensors").write_bytes(b"\x80\x04K\x01.")
    pickled = str(tmp_path / "pickle.safetensors")
    assert main(["ownership", "embed", pickled, *rest, "--text", "x"]) == 2
    assert "never opened" in capsys.readouterr().err
    assert not signed.exists()
    assert not key.exists()
    key.write_text("mine")
    assert main([*embed, "--text", "x"]) == 2
    assert key.read_text() == "mine"


def test_two_signings_have_two_secrets(network):
    state = models.load_state(network)
    keys = [ownership.signature.embed_weights(state, "mine")[1] for _ in range(2)]
    assert keys[0].secret != keys[1].secret
    assert runs.root().exists()
