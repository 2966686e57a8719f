"""Moved channels are found again, and nothing is found where nothing is."""

import functools
import itertools

import pytest
import torch
from scipy import stats

from lottolab import ownership
from lottolab.nets import masks as masking
from lottolab.nets import models, resnets
from lottolab.ownership.attacks import symmetry
from lottolab.ownership.channels import alignment, naming
from lottolab.ownership.signatures import qr, signature

KINDS = {
    "resnet8": functools.partial(resnets.resnet_cifar, 8),
    "resnet20": functools.partial(resnets.resnet_cifar, 20),
    "resnet18": resnets.resnet18,
}
SMALL = {"one block": functools.partial(resnets.ResNet, [1], stem="same", option="A")}
NETWORKS = [("resnet8", 0.2), *((kind, 0.03) for kind in KINDS), ("resnet8", 0.01)]


def sparse(kind, density, seed=0, width=16, scope="layer"):
    """Return a network with sparse weights and batch norm as after training.

    In each layer the same share of the weights is left, drawn at random, or in all
    layers together (`global`) the largest, which leaves the last stage nearly empty.
    Two channels in each block are dead, with no weights in or out.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(tensor):
        return torch.randn(tensor.shape, generator=generator)

    width = width // 2 if kind == "resnet18" else width
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (KINDS | SMALL)[kind](channels=1, classes=10, width=width)
    state = model.state_dict()
    for name, tensor in state.items():
        if name.endswith("running_mean"):
            state[name] = 0.3 * normal(tensor)
        elif name.endswith("running_var"):
            state[name] = (0.5 * normal(tensor)).exp()
        elif tensor.ndim == 1:
            state[name] = 1 + 0.5 * normal(tensor)  # gamma: one in 40 is negative
    masks = masking.dense(model)
    if scope == "layer":
        masks = masking.random(masks, 1 - density, seed, scope)
    else:
        masks = masking.magnitude(state, masks, 1 - density, scope)
    for block in naming.blocks(state):
        masks[f"{block}.conv1.weight"][1:3] = False
        masks[f"{block}.conv2.weight"][:, 1:3] = False
    return state | {name: state[name] * mask for name, mask in masks.items()}


def permuted(state, seed=0):
    """Permute all groups; return the true answer of `match` too."""
    generator = torch.Generator().manual_seed(seed)
    orders = {
        group.name: torch.randperm(group.size, generator=generator)
        for group in naming.groups(state)
    }
    answer = {name: order.argsort() for name, order in orders.items()}
    return symmetry.reorder(state, orders), answer


def noisy(state, level, seed=0):
    """Multiply each weight by 1 + level × a normal number."""
    generator = torch.Generator().manual_seed(seed)
    weights = {name: tensor for name, tensor in state.items() if tensor.ndim > 1}
    noise = {n: torch.randn(w.shape, generator=generator) for n, w in weights.items()}
    return state | {n: w * (1 + level * noise[n]) for n, w in weights.items()}


def renewed(state, names, seed=0):
    """Draw weights again, as big as they were."""
    generator = torch.Generator().manual_seed(seed)
    drawn = {n: torch.randn(state[n].shape, generator=generator) for n in names}
    return state | {n: w * state[n].std() for n, w in drawn.items()}


def living(state):
    """Say for each group which channels have weights in a layer that is pruned."""
    found = {}
    for group in naming.groups(state):
        alive = torch.zeros(group.size, dtype=torch.bool)
        for place in group.places:
            weight = state[place.tensor]
            if weight.ndim == 4 and place.tensor != "conv1.weight":
                lines = weight.transpose(0, place.axis)[place.at]
                alive |= lines.flatten(1).any(1)
        found[group.name] = alive
    return found


def found_share(orders, answer, reference):
    """Return the share of the living channels that were matched as they should."""
    right = [(orders[n] == answer[n])[alive] for n, alive in living(reference).items()]
    return float(torch.cat(right).double().mean())


def convolutions(state):
    return {name: weight for name, weight in state.items() if weight.ndim == 4}


def assert_close(aligned, reference, rtol=1e-3):
    for name, weight in convolutions(reference).items():
        assert aligned[name].shape == weight.shape
        assert torch.allclose(aligned[name], weight, rtol=rtol, atol=0), name


EXACT = {
    "permuted": lambda s: s,
    "rescaled": lambda s: symmetry.rescale_channels(symmetry.rescale_outputs(s, 1), 2),
    "folded": symmetry.fold,
    "widened": lambda s: symmetry.widen(s, 8, 3),
    "all": lambda s: symmetry.fold(EXACT["rescaled"](EXACT["widened"](s))),
}


@pytest.mark.parametrize("attack", EXACT)
@pytest.mark.parametrize(("kind", "density"), NETWORKS)
def test_the_weights_come_back_exactly(kind, density, attack):
    reference = sparse(kind, density)
    assert not living(reference)["layer2.0"].all()
    suspect, _ = permuted(EXACT[attack](reference), seed=4)
    before = {name: tensor.clone() for name, tensor in suspect.items()}
    aligned = alignment.align(suspect, reference, restarts=1)
    assert_close(aligned, reference)
    assert all(torch.equal(before[name], suspect[name]) for name in before)
    changed = "layer2.0.conv2.weight"
    assert suspect[changed].shape != reference[changed].shape or not torch.allclose(
        suspect[changed], reference[changed]
    )


CHANGED = {
    "fine-tuned": lambda s: noisy(s, 0.3),
    "changed beyond the sign": lambda s: noisy(s, 1.0),
    "new classifier": lambda s: renewed(s, ["fc.weight"]),
    "both new, noisy": lambda s: noisy(renewed(s, ["conv1.weight", "fc.weight"]), 0.3),
}


@pytest.mark.parametrize("attack", CHANGED)
@pytest.mark.parametrize(("kind", "density"), NETWORKS[:-1])
def test_living_channels_are_found_although_the_weights_changed(kind, density, attack):
    reference = sparse(kind, density)
    suspect, answer = permuted(CHANGED[attack](reference), seed=5)
    orders, _ = alignment.match(suspect, reference, restarts=1)
    assert found_share(orders, answer, reference) > 0.99


@pytest.mark.parametrize("seed", range(4))
def test_channels_are_found_from_either_end(seed):
    """Nothing holds the ends, and nearly nothing connects the last stage to them."""
    reference = sparse("resnet8", 0.03, seed, scope="global")
    suspect, answer = permuted(CHANGED["both new, noisy"](reference), seed=6)
    orders, _ = alignment.match(suspect, reference, restarts=1)
    assert found_share(orders, answer, reference) > 0.97


def test_chance_finds_few_channels():
    """The same question, but the suspect is another network."""
    reference = sparse("resnet8", 0.2)
    suspect, answer = permuted(sparse("resnet8", 0.2, seed=1))
    orders, _ = alignment.match(suspect, reference)
    right = torch.cat([orders[name] == answer[name] for name in orders])
    assert right.double().mean() < 0.1


def test_other_classes_are_no_obstacle():
    reference = sparse("resnet8", 0.03)
    head = {"fc.weight": torch.randn(4, 64), "fc.bias": torch.zeros(4)}
    suspect, _ = permuted(reference | head)
    aligned = alignment.align(suspect, reference)
    assert set(aligned) == set(convolutions(reference))
    assert_close(aligned, reference)


def test_missing_channels_are_zero():
    """A thief cuts hidden channels out; those that are left are found."""
    reference = sparse("resnet8", 0.2)
    suspect, answer = permuted(reference)
    cut = dict(suspect)
    gone = {}
    for group in naming.groups(suspect):
        if group.hidden:
            gone[group.name] = answer[group.name].argsort()[:3]
            for place in group.places:
                cut[place.tensor] = cut[place.tensor].narrow(
                    place.axis, 3, group.size - 3
                )
    aligned = alignment.align(cut, reference)
    for name, weight in convolutions(reference).items():
        expected = weight.clone()
        block, _, part = name.removesuffix(".weight").rpartition(".")
        if block:
            expected.transpose(0, 0 if part == "conv1" else 1)[gone[block]] = 0
        assert torch.allclose(aligned[name], expected, rtol=1e-3, atol=0)


def test_scales_are_estimated_in_spite_of_outliers():
    """One weight in five is five times as big: medians do not mind."""
    reference = sparse("resnet8", 0.2)
    generator = torch.Generator().manual_seed(0)
    grown = {
        name: torch.rand(weight.shape, generator=generator) < 0.2
        for name, weight in convolutions(reference).items()
    }
    changed = reference | {
        name: torch.where(big, 5 * reference[name], reference[name])
        for name, big in grown.items()
    }
    suspect, _ = permuted(EXACT["rescaled"](changed))
    aligned = alignment.align(suspect, reference)
    close = [
        torch.isclose(aligned[n], reference[n], rtol=0.01)[reference[n].ne(0) & ~big]
        for n, big in grown.items()
    ]
    assert torch.cat(close).double().mean() > 0.9


@pytest.mark.parametrize("attack", ["rescaled", "folded"])
def test_features_know_no_scale(attack):
    state = sparse("resnet8", 0.1)
    before = alignment.features(state)
    after = alignment.features(EXACT[attack](state))
    for name, expected in before.items():
        assert torch.allclose(after[name], expected, rtol=1e-3, atol=1e-5)
        plus, minus = expected.chunk(2, dim=2)
        norms = (plus.square() + minus.square()).norm(dim=2)
        logs = norms.log().where(norms > 0, torch.zeros(()))
        assert logs.sum(0).abs().max() < 1e-6 * len(logs)
        assert logs.sum(1).abs().max() < 1e-6 * len(logs)
        if name != "fc.weight":
            gamma = state[f"{naming.norm_of(name.removesuffix('.weight'))}.weight"]
            signs = state[name].flatten(2).sign() * gamma.sign().view(-1, 1, 1)
            assert torch.equal(signs.double(), plus.sign() - minus.sign())


def likeness_of(suspect, target, orders):
    """Compute by its definition what `match` makes as large as it can."""
    moved = alignment.features(symmetry.reorder(suspect, orders))
    return sum(
        float((moved[name] * target[name]).sum() - 0.1 * moved[name].square().sum())
        for name in moved
    )


@pytest.mark.parametrize("seed", range(5))
def test_the_best_of_all_permutations_is_found(seed):
    """Two unrelated networks of three channels a group: 36 ways to align them."""

    def tiny(seed):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = resnets.ResNet([1], 1, 2, 3, "same", "A")
            state = model.state_dict()
            for weight in convolutions(state).values():
                weight *= torch.rand(weight.shape) < 0.5
        return state

    suspect, reference = tiny(seed), tiny(seed + 100)
    target = alignment.features(reference)
    likeness = functools.partial(likeness_of, suspect, target)
    ways = [torch.tensor(p) for p in itertools.permutations(range(3))]
    pairs = itertools.product(ways, ways)
    every = [likeness({"stem": a, "layer1.0": b}) for a, b in pairs]
    orders, found = alignment.match(suspect, reference, restarts=30, seed=seed)
    assert found == pytest.approx(max(every), rel=1e-9)
    assert likeness(orders) == pytest.approx(found, rel=1e-9)
    assert max(every) > sorted(every)[len(every) // 2] * 1.01


def test_no_exchange_of_two_channels_does_better():
    """Where no network is to be found, the search still ends on a summit."""
    reference, suspect = (sparse("resnet8", 0.5, seed=s, width=4) for s in (0, 1))
    orders, found = alignment.match(suspect, reference, restarts=1)
    likeness = functools.partial(likeness_of, suspect, alignment.features(reference))
    assert likeness(orders) == pytest.approx(found)
    for name, order in orders.items():
        for a, b in itertools.combinations(range(len(order)), 2):
            other = order.clone()
            other[[a, b]] = order[[b, a]]
            assert likeness(orders | {name: other}) <= found + 1e-6


def masks_of(state):
    names = [name for name in convolutions(state) if name != "conv1.weight"]
    return {name: state[name] != 0 for name in names}


def signed(state, seed, text="owner"):
    """Sign a network; its weights in new places are as big as the others."""
    own = {"seed": seed, "secret": signature.public(seed)}
    masks, key = ownership.embed(masks_of(state), text, **own)
    weights, kept = state[key.layer], masks[key.layer]
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(weights.shape, generator=generator)
    drawn *= weights[weights != 0].std()
    filled = torch.where(weights == 0, drawn, weights) * kept
    return state | {key.layer: filled}, key


@pytest.mark.parametrize("density", [0.2, 0.03])
@pytest.mark.parametrize("attack", EXACT)
def test_a_moved_signature_is_read_after_alignment_to_the_twin(density, attack):
    twin = sparse("resnet8", density)
    marked, key = signed(noisy(twin, 0.3), seed=1, text="signature")
    suspect, _ = permuted(EXACT[attack](marked), seed=2)
    if suspect[key.layer].shape == marked[key.layer].shape:
        assert not ownership.verify(suspect, key, claim="signature").accepted
    found = ownership.verify(alignment.align(suspect, twin), key)
    assert found.text == "signature"
    assert found.accepted


@pytest.mark.parametrize("density", [0.2, 0.05])
def test_tiny_weights_in_the_empty_places_do_not_spoil_the_scale(density):
    """Many kernels of the twin that the signature cut are alive again, but tiny."""
    twin = sparse("resnet8", density)
    marked, key = signed(noisy(twin, 0.3), seed=1, text="signature")
    key = ownership.calibrate(marked, key)
    generator = torch.Generator().manual_seed(0)
    grown = {}
    for name, weight in convolutions(marked).items():
        tiny = torch.randn(weight.shape, generator=generator)
        tiny *= 1e-4 * weight[weight != 0].std()
        grown[name] = torch.where(weight == 0, tiny, weight)
    suspect, _ = permuted(EXACT["rescaled"](marked | grown))
    aligned = alignment.align(suspect, twin)
    where = (twin[key.layer] != 0) & (marked[key.layer] != 0)
    ratios = (aligned[key.layer] / marked[key.layer])[where]
    assert ((ratios - 1).abs() < 0.5).double().mean() > 0.9
    share, _ = signature.evidence(ownership.extract(aligned, key), key, "signature")
    assert share > 0.98


def strangers(kind, density, seed):
    """Return two networks that have nothing to do with each other.

    Their first layers are as large as a code: one window, and no search to pay for.
    """
    pair = [sparse(kind, density, seed=s, width=21) for s in (seed, 1000 + seed)]
    return pair[0], permuted(pair[1], seed)[0]


def agreement(states_and_keys, text):
    """Count the modules that agree with the owners' codes, and all modules."""
    total = agree = 0
    for state, key in states_and_keys:
        modules = len(qr.places(key.version))
        share, _ = signature.evidence(ownership.extract(state, key), key, text)
        agree += round(share * modules)
        total += modules
    return agree, total


