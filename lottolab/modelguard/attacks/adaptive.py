"""Attacks on ModelGuard that its paper does not run: what a quantiser still tells.

Each returns a mark or a `loss` for `extraction.extract`; those that ask more questions
are in `averaging`.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import require
from lottolab.checks.taking import floats
from lottolab.modelguard.queries import checked
from lottolab.nets.train import Loss


def first_seen(answers: Tensor) -> Tensor:
    """Mark each answer that no earlier row holds, bit for bit; bool N.

    `answers` float N×K in the order of the queries. ModelGuard-S opens a centroid at
    the prediction that no other centroid is close to (Algorithm 1, lines 4 and 5), so
    an answer that is new is that image's exact prediction, provided that nobody else
    has asked this state before.

    >>> first_seen(torch.tensor([[0.7, 0.3], [0.6, 0.4], [0.7, 0.3]]))
    tensor([ True,  True, False])
    """
    checked(answers)
    answers = floats("answers", answers)
    _, which = torch.unique(answers, dim=0, return_inverse=True)
    places = torch.arange(len(which), device=which.device)
    first = torch.full_like(places, len(which))
    first = first.scatter_reduce(0, which, places, "amin")
    return first[which] == places


def weighted(weights: Tensor) -> Loss:
    """Return the cross-entropy with a weight an example, for use in `extract`.

    `weights` float N >= 0, not all 0: larger for answers that are known to be exact,
    0 to leave an example out. They are scaled to a mean of 1.

    Raises ValueError for other weights.
    """
    weights = floats("weights", weights)
    mean = float(weights.float().mean()) if weights.ndim == 1 else math.nan
    right = 0 < mean < math.inf and bool((weights >= 0).all())
    given = f"{list(weights.shape)} of mean {mean:g}"
    require(right, "weights must be [N], finite, >= 0 and not all 0", given)
    scaled = weights.float().cpu() / mean

    def loss(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        values = F.cross_entropy(model(x), y, reduction="none")
        return (scaled[index.cpu()].to(values.device) * values).mean()

    return loss


def cell(epsilon: float | Tensor) -> Loss:
    """Return a loss that asks the substitute into the cell of the answer, no further.

    An answer of a defence that keeps ‖ŷ − y‖₁ <= ε and the top-1 class says that y is
    in that cell, not that it is the answer. The loss of an example is 0 where the
    substitute's prediction p has ‖p − ŷ‖₁ <= ε and the top-1 class of ŷ; elsewhere it
    is the Kullback-Leibler divergence KL(ŷ ‖ p), whose gradient is the
    cross-entropy's. Mean over the batch.

    Args:
        epsilon: in [0, 2]; or float N, one an example: 0 where the answer is known to
            be exact, see `first_seen`.

    Raises ValueError for another epsilon, and where it is used with "top1".
    """
    require(not isinstance(epsilon, bool), "epsilon must be a number", epsilon)
    radius = torch.as_tensor(epsilon, dtype=torch.float32).cpu()
    odd = radius[~((radius >= 0) & (radius <= 2))]
    right = radius.ndim <= 1 and len(odd) == 0
    given = odd[:1].tolist() or list(radius.shape)
    require(right, "epsilon must be in [0, 2], one or one an example", given)

    def loss(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        whole = y.is_floating_point()
        require(whole, "a cell needs the answers: strategy must be naive", y.dtype)
        logits = model(x).float()
        p = logits.softmax(1)
        limit = (radius[index.cpu()] if radius.ndim else radius).to(y.device)
        inside = ((p - y).abs().sum(1) <= limit) & (p.argmax(1) == y.argmax(1))
        entropy = torch.special.entr(y).sum(1)
        values = F.cross_entropy(logits, y, reduction="none") - entropy
        return values.masked_fill(inside, 0).mean()

    return loss
