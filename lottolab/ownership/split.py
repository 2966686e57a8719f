"""Scheme V1: split a ticket's masks into a small key and the locked rest.

A network is looked at as a graph: a node a channel, an edge a kernel, as strong as the
sum of its |w| (paper, section 3.3.1). Batch norm and spatial size play no part;
parameter-free shortcuts are edges of strength 1.
"""

from dataclasses import dataclass

import igraph
import torch
from torch import Tensor

from lottolab.checks import check_seed, one_of, require, within
from lottolab.nets import masks as masking

SCORES = ("magnitude", "ewp", "betweenness", "random")


@dataclass(frozen=True)
class Edges:
    """All edges between two groups of nodes.

    strength: float64, targets × sources, 0 where there is no edge. layer: state-dict
    name of the weight that they belong to, None for a shortcut.
    """

    source: str
    target: str
    strength: Tensor
    layer: str | None


def split_key(
    masks: dict[str, Tensor],
    weights: dict[str, Tensor],
    fraction: float,
    score: str,
    seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Take the highest-scoring `fraction` of the kept weights away as the key.

    Paper, Algorithm 1, with its step 4 as it must be meant: the n weights of the
    highest score, n = round(fraction × kept) exactly, whatever ties there are (broken
    by |w|, then by place). Kernel scores count for each weight of the kernel.

    Args:
        masks: state-dict name to bool tensor, True = kept.
        weights: the state dict that the ticket is trained from.
        fraction: relative sparsity of the key, in (0, 1).
        score: `magnitude`, `ewp`, `betweenness` or `random` (drawn by `seed`).

    Returns (key, locked); together they are the masks, and they share no weight.

    Raises:
        ValueError: fraction or score is not allowed, masks and weights do not fit, or
            weights are not finite.
    """
    within("fraction", fraction, "(0, 1)")
    check_seed(seed)
    one_of("score", score, SCORES)
    masking.check(masks, weights)
    require(len(masks) > 0, "masks must be of one layer or more", "none")
    found = scores(masks, weights, score, seed)
    names = sorted(masks)
    kept = [int(masks[name].sum()) for name in names]
    first = torch.cat([found[n].expand_as(masks[n])[masks[n]] for n in names])
    second = torch.cat([weights[n].detach().abs()[masks[n]].double() for n in names])
    order = second.sort(descending=True, stable=True).indices
    order = order[first[order].sort(descending=True, stable=True).indices]
    chosen = torch.zeros(sum(kept), dtype=torch.bool)
    chosen[order[: round(fraction * sum(kept))]] = True
    key = {name: torch.zeros_like(mask) for name, mask in masks.items()}
    for name, part in zip(names, chosen.split(kept), strict=True):
        key[name][masks[name]] = part
    return key, {name: mask & ~key[name] for name, mask in masks.items()}


def scores(
    masks: dict[str, Tensor], weights: dict[str, Tensor], score: str, seed: int = 0
) -> dict[str, Tensor]:
    """Return a float64 score for each weight or, broadcastable, for each kernel."""
    if score == "magnitude":
        return {name: weights[name].detach().abs().double() for name in masks}
    if score == "random":
        generator = torch.Generator().manual_seed(seed)
        shapes = {name: masks[name].shape for name in sorted(masks)}
        return {
            name: torch.rand(shape, generator=generator, dtype=torch.float64)
            for name, shape in shapes.items()
        }
    graph = channel_graph(weights, masks)
    by_layer = edge_weight_product(graph) if score == "ewp" else betweenness(graph)
    return {n: by_layer[n].view(*by_layer[n].shape, 1, 1) for n in masks}


def channel_graph(weights: dict[str, Tensor], masks: dict[str, Tensor]) -> list[Edges]:
    """Return the edges of one of this book's residual networks, inputs first.

    Layers without a mask (the first convolution and the classifier) keep all edges.

    Raises:
        ValueError: the network is no residual network of `lottolab.nets.models`.
    """
    blocks = [n.removesuffix(".conv1.weight") for n in weights if ".conv1.w" in n]
    fits = blocks and "conv1.weight" in weights and "fc.weight" in weights
    require(
        bool(fits),
        "weights must be those of a ResNet of lottolab.nets.models",
        "others",
    )

    def strength(name: str) -> Tensor:
        kept = weights[name] * masks[name] if name in masks else weights[name]
        return kept.detach().abs().double().flatten(2).sum(2)

    def edges(source: str, target: str, name: str) -> Edges:
        return Edges(source, target, strength(name), name)

    graph, stream = [edges("input", "stem", "conv1.weight")], "stem"
    for block in blocks:
        graph.append(edges(stream, f"{block}.hidden", f"{block}.conv1.weight"))
        graph.append(edges(f"{block}.hidden", block, f"{block}.conv2.weight"))
        projection = f"{block}.downsample.0.weight"
        inputs = weights[f"{block}.conv1.weight"].shape[1]
        outputs = weights[f"{block}.conv2.weight"].shape[0]
        if projection in weights:
            graph.append(edges(stream, block, projection))
        else:  # option A: pad with as many channels on both sides
            identity = torch.zeros(outputs, inputs, dtype=torch.float64)
            before = (outputs - inputs) // 2
            identity[before : before + inputs] = torch.eye(inputs)
            graph.append(Edges(stream, block, identity, None))
        stream = block
    last = weights["fc.weight"].detach().abs().double()
    return [*graph, Edges(stream, "output", last, "fc.weight")]


def edge_weight_product(graph: list[Edges]) -> dict[str, Tensor]:
    """Return for each edge the log of the summed products over all paths through it.

    The product of the edge strengths along a path from input to output is the path's
    weight (PHEW); a forward and a backward pass over the layers sum over all paths
    exactly. float64, targets × sources a layer; −inf where no path goes.
    """
    ahead = {"input": torch.zeros(graph[0].strength.shape[1], dtype=torch.float64)}
    for target in dict.fromkeys(e.target for e in graph):
        here = [e for e in graph if e.target == target]
        parts = [e.strength.log() + ahead[e.source] for e in here]
        ahead[target] = torch.cat(parts, 1).logsumexp(1)
    behind = {"output": torch.zeros(graph[-1].strength.shape[0], dtype=torch.float64)}
    for source in reversed(dict.fromkeys(e.source for e in graph)):
        here = [e for e in graph if e.source == source]
        parts = [e.strength.log() + behind[e.target][:, None] for e in here]
        behind[source] = torch.cat(parts, 0).logsumexp(0)
    return {
        e.layer: behind[e.target][:, None] + e.strength.log() + ahead[e.source]
        for e in graph
        if e.layer
    }


def betweenness(graph: list[Edges]) -> dict[str, Tensor]:
    """Return for each edge how many shortest paths go through it.

    Directed from input to output, between all pairs of channels, exact (Brandes); a
    strong edge is a short one, of length 1 / strength. Ties between shortest paths
    share. float64, targets × sources a layer; −inf where there is no edge.
    """
    first: dict[str, int] = {}
    total = 0
    for e in graph:
        for group, size in zip((e.source, e.target), e.strength.T.shape, strict=True):
            if group not in first:
                first[group], total = total, total + size
    where = [e.strength.nonzero(as_tuple=True) for e in graph]
    pairs, lengths = [], []
    for e, (targets, sources) in zip(graph, where, strict=True):
        ends = (sources + first[e.source], targets + first[e.target])
        pairs.append(torch.stack(ends, 1))
        lengths.append(1 / e.strength[targets, sources])
    network = igraph.Graph(n=total, edges=torch.cat(pairs).tolist(), directed=True)
    weights = torch.cat(lengths).tolist()
    values = network.edge_betweenness(directed=True, weights=weights)
    parts = torch.tensor(values, dtype=torch.float64).split([len(p) for p in pairs])
    found = {}
    for e, place, part in zip(graph, where, parts, strict=True):
        if e.layer:
            found[e.layer] = torch.full_like(e.strength, -torch.inf)
            found[e.layer][place] = part
    return found