def test_alignment_to_an_independent_reference_leaves_fair_coins():
    found = []
    for seed in range(4):
        reference, suspect = strangers("resnet8", 0.05, seed)
        aligned = alignment.align(suspect, reference, restarts=1)
        for secret in range(10):
            _, key = signed(reference, 10 * seed + secret)
            assert key.windows == 1
            found.append((aligned, key))
    assert stats.binomtest(*agreement(found, "owner"), 0.5).pvalue > 1e-3


def test_alignment_to_the_signed_network_itself_does_not():
    """Three modules in a hundred: few, but a valid p-value must not have them."""
    to_signed, to_twin = [], []
    for seed in range(40):
        reference, suspect = strangers("one block", 0.07, seed)
        marked, key = signed(reference, seed)
        to_signed.append((alignment.align(suspect, marked), key))
        to_twin.append((alignment.align(suspect, reference), key))
    biased = stats.binomtest(*agreement(to_signed, "owner"), 0.5)
    assert biased.statistic > 0.51
    assert biased.pvalue < 1e-3
    assert stats.binomtest(*agreement(to_twin, "owner"), 0.5).pvalue > 1e-3


def test_alignment_repeats_to_the_bit():
    reference = sparse("resnet8", 0.03)
    suspect, _ = permuted(noisy(reference, 1.0))
    runs = [alignment.align(suspect, reference, restarts=2, seed=3) for _ in range(2)]
    assert all(torch.equal(runs[0][name], runs[1][name]) for name in runs[0])


