"""Masks against brute force and against torch's own pruning."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from lottolab.nets import masks
from lottolab.nets.models import build


def layers(seed: int = 0, ties: bool = False) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    shapes = {"b": (7, 3, 3, 3), "a": (11, 5), "c": (40,)}
    make = {k: torch.randn(s, generator=generator) for k, s in shapes.items()}
    return {k: (w * 2).round() if ties else w for k, w in make.items()}


def ones(weights: dict[str, torch.Tensor]) -> masks.Masks:
    return {name: torch.ones_like(w, dtype=torch.bool) for name, w in weights.items()}


def brute(weights, kept, rate, groups):
    """Prune by numpy's stable argsort, one flat list a group; names in order."""
    out = {name: mask.numpy().copy() for name, mask in kept.items()}
    for group in groups:
        places = [(n, i) for n in group for i in np.flatnonzero(out[n])]
        size = [abs(weights[n].numpy().reshape(-1)[i]) for n, i in places]
        for j in np.argsort(size, kind="stable")[: round(rate * len(places))]:
            name, i = places[j]
            out[name].reshape(-1)[i] = False
    return out


def equal(a, b) -> bool:
    return a.keys() == b.keys() and all(
        np.array_equal(np.asarray(a[name]), np.asarray(b[name])) for name in a
    )


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("rate", [0.0, 0.013, 0.2, 0.5, 0.97])
def test_magnitude_is_the_brute_force_over_three_rounds(rate, scope, ties):
    groups = [["a", "b", "c"]] if scope == "global" else [["a"], ["b"], ["c"]]
    for seed in range(3):
        weights = layers(seed, ties)
        kept = ones(weights)
        for _ in range(3):
            after = masks.magnitude(weights, kept, rate, scope)
            assert equal(after, brute(weights, kept, rate, groups))
            assert all(bool((after[n] <= kept[n]).all()) for n in kept)
            kept = after


def test_the_order_of_the_dictionary_does_not_matter():
    weights = layers(ties=True)
    kept = ones(weights)
    turned = dict(reversed(kept.items()))
    assert equal(
        masks.magnitude(weights, kept, 0.3), masks.magnitude(weights, turned, 0.3)
    )
    assert equal(masks.random(kept, 0.3, 1), masks.random(turned, 0.3, 1))
    some = masks.random(kept, 0.3, 1)
    turned = dict(reversed(some.items()))
    assert equal(masks.shuffled(some, 1), masks.shuffled(turned, 1))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_magnitude_agrees_with_torchs_own_pruning(rate):
    model = build("cnn4", channels=1, classes=10, width=8, seed=3)
    names = masks.prunable(model, first=True, last=True)
    # Distinct sizes, because the oracle breaks ties as it likes.
    state, generator = model.state_dict(), torch.Generator().manual_seed(0)
    flat = torch.randperm(sum(state[n].numel() for n in names), generator=generator)
    flat = (flat + 1.0) * torch.where(flat % 3 == 0, -1, 1)
    for name, part in zip(
        names, flat.split([state[n].numel() for n in names]), strict=True
    ):
        state[name].copy_(part.view_as(state[name]))
    state = {k: v.clone() for k, v in state.items()}
    ours = masks.magnitude(state, masks.dense(model, first=True, last=True), rate)
    modules = [
        (model.get_submodule(n.removesuffix(".weight")), "weight") for n in names
    ]
    prune.global_unstructured(modules, prune.L1Unstructured, amount=rate)
    theirs = {n: m.weight_mask.bool() for n, (m, _) in zip(names, modules, strict=True)}
    assert equal(ours, theirs)


@pytest.mark.parametrize("scope", ["global", "layer"])
def test_random_counts_exactly_never_revives_and_is_uniform(scope):
    kept = masks.magnitude(layers(), ones(layers()), 0.4)
    before = masks.sizes(kept)
    after = masks.random(kept, 0.3, seed=1, scope=scope)
    assert all(bool((after[n] <= kept[n]).all()) for n in kept)
    if scope == "layer":
        for name, (left, _) in masks.sizes(after).items():
            assert left == before[name][0] - round(0.3 * before[name][0])
    else:
        total = sum(left for left, _ in before.values())
        left = sum(left for left, _ in masks.sizes(after).values())
        assert left == total - round(0.3 * total)
    assert not equal(after, masks.random(kept, 0.3, seed=2, scope=scope))
    assert equal(after, masks.random(kept, 0.3, seed=1, scope=scope))
    line = {"a": torch.ones(10, dtype=torch.bool)}
    counts = sum(masks.random(line, 0.5, seed)["a"].int() for seed in range(1000))
    assert (counts - 500).abs().max() < 5 * 15.9  # five binomial deviations


