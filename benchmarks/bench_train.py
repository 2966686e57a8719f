"""Images per second of the whole machine: our loop against a plain DataLoader loop.

Ours is `train.fit` in one process a core, one torch thread each. The peer is the usual
torchvision loop (PIL transforms in a `DataLoader`, float32), at the best of several
numbers of workers and threads. Same network, same images, same batch, same machine,
the rounds of all of them interleaved; prints each rate and the ratio.

    python benchmarks/bench_train.py [--rounds 3] [--images 5120] [--stem stride2]
        [--network resnet20]

`--network cnn4` is the network that chapters 2, 4 and 5 train, 16 filters wide.
"""

import argparse
import statistics
import subprocess
import sys
import time

import joblib

WIDTHS = {"resnet8": 16, "resnet20": 16, "cnn4": 16}  # as in the book
CASES = [(0, 1), (0, 2), (1, 1), (1, 2), (2, 1), (2, 2)]  # workers, threads


def ours(images: int, stem: str, network: str, seed: int) -> float:
    """Train one epoch after a warm-up; return the images per second of this process."""
    import torch

    from lottolab.images import datasets
    from lottolab.nets import models, train

    torch.set_num_threads(1)
    source = datasets.load("fashion-mnist")
    x, y = source.images[:images], source.labels[:images]
    given = {"width": WIDTHS[network], "stem": stem, "seed": seed}
    model = models.build(network, channels=1, classes=10, **given)
    recipe = train.Recipe(epochs=1, batch=128, crop=2, flip=True)
    train.fit(model, x[:512], y[:512], recipe, seed=seed)
    start = time.perf_counter()
    train.fit(model, x, y, recipe, seed=seed)
    return images // 128 * 128 / (time.perf_counter() - start)


def peer(images: int, stem: str, network: str, workers: int, threads: int) -> float:
    """Do the same as a plain torchvision loop does it."""
    import torch
    from torch.utils.data import DataLoader, Dataset
    from torchvision import transforms

    from lottolab.images import datasets
    from lottolab.nets import models

    torch.set_num_threads(threads)
    source = datasets.load("fashion-mnist")
    steps = [transforms.ToPILImage(), transforms.RandomCrop(28, padding=2)]
    steps += [transforms.RandomHorizontalFlip(), transforms.ToTensor()]
    transform = transforms.Compose([*steps, transforms.Normalize(0.286, 0.353)])

    class Images(Dataset):
        def __len__(self):
            return images

        def __getitem__(self, place):
            return transform(source.images[place]), int(source.labels[place])

    loader = DataLoader(
        Images(),
        batch_size=128,
        shuffle=True,
        num_workers=workers,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    given = {"width": WIDTHS[network], "stem": stem, "seed": 0}
    model = models.build(network, channels=1, classes=10, **given)
    optimiser = torch.optim.SGD(model.parameters(), 0.1, 0.9, weight_decay=5e-4)

    def epoch(steps: int) -> None:
        for step, (x, y) in enumerate(loader):
            loss = torch.nn.functional.cross_entropy(model(x), y)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            if step + 1 == steps:
                break

    epoch(4)
    start = time.perf_counter()
    epoch(images // 128)
    return images // 128 * 128 / (time.perf_counter() - start)


def alone(*words: str) -> list[float]:
    """Run this file in a fresh process (or in several at once) and read its rates."""
    command = [sys.executable, __file__, "--one", *words]
    count = joblib.cpu_count() if words[0] == "ours" else 1
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        for _ in range(count)
    ]
    return [float(process.communicate()[0]) for process in running]


def main() -> None:
    """Interleave the cases, print the medians and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--images", type=int, default=5120)
    parser.add_argument("--stem", default="stride2", choices=["same", "stride2"])
    parser.add_argument("--network", default="resnet20", choices=list(WIDTHS))
    parser.add_argument("--one", nargs="*", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        kind, images, stem, network, *rest = given.one
        measure = ours if kind == "ours" else peer
        print(measure(int(images), stem, network, *map(int, rest or [0])))
        return
    shared = [str(given.images), given.stem, given.network]
    rates: dict[str, list[float]] = {}
    for _ in range(given.rounds):
        rates.setdefault("lottolab", []).append(sum(alone("ours", *shared)))
        for workers, threads in CASES:
            name = f"DataLoader, {workers} workers, {threads} threads"
            found = alone("peer", *shared, str(workers), str(threads))
            rates.setdefault(name, []).append(sum(found))
    medians = {name: statistics.median(found) for name, found in rates.items()}
    for name, found in rates.items():
        spread = f"{min(found):,.0f} to {max(found):,.0f}"
        print(f"{name:34} {medians[name]:8,.0f} images/s   ({spread})")
    best = max((n for n in medians if n != "lottolab"), key=medians.get)
    print(f"ratio to the best peer ({best}): {medians['lottolab'] / medians[best]:.2f}")


if __name__ == "__main__":
    main()
