"""The key of a ticket: exact sizes, and scores against independent computations."""

import itertools
import math

import networkx
import numpy as np
import pytest
import torch

from lottolab.nets import masks as masking
from lottolab.nets import models
from lottolab.ownership import split


def ticket(width=4, rate=0.8, name="resnet20", seed=0, classes=3):
    model = models.build(name, channels=1, classes=classes, width=width, seed=seed)
    weights = model.state_dict()
    return masking.magnitude(weights, masking.dense(model), rate), weights


@pytest.mark.parametrize("score", split.SCORES)
@pytest.mark.parametrize("fraction", [0.05, 0.2, 0.5])
def test_key_and_locked_part_the_ticket_exactly(score, fraction):
    masks, weights = ticket()
    key, locked = split.split_key(masks, weights, fraction, score, seed=1)
    total = sum(int(m.sum()) for m in masks.values())
    assert sum(int(m.sum()) for m in key.values()) == round(fraction * total)
    for name, mask in masks.items():
        assert not (key[name] & locked[name]).any()
        assert torch.equal(key[name] | locked[name], mask)


@pytest.mark.parametrize("score", ["magnitude", "ewp", "betweenness"])
def test_the_key_holds_the_highest_scores(score):
    masks, weights = ticket()
    key, locked = split.split_key(masks, weights, 0.2, score)
    found = split.scores(masks, weights, score)
    spread = {n: s.expand_as(masks[n]) for n, s in found.items()}
    taken = torch.cat([spread[n][key[n]] for n in masks])
    left = torch.cat([spread[n][locked[n]] for n in masks])
    assert taken.min() >= left.max()


def test_random_keys_follow_their_seed():
    masks, weights = ticket()
    keys = [split.split_key(masks, weights, 0.2, "random", s)[0] for s in (0, 0, 1)]
    assert all(torch.equal(keys[0][n], keys[1][n]) for n in masks)
    assert any(not torch.equal(keys[0][n], keys[2][n]) for n in masks)


def paths(graph):
    """Yield each path from inputs to outputs: a list of (edges, target, source)."""

    def walk(group, node):
        if group == "output":
            yield []
        for e in graph:
            if e.source == group:
                for target in e.strength[:, node].nonzero().flatten().tolist():
                    for rest in walk(e.target, target):
                        yield [(e, target, node), *rest]

    for node in range(graph[0].strength.shape[1]):
        yield from walk("input", node)


def small():
    """Return the graph of a small residual network whose paths can be counted."""
    generator = torch.Generator().manual_seed(0)
    shapes = {"conv1.weight": (2, 1, 3, 3), "fc.weight": (2, 4)}
    for block, (i, o) in {"layer1.0": (2, 2), "layer2.0": (2, 4)}.items():
        shapes |= {f"{block}.conv1.weight": (o, i, 3, 3)}
        shapes |= {f"{block}.conv2.weight": (o, o, 3, 3)}
    weights = {k: torch.randn(s, generator=generator) for k, s in shapes.items()}
    masks = {k: w.abs() > 1.4 for k, w in weights.items() if k.startswith("layer")}
    return split.channel_graph(weights, masks)


def test_edge_weight_product_is_the_sum_over_all_paths():
    graph = small()
    total = {e.layer: torch.zeros_like(e.strength) for e in graph if e.layer}
    count = 0
    for path in paths(graph):
        count += 1
        product = math.prod(float(e.strength[t, s]) for e, t, s in path)
        for e, target, source in path:
            if e.layer:
                total[e.layer][target, source] += product
    assert count > 50
    found = split.edge_weight_product(graph)
    for layer, expected in total.items():
        assert torch.allclose(found[layer].exp(), expected, rtol=1e-10, atol=1e-300)


def test_edge_weight_product_is_edge_times_gradient_of_the_linear_network():
    masks, weights = ticket(width=8)
    graph = split.channel_graph(weights, masks)
    leaves = [e.strength.clone().requires_grad_() for e in graph]
    values = {"input": torch.ones(1, dtype=torch.float64)}
    for e, leaf in zip(graph, leaves, strict=True):
        values[e.target] = values.get(e.target, 0) + leaf @ values[e.source]
    values["output"].sum().backward()
    found = split.edge_weight_product(graph)
    for e, leaf in zip(graph, leaves, strict=True):
        if e.layer:
            expected = (leaf * leaf.grad).detach()
            assert torch.allclose(found[e.layer].exp(), expected, rtol=1e-9)


