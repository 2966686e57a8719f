"""What every attack here does with a model: ask it, check its images, leave it alone.

A model maps images, float [n, C, H, W] in [0, 1], to logits, float [n, classes]. It may
be stochastic: then each call is a new draw, and `many(x, count)`, where it has that,
answers as so many calls would, at less cost. `Normalised` makes a model of a network
that was trained on normalised images.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain

import torch
from torch import Tensor, nn

from lottolab.checks import require

Model = Callable[[Tensor], Tensor]


class Normalised(nn.Module):
    """Take images in [0, 1]: normalise by `mean_std`, float [C] each, and ask `model`.

    >>> scale = torch.tensor([0.5]), torch.tensor([0.25])
    >>> Normalised(nn.Identity(), scale)(torch.ones(1, 1, 1, 1)).item()
    2.0
    """

    def __init__(self, model: nn.Module, mean_std: tuple[Tensor, Tensor]) -> None:
        super().__init__()
        self.model = model
        for name, value in zip(("mean", "std"), mean_std, strict=True):
            self.register_buffer(name, value.detach().clone().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.model((x - self.mean) / self.std)


@torch.no_grad()
def correct(model: Model, x: Tensor, y: Tensor, batch: int = 500) -> Tensor:
    """Tell of each image whether the model takes it for `y`; bool [n], one draw."""
    with evaluating(model):
        parts = [model(part).argmax(1) for part in x.split(batch)]
    return torch.cat(parts) == y


def answers(model: Model, x: Tensor, count: int) -> Iterator[list[Tensor]]:
    """Yield the logits of `count` draws: all in one list if the model has `many`,
    else one by one, so that each may be forgotten before the next."""
    if hasattr(model, "many"):
        yield model.many(x, count)
    else:
        yield from ([model(x)] for _ in range(count))


def merged(model: Model, x: Tensor, count: int, over: str) -> Tensor:
    """Return what `merge` makes of `count` draws."""
    return merge(list(chain.from_iterable(answers(model, x, count))), over)


def merge(outputs: list[Tensor], over: str) -> Tensor:
    """Return the mean of logits, or the logarithm of the mean of their softmax."""
    if over == "logits":
        return torch.stack(outputs).mean(0)
    return torch.stack(outputs).log_softmax(2).logsumexp(0) - math.log(len(outputs))


def margin(logits: Tensor, y: Tensor) -> Tensor:
    """Return by how much the best other class is ahead of `y`; float [n].

    >>> margin(torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([0]))
    tensor([-1.])
    """
    own = y[:, None]
    return logits.scatter(1, own, -torch.inf).amax(1) - logits.gather(1, own)[:, 0]


def ball(x: Tensor, epsilon: float) -> tuple[Tensor, Tensor]:
    """Return the least and the largest images within ε of `x` and in [0, 1]."""
    return (x - epsilon).clamp(min=0), (x + epsilon).clamp(max=1)


def uniform(x: Tensor, epsilon: float, generator: torch.Generator | None) -> Tensor:
    """Draw from [−ε, ε], as `x`; on the CPU, so that every device gets the same."""
    noise = torch.rand(x.shape, dtype=x.dtype, generator=generator)
    return (epsilon * (2 * noise - 1)).to(x.device)


def check(model: Model, x: Tensor, y: Tensor, **sizes: float) -> None:
    """Raise ValueError unless images, labels and sizes are as `pgd` wants them."""
    for name, size in sizes.items():
        top = 1 if name == "epsilon" else math.inf
        what = "in [0, 1]" if name == "epsilon" else ">= 0 and finite"
        require(0 <= size <= top and size < math.inf, f"{name} must be {what}", size)
    given = f"{x.dtype} {list(x.shape)}"
    right = x.is_floating_point() and x.ndim == 4 and len(x) > 0
    require(right, "x must be float of shape n×C×H×W, n > 0", given)
    ends = [float(x.min()), float(x.max())]
    require(0 <= ends[0] <= ends[1] <= 1, "x must be in [0, 1]", ends)
    given = f"{y.dtype} {list(y.shape)}"
    right = y.dtype == torch.int64 and y.shape == x.shape[:1]
    require(right, f"y must be int64 of shape [{len(x)}]", given)
    with torch.no_grad(), evaluating(model):
        classes = model(x[:1]).shape[1]
    ends = [int(y.min()), int(y.max())]
    require(0 <= ends[0] <= ends[1] < classes, f"y must be in [0, {classes})", ends)


@contextmanager
def frozen(*models: Model) -> Iterator[None]:
    """Let no parameter require a gradient inside."""
    parts = [m for m in models if isinstance(m, nn.Module)]
    weights = [w for m in parts for w in m.parameters() if w.requires_grad]
    for weight in weights:
        weight.requires_grad_(False)
    try:
        yield
    finally:
        for weight in weights:
            weight.requires_grad_(True)


@contextmanager
def evaluating(*models: Model) -> Iterator[None]:
    """Hold models in evaluation mode inside."""
    modules = [p for m in models if isinstance(m, nn.Module) for p in m.modules()]
    training = [module for module in modules if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True
