"""Measure what an attack or a network achieves, and what each answer moves that by.

Everywhere `scores` is finite float [models, images], larger for "more likely a member",
and `member` is bool of the same shape. A measure θ comes with the *influence* ψ of each
answer, [models, images], so that θ̂ ≈ θ + mean ψ; `crossed` makes intervals of it. A
threshold moves with the answers that set it: that part of the influence is the slope of
the ROC curve there (Hsieh and Turnbull, 1996, "Nonparametric and semiparametric
estimation of the receiver operating characteristic curve").
"""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from lottolab.checks import numbers, require, within
from lottolab.truth.rates import at_most

ALARMS = 10  # how many false alarms a rate must allow before a TPR is taken at it


@dataclass(frozen=True)
class Linear:
    """Hold a measure and what each answer moves it by, float64 [models, images].

    The influence has mean 0; that of a difference is the difference of the influences.
    """

    estimate: float
    influence: np.ndarray

    def __sub__(self, other: "Linear") -> "Linear":
        """Return a − b, measured on the same models' places and images.

        Raises ValueError if the shapes differ.
        """
        mine, theirs = self.influence.shape, other.influence.shape
        same = "both sides must have the same models and images"
        require(mine == theirs, same, f"{mine} and {theirs}")
        shifted = self.influence - other.influence
        return Linear(self.estimate - other.estimate, shifted)


def share(hits: ArrayLike) -> Linear:
    """Return the share of hits among all answers, [models, images] of 0 and 1.

    The accuracy of several networks on the same test images is one, and where every
    model has as many members as non-members the balanced accuracy of an attack.
    A threshold that is the best on other models moves it by nothing in first order.

    >>> share([[1, 0], [1, 1]]).estimate
    0.75
    """
    x = _matrix("hits", hits)
    odd = x[~np.isin(x, (0, 1))]
    require(odd.size == 0, "hits must be 0 or 1", odd[:1])
    return Linear(float(x.mean()), x - x.mean())


def balanced(guesses: ArrayLike, member: ArrayLike) -> Linear:
    """Return the mean balanced accuracy, (TPR + TNR) / 2, of guesses of 0 and 1."""
    x, members = _checked(guesses, member, "guesses")
    odd = x[~np.isin(x, (0, 1))]
    require(odd.size == 0, "guesses must be 0 or 1", odd[:1])
    right = x == members
    inside, outside = _mean(right, members), _mean(right, ~members)
    psi = (right - np.where(members, inside, outside)) * _weight(members) / 2
    return _linear((inside + outside)[:, 0] / 2, psi)


def auc(scores: ArrayLike, member: ArrayLike) -> Linear:
    """Return the mean AUC over the models, ties half.

    An answer's influence is its placement among the other kind (DeLong, DeLong and
    Clarke-Pearson, 1988).
    """
    s, members = _checked(scores, member)
    psi, areas = np.empty(s.shape), np.empty(len(s))
    for m, (row, own) in enumerate(zip(s, members, strict=True)):
        inside, outside = np.sort(row[own]), np.sort(row[~own])
        below = _below(row[own], outside)
        areas[m] = below.mean()
        psi[m, own] = below - areas[m]
        psi[m, ~own] = 1 - _below(row[~own], inside) - areas[m]
    return _linear(areas, psi * _weight(members))


def tpr(
    scores: ArrayLike, member: ArrayLike, rate: float, *, common: bool = False
) -> Linear:
    """Return the mean TPR of the thresholds that at most `rate` non-members exceed.

    Each model has a threshold of its own or, where `common`, all have the one that has
    that rate over all their non-members together. The slope of the ROC curve is taken
    between half of the rate and twice the rate, over all models.

    Raises ValueError if `rate` is not in (0, 0.5], or allows fewer than ten false
    alarms.
    """
    s, members = _checked(scores, member)
    within("rate", rate, "(0, 0.5]")
    enough = min([int((~members).sum())] if common else (~members).sum(1))
    needed = math.ceil(round(ALARMS / rate, 6))
    what = f"TPR at FPR {rate} needs at least {needed} non-members"
    require(enough >= needed, what, enough)

    def above(share: float) -> np.ndarray:
        if common:
            return s > threshold(s[~members], share)
        rows = zip(s, members, strict=True)
        limits = [threshold(row[~own], share) for row, own in rows]
        return s > np.array(limits)[:, None]

    hit, wide, narrow = above(rate), above(2 * rate), above(rate / 2)
    step = [
        _mean(wide, k).mean() - _mean(narrow, k).mean() for k in (members, ~members)
    ]
    slope = step[0] / step[1] if step[1] > 0 else 0.0
    found, alarms = _mean(hit, members), _mean(hit, ~members)
    own = np.where(members, hit - found, -slope * (hit - alarms)) * _weight(members)
    own -= slope * (alarms - alarms.mean())
    return _linear(found[:, 0], own)


def threshold(negatives: np.ndarray, rate: float) -> float:
    """Return the lowest score that at most `rate`, in [0, 1), of float [n] exceed.

    >>> threshold(np.arange(10.0), 0.2)
    7.0
    """
    rising = np.sort(negatives)
    return float(rising[-1 - at_most(rate, len(rising))])


def _below(values: np.ndarray, rising: np.ndarray) -> np.ndarray:
    """Return the share of the others, in rising order, below each value, ties half."""
    ends = [np.searchsorted(rising, values, side) for side in ("left", "right")]
    return (ends[0] + ends[1]) / (2 * len(rising))


def _linear(each: np.ndarray, influence: np.ndarray) -> Linear:
    """Join each model's value and the influences within models."""
    mean = float(each.mean())
    return Linear(mean, influence + (each - mean)[:, None])


def _weight(member: np.ndarray) -> np.ndarray:
    """Return how much an answer weighs among its kind, times the images."""
    inside = member.sum(1, keepdims=True)
    images = member.shape[1]
    return np.where(member, images / inside, images / (images - inside))


def _mean(values: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Return each model's mean of the values there, [models, 1]."""
    return (values & where).sum(1, keepdims=True) / where.sum(1, keepdims=True)


def _matrix(name: str, given: ArrayLike) -> np.ndarray:
    x = numbers(name, given)
    shape = f"shape {x.shape}"
    require(x.ndim == 2 and x.size > 0, f"{name} must be [models, images]", shape)
    odd = x[~np.isfinite(x)]
    require(odd.size == 0, f"{name} must be finite", odd[:1])
    return x


def _checked(scores, member, name: str = "scores") -> tuple[np.ndarray, np.ndarray]:
    s, members = _matrix(name, scores), _matrix("member", member)
    require(s.shape == members.shape, f"member must be {s.shape}", members.shape)
    odd = members[~np.isin(members, (0, 1))]
    require(odd.size == 0, "member must be 0 or 1 (or booleans)", odd[:1])
    members = members.astype(bool)
    mixed = members.any(1) & ~members.all(1)
    kinds = "every model must have members and non-members"
    require(bool(mixed.all()), kinds, f"models {np.flatnonzero(~mixed)[:9]} without")
    return s, members
