"""Small networks for the labs' data, many at once: a second or two on one core."""

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.images import datasets

Weights = list[Tensor]  # [M, 196, H], [M, 1, H], [M, H, 10], [M, 1, 10]


def clothes(
    counts: list[int], random: torch.Generator
) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Draw disjoint sets of Fashion-MNIST's training images.

    Returns for each count: pictures uint8 [N, 28, 28]; inputs float32 [N, 196] in
    [0, 1], the pictures averaged 2×2; labels int64 [N].
    """
    source = datasets.load("fashion-mnist")
    rows = (~source.test & source.first).nonzero()[:, 0]
    rows = rows[torch.randperm(len(rows), generator=random)[: sum(counts)]]
    pictures, labels = source.images[rows, 0], source.labels[rows]
    inputs = F.avg_pool2d(pictures[:, None].float(), 2).flatten(1) / 255
    parts = (part.split(counts) for part in (pictures, inputs, labels))
    return list(zip(*parts, strict=True))


def ask(weights: Weights, inputs: Tensor) -> Tensor:
    """Return the logits [M, N, 10] of M networks with one hidden layer.

    `inputs` is [N, 196], the same for all, or [M, N, 196].
    """
    first, shift, last, bias = weights
    return (inputs @ first + shift).relu() @ last + bias


def train(
    inputs: Tensor,
    labels: Tensor,
    rows: Tensor,
    random: torch.Generator,
    *,
    hidden: int = 64,
    steps: int = 90,
    epsilon: float = 0.0,
    keep: Tensor | None = None,
) -> Weights:
    """Train M networks side by side: Adam on all of their rows at each step.

    Args:
        rows: int64 [M, n], the images of each.
        epsilon: largest change of a pixel in one-step adversarial training.
        keep: bool [M, 196, H], or of H = 1, the first layer's weights that exist.
    """
    models, size = len(rows), inputs.shape[1]
    first = torch.randn(models, size, hidden, generator=random) * (2 / size) ** 0.5
    last = torch.randn(models, hidden, 10, generator=random) / hidden**0.5
    weights = [first, torch.zeros(models, 1, hidden), last, torch.zeros(models, 1, 10)]
    weights = [w.requires_grad_() for w in weights]
    if keep is not None:
        weights[0].data *= keep
        weights[0].register_hook(lambda gradient: gradient * keep)
    descent = torch.optim.Adam(weights, lr=1e-2)
    x, y = inputs[rows], labels[rows].flatten()
    for _ in range(steps):
        near = _worse(weights, x, y, epsilon, random) if epsilon else x
        descent.zero_grad()
        F.cross_entropy(ask(weights, near).flatten(0, 1), y, reduction="sum").backward()
        descent.step()
    return [w.detach() for w in weights]


def _worse(weights: Weights, x: Tensor, y: Tensor, epsilon: float, random) -> Tensor:
    """Move each input one step up the loss, from a random start, within epsilon."""
    start = (torch.rand(x.shape, generator=random) * 2 - 1) * epsilon
    near = (x + start).clamp(0, 1).requires_grad_()
    loss = F.cross_entropy(ask(weights, near).flatten(0, 1), y, reduction="sum")
    (gradient,) = torch.autograd.grad(loss, near)
    moved = near.detach() + 1.25 * epsilon * gradient.sign()
    return torch.minimum(torch.maximum(moved, x - epsilon), x + epsilon).clamp(0, 1)
