"""Make predictions look alike: pair-based posterior balancing.

Yuan & Zhang (2022), "Membership inference attacks and defenses in neural network
pruning", USENIX Security: the defence that they fine-tune a pruned network with. Each
example of a batch is paired with another, and the divergence between the two ranked
predictions joins the loss: the sizes of the confidences shall say nothing about the
example, only which class has the largest.
"""

import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import number, tensors
from lottolab.nets import train


def loss(weight: float = 4.0) -> train.Loss:
    """Return cross-entropy + `weight` · `divergence`, a loss for `train.fit`.

    `weight` >= 0 is λ; 4 is what the authors' code uses. Nothing is drawn: `train.fit`
    shuffles the examples, so that neighbours in a batch are a random pair.

    Raises ValueError for a weight that is negative or not finite.
    """
    number("weight", weight, 0)

    def balanced(model: nn.Module, x: Tensor, y: Tensor, index: Tensor) -> Tensor:
        logits = model(x)
        return F.cross_entropy(logits, y) + weight * divergence(logits)

    return balanced


def divergence(logits: Tensor) -> Tensor:
    """Return the mean KL(p‖q) of the ranked predictions of pairs, >= 0 nats, a scalar.

    Each row of `logits`, float [B, C], is the p of one pair and the q of another: it
    goes with the row before it, and the first with the last. Ranked means sorted by
    size, which class has it left out. Gradients flow into p and q alike.

    Raises ValueError unless the logits are a tensor, finite, of one row or more.

    >>> import torch
    >>> logits = torch.tensor([[0.0, 2.0, 1.0], [2.0, 1.0, 0.0]])
    >>> round(divergence(logits).item(), 6)
    0.0
    """
    tensors.logits("logits", logits)
    log_p = logits.log_softmax(1).sort(1, descending=True).values
    log_q = log_p.roll(1, 0)
    return (log_p.exp() * (log_p - log_q)).sum(1).mean()
