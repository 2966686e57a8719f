"""Exact edge betweenness of ResNet-20's channel graph: ours (igraph) against networkx.

Both get the same graph and must give equal values; prints the seconds of each and the
ratio, measured in one run.

    python benchmarks/bench_betweenness.py [--density 0.2] [--width 16]
"""

import argparse
import time

import networkx

from lottolab.nets import masks as masking
from lottolab.nets import models
from lottolab.ownership import split


def peer(graph: list[split.Edges]) -> dict:
    """Return networkx's value of each edge, by the names of its two nodes."""
    other = networkx.DiGraph()
    for e in graph:
        for target, source in e.strength.nonzero().tolist():
            length = 1 / float(e.strength[target, source])
            other.add_edge((e.source, source), (e.target, target), length=length)
    return networkx.edge_betweenness_centrality(
        other, weight="length", normalized=False
    )


def main() -> None:
    """Time both on one graph and compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--density", type=float, default=0.2)
    parser.add_argument("--width", type=int, default=16)
    given = parser.parse_args()
    model = models.build("resnet20", channels=3, classes=10, width=given.width, seed=0)
    weights = model.state_dict()
    masks = masking.magnitude(weights, masking.dense(model), 1 - given.density)
    graph = split.channel_graph(weights, masks)
    edges = sum(int((e.strength > 0).sum()) for e in graph)
    start = time.perf_counter()
    ours = split.betweenness(graph)
    middle = time.perf_counter()
    theirs = peer(graph)
    end = time.perf_counter()
    worst = 0.0
    for e in graph:
        for target, source in e.strength.nonzero().tolist() if e.layer else []:
            value = float(ours[e.layer][target, source])
            other = theirs[(e.source, source), (e.target, target)]
            worst = max(worst, abs(value - other) / max(1.0, other))
    print(f"{edges:,} edges; largest relative difference {worst:.1e}")
    print(f"lottolab  {middle - start:8.2f} s")
    print(f"networkx  {end - middle:8.2f} s")
    print(f"ratio     {(end - middle) / (middle - start):8.1f}")


if __name__ == "__main__":
    main()
