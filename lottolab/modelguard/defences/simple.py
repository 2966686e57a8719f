"""The simple defences that ModelGuard is compared with.

A defence is a callable `defence(probs, x=None)`: `probs`, float32 or float64 N×C, are
the clean predictions, rows on the simplex, and `x` the images that were asked about,
uint8 N×channels×H×W, which few need. It returns the answers, N×C in the same dtype.
Each says what it guarantees, always to the dtype's rounding; ℓ1 is the distance of the
answer to the prediction, and ties go to the first class, as `argmax` has it.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from lottolab.checks import require, whole, within
from lottolab.modelguard.defences import simplex


@dataclass(frozen=True)
class NoDefence:
    """Answer with the prediction itself.

    Guarantees: all that there is to guarantee; ℓ1 is 0.

    Raises:
        ValueError: rows are off the simplex.
    """

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return `probs`."""
        simplex.check(probs)
        return probs.clone()


@dataclass(frozen=True)
class TopOne:
    """Answer with a one at the top-1 class and zeros.

    Guarantees: on the simplex, same top-1 class, ℓ1 = 2·(1 − max y) < 2.

    Raises:
        ValueError: rows are off the simplex.

    >>> TopOne()(torch.tensor([[0.3, 0.4, 0.3]]))
    tensor([[0., 1., 0.]])
    """

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`."""
        simplex.check(probs)
        return torch.zeros_like(probs).scatter_(1, probs.argmax(1, keepdim=True), 1)


@dataclass(frozen=True)
class Rounding:
    """Answer with the probabilities rounded to `decimals` places, half to even.

    Nothing is scaled back: paper, section 4.1, and the authors' code. Guarantees: in
    [0, 1]; each class moves by at most half a unit of the last place, and ℓ1 by C times
    that. A row need not sum to 1 and may be all zeros; the top-1 class stays among the
    largest, but others may be brought level with it, and `argmax` may be one of them.

    Raises:
        ValueError: decimals is no whole number in [0, 17], or rows are off the simplex.

    >>> Rounding(1)(torch.tensor([[0.12, 0.31, 0.26, 0.31]]))
    tensor([[0.1000, 0.3000, 0.3000, 0.3000]])
    """

    decimals: int

    def __post_init__(self) -> None:
        whole("decimals", self.decimals, 0)
        require(self.decimals <= 17, "decimals must be at most 17", self.decimals)

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`."""
        simplex.check(probs)
        rounded = probs.double().round(decimals=self.decimals)
        return rounded.clamp(max=1).to(probs.dtype)


@dataclass(frozen=True)
class ReverseSigmoid:
    """Answer with y − β·(s(γ·s⁻¹(y)) − ½), scaled to sum to 1; s is the sigmoid.

    Lee et al. (2019); paper, appendix B.2, where γ is 0.2 and β so small that ℓ1 comes
    to about 1. What would be negative is 0: nothing is if β <= 1, or β <= 2 and γ <= 1.
    Guarantees: on the simplex. ℓ1 grows with β and C, and no setting bounds it below 2.
    The top-1 class may change: a class of probability 0 gets β/2 before the scaling,
    which may be more than the top-1 class keeps.

    Raises:
        ValueError: beta or gamma is not > 0 and finite, or rows are off the simplex.
    """

    beta: float
    gamma: float

    def __post_init__(self) -> None:
        for name in ("beta", "gamma"):
            value = getattr(self, name)
            within(name, value, "(0, inf)")

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`."""
        simplex.check(probs)
        y = probs.double().clamp(max=1)
        # At 0 and 1 the logit is infinite and the sigmoid 0 and 1, as in the limit.
        answers = y - self.beta * ((self.gamma * y.logit()).sigmoid() - 0.5)
        answers = answers.clamp(min=0)
        return (answers / answers.sum(1, keepdim=True)).to(probs.dtype)