def test_a_global_removal_is_not_layerwise():
    weights = {"a": torch.arange(1.0, 11), "b": torch.arange(101.0, 111)}
    after = masks.magnitude(weights, ones(weights), 0.5)
    assert masks.sizes(after) == {"a": (0, 10), "b": (10, 10)}
    after = masks.magnitude(weights, ones(weights), 0.5, scope="layer")
    assert masks.sizes(after) == {"a": (5, 10), "b": (5, 10)}


def test_shuffled_keeps_the_layerwise_counts_and_nothing_else():
    kept = masks.magnitude(layers(), ones(layers()), 0.6)
    control = masks.shuffled(kept, seed=5)
    assert masks.sizes(control) == masks.sizes(kept)
    assert {n: m.shape for n, m in control.items()} == {
        n: m.shape for n, m in kept.items()
    }
    line = {"a": torch.arange(20) < 5}
    counts = sum(masks.shuffled(line, seed)["a"].int() for seed in range(2000))
    assert (counts - 500).abs().max() < 5 * 19.4
    assert not equal(masks.shuffled(kept, 1), masks.shuffled(kept, 2))


def test_prunable_leaves_out_the_first_convolution_and_the_classifier():
    model = build("lenet5", channels=1, classes=10)
    assert masks.prunable(model) == ["conv2.weight", "fc1.weight", "fc2.weight"]
    assert masks.prunable(model, first=True)[0] == "conv1.weight"
    assert masks.prunable(model, last=True)[-1] == "fc3.weight"
    model = build("resnet20", channels=3, classes=10)
    names = masks.prunable(model)
    assert len(names) == 18
    assert all(model.state_dict()[name].ndim == 4 for name in names)
    assert masks.prunable(nn.Linear(3, 2), last=True) == ["weight"]
    assert masks.density(masks.dense(model)) == 1.0


def test_density_counts_weights_not_layers():
    kept = {"a": torch.zeros(90).bool(), "b": torch.ones(10).bool()}
    assert masks.density(kept) == 0.1
    with pytest.raises(ValueError, match="at least one weight"):
        masks.density({})


def test_apply_zeroes_the_pruned_even_if_not_finite_and_no_other():
    model = build("cnn4", channels=1, classes=3, width=4, seed=0)
    before = {k: v.clone() for k, v in model.state_dict().items()}
    kept = masks.random(masks.dense(model), 0.5, seed=0)
    name = next(iter(kept))
    place = tuple((~kept[name]).nonzero()[0])
    with torch.no_grad():
        model.get_parameter(name)[place] = float("nan")
    masks.apply_(model, kept)
    for key, value in model.state_dict().items():
        mask = kept.get(key, torch.ones_like(value, dtype=torch.bool))
        assert torch.equal(value, torch.where(mask, before[key], 0)), key


@pytest.mark.parametrize("rate", [-0.1, 1.0, 2, float("nan")])
def test_a_rate_outside_the_range_is_refused(rate):
    weights = layers()
    for call in (
        lambda: masks.magnitude(weights, ones(weights), rate),
        lambda: masks.random(ones(weights), rate, seed=0),
    ):
        with pytest.raises(ValueError, match=r"rate must be in \[0, 1\), got"):
            call()


def test_bad_masks_are_refused_by_name():
    weights = layers()
    good = ones(weights)
    bad = {
        "did you mean": {**good, "bb": good["b"]},
        "mask a must have the shape": {**good, "a": good["a"].T},
        "mask a must be torch.bool": {**good, "a": good["a"].float()},
    }
    for message, given in bad.items():
        with pytest.raises(ValueError, match=message):
            masks.check(given, {**weights, "bbb": weights["b"]})
    with pytest.raises(ValueError, match=r"weights of c must be numbers, got 1 NaN"):
        masks.magnitude(
            {**weights, "c": weights["c"].index_fill(0, torch.tensor(3), torch.nan)},
            good,
            0.1,
        )
    with pytest.raises(ValueError, match="scope must be one of global, layer"):
        masks.magnitude(weights, good, 0.1, scope="globl")
    with pytest.raises(ValueError, match="mask name must be one of"):
        masks.apply_(nn.Linear(2, 2), good)
