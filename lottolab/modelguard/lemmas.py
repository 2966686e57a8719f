"""The paper's two lemmas and its KKT argument, as numbers that can be checked.

Lemma 2 is stated for Y in R^NC. But rows of probabilities lie on a plane of C − 1
dimensions each, where they have no density in R^C: h(Y | Ŷ) is −∞, and the printed
bound is 0 and says nothing. Take orthonormal coordinates Z within the planes, d of
them, N·(C − 1) in all: distances are the same, the proof goes through as it stands, and

    E‖Ỹ − Y‖² >= d / (2πe) · exp(2/d · h(Z | Ŷ)),

where h(Z | Ŷ) is finite. For a Ŷ that is a function of Y, h(Z | Ŷ) = h(Z) − H(Ŷ).
"""

import math

import torch
from torch import Tensor

from lottolab.checks import number, require, whole
from lottolab.checks.taking import floats
from lottolab.checks.tensors import finite
from lottolab.modelguard.defences import simplex
from lottolab.modelguard.defences.linear_program import FLOOR

HIGHEST = 350.0  # nats a dimension


def softmax_smoothness(features: Tensor) -> float:
    """Return an M for which the cross-entropy of a linear softmax model is M-smooth.

    For logits W·h and the mean loss over N rows h, the Hessian in W is at most half the
    largest eigenvalue of HᵀH / N (Böhning, 1992). Lemma 1 then says that a model whose
    loss on the target's predictions is larger by g differs from the target in weights
    by at least √(2·g / M).

    Args:
        features: float N×D, the inputs h of the layer.
    """
    h = floats("features", features).double()
    require(h.ndim == 2 and h.numel() > 0, "features must be [N, D]", list(h.shape))
    finite("features", h)
    return float(torch.linalg.matrix_norm(h, 2) ** 2 / len(h) / 2)


def recovery_bound(entropy: float, dimension: int) -> float:
    """Return Lemma 2's bound of the expected squared recovery error, Equation 14.

    Args:
        entropy: h(Z | Ŷ) in nats; −∞ gives 0. dimension: of Z, N·(C − 1).

    >>> recovery_bound(-math.inf, 3)
    0.0
    """
    whole("dimension", dimension, 1)
    most = HIGHEST * dimension  # beyond which the bound is no float64
    what = f"entropy must be at most {most:g} nats in {dimension} dimensions"
    number("entropy", entropy, -math.inf)
    require(entropy <= most, what, entropy)
    return dimension / (2 * math.pi * math.e) * math.exp(2 * entropy / dimension)


def simplex_entropy(classes: int) -> float:
    """Return h(Z) in nats of a row drawn uniformly: the log of the simplex's volume."""
    whole("classes", classes, 2)
    return math.log(classes) / 2 - math.lgamma(classes)


def discrete_entropy(values: Tensor) -> float:
    """Return the entropy in nats of the empirical distribution of rows or numbers.

    For answers that are a function of the predictions it is also their mutual
    information, H(Ŷ) = I(Y; Ŷ).

    >>> round(math.exp(discrete_entropy(torch.tensor([1, 1, 7, 7]))), 6)
    2.0
    """
    values = floats("values", values)
    finite("values", values)
    right = values.ndim > 0 and values.numel() > 0
    require(right, "values must be [N] or rows, at least one", list(values.shape))
    counts = torch.unique(values, dim=0, return_counts=True)[1].double()
    share = counts / counts.sum()
    return float(-(share * share.log()).sum())


def relaxed_optimum(probs: Tensor) -> tuple[Tensor, Tensor]:
    """Solve Equation 9 with ε = 2 and no margin, by the KKT conditions (appendix A.2).

    The top-1 class and the s least likely classes share all mass equally, the others
    get nothing; stationarity in the top-1 class makes e^−λ the geometric mean of those
    that share, and the best s makes it smallest. So a class gets nothing exactly if its
    probability is above e^−λ, as the paper says. It prints the constraint with ŷ¹ >= yʲ
    for ŷ¹ >= ŷʲ.

    Returns:
        The optimum, float64 N×C, and λ, N. Logarithms are those of y + 1e-6.
    """
    simplex.check(probs)
    y, order = probs.double().sort(dim=1, descending=True, stable=True)
    prices = (y + FLOOR).log()
    least = torch.cat([prices[:, :1], prices[:, 1:].flip(1)], 1).cumsum(1)
    means = least / torch.arange(1, y.shape[1] + 1, device=y.device)
    mean, sharing = means.min(1, keepdim=True)
    place = torch.arange(y.shape[1], device=y.device)
    shares = (place == 0) | (place >= y.shape[1] - sharing)
    answers = torch.empty_like(y).scatter_(1, order, shares.double())
    return answers / (sharing + 1), -mean[:, 0]
