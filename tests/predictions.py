"""Predictions that are hard on a defence, and what every answer can be held to."""

import torch


def hard(classes: int, seed: int = 0) -> torch.Tensor:
    """Return float64 rows: sharp and flat, one-hot, uniform, tied, underflowed."""
    generator = torch.Generator().manual_seed(seed)

    def draw(count: int) -> torch.Tensor:
        shape = (count, classes)
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    parts = [torch.eye(classes, dtype=torch.float64)[:3]]
    parts.append(torch.full((1, classes), 1 / classes, dtype=torch.float64))
    for alpha in (0.01, 0.1, 0.3, 1.0, 8.0):
        parts.append(dirichlet(12, classes, alpha, seed))
    for scale in (1, 30, 300):  # in float32 most of the last are exactly 0
        parts.append((draw(6) * scale).float().softmax(1).double())
    tied = draw(8).abs()
    tied[:, -min(classes, 3) :] = tied.amax(1, keepdim=True)
    parts.append(tied)
    parts.append(draw(8).abs().mul(2).ceil())  # plateaus
    close = draw(8).abs()
    close[:, 1] = close.amax(1)
    close[:, 0] = close[:, 1] * (1 - 10.0 ** -torch.arange(3, 19, 2))
    parts.append(close)
    falling = torch.arange(classes) * draw(6).abs()[:, :1]
    parts.append((-falling).exp())
    rows = torch.cat(parts)
    return rows / rows.sum(1, keepdim=True)


def dirichlet(count: int, classes: int, alpha: float, seed: int) -> torch.Tensor:
    """Draw float64 rows of a symmetric Dirichlet distribution."""
    import numpy as np

    drawn = np.random.default_rng(seed).dirichlet(np.full(classes, alpha), count)
    return torch.from_numpy(drawn)


def distance(answers: torch.Tensor, probs: torch.Tensor) -> torch.Tensor:
    """Return the ℓ1 distance of each row, in float64."""
    return (answers.double() - probs.double()).abs().sum(1)


def on_simplex(answers: torch.Tensor, accuracy: float = 1e-6) -> bool:
    """Tell whether each row is >= 0 and sums to 1 to this accuracy."""
    sums = answers.double().sum(1)
    return bool((answers >= 0).all() and ((sums - 1).abs() <= accuracy).all())


def leads(answers: torch.Tensor, top: torch.Tensor) -> torch.Tensor:
    """Return by how much class `top`, N×1, is ahead of the next in each row."""
    answers = answers.double()
    rest = answers.scatter(1, top, -torch.inf).amax(1)
    return answers.gather(1, top)[:, 0] - rest
