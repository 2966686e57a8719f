"""The owner's reading after all answers, against a thief who hides what he stole."""

import functools

import numpy as np
import pytest
import torch
from scipy import stats

from lottolab.nets import models
from lottolab.ownership.attacks import obfuscation, signs, silencing, symmetry
from lottolab.ownership.defences import reading, taming
from lottolab.ownership.signatures import embedding, qr, signature, squeeze

TEXT = "us"


@functools.cache
def signed(seed=0):
    """Return the unsigned twin, a signed network near it, and the owner's key."""
    options = {"channels": 1, "classes": 5, "width": 8}
    state = models.build("resnet8", **options, seed=seed).state_dict()
    generator = torch.Generator().manual_seed(seed + 1)
    for name, tensor in state.items():
        if name.endswith("running_var"):
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
        elif tensor.ndim == 1:
            tensor.add_(0.2 * torch.randn(tensor.shape, generator=generator))
        elif tensor.ndim == 4 and name != "conv1.weight":
            tensor.mul_(torch.rand(tensor.shape, generator=generator) < 0.1)
    masks = {n: w != 0 for n, w in state.items() if w.ndim == 4}
    secret = f"{seed + 11:064x}"
    layer = "layer3.0.conv2.weight"
    new, key = signature.embed(masks, TEXT, ecc="L", layer=layer, secret=secret)
    moved = {
        n: w * (1 + 0.1 * torch.randn(w.shape, generator=generator))
        for n, w in state.items()
        if w.ndim == 4
    }
    moved[layer] = embedding.fill(moved[layer], new[layer], seed)
    own = state | moved
    return state, own, signature.calibrate(own, key)


def spread(state, seed, giants=1, **how):
    """Hide all behind spare channels, which costs the thief nothing."""
    wider = obfuscation.add_cliques(state, giants, seed, members=1)
    hidden = silencing.silence(wider, seed, giants=giants, **how)
    return symmetry.rescale_outputs(hidden, seed)


def dead(state, seed):
    return symmetry.permute(signs.add_dead(state, 1.0, seed), seed)


def half(state, seed):
    return symmetry.permute(obfuscation.split_in_half(state, seed), seed)


def littered(state, seed):
    """Add what is not used: a block of zeros, tensors, a counter that is no number."""
    state = symmetry.permute(state, seed)
    block = {n: w for n, w in state.items() if n.startswith("layer1.0.")}
    more = {n.replace("layer1.0", "layer1.1"): 0 * w for n, w in block.items()}
    more["layer1.0.junk"] = torch.ones(3)
    more["layer2.0.conv1.bias"] = torch.zeros(len(state["layer2.0.conv1.weight"]))
    more["layer1.0.bn1.num_batches_tracked"] = torch.tensor(float("nan"))
    return state | more


ATTACKS = {
    "half": lambda state: half(state, 1),
    "littered": lambda state: littered(state, 1),
    "none": lambda state: state,
    "duplicated": lambda state: symmetry.permute(obfuscation.duplicate(state, 1), 2),
    "cliques": lambda state: obfuscation.add_cliques(state, 6, 1, members=3),
    "silenced": lambda state: symmetry.rescale_outputs(silencing.silence(state, 1), 1),
    "spare": lambda state: spread(state, 1),
    "both": lambda state: spread(obfuscation.duplicate(state, 1), 1),
    "sign": lambda state: symmetry.permute(signs.split_by_sign(state, 1), 2),
    "sixes": lambda state: symmetry.permute(signs.add_sixes(state, 6, 1), 2),
    "dead": lambda state: dead(state, 1),
    "dead twice": lambda state: obfuscation.duplicate(dead(state, 1), 2, size=10.0),
    "two giants": lambda state: spread(state, 1, 2, dust=1e-4),
    "three giants": lambda state: spread(state, 1, 3, dust=1e-4),
}


LOST = ("silenced", "both", "half")  # some of the owner's kernels


@pytest.mark.parametrize("name", ATTACKS)
def test_the_owner_reads_what_matching_alone_does_not(name):
    twin, own, key = signed()
    stolen = ATTACKS[name](own)
    found = reading.verify(stolen, key, claim=TEXT, reference=twin)
    assert found.accepted
    assert found.text == TEXT
    assert found.agreement > (0.94 if name in LOST else 0.999)
    if name in ("duplicated", "silenced", "sign"):
        alone = signature.verify(stolen, key, claim=TEXT, reference=twin)
        assert alone.text is None
        assert alone.accepted == (name == "silenced")


