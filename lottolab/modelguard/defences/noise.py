"""A randomised defence, for the paper's Remark 3: is it worth no more than its mean?"""

import hashlib
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import check_seed, require, within
from lottolab.checks.taking import floats
from lottolab.modelguard.defences import simplex
from lottolab.modelguard.queries import checked


@dataclass(eq=False)
class Noise:
    """Answer with (1 − ε/2)·y + (ε/2)·u, where u is drawn from the whole simplex.

    u is uniform there, but for its largest entry, which changes places with that of the
    top-1 class. Not in the paper, which leaves randomised defences out by Remark 3.
    Guarantees: on the simplex, within `epsilon` of the prediction in ℓ1, and of the
    same top-1 class, but where that is a tie.

    fixed: draw once for each image, from a hash of its bytes and `seed`, the owner's
    secret, instead of anew for each query. It then gives the same answer for ever.

    Raises:
        ValueError: epsilon is not in [0, 2], rows are off the simplex, or `fixed` and
            no images are given or not as many as predictions.
    """

    epsilon: float
    fixed: bool
    seed: int
    _fresh: np.random.Generator = field(init=False, repr=False)

    def __post_init__(self) -> None:
        simplex.check_epsilon(self.epsilon)
        check_seed(self.seed)
        self._fresh = np.random.default_rng(self.seed)

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`."""
        simplex.check(probs)
        y, top = probs.double().cpu(), probs.argmax(1, keepdim=True).cpu()
        u = torch.from_numpy(self._drawn(*probs.shape, x))
        place = u.argmax(1, keepdim=True)
        peak = u.gather(1, place)
        u = u.scatter(1, place, u.gather(1, top)).scatter(1, top, peak)
        return torch.lerp(y, u, self.epsilon / 2).to(probs)

    def _drawn(self, rows: int, classes: int, x: Tensor | None) -> np.ndarray:
        if not self.fixed:
            return self._fresh.dirichlet(np.ones(classes), rows)
        simplex.check_images(torch.empty(rows, 1), x)
        found = np.empty((rows, classes))
        for row, image in enumerate(x.contiguous()):
            text = str(self.seed).encode() + image.numpy().tobytes()
            number = int.from_bytes(hashlib.blake2b(text, digest_size=16).digest())
            found[row] = np.random.default_rng(number).dirichlet(np.ones(classes))
        return found


def denoised(answers: Tensor, epsilon: float) -> Tensor:
    """Return the predictions of which `answers`, N×C, would be the mean answer.

    The mean of u is H/C at the top-1 class, H = 1 + 1/2 + … + 1/C, and equal shares of
    the rest elsewhere; what would be negative is 0. It is what an attacker makes of
    answers that he has averaged.

    Raises ValueError where ε is not in [0, 2), since at 2 the answers tell nothing.
    """
    within("epsilon", epsilon, "[0, 2)")
    checked(answers)
    answers = floats("answers", answers)
    classes = answers.shape[1]
    peak = sum(1 / k for k in range(1, classes + 1)) / classes
    mean = torch.full_like(answers, (1 - peak) / (classes - 1))
    mean = mean.scatter(1, answers.argmax(1, keepdim=True), peak)
    sums = answers.sum(1)
    odd = sums[(sums <= 0) | (sums > 2)]
    require(
        len(odd) == 0, "answers must be rows with a sum in (0, 2]", odd[:1].tolist()
    )
    y = ((answers - epsilon / 2 * mean) / (1 - epsilon / 2)).clamp(min=0)
    return y / y.sum(1, keepdim=True)
