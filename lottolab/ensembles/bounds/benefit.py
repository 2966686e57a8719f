"""Can any draw help? What the best law over given networks keeps, a zero-sum game.

Dbouk and Shanbhag (2023), "On the robustness of randomized ensembles to adversarial
perturbations". A defender draws network k with probability p_k; the attacker knows p
and shows of each image the example e that is misread most often. What is left is

    1 − mean over images of max over e of Σ_k p_k [k is fooled by e],

concave in p: a mixture is never worse than its networks are on average, and better than
the best of them only where no single example fools all that are drawn. The maximum over
p is a linear program. With more examples the value can only fall, so that with those
that somebody made it is a bound from above for the networks' drawing, whatever the law.
"""

import numpy as np
import torch
from scipy import sparse
from scipy.optimize import linprog
from torch import Tensor

from lottolab.checks import require


def left(fooled: Tensor, law: Tensor) -> Tensor:
    """Return the expected accuracy that the worst example leaves of each image.

    Args:
        fooled: bool [examples, networks, images].
        law: float [networks], >= 0, in sum 1.

    Returns:
        float64 [images], in [0, 1].

    Raises:
        ValueError: anything is not as above.

    >>> both = torch.tensor([[[True], [False]], [[False], [True]]])
    >>> left(both, torch.tensor([0.5, 0.5])).tolist()
    [0.5]
    """
    _check(fooled)
    sums = float(law.sum()) if isinstance(law, Tensor) else float("nan")
    right = isinstance(law, Tensor) and law.shape == fooled.shape[1:2]
    right = right and bool((law >= 0).all()) and abs(sums - 1) < 1e-6
    require(right, "law must be one probability a network, in sum 1", law)
    wrong = torch.einsum("ekn,k->en", fooled.double(), law.double())
    return 1 - wrong.amax(0)


def best_law(fooled: Tensor) -> Tensor:
    """Return the law with the largest mean of `left`; float64 [networks].

    Raises ValueError unless `fooled` is bool [examples, networks, images].
    """
    _check(fooled)
    examples, networks, images = fooled.shape
    rows = fooled.permute(2, 0, 1).reshape(images * examples, networks).numpy()
    image = np.repeat(np.arange(images), examples)
    some = rows.any(1)
    rows, image = rows[some].astype(float), image[some]
    # Variables: the law, and of each image how often it is misread.
    places, shape = (np.arange(len(image)), image), (len(image), images)
    own = sparse.csr_matrix((-np.ones(len(image)), places), shape=shape)
    above = sparse.hstack([sparse.csr_matrix(rows), own]).tocsr()
    total = sparse.csr_matrix(np.r_[np.ones(networks), np.zeros(images)][None])
    cost = np.r_[np.zeros(networks), np.ones(images)]
    solved = linprog(
        cost,
        A_ub=above if len(image) else None,
        b_ub=np.zeros(len(image)) if len(image) else None,
        A_eq=total,
        b_eq=[1.0],
        bounds=(0, 1),
        method="highs",
    )
    require(solved.status == 0, "the linear program must be solved", solved.message)
    law = torch.from_numpy(solved.x[:networks]).clamp(min=0)
    return law / law.sum()


def _check(fooled: Tensor) -> None:
    right = isinstance(fooled, Tensor) and fooled.dtype == torch.bool
    right = right and fooled.ndim == 3 and fooled.numel() > 0
    shape = list(fooled.shape) if isinstance(fooled, Tensor) else type(fooled).__name__
    require(right, "fooled must be bool [examples, networks, images]", shape)
