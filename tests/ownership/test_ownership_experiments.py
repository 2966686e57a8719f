"""The stages on signed networks, and the commands, on small networks and digits."""

import hashlib
import json

import numpy as np
import pytest
import torch
from dating import dated
from safetensors.torch import load_file, save_file

from lottolab import ownership
from lottolab.cli import main
from lottolab.images import datasets
from lottolab.nets import masks as masking
from lottolab.nets import models, tickets
from lottolab.ownership import framework, triggers
from lottolab.ownership.attacks import symmetry
from lottolab.ownership.experiments import ambiguity, attacks, signatures, thief
from lottolab.ownership.signatures import networks, qr, signature
from lottolab.runs import places

SETTING = {
    "dataset": "digits",
    "sizes": {"train": 300, "val": 50, "test": 100, "holdout": 100},
    "network": {"name": "resnet8", "width": 16},
    "recipe": {"epochs": 2, "batch": 50, "crop": 0, "flip": False},
    "rewind_at": 1,
    "seed": 0,
}
TICKET = SETTING | {"rates": [0.8]}
GIVEN = TICKET | {"text": "lottolab", "ecc": "M", "triggers": 0}
OWNED = GIVEN | {"triggers": 16}
PERMUTED = {"name": "permuted", "hidden": True, "stream": True, "amount": 0.0}


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LOTTOLAB_STORE", str(tmp_path_factory.mktemp("store")))
        yield


def after(attack: dict, epochs: int = 0, aligned: bool = False, **changes) -> dict:
    given = {"attack": attack, "epochs": epochs, "aligned": aligned}
    return thief.attacked(**given, **GIVEN | changes)["metrics"]


def test_a_signed_network_is_trained_and_read_blindly():
    found = signatures.signed(**GIVEN)
    ticket = tickets.iterative(**TICKET)
    assert masking.sizes(found["masks"]) == masking.sizes(ticket["masks"])
    for name, mask in found["masks"].items():
        assert (found["weights"][name][~mask] == 0).all()
    key = ownership.SignatureKey(**found["key"])
    assert key.threshold > 0
    assert ownership.verify(found["weights"], key).text == "lottolab"
    metrics = found["metrics"]
    assert (metrics["modules"], metrics["decoded"], metrics["accepted"]) == (1, 1, 1)
    assert metrics["test_accuracy"] == found["accuracy"]["test"]
    before = signatures.unsigned(**TICKET, text="lottolab", ecc="M")["metrics"]
    assert (before["decoded"], before["accepted"]) == (0, 0)
    assert before["test_accuracy"] == ticket["accuracy"]["test"]


def test_only_who_was_taught_the_triggers_knows_them():
    recipe = SETTING["recipe"] | {"epochs": 12}
    taught = signatures.signed(**OWNED | {"recipe": recipe})["metrics"]
    untaught = signatures.signed(**GIVEN | {"recipe": recipe})["metrics"]
    assert taught["triggers"] > 0.6 > 0.3 > untaught["triggers"]
    assert (taught["triggers accepted"], untaught["triggers accepted"]) == (1, 0)
    assert taught["decoded"] == untaught["decoded"] == 1


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_pruning_damages_more_the_more_it_removes(method):
    attack = {"name": "pruned", "method": method}
    found = [after(attack | {"amount": a}) for a in (0.0, 0.6, 0.95)]
    agreement = [metrics["modules"] for metrics in found]
    assert agreement[0] == 1 > agreement[1] > agreement[2]
    lost = [metrics["lost"] for metrics in found]
    assert lost[0] == 0 < lost[1] < lost[2] < 1
    assert [metrics["accepted"] for metrics in found[::2]] == [1, 0]
    owned = signatures.signed(**GIVEN)
    assert found[0]["test_accuracy"] == owned["accuracy"]["test"]
    assert found[0]["fidelity"] == 1
    kept = sum(int(mask.sum()) for mask in owned["masks"].values())
    total = sum(mask.numel() for mask in owned["masks"].values())
    for metrics, amount in zip(found, (0.0, 0.6, 0.95), strict=True):
        assert metrics["density"] == pytest.approx(
            (kept - round(amount * kept)) / total
        )


