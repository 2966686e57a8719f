"""Check rows of probabilities, and hand answers back in the dtype they came in."""

import torch
from torch import Tensor

from lottolab.checks import number, require
from lottolab.checks.tensors import tensor

TOLERANCE = 1e-5  # of a row's sum; a float32 softmax over 1,000 classes has under 1e-6


def check(probs: Tensor, classes: int | None = None) -> None:
    """Raise ValueError unless each row of `probs` is on the probability simplex.

    Args:
        probs: float32 or float64, N×C with N >= 1 and C >= 2 (`classes`, if given).
    """
    tensor("probs", probs)
    shape = list(probs.shape)
    right = probs.dtype in (torch.float32, torch.float64) and probs.ndim == 2
    right = right and shape[0] >= 1 and shape[1] >= 2
    what = "probs must be float32 or float64 [N, C] with N >= 1 and C >= 2"
    require(right, what, f"{probs.dtype} {shape}")
    same = classes is None or shape[1] == classes
    require(same, f"probs must have C = {classes} columns", shape[1])
    low = float(probs.min())  # NaN where there is one, which fails every comparison
    require(low >= 0, "probs must be >= 0", low)
    off = float((probs.sum(1) - 1).abs().max())
    what = f"each row of probs must sum to 1 within {TOLERANCE:.0e}"
    require(off <= TOLERANCE, what, f"one that is off by {off:.2g}")


def check_epsilon(epsilon: float) -> None:
    """Raise ValueError unless `epsilon` is in [0, 2], all that ℓ1 can be there."""
    number("epsilon", epsilon, 0, 2)


def check_images(probs: Tensor, x: Tensor | None) -> None:
    """Raise ValueError unless `x`, the images, are as many as the predictions."""
    require(x is not None, "x must hold the images that were asked about", x)
    tensor("x", x)
    require(len(x) == len(probs), f"x must hold {len(probs)} images", len(x))


def settle(answers: Tensor, top: Tensor, dtype: torch.dtype) -> Tensor:
    """Return `answers`, N×C, in `dtype`, with class `top` strictly ahead in each row.

    What rounding or a tie has brought level with it is set to the next number below.

    Args:
        top: int64, N×1; no other entry of its row may be larger, but for rounding.
    """
    answers = answers.to(dtype)
    peak = answers.gather(1, top)
    below = torch.nextafter(peak, torch.zeros_like(peak))
    return torch.minimum(answers, below).scatter_(1, top, peak)
