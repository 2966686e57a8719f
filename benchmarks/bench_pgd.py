"""CPU seconds of `ensembles.pgd` against torchattacks' PGD, on one thread, as a ratio.

Same images, ε, step, steps and number of random starts, and like with like: peer and
ours on the network as it was trained (unfolded), and peer and ours with its batch norm
folded into its convolutions; a ratio is of two on one network. Two are trained, one as
usual, one adversarially (one step). All are asked at several batch sizes, and the best
counts.
Ours is timed with every step of every image, which is the peer's work: the goal is not
to be slower. With `stop`, which leaves an image once it is fooled, and once its steps
repeat, the goal is twice the speed to the same robust accuracy: an image counts as
robust if no start fools it. The rounds of all cases are interleaved; seconds are the
process's own. `pip install --no-deps torchattacks` first: it pins an old `requests`.

    python benchmarks/bench_pgd.py [--images 500] [--rounds 3] [--network cnn4]
        [--width 32] [--stem same] [--epsilon 8] [--steps 20] [--starts 1]
"""

import argparse
import itertools
import statistics
import time
from functools import partial

import torch

from lottolab.ensembles import Normalised, pgd
from lottolab.ensembles.folding import folded
from lottolab.ensembles.queries import correct
from lottolab.ensembles.tickets import adversarial_fit
from lottolab.images import datasets
from lottolab.nets import models, train

STEP, RADIUS = 2 / 255, 8 / 255
BATCHES = (32, 64, 128, 256)


def trained(given: argparse.Namespace, adversarially: bool) -> Normalised:
    """Train on 4,000 images for three epochs; return a model of images in [0, 1]."""
    source = datasets.load("fashion-mnist")
    x, y = source.images[:4000], source.labels[:4000]
    shape = {"channels": 1, "classes": 10, "stem": given.stem, "seed": 0}
    network = models.build(given.network, width=given.width, **shape)
    recipe = train.Recipe(epochs=3, batch=64)
    scale = datasets.normalisation(x)
    if adversarially:
        ball = {"epsilon": RADIUS, "step": 1.25 * RADIUS, "steps": 1}
        adversarial_fit(network, x, y, recipe, **ball, seed=0, mean_std=scale)
    else:
        train.fit(network, x, y, recipe, seed=0, mean_std=scale)
    return Normalised(network.to(memory_format=torch.contiguous_format), scale).eval()


def ours(model, x, y, given: argparse.Namespace, batch: int, stop=False):
    """Return which images stay right, bool [n]."""
    ball = {"epsilon": given.epsilon / 255, "step": STEP, "steps": given.steps}
    found = pgd(
        model, x, y, **ball, restarts=given.starts, stop=stop, seed=0, batch=batch
    )
    return correct(model, found, y)


def peer(model, x, y, given: argparse.Namespace, batch: int) -> torch.Tensor:
    """Do the same with torchattacks."""
    import torchattacks

    attack = torchattacks.PGD(
        model, eps=given.epsilon / 255, alpha=STEP, steps=given.steps, random_start=True
    )
    right = torch.ones(len(x), dtype=torch.bool)
    for _ in range(given.starts):
        pairs = zip(x.split(batch), y.split(batch), strict=True)
        right &= correct(model, torch.cat([attack(a, b) for a, b in pairs]), y)
    return right


CASES = {
    "peer, every step": peer,
    "ours, every step": ours,
    "ours, stop": partial(ours, stop=True),
}
GOALS = {"ours, every step": 1, "ours, stop": 2}


def compare(networks: dict, x, y, given: argparse.Namespace) -> None:
    """Interleave the cases on the networks; print the medians, and of each network
    what ours is against the peer on that same network."""
    seconds: dict[tuple, list[float]] = {}
    robust: dict[tuple, list[float]] = {}
    for _ in range(given.rounds):
        for name, model in networks.items():
            for batch, (case, attack) in itertools.product(BATCHES, CASES.items()):
                start = time.process_time()
                right = attack(model, x, y, given, batch)
                taken = time.process_time() - start
                seconds.setdefault((name, case, batch), []).append(taken)
                left = 100 * float(right.double().mean())
                robust.setdefault((name, case, batch), []).append(left)
    middle = {key: statistics.median(found) for key, found in seconds.items()}
    print(f"  {'network':10} {'attack':17} batch  CPU s (range)         robust  speed")
    for name in networks:
        keys = [[(name, case, batch) for batch in BATCHES] for case in CASES]
        quickest = [min(batches, key=middle.get) for batches in keys]
        for key in quickest:
            spread = f"({min(seconds[key]):.2f} to {max(seconds[key]):.2f})"
            times = f"{middle[quickest[0]] / middle[key]:.2f} × the peer's on it"
            goal = f", goal {GOALS[key[1]]}" if key[1] in GOALS else ""
            print(
                f"  {name:10} {key[1]:17} {key[2]:5}  {middle[key]:.2f} {spread:16}"
                f" {statistics.mean(robust[key]):5.1f} %  {times}{goal}"
            )


def main() -> None:
    """Train the two networks and compare the attacks on each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--network", default="cnn4", choices=list(models.MODELS))
    parser.add_argument("--width", type=int, default=32)
    parser.add_argument("--stem", default="same", choices=["same", "stride2"])
    parser.add_argument("--epsilon", type=float, default=8, help="in 255ths")
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--starts", type=int, default=1)
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    source = datasets.load("fashion-mnist")
    x = source.images[source.test][: given.images].float() / 255
    y = source.labels[source.test][: given.images]
    for name in ("as usual", "adversarially"):
        model = trained(given, name == "adversarially")
        clean = 100 * float(correct(model, x, y).double().mean())
        print(f"{given.network} trained {name}: {clean:.1f} % of clean images right")
        networks = {"unfolded": model, "folded": folded(model, x[:4])}
        compare(networks, x, y, given)


if __name__ == "__main__":
    main()