def test_betweenness_is_that_of_networkx():
    masks, weights = ticket(width=4, rate=0.9)
    graph = split.channel_graph(weights, masks)
    other = networkx.DiGraph()
    for e in graph:
        for target, source in e.strength.nonzero().tolist():
            length = 1 / float(e.strength[target, source])
            other.add_edge((e.source, source), (e.target, target), length=length)
    expected = networkx.edge_betweenness_centrality(
        other, weight="length", normalized=False
    )
    found = split.betweenness(graph)
    compared = 0
    for e in graph:
        for target, source in e.strength.nonzero().tolist() if e.layer else []:
            wanted = expected[(e.source, source), (e.target, target)]
            assert found[e.layer][target, source] == pytest.approx(wanted)
            compared += wanted > 0
    assert compared > 50


def test_projections_are_edges_too():
    masks, weights = ticket(width=4, name="resnet18", rate=0.5)
    layers = [e.layer for e in split.channel_graph(weights, masks)]
    assert set(masks) < set(layers)
    assert layers.count(None) == 8 - 3


def test_the_graph_is_the_network():
    """On one pixel, with |w| and no batch norm, the network computes the path sums."""
    model = models.build("resnet20", channels=2, classes=3, width=4, seed=0).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.abs_()
            if parameter.ndim == 4:  # on one pixel only the centre counts
                centre = parameter[:, :, 1:2, 1:2].clone()
                parameter.zero_()[:, :, 1:2, 1:2] = centre
        model.fc.bias.zero_()
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.eps = 0.0
        model.double()
        ones = torch.ones(1, 2, 1, 1, dtype=torch.float64)
        logits = model(ones)[0]
    weights = model.state_dict()
    graph = split.channel_graph(weights, {})
    values = {"input": torch.ones(2, dtype=torch.float64)}
    for e in graph:
        values[e.target] = values.get(e.target, 0) + e.strength @ values[e.source]
    assert torch.allclose(values["output"], logits, rtol=1e-6)


def test_ties_are_broken_so_that_the_count_is_exact():
    masks, weights = ticket()
    equal = {n: torch.ones_like(w) for n, w in weights.items()}
    key, _ = split.split_key(masks, equal, 0.1, "magnitude")
    total = sum(int(m.sum()) for m in masks.values())
    assert sum(int(m.sum()) for m in key.values()) == round(0.1 * total)


@pytest.mark.parametrize("fraction", [0, 1, -0.1, 1.5, math.nan])
def test_a_fraction_outside_is_refused(fraction):
    with pytest.raises(ValueError, match=r"fraction must be in \(0, 1\)"):
        split.split_key(*ticket(), fraction, "magnitude")


def test_bad_input_is_refused():
    masks, weights = ticket()
    with pytest.raises(ValueError, match="did you mean betweenness"):
        split.split_key(masks, weights, 0.1, "betweeness")
    name = next(iter(masks))
    broken = weights | {name: weights[name] * math.nan}
    with pytest.raises(ValueError, match=name):
        split.split_key(masks, broken, 0.1, "magnitude")
    chain = models.build("cnn4", channels=1, classes=3, width=4, seed=0)
    with pytest.raises(ValueError, match="must be those of a ResNet"):
        split.split_key(masking.dense(chain), chain.state_dict(), 0.1, "ewp")


def test_scores_differ_from_each_other():
    masks, weights = ticket(width=8)
    keys = {s: split.split_key(masks, weights, 0.2, s)[0] for s in split.SCORES}
    flat = {s: torch.cat([k[n].flatten() for n in masks]) for s, k in keys.items()}
    for a, b in itertools.combinations(flat, 2):
        shared = (flat[a] & flat[b]).sum() / flat[a].sum()
        assert 0.02 < shared < 0.98
    assert np.isfinite(float(flat["ewp"].sum()))
