"""CPU seconds until lottolab says something, beside papermill and an import of torch.

Each command is called so many times, in turns with the peers, and the least of its CPU
seconds counts (user and system, its children too): another load on the cores changes
the time on the wall more than these.

    python benchmarks/bench_startup.py [--rounds 3]
"""

import argparse
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PEERS = {
    "papermill --help": [sys.executable, "-m", "papermill", "--help"],
    'python -c "import torch"': [sys.executable, "-c", "import torch"],
}
WORDS = [
    "--help",
    "rum",
    "ownership --help",
    "ownership embd",
    "run ownershp",
    "run ownership --scale smok",
    "run ownership -p epoch=2",
    "run ownership -p rounds=x",
    "run ownership --scael smoke",
    "status",
    "claims",
]


def seconds(command: list[str]) -> float:
    """Call a command and return the CPU seconds that it took."""
    before = os.times()
    subprocess.run(command, cwd=ROOT, capture_output=True)
    after = os.times()
    spent = after.children_user + after.children_system
    return spent - before.children_user - before.children_system


def main() -> None:
    """Print a line a command: its seconds, and what each peer took in times of it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    ours = {f"lottolab {w}": [sys.executable, "-m", "lottolab.cli"] for w in WORDS}
    ours = {name: [*call, *name.split()[1:]] for name, call in ours.items()}
    least = dict.fromkeys([*PEERS, *ours], float("inf"))
    for _ in range(rounds):
        for name, command in (PEERS | ours).items():
            least[name] = min(least[name], seconds(command))
    print(f"{'CPU seconds':<40}", *(f"{peer:>28}" for peer in PEERS))
    for name, took in least.items():
        ratios = (f"{least[peer] / took:>27.1f}x" for peer in PEERS)
        print(f"{name:<34}{took:6.2f}", *ratios)


if __name__ == "__main__":
    main()
