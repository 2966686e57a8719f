"""What one prediction says about membership: a number for each example.

Every signal is f(logits, labels) -> float64 [N], larger for "more likely a member": a
loss or an entropy comes with a minus. `logits` are finite, [N, C] on the CPU with at
least two classes, `labels` integers [N] in [0, C); anything else is a ValueError.
Confident predictions keep their order: nothing is taken from a rounded probability.

`loss`, `confidence` and `scaled_confidence` are increasing functions of each other, so
they rank examples alike; they differ where a mean or a variance is taken of them, and
`confidence` rounds to 1 beyond a margin of 37.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.checks import require, tensors
from lottolab.checks.taking import floats, taken


def checked(logits: Tensor, labels: Tensor | None = None):
    """Return the logits as float64 [N, C] and the labels as int64 [N], or None.

    Raises:
        ValueError: the wrong shape, logits that are not finite or that are
            probabilities, or labels that are no integers in [0, C).
    """
    z = floats("logits", logits).double()
    tensors.logits("logits", z)
    tensors.unnormalised("logits", z)
    if labels is None:
        return z, None
    y = taken("labels", labels)
    tensors.labels("labels", y, *z.shape, long=False)
    return z, y.long()


def correctness(logits: Tensor, labels: Tensor) -> Tensor:
    """Return 1 where the label has the largest logit (the first of equal ones), else 0.

    The gap attack of Yeom et al. (2018): its TPR minus its FPR is the gap between
    training and test accuracy.
    """
    require(labels is not None, "labels must be given", labels)
    z, y = checked(logits, labels)
    return (z.argmax(1) == y).double()


def loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the cross-entropy, in (−∞, 0] nats (Yeom et al., 2018).

    >>> loss(torch.tensor([[3.0, 0.0], [0.0, 3.0]]), torch.tensor([0, 0]))
    tensor([-0.0486, -3.0486], dtype=torch.float64)
    """
    # log p = log sigmoid(log(p / (1 − p))) still tells members apart that fit so well
    # that log_softmax gives 0 for all of them.
    return F.logsigmoid(scaled_confidence(logits, labels))


def confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the probability of the label, in [0, 1] (Song and Mittal, 2021)."""
    return scaled_confidence(logits, labels).sigmoid()


def entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the entropy of the prediction, in [−log C, 0] nats.

    Salem et al. (2019), their third adversary. The labels are checked but not used.
    """
    log_p, _ = _logs(checked(logits, labels)[0])
    return (log_p.exp() * log_p).sum(1)


def modified_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return minus the modified entropy of Song and Mittal (2021), equation 8, <= 0.

    Mentr = −(1 − p_y) log p_y − Σ_{i≠y} p_i log(1 − p_i): 0 if the label is certain,
    and without a bound, unlike the entropy, if another class is.
    """
    require(labels is not None, "labels must be given", labels)
    z, y = checked(logits, labels)
    log_p, log_rest = _logs(z)
    at_label = torch.arange(z.shape[1]) == y[:, None]
    return torch.where(at_label, log_rest.exp() * log_p, log_p.exp() * log_rest).sum(1)


def scaled_confidence(logits: Tensor, labels: Tensor) -> Tensor:
    """Return log(p_y / (1 − p_y)) = z_y − log Σ_{i≠y} exp(z_i), any real number.

    Carlini et al. (2022), section VI-A: the logit scaling, in its stable form.

    >>> scaled_confidence(torch.tensor([[3.0, 0.0, 0.0]]), torch.tensor([0]))
    tensor([2.3069], dtype=torch.float64)
    """
    require(labels is not None, "labels must be given", labels)
    z, y = checked(logits, labels)
    others = z.scatter(1, y[:, None], -torch.inf).logsumexp(1)
    return z.gather(1, y[:, None])[:, 0] - others


SIGNALS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "correctness": correctness,
    "loss": loss,
    "confidence": confidence,
    "entropy": entropy,
    "modified entropy": modified_entropy,
    "scaled confidence": scaled_confidence,
}


def robustness(votes: Tensor) -> Tensor:
    """Return the share of perturbed copies that the model gives their label, in [0, 1].

    Choquette-Choo et al. (2021), the label-only attack by augmentation.
    `votes` is bool [K, N]: was the k-th copy of example n given n's label. Needs no
    more than predicted labels. Raises ValueError for another shape or other values.
    """
    x = floats("votes", votes)
    several = x.ndim == 2 and len(x) > 0
    require(several, "votes must be copies × examples", f"shape {tuple(x.shape)}")
    odd = x[(x != 0) & (x != 1)]
    require(len(odd) == 0, "votes must be True or False", odd[:1].tolist())
    return x.double().mean(0)


def _logs(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Return log p and log(1 − p) of each class, float64 [N, C].

    Only the largest p of a row can be above 1/2, where 1 − p would cancel: there both
    follow from the sum of the other classes.
    """
    log_p = logits.log_softmax(1)
    top = log_p.argmax(1, keepdim=True)
    rest = log_p.scatter(1, top, -torch.inf).logsumexp(1, keepdim=True)
    log_rest = torch.log1p(-log_p.exp()).scatter(1, top, rest)
    return log_p.scatter(1, top, torch.log1p(-rest.exp())), log_rest
