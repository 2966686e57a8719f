"""Compare treatments of the same pool, as measures that models and images share.

A comparison is a `Linear` over the models of a pool and all images that they answer
about: first those of the pool, of which half are members, then the fresh ones. What a
treatment leaks is measured on the former, how accurate it is on the latter; both move
with the same networks, so that a difference at matched accuracy has both in it.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.stats import norm

from lottolab.checks import require
from lottolab.truth.intervals.influence import Linear

SAME = 1e-9  # accuracies that differ by less are one


class Point(NamedTuple):
    """Hold what a treatment pays and gives away, over the same models and images."""

    accuracy: Linear
    leakage: Linear


def spread(part: Linear, before: int, after: int) -> Linear:
    """Return a measure of some images as one of more, which do not move it.

    So many stand `before` them, and so many `after`.

    >>> spread(Linear(0.5, np.array([[0.1, -0.1]])), 0, 2).influence.tolist()
    [[0.2, -0.2, 0.0, 0.0]]
    """
    own = part.influence.shape[1]
    wide = np.pad(part.influence, ((0, 0), (before, after)))
    return Linear(part.estimate, wide * ((own + before + after) / own))


def point(leakage: Linear, accuracy: Linear) -> Point:
    """Return a treatment's point: leakage of the pool's images, accuracy of others."""
    pool, fresh = (m.influence.shape[1] for m in (leakage, accuracy))
    return Point(spread(accuracy, pool, 0), spread(leakage, 0, fresh))


def weighted(parts: Sequence[tuple[float, Linear]]) -> Linear:
    """Return the sum of measures, each times a number."""
    estimate = sum(weight * part.estimate for weight, part in parts)
    return Linear(estimate, sum(weight * part.influence for weight, part in parts))


def probit(share: Linear) -> Linear:
    """Return Φ⁻¹ of a share in (0, 1): differences near a ceiling count for more.

    >>> round(probit(Linear(0.975, np.zeros((1, 1)))).estimate, 2)
    1.96
    """
    inside = 0 < share.estimate < 1
    require(inside, "a share must be in (0, 1)", share.estimate)
    z = float(norm.ppf(share.estimate))
    return Linear(z, share.influence / norm.pdf(z))


def matched(treatment: Point, family: Sequence[Point]) -> tuple[Linear, float]:
    """Return the treatment's leakage less the family's at the same accuracy.

    The family's frontier is straight between neighbours, as in `frontier.at`, and the
    influence is that of all three points (the delta method): an answer that makes the
    treatment more accurate moves the place at which the frontier is read.

    The second number is how far inside the family's accuracies the treatment's lies,
    below 0 outside; there the difference is from the nearest end, and says nothing
    about matched accuracy. Of settings of one accuracy the first counts.

    A family of a single accuracy has no other place. Raises ValueError for one without
    settings.
    """
    rising = sorted(family, key=lambda p: p.accuracy.estimate)
    corners = [rising[0]] if rising else []
    for p in rising:
        if p.accuracy.estimate > corners[-1].accuracy.estimate + SAME:
            corners.append(p)
    known = [p.accuracy.estimate for p in corners]
    require(len(known) > 0, "a family must have a setting", known)
    where = treatment.accuracy.estimate
    inside = min(where - known[0], known[-1] - where)
    if inside < -SAME or len(known) == 1:
        end = corners[0] if where < known[0] else corners[-1]
        return treatment.leakage - end.leakage, inside
    place = min(max(int(np.searchsorted(known, where)), 1), len(known) - 1)
    low, high = corners[place - 1], corners[place]
    width = known[place] - known[place - 1]
    share = (where - known[place - 1]) / width
    slope = (high.leakage.estimate - low.leakage.estimate) / width
    there = weighted([(1 - share, low.leakage), (share, high.leakage)])
    moved = weighted([(1 - share, low.accuracy), (share, high.accuracy)])
    shift = treatment.accuracy - moved
    influence = there.influence + slope * shift.influence
    return treatment.leakage - Linear(there.estimate, influence), inside