def test_each_threshold_withstands_what_it_should():
    tiny = after({"name": "added", "rate": 1.0, "size": 1e-6})
    lifted = after({"name": "lifted", "size": 1e-6, "factor": 1e6})
    read = ["decoded, threshold none", "decoded, threshold absolute", "decoded"]
    assert [tiny[name] for name in read] == [0, 1, 1]
    assert [lifted[name] for name in read] == [0, 0, 1]
    owned = signatures.signed(**GIVEN)["accuracy"]["test"]
    assert tiny["test_accuracy"] == pytest.approx(owned, abs=0.02)
    assert lifted["test_accuracy"] == pytest.approx(owned, abs=0.02)
    assert tiny["density"] == lifted["density"] == 1


@pytest.mark.parametrize(
    "attack",
    [
        PERMUTED,
        PERMUTED | {"hidden": False},
        PERMUTED | {"stream": False},
        {"name": "disguised", "spread": 4.0},
        {"name": "widened", "extra": 4},
        {"name": "folded"},
    ],
)
def test_moved_channels_cost_the_thief_nothing_and_alignment_finds_them(attack):
    found = after(attack, aligned=True)
    owned = signatures.signed(**GIVEN)["accuracy"]["test"]
    assert found["test_accuracy"] == pytest.approx(owned, abs=0.011)
    assert (found["decoded"], found["accepted"]) == (0, 0)
    assert found["aligned modules"] > 0.98
    assert (found["aligned decoded"], found["aligned accepted"]) == (1, 1)


@pytest.mark.parametrize("name", ["folded", "widened"])
def test_what_fits_no_module_cannot_be_trained(name):
    extra = {"extra": 4} if name == "widened" else {}
    with pytest.raises(ValueError, match=f"epochs must be 0 after {name}, got 1"):
        after({"name": name} | extra, epochs=1)


def test_fine_tuning_keeps_the_pattern_and_uses_the_thiefs_images_alone(monkeypatch):
    seen, fit = [], attacks.train.fit

    def noted(model, images, labels, *given, **options):
        seen.append((images, options["masks"]))
        return fit(model, images, labels, *given, **options)

    owned = signatures.signed(**GIVEN)
    monkeypatch.setattr(attacks.train, "fit", noted)
    found = after({"name": "none"}, epochs=1)
    ((images, masks),) = seen
    assert torch.equal(images, tickets.read(**SETTING)["holdout"][0])
    assert all(torch.equal(masks[n], owned["masks"][n]) for n in masks)
    assert found["modules"] == found["decoded"] == 1
    assert found["density"] == owned["density"]


@pytest.mark.parametrize(
    ("attack", "density"),
    [
        ({"name": "pruned again", "amount": 0.5, "rounds": 2, "epochs": 1}, 0.05),
        ({"name": "freed", "epochs": 1}, 0.2),
        ({"name": "distilled", "epochs": 2}, 1.0),
        ({"name": "signed again"}, 0.2),
    ],
)
def test_thieves_who_train_end_at_the_density_that_they_aim_at(attack, density):
    found = after(attack)
    assert found["density"] == pytest.approx(density, abs=0.001)
    if attack["name"] == "distilled":  # a fresh network has no trace of the pattern
        assert abs(found["modules"] - 0.5) < 0.15
        assert found["accepted"] == 0


def test_a_replaced_signature_is_the_thiefs():
    owned = signatures.signed(**GIVEN)
    state = attacks.ATTACKS["overwritten"](owned, GIVEN)
    key = ownership.SignatureKey(**owned["key"])
    changed = [n for n in state if not torch.equal(state[n], owned["weights"][n])]
    assert changed == [key.layer]
    assert not ownership.verify(state, key, claim="lottolab").accepted
    modules = ownership.extract(state, key, threshold=0.0)
    for mask in range(8):
        secret = framework.stranger(0)
        theirs = signature.replace(key, secret=secret, mask=mask)
        if ownership.decode(modules, theirs).text == attacks.THIEF:
            return
    pytest.fail("the thief cannot read his own signature")