def test_bad_input_is_refused():
    reference = sparse("resnet8", 0.2)
    with pytest.raises(ValueError, match="restarts must be at least 1, got 0"):
        alignment.align(reference, reference, restarts=0)
    with pytest.raises(ValueError, match="the groups must be the reference's"):
        alignment.align(sparse("resnet20", 0.2), reference)
    for name in ("layer2.0.conv2.weight", "bn1.running_var"):
        for value in (float("nan"), float("inf")):
            broken = reference | {name: torch.full_like(reference[name], value)}
            with pytest.raises(ValueError, match=f"{name} must be finite"):
                alignment.align(broken, reference)
    colour = reference | {"conv1.weight": torch.ones(16, 3, 3, 3)}
    with pytest.raises(ValueError, match=r"conv1\.weight must end in \(1, 3, 3\)"):
        alignment.align(colour, reference)
    name = "layer1.0.conv1.weight"
    with pytest.raises(ValueError, match=r"must end in \(3, 3\), got \(1, 1\)"):
        alignment.align(reference | {name: torch.ones(16, 16, 1, 1)}, reference)
    chain = models.build("cnn4", channels=1, classes=3, width=4, seed=0).state_dict()
    for pair in ((chain, reference), (reference, chain)):
        with pytest.raises(ValueError, match="must be that of a ResNet"):
            alignment.align(*pair)
