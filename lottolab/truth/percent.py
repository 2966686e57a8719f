"""Say a measurement as the book does: shares in percent, their differences in points.

Tables and claims keep fractions. What a reader sees goes through here.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass

from lottolab.truth import stats
from lottolab.truth.claim import Claim, Criterion

# Every metric that claims name and that is a share, in [0, 1] or a difference of two.
SHARES = frozenset(
    {
        "accuracy",
        "agreement",
        "auc",
        "auc, original",
        "AUROC",
        "copy fidelity",
        "fidelity",
        "fpr",
        "fresh",
        "fresh_accuracy",
        "fresh_fpr",
        "member_accuracy",
        "nonmember_accuracy",
        "pool auc",
        "precision",
        "protected accuracy",
        "robust accuracy",
        "robust_accuracy",
        "share",
        "second half",
        "signature",
        "test_accuracy",
        "test_accuracy there",
        "tpr at 1% fpr",
        "triggers",
        "worst share",
    }
)
DIFFERENCES = frozenset(
    {
        "accuracy gained",
        "at equal gap",
        "at equal loss gap",
        "auc difference",
        "drop",
        "gain",
        "surplus",
        "tpr at 1% fpr difference",
        "worst drop",
    }
)


@dataclass(frozen=True)
class Unit:
    """Hold how a quantity is told: times `factor`, with the sign of one arm, `share`,
    and that of a difference, `difference`."""

    factor: int = 1
    share: str = ""
    difference: str = ""

    def bound(self, x: float, sign: str) -> str:
        """Write a bound or a margin with its `sign`, as short as it is.

        >>> unit = Unit(100, " %", " points")
        >>> unit.bound(0.07, unit.share), unit.bound(0.01, unit.difference)
        ('7 %', '1 point')
        """
        number = f"{self.factor * x:g}".replace("-", "−")
        return number + (sign.removesuffix("s") if number == "1" else sign)

    def mean(self, x: float, decimals: int) -> str:
        """Write a mean that has so many decimals as a fraction, without its unit."""
        return f"{self.factor * x:.{self._decimals(decimals)}f}"

    def interval(self, found: stats.Interval, sign: str) -> str:
        """Write an interval with the `sign` behind the estimate.

        >>> unit = Unit(100, " %", " points")
        >>> unit.interval(stats.Interval(0.52, 0.515, 0.525, n=8), unit.share)
        '52.0 % [51.5, 52.5], n = 8'
        """
        decimals = self._decimals(found.decimals)
        estimate, low, high = (
            f"{self.factor * x:z.{decimals}f}".replace("-", "−")
            for x in (found.estimate, found.low, found.high)
        )
        ends = "(no interval)" if math.isnan(found.low) else f"[{low}, {high}]"
        return f"{estimate}{sign} {ends}, n = {found.n}"

    def _decimals(self, fraction: int) -> int:
        return max(1, fraction - round(math.log10(self.factor)))


POINTS = Unit(100, " points", " points")
PERCENT = Unit(100, " %", " points")


def unit(test: Criterion, values: Iterable[float] = ()) -> Unit:
    """Return how a test's measurements are told, of which `values` are some.

    A share that is negative, or is compared with zero, is a difference of two.
    """
    metric = test.a.get("metric", "")
    if test.scale == "probit" or metric not in SHARES | DIFFERENCES:
        return Unit()
    compared = test.b is None and test.value <= 0
    if metric in DIFFERENCES or compared or any(x < 0 for x in values):
        return POINTS
    return PERCENT


def paper(claim: Claim) -> str:
    """Return the paper's own numbers; shares in percent, as ours beside them."""
    metrics = {test.a.get("metric") for test in claim.tests}
    shares = bool(metrics & (SHARES | DIFFERENCES))
    told = (
        PERCENT.bound(x, PERCENT.share)
        if shares and isinstance(x, float) and x < 1
        else str(x)
        for x in claim.paper.values()
    )
    return ", ".join(f"{name} {x}" for name, x in zip(claim.paper, told, strict=True))