def test_a_network_that_moved_and_came_back_is_looked_at_twice():
    there = {"name": "digits", "size": 16}
    sizes = {"train": 200, "val": 50, "test": 100}
    journey = {"other": there, "sizes_there": sizes, "epochs": 1}
    metrics = thief.moved(**journey, **GIVEN)["metrics"]
    assert metrics["modules there"] == metrics["modules"] == 1
    assert metrics["decoded"] == 1
    assert 0 < metrics["test_accuracy there"] < 1


def test_an_unknown_attack_is_refused():
    with pytest.raises(ValueError, match="did you mean pruned"):
        after({"name": "prune", "amount": 0.1})
    with pytest.raises(ValueError, match="method must be one of magnitude, random"):
        after({"name": "pruned", "method": "magnitud", "amount": 0.1})


def test_other_peoples_secrets_claim_nothing_but_the_owners_does():
    counts = signatures.false_claims(**GIVEN, keys=50)["metrics"]
    assert counts == {"read": 0, "accepted blindly": 0, "accepted": 0, "keys": 50}


def test_a_second_signature_stands_beside_the_first():
    metrics = ambiguity.rival(**GIVEN, epochs=1)["metrics"]
    assert (metrics["thief accepted"], metrics["thief decoded"]) == (1, 1)
    assert metrics["owner modules"] < metrics["thief modules"] == 1
    assert metrics["thief accepted before"] == 0


def test_the_forger_convicts_the_innocent_and_the_fair_accuser_does_not():
    control = {"controls": [0.8]}
    metrics = ambiguity.accused(epsilon=8, **control, **SETTING)["metrics"]
    assert metrics["forged"] == metrics["forged accepted"] == 1
    assert metrics["fair accepted"] == metrics["fair accepted, compared"] == 0
    assert metrics["unfair"] >= 0


def test_aligned_to_the_twin_an_innocent_network_agrees_by_chance():
    control = {"controls": [0.8], "keys": 100}
    metrics = ambiguity.aligned_claims(**control, **GIVEN)["metrics"]
    assert metrics["claims"] == 400
    assert metrics["accepted"] == 0
    # 400 draws at 5 %: more than 38 happens once in 10,000.
    assert metrics["p ≤ 0.05"] <= 38 / 400
    assert metrics["modules, aligned to the signed"] > 0.5


def test_the_detector_is_told_nothing_of_the_key():
    metrics = signatures.imperceptible(**GIVEN)["metrics"]
    key = ownership.SignatureKey(**signatures.signed(**GIVEN)["key"])
    assert metrics["chance"] == 1 / key.windows
    assert metrics["found"] in (0, 1)
    masks = tickets.iterative(**TICKET)["masks"]
    peak = signatures.detection.prominence(signature.alive(masks[key.layer]), 1).max()
    assert metrics["unsigned"] == pytest.approx(peak)


