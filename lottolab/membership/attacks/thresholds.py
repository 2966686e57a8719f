"""Where to cut a score into members and others: one threshold, or one a class.

Choose a threshold on examples that are not those it is reported on.
"""

import numpy as np
import torch
from numpy.typing import ArrayLike
from torch import Tensor

from lottolab.checks import number, numbers, require, tensors, whole
from lottolab.checks.taking import taken
from lottolab.membership.metrics import checked
from lottolab.truth.rates import at_most


def best(scores: ArrayLike, is_member: ArrayLike) -> float:
    """Return the threshold of the largest balanced accuracy of `scores > threshold`.

    Balanced accuracy is (TPR + TNR) / 2. The threshold is midway between two scores
    that are next to each other; of equally good ones the largest is chosen, the one
    that accuses fewest. Where none is better than chance it is the largest score.

    Raises:
        ValueError: scores or membership that `report` refuses too.

    >>> best([0.1, 0.4, 0.6, 0.9], [0, 0, 1, 1])
    0.5
    """
    return _best(*checked(scores, is_member))


def at_rate(negatives: ArrayLike, rate: float) -> float:
    """Return the lowest threshold that at most `rate` of the scores exceed.

    `negatives` are the finite scores of non-members, of any shape; `rate` is in [0, 1).

    Raises ValueError for anything else, also for no scores at all.

    >>> at_rate(torch.arange(10.0), 0.2)
    7.0
    """
    number("rate", rate, 0, 1)
    require(rate < 1, "rate must be in [0, 1)", rate)
    rising = np.sort(numbers("negatives", negatives), axis=None)
    right = len(rising) > 0 and bool(np.isfinite(rising).all())
    require(right, "negatives must be finite scores, at least one", rising[-1:])
    return float(rising[-1 - at_most(rate, len(rising))])


def by_class(
    scores: ArrayLike, labels: ArrayLike, is_member: ArrayLike, classes: int
) -> Tensor:
    """Return the best threshold of each class, float64 [classes].

    Song and Mittal (2021). A class without members or without non-members gets the
    threshold of all examples. `scores - by_class(...)[labels]` are scores with
    threshold 0.

    Raises:
        ValueError: as in `best`, or labels that are no integers in [0, classes).
    """
    whole("classes", classes, 1)
    s, member = checked(scores, is_member)
    y = taken("labels", labels).cpu()
    tensors.labels("labels", y, len(s), classes, long=False)
    y = y.numpy()
    found = np.full(classes, _best(s, member))
    ends = np.cumsum(np.bincount(y, minlength=classes))[:-1]
    for label, rows in enumerate(np.split(np.argsort(y, kind="stable"), ends)):
        if member[rows].any() and not member[rows].all():
            found[label] = _best(s[rows], member[rows])
    return torch.from_numpy(found)


def _best(scores: np.ndarray, member: np.ndarray) -> float:
    values, place = np.unique(scores, return_inverse=True)
    members = np.bincount(place[member], minlength=len(values))
    others = np.bincount(place[~member], minlength=len(values))
    # Balanced accuracy above each value, times 2 × members × others: in integers, so
    # that ties are ties.
    hits, rejected = members.sum() - np.cumsum(members), np.cumsum(others)
    gain = hits * others.sum() + rejected * members.sum()
    last = len(values) - 1 - int(np.argmax(gain[::-1]))
    low, high = values[[last, min(last + 1, len(values) - 1)]]
    middle = low / 2 + high / 2
    return float(middle if low <= middle < high else low)  # rounding may reach `high`
