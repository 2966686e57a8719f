"""ModelGuard-S on a batch against a loop over its rows.

The loop is Algorithm 1 on the same integers: it checks a row against its class's
centroids in order, with one vectorised NumPy distance, and opens a new one where none
is within ε. Both get the same softmax outputs (float32; logits with a likeness between
classes, noise and a margin) and one thread, and must give equal answers. Prints
microseconds a prediction and their ratio, measured in one run: from an empty state, and
again when all centroids are known.

Then one query at a time, as a service is asked, with about 100 and 25,000 centroids:
the batch's way, `Scanned`, and the loop.

    python benchmarks/bench_modelguard_s.py [--classes 100] [--count 100000]
"""

import argparse
import time

import numpy as np
import torch

from lottolab.modelguard.defences.centroids import GRID
from lottolab.modelguard.defences.quantisers import ModelGuardS
from lottolab.modelguard.defences.scan import quick


def predictions(count: int, classes: int, margin: float, seed: int = 0) -> np.ndarray:
    """Draw softmax outputs; at `margin` 8.5 and 100 classes most are above 0.9."""
    rng = np.random.default_rng(seed)
    likeness = rng.normal(0, 1.5, (classes, classes))
    label = rng.integers(classes, size=count)
    logits = likeness[label] + rng.normal(0, 1.5, (count, classes))
    logits[np.arange(count), label] += rng.uniform(margin, margin + 7, count)
    odds = np.exp(logits - logits.max(1, keepdims=True))
    return (odds / odds.sum(1, keepdims=True)).astype(np.float32)


class Loop:
    """Answer row by row."""

    def __init__(self, epsilon: float, classes: int) -> None:
        self.limit = epsilon * GRID - classes
        self.known = [np.empty((0, classes)) for _ in range(classes)]
        self.answers = [np.empty((0, classes), np.float32) for _ in range(classes)]

    def __call__(self, probs: np.ndarray) -> np.ndarray:
        answers, rows = np.empty_like(probs), np.rint(probs.astype(float) * GRID)
        for place, row in enumerate(rows):
            label = row.argmax()
            near = np.abs(self.known[label] - row).sum(1) <= self.limit
            if near.any():
                answers[place] = self.answers[label][near.argmax()]
                continue
            for held, new in ((self.known, row), (self.answers, probs[place])):
                held[label] = np.concatenate([held[label], new[None]])
            answers[place] = probs[place]
        return answers


def singles(epsilon: float, count: int, margin: float, queries: int = 100) -> None:
    """Print the median microseconds of single queries, each way."""
    probs = predictions(count, 100, margin)
    loop, batch = Loop(epsilon, 100), ModelGuardS(epsilon, 100)
    scan = quick(batch)
    ways = {"batch": batch, "scan": scan, "loop": loop}
    scan(torch.from_numpy(probs))
    loop(probs)
    each, answers = {}, []
    for name, ask in ways.items():
        took, found = [], []
        for row in np.array_split(probs[-queries:], queries):
            given = row if name == "loop" else torch.from_numpy(row)
            start = time.perf_counter()
            found.append(np.asarray(ask(given)))
            took.append(time.perf_counter() - start)
        each[name] = 1e6 * float(np.median(took))
        answers.append(np.concatenate(found))
    equal = all(np.array_equal(answers[0], other) for other in answers[1:])
    said = ", ".join(f"{name} {micro:,.0f} µs" for name, micro in each.items())
    print(f"single queries, {batch.count:,} centroids: {said}; equal: {equal}")


def main() -> None:
    """Compare from an empty state and again from the full one."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, default=100)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument(
        "--margin", type=float, default=8.5, help="less: more centroids"
    )
    given = parser.parse_args()
    torch.set_num_threads(1)
    probs = predictions(given.count, given.classes, given.margin)
    warm_up = predictions(given.count, given.classes, given.margin, seed=1)
    ModelGuardS(given.epsilon, given.classes)(torch.from_numpy(warm_up))
    ours = ModelGuardS(given.epsilon, given.classes)
    theirs = Loop(given.epsilon, given.classes)
    for state in ("empty", "full"):
        start = time.perf_counter()
        mine = ours(torch.from_numpy(probs)).numpy()
        middle = time.perf_counter()
        other = theirs(probs)
        end = time.perf_counter()
        each = [1e6 * t / len(probs) for t in (middle - start, end - middle)]
        print(
            f"{state}: {ours.count:,} centroids, lottolab {each[0]:.3f} µs, loop "
            f"{each[1]:.2f} µs, ratio {each[1] / each[0]:.1f}; "
            f"equal: {np.array_equal(mine, other)}"
        )
    singles(given.epsilon, 200, given.margin)
    singles(0.2, 28_000, 1.0)


if __name__ == "__main__":
    main()