def test_texts_of_every_length_that_fits_are_read():
    masks = tickets.iterative(**TICKET)["masks"]
    most = signature.longest(masks, "M")
    texts = ["a" * n for n in (1, most // 2, most)]
    metrics = signatures.blind_reads(texts=texts, ecc="M", **TICKET)["metrics"]
    assert metrics == {"read": 3, "texts": 3}
    with pytest.raises(ValueError, match=f"1 to {most} bytes"):
        ownership.embed(masks, "a" * (most + 1), ecc="M")


def test_a_picture_of_the_code_is_what_is_read():
    label, modules, decoded = thief.picture("none", {"name": "none"}, **GIVEN)
    assert (label, decoded) == ("none", True)
    key = ownership.SignatureKey(**signatures.signed(**GIVEN)["key"])
    code, _ = qr.encode("lottolab", "M", mask=key.mask)
    assert np.array_equal(modules, code)


# The framework


def test_fidelity_is_a_band_around_the_target():
    assert framework.fidelity(0.905, 0.91)
    assert not framework.fidelity(0.899, 0.91)
    assert not framework.fidelity(0.921, 0.91)  # |A − A_f| as the paper prints it
    with pytest.raises(ValueError, match=r"tolerance must be in \(0, 1\), got 1"):
        framework.fidelity(0.9, 0.9, 1)


def test_inversion_keeps_the_number_of_weights_and_adds_a_valid_claim():
    owned = signatures.signed(**GIVEN)
    names = sorted(owned["masks"])
    state, key = framework.invert(owned["weights"], names, "mine", ecc="M", seed=1)
    counts = [
        {n: int((w[n] != 0).sum()) for n in names} for w in (state, owned["weights"])
    ]
    assert counts[0] == counts[1]
    verdict = framework.verify(state, key, claim="mine")
    assert verdict.white.accepted
    assert verdict.black is None
    assert not framework.verify(owned["weights"], key, claim="mine").white.accepted


def test_both_kinds_of_evidence_are_asked_for():
    owned = signatures.signed(**OWNED)
    key = ownership.SignatureKey(**owned["key"])
    scale = datasets.normalisation(tickets.read(**SETTING)["train"][0])
    model = signatures.network(owned["weights"], **SETTING)
    predict = triggers.predictor(model, scale)
    images = signatures.draw_triggers(key.secret, **SETTING)
    verdict = framework.verify(owned["weights"], key, predict, images)
    assert verdict.white.text == "lottolab"
    assert verdict.black.total == framework.COUNT == 100


def test_a_commitment_binds_key_text_and_nonce():
    key = ownership.SignatureKey(**signatures.signed(**GIVEN)["key"])
    made = ownership.commit(key, "mine", nonce="n" * 16)
    assert len(bytes.fromhex(made)) == hashlib.sha256().digest_size
    assert made == ownership.commit(key, "mine", nonce="n" * 16)
    others = [
        ownership.commit(key, "yours", nonce="n" * 16),
        ownership.commit(key, "mine", nonce="m" * 16),
        ownership.commit(
            signature.replace(key, row=key.row + 1), "mine", nonce="n" * 16
        ),
    ]
    assert len({made, *others}) == 4
    with pytest.raises(ValueError, match="at least 16 characters, got 5"):
        ownership.commit(key, "mine", nonce="short")


@pytest.fixture
def network(tmp_path):
    masks = tickets.iterative(**TICKET)
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


def test_the_commands_read_a_permuted_network_through_its_twin(tmp_path, capsys):
    names = ("twin", "signed", "stolen", "back")
    files = {n: tmp_path / f"{n}.safetensors" for n in names}
    key = tmp_path / "key.json"
    models.save(tickets.iterative(**TICKET)["weights"], files["twin"])
    sign = [
        "ownership",
        "embed",
        str(files["twin"]),
        "--text",
        "lottolab",
        "--ecc",
        "M",
    ]
    assert main([*sign, "--key", str(key), "--output", str(files["signed"])]) == 0
    moved = symmetry.permute(load_file(files["signed"]), seed=1)
    save_file(moved, files["stolen"])
    ask = ["ownership", "verify", str(files["stolen"]), "--key", str(key)]
    assert main(ask) == 1
    bound = dated(key, "lottolab", files["twin"])
    assert main([*ask, "--claim", "lottolab", *bound]) == 0
    assert "text 'lottolab'" in capsys.readouterr().out
    align = ["ownership", "align", str(files["stolen"]), "--reference"]
    align += [str(files["twin"]), "--output", str(files["back"])]
    assert main(align) == 0
    assert main(["ownership", "verify", str(files["back"]), "--key", str(key)]) == 0
    assert main(align) == 2
    assert "exists" in capsys.readouterr().err


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
    keys = [networks.embed(state, "mine")[1] for _ in range(2)]
    assert keys[0].secret != keys[1].secret
    assert places.root().exists()
