"""Take the weight gradients of networks, in a process that may die of it.

A list of settings as JSON on standard input; each is printed before it is computed.
"""

import json
import os
import sys

import torch
import torch.nn.functional as F
from torch import nn

from lottolab.mia_pruning.defences import dp
from lottolab.nets import foresight, models, train
from lottolab.nets.device import choose_precision


def ours(name: str, width: int | None, stem: str, channels: int, size: int) -> None:
    """Take gradients in a loop that is not the package's."""
    shape = {"channels": channels, "classes": 10, "size": size}
    model = models.build(name, width=width, stem=stem, **shape, seed=0)
    model.to(memory_format=torch.channels_last)
    x, y = batch(channels, size)
    # Under other instructions than its own a CPU has no use for bfloat16.
    whole = "ONEDNN_MAX_CPU_ISA" in os.environ or choose_precision("cpu") == "float32"
    for half in {False, not whole}:
        with torch.autocast("cpu", torch.bfloat16, half):
            loss = F.cross_entropy(model(x), y)
        loss.backward()


def readers(how: str, channels: int, stride: int | list[int]) -> None:
    """Hand a reader's own network to each part of the package that trains."""
    stride = tuple(stride) if isinstance(stride, list) else stride
    model = nn.Sequential(
        nn.Conv2d(channels, 6, 1, stride, bias=channels % 2 > 0),
        nn.ReLU(),
        nn.Conv2d(6, 8, 1, 2),
        nn.Flatten(),
        nn.LazyLinear(10),
    )
    x, y = batch(channels, 28)
    model(x)  # sizes the lazy layer
    images = (255 * x).byte()
    if how == "fit":
        recipe = train.Recipe(epochs=3, batch=len(x), crop=0)
        train.fit(model, images, y, recipe, seed=0, precision="float32", device="cpu")
    elif how == "dp":
        given = {"epochs": 2, "batch": 2, "lr": 0.1, "epsilon": 9.0, "delta": 1e-5}
        dp.dp_train(model, images, y, **given, clip=1.0, seed=0, device="cpu", chunk=1)
    else:
        foresight.prune(how, model, x, y, 0.5)


def batch(channels: int, size: int):
    made = torch.Generator().manual_seed(0)
    x = torch.rand(4, channels, size, size, generator=made)
    y = torch.randint(10, (4,), generator=made)
    return x.contiguous(memory_format=torch.channels_last), y


if __name__ == "__main__":
    torch.set_num_threads(1)
    for setting in json.load(sys.stdin):
        print(setting, flush=True)
        (readers if "how" in setting else ours)(**setting)
    print("done")