def test_a_blind_reading_needs_no_claim_and_pays_for_every_text():
    _, own, key = signed()
    blind = reading.verify(own, key)
    assert blind.text == TEXT
    assert blind.accepted
    claimed = reading.verify(own, key, claim=TEXT)
    texts = 256 ** qr.capacity(key.version, key.ecc)
    assert blind.p_value == pytest.approx(claimed.p_value * texts)


def test_a_stranger_is_not_accepted_and_pays_for_all_readings():
    twin, _, key = signed()
    stranger = signed(5)[1]
    found = reading.verify(stranger, key, claim=TEXT, reference=twin)
    assert not found.accepted
    assert found.text is None
    assert not reading.verify(stranger, key).accepted
    count = len(qr.places(key.version))
    agree = round(found.agreement * count)
    p = stats.binom.sf(agree - 1, count, 0.5) * key.windows * 21
    assert found.p_value == pytest.approx(min(p, 1.0))


def test_fresh_secrets_are_accepted_no_more_often_than_the_p_value_says():
    twin, own, key = signed()
    stolen = silencing.silence(own, 3)
    masks = {key.layer: twin[key.layer] != 0}
    values = []
    for secret in range(40):
        options = {"ecc": "L", "layer": key.layer}
        _, other = signature.choose(masks, TEXT, f"{secret + 900:064x}", **options)
        values.append(reading.verify(stolen, other, claim=TEXT).p_value)
    for level in (0.05, 0.2):
        share = np.mean(np.array(values) <= level)
        assert share <= stats.binom(40, level).ppf(0.999) / 40


def test_a_giant_and_dust_fool_the_relative_threshold_and_not_the_quantile():
    _, own, key = signed()
    wanted = squeeze.extract(own, key, threshold=0.0)
    silenced = silencing.silence(own, 2, groups=None)
    places = tuple(qr.places(key.version).T)

    def agreement(modules):
        return (modules[places] == wanted[places]).mean()

    assert agreement(taming.extract(own, key)) == 1.0
    assert agreement(squeeze.extract(silenced, key)) < 0.7
    middle = squeeze.median(silenced, key)
    assert agreement(squeeze.extract(silenced, key, threshold=middle)) < 0.9
    lost = 1 / 16  # the silenced channel's column, if it is in the window
    assert agreement(taming.extract(silenced, key)) >= 1 - lost


def test_taming_leaves_a_clean_network_alone_and_takes_out_what_was_put_in():
    _, own, _ = signed()
    clean = taming.tame(own)
    assert all(torch.equal(clean[n], own[n]) for n in own)
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(40, 64, 3, 3, generator=generator)
    weight *= torch.rand(40, 64, 1, 1, generator=generator) < 0.4
    dusty = weight + 1e-9 * torch.randn(weight.shape, generator=generator)
    dusty[:, 5] = 1e12
    found = taming.tame({"a": dusty})["a"]
    others = torch.arange(64) != 5
    alive = [w[:, others].flatten(2).any(2) for w in (found, weight)]
    assert torch.equal(*alive)
    off = found[:, others] - weight[:, others]
    torch.testing.assert_close(off, torch.zeros_like(off), rtol=0, atol=1e-4)
    assert found.abs().max() < 300
    # dust that is as large as the weights is no dust
    thick = weight + 0.5 * torch.randn(weight.shape, generator=generator)
    assert torch.equal(taming.tame({"a": thick})["a"], thick)


def test_bad_input_is_refused_in_a_line():
    twin, own, key = signed()
    wrong = [
        (lambda: taming.tame(own, gap=0.0), "gap must be"),
        (lambda: taming.tame(own, most=0.5), "most must be"),
        (lambda: reading.verify(own, key, claim="them"), "the claim must be the text"),
        (lambda: reading.verify({}, key), "the key is for another network"),
        (lambda: reading.restored({}, twin), "must"),
        (
            lambda: taming.extract({key.layer: own[key.layer] * torch.nan}, key),
            "must be finite",
        ),
    ]
    for call, message in wrong:
        with pytest.raises(ValueError, match=message) as error:
            call()
        assert "\n" not in str(error.value)
