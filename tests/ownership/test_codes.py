"""A code by its modules: bytes, what is corrected, p-values, and chapter 1's figure."""

import json
import math
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from reedsolo import RSCodec

from lottolab.ownership import SignatureKey, figures
from lottolab.ownership.experiments import codes, signatures, thief
from lottolab.ownership.figures import moving as figure
from lottolab.ownership.signatures import decoding, qr, signature
from lottolab.pages import moving

pytestmark = pytest.mark.usefixtures("own_store", "on_one_thread")
GIVEN = {
    "dataset": "digits",
    "sizes": {"train": 300, "val": 50, "test": 100, "holdout": 100},
    "network": {"name": "resnet8", "width": 16},
    "recipe": {"epochs": 2, "batch": 50, "crop": 0, "flip": False},
    "rewind_at": 1,
    "seed": 0,
    "rates": [0.8],
    "text": "lottolab",
    "ecc": "M",
    "triggers": 0,
}
AMOUNTS = [0.0, 0.3, 0.6, 0.8, 0.9, 0.95]
# One block at level H; and four, two of them a byte longer than the others.
MADE = {(2, "H"): "lottolab", (5, "Q"): "lottolab signed it, and more than once"}
# ISO/IEC 18004, table 9: the bytes of each block, and its check bytes.
BLOCKS = {(2, "H"): [(44, 28)]}
BLOCKS |= {(5, "Q"): [(33, 18), (33, 18), (34, 18), (34, 18)]}
each_code = pytest.mark.parametrize("made", MADE)


def encoded(made):
    version, ecc = made
    return qr.encode(MADE[made], ecc, version=version)


# ------------------------------------------------------------------------- bytes


