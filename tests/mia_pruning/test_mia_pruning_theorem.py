"""Theorem 1: what is pruned out of a random network, by brute force and by chance."""

import itertools
import math

import pytest
import torch

from lottolab.mia_pruning.theorem import subnetwork

SHAPES = [(1, 1), (1, 4), (3, 1), (3, 4)]


def target(m, d, seed=0):
    generator = torch.Generator().manual_seed(1000 + seed)
    return 2 * torch.rand(m, d, generator=generator) - 1


def redrawn(m, d, width, seed):
    """Draw the random network again, before it is pruned."""
    generator = torch.Generator().manual_seed(seed)
    shapes = (m * d * width, d), (m, m * d * width)
    return [2 * torch.rand(shape, generator=generator) - 1 for shape in shapes]


def change(found, weights, x):
    """Return by how much each output changes; in float64, inputs×outputs."""
    with torch.no_grad():
        return found.network.double()(x.double()) - x.double() @ weights.double().T


def paths(found):
    """List the units that are kept: (unit, output, input, weight into the unit).

    Raises ValueError where a unit has two inputs or two outputs, or none.
    """
    first, second = found.network[0].weight.detach(), found.network[2].weight.detach()
    rows = []
    for unit in first.any(1).nonzero().flatten().tolist():
        (here,) = first[unit].nonzero().flatten().tolist()
        (there,) = second[:, unit].nonzero().flatten().tolist()
        rows.append((unit, there, here, float(first[unit, here])))
    return rows


@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_what_is_kept_are_weights_of_the_random_network(m, d):
    found = subnetwork(target(m, d), 30, seed=5)
    assert isinstance(found.network[1], torch.nn.ReLU)
    for place, drawn in zip((0, 2), redrawn(m, d, 30, seed=5), strict=True):
        layer, mask = found.network[place], found.masks[f"{place}.weight"]
        assert layer.bias is None
        assert mask.dtype == torch.bool
        assert torch.equal(layer.weight, drawn * mask)
        assert mask.any()


@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_a_weight_gets_two_units_at_most_one_for_each_sign(m, d):
    found = subnetwork(target(m, d), 30, seed=5)
    rows = paths(found)
    for mask in found.masks.values():
        assert int(mask.sum()) == len(rows)
    signs = [(there, here, into > 0) for _, there, here, into in rows]
    assert len(set(signs)) == len(signs)
    assert len(signs) > m * d
    assert all(unit // 30 == there * d + here for unit, there, here, _ in rows)


@pytest.mark.parametrize("width", [1, 2, 3, 40])
def test_no_other_unit_of_a_block_comes_nearer(width):
    m, d = 3, 2
    weights = target(m, d)
    found, (first, second) = subnetwork(weights, width, 7), redrawn(m, d, width, 7)
    for j, i, sign in itertools.product(range(m), range(d), (1.0, -1.0)):
        block = range((j * d + i) * width, (j * d + i + 1) * width)
        into, out = first[block, i].double(), second[j, block].double()
        reached = (into * sign).relu() * out
        wanted = sign * float(weights[j, i])
        least = min(abs(wanted), float((reached - wanted).abs().min()))
        x = torch.zeros(1, d)
        x[0, i] = sign
        missed = change(found, weights, x)[0, j].abs()
        assert float(missed) == pytest.approx(least, abs=1e-6)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("m", "d"), SHAPES)
def test_no_input_changes_an_output_by_more_than_the_error(m, d, seed):
    weights = target(m, d, seed)
    found = subnetwork(weights, 20, seed)
    generator = torch.Generator().manual_seed(seed)
    inside = 2 * torch.rand(2000, d, generator=generator) - 1
    grid = torch.tensor(list(itertools.product([-1.0, 0.0, 1.0], repeat=d)))
    corners = change(found, weights, grid).abs().max()
    assert corners <= found.error + 1e-6
    assert change(found, weights, inside).abs().max() <= corners + 1e-6
    if d == 1:
        assert found.error == pytest.approx(float(corners), abs=1e-6)
    # No more than the inputs do one by one, whatever their signs.
    each = change(found, weights, torch.cat([torch.eye(d), -torch.eye(d)])).abs()
    assert found.error <= float(each.view(2, d, m).amax(0).sum(0).max()) + 1e-6


def test_the_error_is_what_two_nearest_neighbours_leave():
    """Of n products of two uniforms the nearest to w is about Exp(2 n f(w)) away.

    f(w) = −½ log|w| is their density. Half of the units are for either sign, and the
    larger of two such distances has the mean 1.5 / (width · f(w)).
    """
    weights, width, seeds = torch.tensor([[0.3]]), 1000, 400
    errors = [subnetwork(weights, width, seed).error for seed in range(seeds)]
    scale = 1 / (width * -math.log(0.3) / 2)
    mean = sum(errors) / seeds
    # Their deviation is √1.25 times the scale.
    assert mean == pytest.approx(1.5 * scale, abs=4 * 1.12 * scale / seeds**0.5)


def test_the_error_falls_with_the_width():
    weights = target(3, 4)
    errors = [
        sum(subnetwork(weights, width, seed).error for seed in range(10)) / 10
        for width in (5, 50, 500)
    ]
    assert errors[1] < errors[0] / 3
    assert errors[2] < errors[1] / 5


def test_weights_out_of_reach_and_of_zero():
    weights = torch.tensor([[0.0, 1.0, -1.0]])
    found = subnetwork(weights, 50, seed=0)
    assert all(here > 0 for _, _, here, _ in paths(found)), "0 needs no unit"
    assert 0 < found.error < 1
    nothing = subnetwork(torch.zeros(2, 3), 50, seed=0)
    assert nothing.error == 0
    assert not any(mask.any() for mask in nothing.masks.values())


def test_a_seed_decides_all():
    weights = target(2, 3)
    once, again, other = (subnetwork(weights, 10, seed) for seed in (0, 0, 1))
    states = [f.network.state_dict() for f in (once, again, other)]
    assert all(torch.equal(states[0][n], states[1][n]) for n in states[0])
    assert once.error == again.error != other.error
    assert not torch.equal(states[0]["0.weight"], states[2]["0.weight"])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"width": 0}, "width must be a whole number >= 1, got 0"),
        ({"width": 2.5}, "width must be a whole number >= 1, got 2.5"),
        (
            {"weights": torch.zeros(3)},
            "weights must be of shape outputs × inputs, got (3,)",
        ),
        (
            {"weights": torch.zeros(1, 2, 3)},
            "weights must be of shape outputs × inputs, got (1, 2, 3)",
        ),
        (
            {"weights": torch.tensor([[0.5, -1.5]])},
            "weights must be in [-1, 1], at least one, got [-1.5]",
        ),
        (
            {"weights": torch.tensor([[0.5, math.nan]])},
            "weights must be in [-1, 1], at least one, got [nan]",
        ),
        (
            {"weights": torch.zeros(0, 2)},
            "weights must be in [-1, 1], at least one, got []",
        ),
    ],
)
def test_bad_input_is_refused(changed, message):
    with pytest.raises(ValueError, match=r".") as caught:
        subnetwork(**{"weights": target(1, 2), "width": 5, "seed": 0} | changed)
    assert str(caught.value) == message
