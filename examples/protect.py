"""The owner's and the thief's parts of "Protect your own model", on Fashion-MNIST.

    python examples/protect.py prune ticket.safetensors
    python examples/protect.py train signed.safetensors mine.safetensors
    python examples/protect.py steal mine.safetensors stolen.safetensors

`prune` trains a small network and prunes it, `train` goes on under the signed mask, and
`steal` trains with other images and no mask, then puts all channels in another order.
Replace the first two by your own training; all that it must do is keep zeros zero.
"""

import argparse
import os
from pathlib import Path

import torch
from torch import nn

from lottolab.images import datasets, partition
from lottolab.nets import checkpoint, masks, models, predict, train
from lottolab.ownership.attacks import symmetry

NETWORK = {"name": "resnet8", "channels": 1, "classes": 10, "width": 16}
NETWORK |= {"stem": "stride2", "size": 28}
PRUNED = 0.8  # share of the weights
IMAGES = int(os.environ.get("PROTECT_IMAGES", 8000))  # that the owner has


def parts(name: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images and labels of the `owner`, the `thief`, or for the `test`."""
    source = datasets.load("fashion-mnist")
    sizes = {"train": IMAGES, "val": IMAGES // 4, "test": 2000}
    found = partition.splits(source, **sizes, seed=0)
    place = found[{"owner": "train", "thief": "val", "test": "test"}[name]]
    return source.images[place], source.labels[place]


def learn(model: nn.Module, who: str, epochs: int, lr: float, kept=None) -> None:
    """Train on somebody's images; weights that `kept` masks out stay 0."""
    recipe = train.Recipe(epochs=epochs, batch=64, lr=lr, schedule="cosine")
    train.fit(model, *parts(who), recipe, seed=0, masks=kept, mean_std=scale())


def scale() -> tuple[torch.Tensor, torch.Tensor]:
    """Return mean and deviation of the owner's images."""
    return datasets.normalisation(parts("owner")[0])


def finish(model: nn.Module, output: Path) -> None:
    """Write the network and print what it is worth."""
    checkpoint.save(model, output, network=NETWORK, mean_std=scale())
    images, labels = parts("test")
    right = predict.accuracy(predict.logits(model, images, scale()), labels)
    names = masks.prunable(model)
    left = masks.density({n: model.state_dict()[n] != 0 for n in names})
    print(f"{output}: {right:.1%} of the test images right, {left:.0%} of the weights")


def prune(output: Path) -> None:
    """Train a dense network, remove its smallest weights, and train on."""
    model = models.build(**NETWORK, seed=0)
    learn(model, "owner", 4, 0.1)
    kept = masks.magnitude(model.state_dict(), masks.dense(model), PRUNED)
    masks.apply_(model, kept)
    learn(model, "owner", 2, 0.05, kept)
    finish(model, output)


def retrain(network: Path, output: Path) -> None:
    """Train a signed network; its zeros are the signature, so they stay."""
    model = checkpoint.load(network).model
    state = model.state_dict()
    learn(model, "owner", 3, 0.05, {n: state[n] != 0 for n in masks.prunable(model)})
    finish(model, output)


def steal(network: Path, output: Path) -> None:
    """Fine-tune every weight, zeros too, and hide what can be hidden for nothing."""
    model = checkpoint.load(network).model
    learn(model, "thief", 1, 0.02)
    model.load_state_dict(symmetry.permute(model.state_dict(), seed=0))
    finish(model, output)


def main() -> None:
    """Do one part."""
    torch.set_num_threads(1)
    parser = argparse.ArgumentParser(description=__doc__)
    steps = {"prune": prune, "train": retrain, "steal": steal}
    parser.add_argument("step", choices=steps)
    parser.add_argument("files", nargs="+", type=Path)
    given = parser.parse_args()
    steps[given.step](*given.files)


if __name__ == "__main__":
    main()
