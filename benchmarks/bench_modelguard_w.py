"""ModelGuard-W as tensors against its linear program in PuLP, solved by CBC.

Both get the same predictions, Dirichlet(0.3) as float64, and one thread. PuLP gets one
program for each `--batch` predictions, as the paper's authors solve it; its seconds
are those of building and solving it, and CBC's alone are printed beside. Prints
milliseconds a prediction, their ratio and the largest difference of the objectives,
measured in one run. PuLP is installed for this alone: `pip install pulp`.

    python benchmarks/bench_modelguard_w.py [--classes 10 100] [--epsilon 1.0]
"""

import argparse
import time

import numpy as np
import pulp
import torch

from lottolab.modelguard.defences.linear_program import FLOOR, MARGIN, ModelGuardW


def peer(probs: np.ndarray, epsilon: float) -> tuple[np.ndarray, float]:
    """Return the objective of each row and CBC's own seconds."""
    prices = np.log(probs + FLOOR)
    problem = pulp.LpProblem("modelguard_w", pulp.LpMinimize)
    rows = range(len(probs))
    columns = range(probs.shape[1])
    answer = pulp.LpVariable.dicts("y", (rows, columns), 0, 1)
    moved = pulp.LpVariable.dicts("d", (rows, columns), 0)
    problem += pulp.lpSum(prices[i, j] * answer[i][j] for i in rows for j in columns)
    for i in rows:
        top = int(probs[i].argmax())
        lead = probs[i, top] - np.delete(probs[i], top).max()
        for j in columns:
            problem += answer[i][j] - probs[i, j] <= moved[i][j]
            problem += probs[i, j] - answer[i][j] <= moved[i][j]
            if j != top:
                problem += answer[i][top] - answer[i][j] >= min(MARGIN, lead)
        problem += pulp.lpSum(moved[i].values()) <= epsilon
        problem += pulp.lpSum(answer[i].values()) == 1
    start = time.perf_counter()
    problem.solve(pulp.PULP_CBC_CMD(msg=False, threads=1))
    seconds = time.perf_counter() - start
    found = np.array([[answer[i][j].value() for j in columns] for i in rows])
    return (found * prices).sum(1), seconds


def compare(classes: int, epsilon: float, count: int, batch: int) -> None:
    """Time both on as many predictions of so many classes as asked, and print."""
    drawn = np.random.default_rng(classes).dirichlet(np.full(classes, 0.3), 20 * count)
    probs = torch.from_numpy(drawn)
    defence = ModelGuardW(epsilon)
    defence(probs[:count])
    start = time.perf_counter()
    ours = defence(probs)
    each = (time.perf_counter() - start) / len(probs)
    start, parts, solving = time.perf_counter(), [], 0.0
    for first in range(0, count, batch):
        found, seconds = peer(drawn[first : min(first + batch, count)], epsilon)
        parts.append(found)
        solving += seconds
    theirs = (time.perf_counter() - start) / count
    objective = (ours * (probs + FLOOR).log()).sum(1)[:count].numpy()
    worst = np.abs(objective - np.concatenate(parts)).max()
    print(
        f"C = {classes:4}: lottolab {1000 * each:.4f} ms, PuLP/CBC {1000 * theirs:.2f} "
        f"ms (CBC {1000 * solving / count:.2f}), ratio {theirs / each:.0f}, CBC alone "
        f"{solving / count / each:.0f}; largest difference {worst:.0e}"
    )


def main() -> None:
    """Compare at each number of classes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--classes", type=int, nargs="+", default=[10, 100])
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--count", type=int, default=1000, help="predictions by PuLP")
    parser.add_argument("--batch", type=int, default=50, help="predictions a program")
    given = parser.parse_args()
    torch.set_num_threads(1)
    for classes in given.classes:
        compare(classes, given.epsilon, given.count, given.batch)


if __name__ == "__main__":
    main()
