"""MAD: turn the gradient that a thief computes from an answer (Orekondy et al., 2020).

"Prediction poisoning: towards defenses against DNN model stealing attacks", ICLR;
paper, appendix B.2. G holds a row a class, ∇ log f_k for a surrogate f of the thief's
model, and the answer ŷ maximises the angular deviation ‖Gᵀŷ/‖Gᵀŷ‖ − Gᵀy/‖Gᵀy‖‖².

As in the authors' code, the gradient is that of the surrogate's last weight alone. If
that layer is linear with input h, and p is the surrogate's prediction, row k of G is
(e_k − p) hᵀ, so that Gᵀŷ = (ŷ − p) hᵀ for a ŷ that sums to 1, and h drops out of the
direction. So the deviation is 2 − 2·cos(ŷ − p, y − p): the angle that y and ŷ make as
seen from p.

`StraightMAD` is the first edition's; above ten classes it does not end as the authors'
does and is weaker. The chapter's MAD is `grown.MAD`. This one still stands behind
`services.build`, so that what was measured of other defences stays current.
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lottolab.checks import require, tensors
from lottolab.modelguard.defences import simplex
from lottolab.nets import predict
from lottolab.nets.device import back, here

EXACT = 10  # classes up to which all vertices are tried
LEAD = 1e-5  # what a vertex gives the top-1 class beyond the others', before scaling
BLOCK = 2**20  # probabilities, or sets to try, at a time


@dataclass(frozen=True, eq=False)
class StraightMAD:
    """Answer between the prediction and the row that turns the gradient most.

    The row is a vertex of the rows with the same top-1 class, equal shares for a set of
    classes that contains it: the best of all for up to 10 classes; for more a set that
    grows by the best class as long as one helps (at ten classes that is the best set
    for 98 to 100 % of random rows). The answer lies on the line to it, as far as
    `epsilon` allows. It is a heuristic: neither step solves the problem as stated,
    since the deviation is not linear.

    Guarantees: on the simplex, within `epsilon` of the prediction in ℓ1, and of the
    same top-1 class, also where that is a tie. ε = 0 returns the prediction.

    surrogate: a network with a linear last layer, images to logits; the paper's has
    random weights. It is put in evaluation mode, so that no query changes the answer to
    another. mean_std: for its normalisation.

    Raises:
        ValueError: epsilon is not in [0, 2], no images are given or not as many as
            predictions, or rows are off the simplex.
    """

    surrogate: nn.Module
    mean_std: tuple[Tensor, Tensor]
    epsilon: float

    def __post_init__(self) -> None:
        simplex.check_epsilon(self.epsilon)

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`; `x` are the images."""
        simplex.check(probs)
        simplex.check_images(probs, x)
        guess = predict.logits(self.surrogate, x, self.mean_std).softmax(1)
        return back(deviate(here(probs), here(guess.to(probs.device)), self.epsilon))


def deviate(probs: Tensor, surrogate: Tensor, epsilon: float) -> Tensor:
    """Return MAD's answers where the surrogate's predictions, N×C, are known."""
    simplex.check_epsilon(epsilon)
    simplex.check(probs)
    tensors.tensor("surrogate", surrogate)
    same = surrogate.shape == probs.shape
    what = f"the surrogate's predictions must have shape {list(probs.shape)}"
    require(same, what, list(surrogate.shape))
    simplex.check(surrogate)
    if epsilon == 0:
        return probs.clone()
    classes = probs.shape[1]
    rows = max(1, BLOCK // (2**classes if classes <= EXACT else classes))
    parts = zip(probs.split(rows), surrogate.split(rows), strict=True)
    return torch.cat([_deviate(*part, epsilon) for part in parts])


def _deviate(probs: Tensor, surrogate: Tensor, epsilon: float) -> Tensor:
    y, p = probs.double(), surrogate.double()
    top = y.argmax(1, keepdim=True)
    find = best_vertex if y.shape[1] <= EXACT else grown_vertex
    goal = find(y, p, top).double()
    goal = goal.scatter_add(1, top, torch.full_like(y[:, :1], LEAD))
    goal = goal / goal.sum(1, keepdim=True)
    far = (goal - y).abs().sum(1, keepdim=True)
    answers = torch.lerp(y, goal, (epsilon / far).clamp(max=1))
    return simplex.settle(answers, top, probs.dtype)


def deviation(answers: Tensor, probs: Tensor, surrogate: Tensor) -> Tensor:
    """Return ‖Gᵀŷ/‖Gᵀŷ‖ − Gᵀy/‖Gᵀy‖‖² of each row: float64 [N], in [0, 4].

    0 where a row equals the surrogate's: such a gradient is 0 and has no direction.
    """
    a, b = (v.double() - surrogate.double() for v in (answers, probs))
    cosine = F.cosine_similarity(a, b, dim=1)
    defined = (a != 0).any(1) & (b != 0).any(1)
    return torch.where(defined, 2 - 2 * cosine, 0.0)


def best_vertex(y: Tensor, p: Tensor, top: Tensor) -> Tensor:
    """Try all sets of classes that contain the top-1 class: bool N×C, the best one.

    Args:
        y, p: float64 N×C, the predictions and the surrogate's. top: int64 N×1.
    """
    every = list(itertools.product((False, True), repeat=y.shape[1]))[1:]
    sets = torch.tensor(every, dtype=y.dtype, device=y.device)
    score = _cosine(y, p)(sets.sum(1), (y - p) @ sets.T, p @ sets.T)
    lacks = sets.T[top[:, 0]] == 0
    return sets[score.masked_fill(lacks, torch.inf).argmin(1)] > 0


def grown_vertex(y: Tensor, p: Tensor, top: Tensor) -> Tensor:
    """Grow a set from the top-1 class by what turns the gradient most: bool N×C."""
    cosine, w = _cosine(y, p), y - p
    chosen = torch.zeros_like(y, dtype=torch.bool).scatter_(1, top, True)
    toward, held, count = w.gather(1, top), p.gather(1, top), 1
    best = cosine(count, toward, held)
    growing = torch.ones_like(best, dtype=torch.bool)
    while growing.any():
        count += 1
        score = cosine(count, toward + w, held + p).masked_fill_(chosen, torch.inf)
        score, pick = score.min(1, keepdim=True)
        growing &= score < best
        best = torch.where(growing, score, best)
        chosen.scatter_(1, pick, growing | chosen.gather(1, pick))
        toward = toward + torch.where(growing, w.gather(1, pick), 0.0)
        held = held + torch.where(growing, p.gather(1, pick), 0.0)
    return chosen


def _cosine(y: Tensor, p: Tensor) -> Callable[..., Tensor]:
    """Return a function: ‖y − p‖ times the cosine of e_S/|S| − p and y − p.

    Its arguments are |S| and the sums of y − p and of p over S, N×sets each.
    """
    shift, norm = ((part * p).sum(1, keepdim=True) for part in (y - p, p))

    def cosine(count: int | Tensor, toward: Tensor, held: Tensor) -> Tensor:
        square = (1 - 2 * held) / count + norm
        return (toward / count - shift) / square.clamp(min=1e-30).sqrt()

    return cosine
