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

from lottolab.checks import require, tensors, whole

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
        tensors.scale(mean_std)
        require(bool((mean_std[1] > 0).all()), "std of mean_std must be > 0", mean_std)
        for name, value in zip(("mean", "std"), mean_std, strict=True):
            self.register_buffer(name, value.detach().clone().view(-1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        require(
            len(self.mean) in (1, *x.shape[-3:-2]),
            f"x must have the {len(self.mean)} channels of mean_std",
            list(x.shape),
        )
        return self.model((x - self.mean) / self.std)


@torch.no_grad()
def correct(model: Model, x: Tensor, y: Tensor, batch: int = 500) -> Tensor:
    """Tell of each image whether the model takes it for `y`; bool [n], one draw.

    A network is asked in evaluation mode; one in a function must be in it already.

    Raises ValueError for images or labels that `pgd` refuses, or answers that are no
    finite logits, a row an image.
    """
    whole("batch", batch, 1)
    tensors.tensor("x", x)
    require(x.ndim == 4 and len(x) > 0, "x must be n×C×H×W, n > 0", list(x.shape))
    found = torch.cat([tensors.asked(model, part) for part in x.split(batch)])
    tensors.labels("y", y, *found.shape)
    return found.argmax(1) == y


def answers(model: Model, x: Tensor, count: int) -> Iterator[list[Tensor]]:
    """Yield the logits of `count` draws: all in one list if the model has `many`,
    else one by one, so that each may be forgotten before the next. Raises ValueError
    for answers that are no finite logits, a row an image."""
    one_by_one = ([model(x)] for _ in range(count))
    for drawn in [model.many(x, count)] if hasattr(model, "many") else one_by_one:
        for logits in drawn:
            tensors.rows("the model's logits", logits, len(x))
        yield drawn


def merged(model: Model, x: Tensor, count: int, over: str) -> Tensor:
    """Return what `merge` makes of `count` draws."""
    return merge(list(chain.from_iterable(answers(model, x, count))), over)


def merge(outputs: list[Tensor], over: str) -> Tensor:
    """Return the mean of logits, or the logarithm of the mean of their softmax."""
    require(
        len({logits.shape[-1] for logits in outputs}) == 1,
        "networks must be of the same classes",
        sorted({logits.shape[-1] for logits in outputs}),
    )
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


@contextmanager
def unmoved(model: nn.Module) -> Iterator[None]:
    """Let batch norm's running statistics stay as they are, also in training mode."""
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 0.0
    try:
        yield
    finally:
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
