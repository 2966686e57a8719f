"""MAD as its authors search: for more than ten classes a set grows until it has tried
1,024 sets (Orekondy et al., 2020, and the code that Tang et al. used).

`mad` derives the objective and has the search of this book's first edition, which went
on for as long as a class helped. With a surrogate that is unsure, as one of random
weights is, that ends with nearly all classes, and a short way towards such a vertex
turns nothing.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from lottolab.checks import one_of, require, tensors
from lottolab.modelguard.defences import mad, simplex
from lottolab.nets import predict
from lottolab.nets.device import back, here

TRIES = 1024
AIMS = ("vertex", "answer")


@dataclass(frozen=True, eq=False)
class MAD:
    """Answer between the prediction and a row that turns a thief's gradient.

    The row is a vertex: equal shares for a set of classes with the top-1 class. For up
    to 10 classes it is the best of all. For more, the set grows by its best class,
    whether that helps or not, until 1,024 sets have been tried (12 classes of 100, 3
    of 1,000), and the best on the way is taken. The answer lies on the line to it, as
    far as `epsilon` allows.

    Guarantees: on the simplex, within `epsilon` of the prediction in ℓ1, and of the
    same top-1 class, also where that is a tie. ε = 0 returns the prediction.

    surrogate: a network with a linear last layer, images to logits; the paper's has
    random weights. mean_std: for its normalisation. aim: "vertex", as the authors, or
    "answer": choose the set by what the *answer* turns (not in either paper).

    Raises:
        ValueError: epsilon is not in [0, 2], no such aim, no images are given or not
            as many as predictions, rows are off the simplex, or the surrogate returns
            probabilities.
    """

    surrogate: nn.Module
    mean_std: tuple[Tensor, Tensor]
    epsilon: float
    aim: str = "vertex"

    def __post_init__(self) -> None:
        simplex.check_epsilon(self.epsilon)
        one_of("aim", self.aim, AIMS)

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`; `x` are the images."""
        simplex.check(probs)
        guess = self.guessed(probs, x)
        found = deviate(here(probs), here(guess), self.epsilon, self.aim)
        return back(found)

    def guessed(self, probs: Tensor, x: Tensor | None) -> Tensor:
        """Return what the surrogate predicts of the images, N×C, as `probs` are."""
        simplex.check_images(probs, x)
        logits = predict.logits(self.surrogate, x, self.mean_std)
        return logits.softmax(1).to(probs.device)


def deviate(
    probs: Tensor, surrogate: Tensor, epsilon: float, aim: str = "vertex"
) -> Tensor:
    """Return MAD's answers where the surrogate's predictions, N×C, are known."""
    simplex.check_epsilon(epsilon)
    one_of("aim", aim, AIMS)
    simplex.check(probs)
    tensors.tensor("surrogate", surrogate)
    same = surrogate.shape == probs.shape
    what = f"the surrogate's predictions must have shape {list(probs.shape)}"
    require(same, what, list(surrogate.shape))
    simplex.check(surrogate)
    if epsilon == 0:
        return probs.clone()
    few = probs.shape[1] <= mad.EXACT and aim == "vertex"
    rows = max(1, mad.BLOCK // (2 ** probs.shape[1] if few else probs.shape[1]))
    parts = zip(probs.split(rows), surrogate.split(rows), strict=True)
    return torch.cat([_deviate(*part, epsilon, aim) for part in parts])


def _deviate(probs: Tensor, surrogate: Tensor, epsilon: float, aim: str) -> Tensor:
    y, top = probs.double(), probs.argmax(1, keepdim=True)
    goal = vertex(search(y, surrogate.double(), top, epsilon, aim), top)
    far = (goal - y).abs().sum(1, keepdim=True)
    answers = torch.lerp(y, goal, (epsilon / far).clamp(max=1))
    return simplex.settle(answers, top, probs.dtype)


def search(y: Tensor, p: Tensor, top: Tensor, epsilon: float, aim: str) -> Tensor:
    """Choose the classes of MAD's vertex: bool N×C; arguments as in `grown`."""
    if aim == "answer":
        return grown(y, p, top, epsilon)
    few = y.shape[1] <= mad.EXACT
    return mad.best_vertex(y, p, top) if few else grown(y, p, top)


def vertex(chosen: Tensor, top: Tensor) -> Tensor:
    """Return equal shares for the chosen classes, the top-1 a little ahead: float64.

    Args:
        chosen: bool N×C. top: int64 N×1, among them.
    """
    goal = chosen.double()
    goal = goal.scatter_add(1, top, torch.full_like(goal[:, :1], mad.LEAD))
    return goal / goal.sum(1, keepdim=True)


def grown(y: Tensor, p: Tensor, top: Tensor, epsilon: float = math.inf) -> Tensor:
    """Grow a set from the top-1 class, `TRIES` sets long: bool N×C, the best of them.

    Args:
        y, p: float64 N×C, the predictions and the surrogate's. top: int64 N×1.
        epsilon: how far the answer may go; ∞ asks what the vertex itself turns.
    """
    chosen = torch.zeros_like(y, dtype=torch.bool).scatter_(1, top, True)
    best, lowest = chosen, torch.full_like(y[:, :1], torch.inf)
    size, tried = 1, 0
    while tried < TRIES and size < y.shape[1]:
        score = turned(y, p, top, chosen, epsilon).masked_fill_(chosen, torch.inf)
        score, pick = score.min(1, keepdim=True)
        chosen = chosen.scatter(1, pick, True)
        best = torch.where(score < lowest, chosen, best)
        lowest = torch.minimum(score, lowest)
        tried, size = tried + y.shape[1] - size, size + 1
    return best


def turned(
    y: Tensor, p: Tensor, top: Tensor, chosen: Tensor, epsilon: float = math.inf
) -> Tensor:
    """Return ‖y − p‖ times the cosine of a − p and y − p for each class that may join.

    a is the answer with that class beside the chosen ones. Float64 N×C; classes that
    are chosen already mean nothing.
    """
    w, count = y - p, chosen.sum(1, keepdim=True) + 1
    whole = count + mad.LEAD

    def met(values: Tensor) -> Tensor:
        """Return the products of rows of values with the vertices, N×C."""
        held = (values * chosen).sum(1, keepdim=True)
        return (held + values + mad.LEAD * values.gather(1, top)) / whole

    square = (count - 1 + (1 + mad.LEAD) ** 2) / whole**2
    length = (w * w).sum(1, keepdim=True)
    along = met(w) - (w * y).sum(1, keepdim=True)  # of w and the way to the vertex
    way = square - 2 * met(y) + (y * y).sum(1, keepdim=True)
    share = 1.0
    if epsilon < math.inf:
        near = (vertex_shares(chosen, top, whole) - y).abs() * chosen
        joins = (1 / whole - y).abs() - y - (y * chosen).sum(1, keepdim=True)
        far = near.sum(1, keepdim=True) + joins + y.sum(1, keepdim=True)
        share = (epsilon / far.clamp(min=1e-30)).clamp(max=1)
    square = length + 2 * share * along + share**2 * way
    return (length + share * along) / square.clamp(min=1e-30).sqrt()


def vertex_shares(chosen: Tensor, top: Tensor, whole: Tensor) -> Tensor:
    """Return what the chosen classes get where their shares are 1/`whole`, N×C."""
    shares = chosen.double()
    return shares.scatter_add(1, top, torch.full_like(shares[:, :1], mad.LEAD)) / whole
