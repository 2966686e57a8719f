"""Images per second of `ensembles.pgd` against torchattacks' PGD, on one thread.

Same network, images, ε, step, steps and number of random starts, on two networks: one
trained as usual, one adversarially (one step). The peer is asked at several batch
sizes, and the best counts. Ours is timed twice, each with the folding of batch norm:
with every step of every image, which is the peer's work; and with `stop`, which leaves
an image once it is fooled, and once its steps repeat. An image counts as robust if no
start fools it. The rounds of all cases are interleaved; prints rates, robust
accuracies and ratios. `pip install --no-deps torchattacks` first: it pins an old
`requests`.

    python benchmarks/bench_pgd.py [--images 500] [--rounds 3] [--network cnn4]
        [--width 32] [--stem same] [--epsilon 8] [--steps 20] [--starts 1]
"""

import argparse
import statistics
import time

import torch

from lottolab.ensembles import Normalised, pgd
from lottolab.ensembles.folding import folded
from lottolab.ensembles.queries import correct
from lottolab.ensembles.tickets import adversarial_fit
from lottolab.images import datasets
from lottolab.nets import models, train

STEP, RADIUS = 2 / 255, 8 / 255
BATCHES = (16, 64, 128, 256)


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


def ours(model, x, y, given: argparse.Namespace, stop: bool) -> torch.Tensor:
    """Return which images stay right."""
    ball = {"epsilon": given.epsilon / 255, "step": STEP, "steps": given.steps}
    quick = folded(model, x[:4])
    found = pgd(quick, x, y, **ball, restarts=given.starts, stop=stop, seed=0)
    return correct(quick, found, y)


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


def main() -> None:
    """Interleave the cases, print the medians and the ratios."""
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
        cases = {f"torchattacks, batch {b}": (peer, b) for b in BATCHES}
        cases |= {"lottolab, every step": (ours, False), "lottolab, stop": (ours, True)}
        rates: dict[str, list[float]] = {case: [] for case in cases}
        robust: dict[str, list[float]] = {case: [] for case in cases}
        for _ in range(given.rounds):
            for case, (attack, option) in cases.items():
                start = time.perf_counter()
                right = attack(model, x, y, given, option)
                rates[case].append(len(x) / (time.perf_counter() - start))
                robust[case].append(100 * float(right.double().mean()))
        clean = 100 * float(correct(model, x, y).double().mean())
        print(f"{given.network} trained {name}: {clean:.1f} % of clean images right")
        middle = {case: statistics.median(found) for case, found in rates.items()}
        for case, found in rates.items():
            spread = f"({min(found):.0f} to {max(found):.0f})"
            left = statistics.mean(robust[case])
            print(f"  {case:24} {middle[case]:6.0f} images/s {spread:14} {left:5.1f} %")
        best = max((c for c in cases if "torch" in c), key=middle.get)
        for case in list(cases)[-2:]:
            ratio = middle[case] / middle[best]
            gap = abs(statistics.mean(robust[case]) - statistics.mean(robust[best]))
            print(f"  {case}: {ratio:.2f} × the best peer ({best}), {gap:.1f} points")


if __name__ == "__main__":
    main()
