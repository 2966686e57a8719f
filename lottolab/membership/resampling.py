"""Draw a model's examples again: what AUC and TPR would be with other examples.

Members are drawn among members and non-members among non-members, with replacement,
as many as there are. A draw is how often each example counts; with the non-members in
order of their scores, one running sum of these numbers gives the AUC (every member adds
the non-members below it, and half of those beside it) and finds the threshold of a
false-positive rate, so that 2,000 draws of 100,000 examples take a second or two.
"""

from collections.abc import Iterator, Sequence
from types import SimpleNamespace

import numpy as np
from scipy import stats

from lottolab.truth.rates import at_most
from lottolab.truth.stats import LEVEL, Interval

BATCH = 100  # draws whose indices are in memory at once


def drawn(
    scores: Sequence[np.ndarray],
    member: np.ndarray,
    fprs: Sequence[float],
    draws: int,
    seed: int,
) -> np.ndarray:
    """Return AUC and TPR of resampled examples, float64 [scores, draws, 1 + fprs].

    scores: finite float64 [N] each, larger for "more likely a member"; all of them are
    asked of the same draws. member: bool [N], some of each kind. fprs: in (0, 1).
    The last axis holds the AUC, then the largest TPR at each FPR or less.
    """
    ranked = [_Ranked(s, member) for s in scores]
    sizes = int(member.sum()), int((~member).sum())
    allowed = [at_most(fpr, sizes[1]) for fpr in fprs]
    found = np.empty((len(ranked), draws, 1 + len(allowed)))
    for k, counts in enumerate(_counts(sizes, draws, seed)):
        for i, one in enumerate(ranked):
            found[i, k] = one.rates(*counts, allowed)
    return found


def interval(estimate: float, drawn: np.ndarray, n: int) -> Interval:
    """Return the percentile interval of `drawn`, float64 [draws], of n examples.

    A number that no draw changes has no interval (nan).
    """
    low, high = stats.bootstrap(
        (drawn,),  # not resampled: the draws are there
        np.mean,
        n_resamples=0,
        bootstrap_result=SimpleNamespace(bootstrap_distribution=drawn),
        confidence_level=LEVEL,
        method="percentile",
    ).confidence_interval
    if np.ptp(drawn) == 0:
        low = high = np.nan
    return Interval(estimate, float(low), float(high), n)


class _Ranked:
    """Hold the order of one score's members and non-members, and room for its sums."""

    def __init__(self, scores: np.ndarray, member: np.ndarray) -> None:
        inside, outside = scores[member], scores[~member]
        self.rising = np.argsort(inside), np.argsort(outside)
        inside, outside = inside[self.rising[0]], outside[self.rising[1]]
        self.below = np.searchsorted(outside, inside, side="left")
        self.upto = np.searchsorted(outside, inside, side="right")
        self.tied = bool((self.below != self.upto).any())
        self.beaten = np.searchsorted(inside, outside, side="right")
        self.others = np.zeros(len(outside) + 1, np.int64)
        self.added = np.empty(len(inside), np.int64)

    def rates(self, inside: np.ndarray, outside: np.ndarray, allowed: list[int]):
        """Return AUC and TPRs where examples count so often; int [members], [others].

        allowed: how many false alarms each TPR may cost.
        """
        hits, others = inside[self.rising[0]], self.others
        np.cumsum(outside[self.rising[1]], out=others[1:])
        area = self._sum(hits, self.below)
        area = (area + self._sum(hits, self.upto)) / 2 if self.tied else area
        area = area / (len(inside) * len(outside))
        return [area, *(self._tpr(hits, others, most) for most in allowed)]

    def _sum(self, hits: np.ndarray, places: np.ndarray) -> int:
        """Add up, over the members, how many non-members are below each one."""
        np.take(self.others, places, out=self.added, mode="clip")
        np.multiply(self.added, hits, out=self.added)
        return int(self.added.sum())

    def _tpr(self, hits: np.ndarray, others: np.ndarray, most: int) -> float:
        """Return the share of members above the non-member who is one alarm too many.

        others: how many non-members are below each one, in rising order, and in all.
        """
        first = np.searchsorted(others, others[-1] - most) - 1
        return int(hits[self.beaten[first] :].sum(dtype=np.int64)) / len(hits)


def _counts(sizes: tuple[int, int], draws: int, seed: int) -> Iterator:
    """Yield how often each member, and each non-member, is in a draw; int [size] each.

    In the order in which scipy.stats.bootstrap draws in batches.
    """
    rng = np.random.default_rng(seed)
    for start in range(0, draws, BATCH):
        count = min(BATCH, draws - start)
        batch = [[_count(rng, n) for _ in range(count)] for n in sizes]
        yield from zip(*batch, strict=True)


def _count(rng: np.random.Generator, n: int) -> np.ndarray:
    counts = np.bincount(rng.integers(0, n, n), minlength=n)
    return counts.astype(np.min_scalar_type(counts.max()))  # small numbers move faster
