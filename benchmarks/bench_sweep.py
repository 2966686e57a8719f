"""Sweeps: two workers against one, and what the engine costs for empty points.

The work of a point is arithmetic of a fixed length in one thread, so that two workers
on two free cores can be twice as fast. Both are measured three times in turns, on
processes of this machine and on a Dask cluster on loopback, whose start is not counted,
and the best time of each is compared.

    python benchmarks/bench_sweep.py [--points 16] [--seconds 0.5] [--empty 10000]
"""

import argparse
import functools
import tempfile
import time
from pathlib import Path

import numpy as np
from dask.distributed import LocalCluster

from lottolab.reruns.sweeps import points

ROUNDS = 3


def work(loops: int, point: dict, folder: Path) -> None:
    """Sort random numbers `loops` times."""
    numbers = np.random.default_rng(point["x"]).random(100_000)
    for _ in range(loops):
        np.sort(numbers)


def nothing(point: dict, folder: Path) -> None:
    """Be an empty point."""


def seconds(call, count: int, **side) -> float:
    """Run so many points in a fresh folder; return the seconds that it took."""
    grid = {f"{x:05d}": {"x": x} for x in range(count)}
    with tempfile.TemporaryDirectory() as folder:
        start = time.perf_counter()
        ended = [record for _, record in points.run(call, grid, Path(folder), **side)]
        took = time.perf_counter() - start
    assert len(ended) == count
    assert not any(record["error"] for record in ended)
    return took


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--points", type=int, default=16)
    parser.add_argument("--seconds", type=float, default=0.5, help="a point")
    parser.add_argument("--empty", type=int, default=10_000)
    given = parser.parse_args()
    start = time.perf_counter()
    work(20, {"x": 0}, Path())
    loops = max(1, round(20 * given.seconds / (time.perf_counter() - start)))
    call = functools.partial(work, loops)
    quiet = {"dashboard_address": ":0", "threads_per_worker": 1}
    with (
        LocalCluster(n_workers=1, **quiet) as one,
        LocalCluster(n_workers=2, **quiet) as two,
    ):
        sides = {
            "processes": ({"jobs": 1}, {"jobs": 2}),
            "Dask": tuple({"scheduler": c.scheduler_address} for c in (one, two)),
        }
        for side in (side for pair in sides.values() for side in pair):
            seconds(nothing, 8, **side)  # the processes are there
        for name, (alone, both) in sides.items():
            pairs = [
                [seconds(call, given.points, **side) for side in (alone, both)]
                for _ in range(ROUNDS)
            ]
            first, second = (min(times) for times in zip(*pairs, strict=True))
            print(
                f"{name}: {given.points} points, one worker {first:.1f} s, two "
                f"{second:.1f} s, ratio {first / second:.2f}",
                flush=True,
            )
        for name, (_, both) in sides.items():
            each = 1000 * seconds(nothing, given.empty, **both) / given.empty
            print(
                f"{name}: {given.empty:,} empty points, {each:.2f} ms each", flush=True
            )


if __name__ == "__main__":
    main()