@each_code
def test_blocks_are_those_of_the_standard(made):
    byte, block, corrects = qr.layout(encoded(made)[1])
    wanted = BLOCKS[made]
    assert np.bincount(block).tolist() == [length for length, _ in wanted]
    assert corrects.tolist() == [check // 2 for _, check in wanted]
    assert (np.bincount(byte[byte >= 0]) == 8).all()
    assert len(byte) - 8 * len(block) == (byte < 0).sum() == 7  # table 1: both have 7


@each_code
def test_a_module_is_in_the_byte_that_its_flip_changes(made):
    modules, form = encoded(made)
    byte, _, _ = qr.layout(form)

    def streamed(seen):
        stream = qr.bits(seen, form)
        return np.packbits(stream[: len(stream) // 8 * 8])

    for place, (row, column) in enumerate(qr.places(form.version)):
        flipped = modules.copy()
        flipped[row, column] ^= True
        changed = (streamed(flipped) != streamed(modules)).nonzero()[0].tolist()
        assert changed == ([byte[place]] if byte[place] >= 0 else [])


@each_code
def test_a_block_is_a_codeword_of_reed_and_solomon(made):
    modules, form = encoded(made)
    _, block, corrects = qr.layout(form)
    stream = qr.bits(modules, form)
    sent = np.packbits(stream[: len(stream) // 8 * 8])
    for number, most in enumerate(corrects.tolist()):
        assert all(RSCodec(2 * most).check(bytes(sent[block == number])))


@each_code
def test_the_rule_reads_what_the_library_reads_by_error_correction_alone(made):
    modules, form = encoded(made)
    random, read = np.random.default_rng(0), []
    for flip in np.repeat([0.0, 0.01, 0.03, 0.05, 0.06, 0.08, 0.12], 40):
        noisy, _ = decoding.channel(modules, flip, random)
        noisy[0, 0] ^= True  # a fixed pattern is not looked at
        _, corrected = codes.damaged(noisy, modules, form)
        assert corrected == (qr.decode(noisy, form).text == MADE[made])
        read.append(corrected)
    assert 0.2 < np.mean(read) < 0.8  # both happen


@each_code
def test_one_byte_more_than_a_block_corrects_is_too_many(made):
    modules, form = encoded(made)
    byte, block, corrects = qr.layout(form)
    places, random = qr.places(form.version), np.random.default_rng(1)
    for number, most in enumerate(corrects.tolist()):
        chosen = random.permutation((block == number).nonzero()[0])[: most + 1]
        noisy = modules.copy()
        for count, one in enumerate(chosen):
            row, column = places[random.choice((byte == one).nonzero()[0])]
            noisy[row, column] ^= True
            wrong, corrected = codes.damaged(noisy, modules, form)
            assert wrong.nonzero()[0].tolist() == sorted(chosen[: count + 1])
            assert corrected == (count < most)
            assert corrected == (qr.decode(noisy, form).text == MADE[made])


def test_who_erases_doubtful_bytes_reads_more_and_never_less():
    modules, form = encoded((2, "H"))
    random, more = np.random.default_rng(2), 0
    for _ in range(150):
        noisy, doubt = decoding.channel(modules, 0.06, random)
        _, corrected = codes.damaged(noisy, modules, form)
        soft = qr.decode(noisy, form, doubt).text == "lottolab"
        assert soft >= corrected
        more += soft - corrected
    assert more > 15


# ---------------------------------------------------------------------- p-values


@pytest.fixture(scope="module")
def key():
    mask = {"conv": torch.rand(40, 36, 3, 3, generator=torch.manual_seed(0)) < 0.1}
    own = {"seed": 1, "secret": signature.public(1)}
    return signature.embed(mask, "lottolab", **own)[1]


def agreeing(key, count):
    """Return covered modules of which `count` agree with the text's."""
    modules, _ = qr.encode("lottolab", key.ecc, version=key.version, mask=key.mask)
    for row, column in qr.places(key.version)[count:]:
        modules[row, column] ^= True
    return signature.covered(modules, key)


def test_the_table_of_p_values_is_the_library_s(key):
    logs = codes.log_p(key)
    assert len(logs) == len(qr.places(key.version)) + 1
    assert (np.diff(logs) <= 0).all()
    for count, log in enumerate(logs):
        told = signature.evidence(
            agreeing(key, count), key, "lottolab", signature.READINGS
        )
        assert told[0] == pytest.approx(count / (len(logs) - 1))
        assert math.log10(told[1]) == pytest.approx(log, abs=1e-9)


def test_from_the_count_that_is_needed_on_a_claim_is_accepted(key):
    needed = int((codes.log_p(key) < -6).argmax())
    for count, accepted in ((needed - 1, False), (needed, True)):
        layer = torch.zeros(*key.shape, 1, 1)
        side = key.form.size
        seen = torch.from_numpy(agreeing(key, count)).float()
        layer[key.row : key.row + side, key.column : key.column + side, 0, 0] = seen
        found = signature.verify({key.layer: layer}, key, claim="lottolab")
        assert found.accepted == accepted


def test_of_two_readings_the_one_that_agrees_more_is_shown(key):
    modules, _ = qr.encode("lottolab", key.ecc, version=key.version, mask=key.mask)
    wanted = torch.from_numpy(signature.covered(modules, key)).float()
    layer = torch.zeros(*key.shape, 1, 1)
    side = key.form.size
    window = (slice(key.row, key.row + side), slice(key.column, key.column + side))
    grown = torch.rand(side, side, generator=torch.manual_seed(0))
    # Small weights everywhere fill every module for the first reading.
    layer[(*window, 0, 0)] = wanted * (1 + grown) + 0.01 * (1 + grown)
    seen = codes.claimed({key.layer: layer}, replace(key, threshold=0.005), "lottolab")
    where = tuple(qr.places(key.version).T)
    # The window's median leaves half of the modules alive, give or take chance.
    share = (seen == modules)[where].mean()
    found = signature.verify({key.layer: layer}, key, claim="lottolab").agreement
    assert share == pytest.approx(found)
    assert share > 0.9


# ------------------------------------------------------------ the stage, the figure


@pytest.fixture(scope="module")
def outcome(own_store):
    return codes.pruned(amounts=AMOUNTS, **GIVEN)


def test_each_amount_is_what_the_library_says_of_the_pruned_network(outcome):
    key = SignatureKey(**signatures.signed(**GIVEN)["key"])
    for amount, told in zip(AMOUNTS, codes.by_amount(outcome, AMOUNTS), strict=True):
        attack = {"name": "pruned", "method": "magnitude", "amount": amount}
        found = thief.attacked(attack=attack, epochs=0, **GIVEN)["metrics"]
        for name in ("test_accuracy", "modules", "decoded", "accepted"):
            assert told[name] == pytest.approx(found[name])
        seen = outcome["modules"][AMOUNTS.index(amount)].numpy()
        wrong = (seen != outcome["owner"].numpy())[tuple(qr.places(key.version).T)]
        assert 1 - wrong.mean() == pytest.approx(told["modules"])
        blind = qr.decode(seen, key.form).text == "lottolab"
        assert blind == told["corrected"]
        assert told["decoded"] >= told["corrected"]
        log = outcome["logs"][len(wrong) - wrong.sum()].item()
        assert told["log p"] == pytest.approx(log)
        assert told["accepted"] == (log < -6)
    assert told["damaged bytes"] > outcome["corrects"].sum()  # pruned by 95 %
    assert not told["corrected"]


def test_an_intact_code_is_the_owner_s(outcome):
    assert torch.equal(outcome["modules"][0], outcome["owner"])
    fixed = outcome["byte"] == codes.PATTERN
    assert (outcome["modules"] == outcome["owner"])[:, fixed].all()
    assert outcome["needed"] == int((outcome["logs"] < -6).int().argmax())


@pytest.mark.parametrize("amounts", [[], [0.1, 0.1], [0.2, 0.1], [-0.1], [1.0]])
def test_amounts_that_do_not_rise_are_refused(amounts):
    with pytest.raises(ValueError, match=r"amounts must be in \[0, 1\) and rise"):
        codes.pruned(amounts=amounts, **GIVEN)


@pytest.mark.usefixtures("rendered")
def test_the_figure_holds_the_stage_s_codes_and_numbers(outcome, monkeypatch):
    monkeypatch.setattr(moving, "display", lambda still: still.canvas.draw())
    page = figures.pruned_codes({"a": outcome, "b": outcome}, AMOUNTS).data
    assert len(page) < 60_000
    told = json.loads(re.search(r"json\">(.*?)</script>", page, re.DOTALL)[1])
    (grid,) = told["panels"]
    size = outcome["owner"].shape[0]
    for step in range(len(AMOUNTS)):
        text = grid["modules"]["values"][1][step]
        seen = np.array([t == "1" for t in text]).reshape(size, size)
        assert (seen == outcome["modules"][step].numpy()).all()
    byte = np.array([codes.PATTERN if b is None else b for b in grid["byte"]])
    assert (byte == outcome["byte"].flatten().numpy()).all()
    assert grid["block"] == outcome["block"].tolist()
    assert grid["corrects"] == outcome["corrects"].tolist()
    np.testing.assert_allclose(grid["logs"]["values"][0], outcome["logs"], rtol=1e-3)
    assert grid["needed"]["values"] == [outcome["needed"]] * 2
    last = codes.by_amount(outcome, AMOUNTS)[-1]
    cells = told["readout"]["cells"]["values"][0][-1]
    assert cells[0][0] == pytest.approx(last["test_accuracy"], rel=1e-4)
    assert cells[1] == [figure.READ[int(last["decoded"])]]
    assert [c["start"] for c in told["controls"]] == [1, 0]
    assert "95 %" in told["controls"][1]["options"]


def test_tickets_with_other_codes_do_not_share_a_figure(outcome):
    other = outcome | {"byte": outcome["byte"] + 1}
    with pytest.raises(ValueError, match="one version and level"):
        figures.pruned_codes({"a": outcome, "b": other}, AMOUNTS)
