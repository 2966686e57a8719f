"""ModelGuard-W: the weakest answer within a distance, exactly and for all rows at once.

Paper, section 3.3, Equation 9: of all rows ŷ on the simplex with |ŷ − y|₁ <= ε and the
same top-1 class, return the one that minimises Σ ŷ·log y. No LP solver is needed. Sort
a row's probabilities: the costs log y come in the same order. Fix the top-1 value v.
What is left is to move as much as ε allows from the likely classes, emptied one after
the other, to the unlikely ones, filled one after the other up to v. The least cost is a
convex and piecewise linear function of v, and both its value and its slope can be read
off sums over the sorted row. So its minimum is found by intersecting the tangents at
the ends of a bracket, and every row stops with a proof: no v costs `GAP` less.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.modelguard.defences import simplex

FLOOR = 1e-6  # is added to y before the logarithm
MARGIN = 1e-4  # by which the top-1 class stays ahead, unless its lead in y is smaller
GAP = 1e-10
BLOCK = 2**18  # probabilities at a time, so that they stay in the cache


@dataclass(frozen=True)
class ModelGuardW:
    """Answer with the solution of ModelGuard-W's linear program.

    Guarantees, to the dtype's rounding: each answer is on the simplex and within
    `epsilon` of the prediction in ℓ1; Σ ŷ·log(y + 1e-6) is the least possible of those
    whose top-1 class is ahead by min(1e-4, its lead in y). Without that margin the
    optimum often is a tie. `argmax` is that of the prediction, also where that is a tie
    or rounding would make one. ε = 0 returns the prediction.

    Raises:
        ValueError: epsilon is not in [0, 2], or rows are off the simplex.

    >>> ModelGuardW(0.5)(torch.tensor([[0.7, 0.2, 0.1]])).round(decimals=4)
    tensor([[0.4500, 0.2000, 0.3500]])
    """

    epsilon: float

    def __post_init__(self) -> None:
        simplex.check_epsilon(self.epsilon)

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`; `x` is not needed."""
        simplex.check(probs)
        if self.epsilon == 0:
            return probs.clone()
        blocks = probs.split(max(1, BLOCK // probs.shape[1]))
        return torch.cat([_solve(rows, self.epsilon / 2) for rows in blocks])


def _solve(probs: Tensor, half: float) -> Tensor:
    """Solve for each row; `half`, ε/2, is the most that may be moved."""
    y, order = probs.double().sort(dim=1, descending=True, stable=True)
    rows = _Rows(y, half)
    low, high = rows.lowest, rows.highest
    (f_low, s_low), (f_high, s_high) = rows.cost_at(low), rows.cost_at(high)
    for _ in range(64):  # 15 were enough for 1,000 classes
        bends = s_high > s_low
        v = (f_low - f_high + s_high * high - s_low * low) / (s_high - s_low)
        v = torch.where(bends, v, low).clamp(low, high)
        bound = f_low + s_low * (v - low)
        # A row that is done stays as it is, whatever else is in the batch.
        todo = torch.minimum(f_low, f_high) - bound > GAP
        if not todo.any():
            break
        f, s = rows.cost_at(v)
        low, f_low, s_low = _pick(todo & (s < 0), (v, f, s), (low, f_low, s_low))
        high, f_high, s_high = _pick(todo & (s >= 0), (v, f, s), (high, f_high, s_high))
    answers = rows.answer(torch.where(f_low < f_high, low, high))
    answers = torch.empty_like(y).scatter_(1, order, answers)
    return simplex.settle(answers, order[:, :1], probs.dtype)


class _Rows:
    """Sums over the rows of y, float64 N×C, sorted from likely to unlikely.

    "Others" are the n = C − 1 columns after the first, which is the top-1 class. Their
    prefix sums have n + 1 columns: column k is that of the k likeliest.

    lowest, highest: N×1, the smallest and largest v that the constraints allow.
    """

    def __init__(self, y: Tensor, half: float) -> None:
        self.half, self.top, self.others = half, y[:, :1], y[:, 1:].contiguous()
        n = self.others.shape[1]
        self.negative = -self.others  # rising, as searchsorted wants it
        self.total = y.sum(1, keepdim=True)
        self.margin = (self.top - y[:, 1:2]).clamp(max=MARGIN)
        self.top_price, self.prices = (self.top + FLOOR).log(), (y[:, 1:] + FLOOR).log()
        self.sums, self.price_sums = _prefix(self.others), _prefix(self.prices)
        self.costs = _prefix(self.others * self.prices)
        self.fills_until = self._fills_until()
        # To lower v is to take from the top and from all that would stick out.
        count = torch.arange(n + 1, device=y.device)
        fits = (self.sums + self.top - half + count * self.margin) / (count + 1)
        room = (self.total + n * self.margin) / (n + 1)
        self.lowest = torch.maximum(fits.amax(1, keepdim=True), room)
        self.highest = torch.minimum(self.top + half, self.total)

    def _fills_until(self) -> Tensor:
        """Return up to which v the moved half can fill all others from column k on.

        N×n, rising; −∞ where they are not all below the value that they would get.
        """
        n = self.others.shape[1]
        count = torch.arange(n, 0, -1, device=self.top.device)
        level = (self.half + self.sums[:, -1:] - self.sums[:, :-1]) / count
        stick_out = self.others > level
        level = level + self.margin
        # Above its own value the top-1 class itself takes v − y₁ of what is moved.
        level = torch.minimum(level, (count * level + self.top) / (count + 1))
        return level.masked_fill(stick_out, -torch.inf)

    def _meeting(self, v: Tensor) -> tuple[Tensor, ...]:
        """Return what would be left to do at v if any amount could be moved.

        cap: the most that another class may get. mass: of the others together.
        full: how many of the unlikeliest are filled up to the cap; the next one gets
        the rest, all others nothing. above: how many stick out of the cap now.
        reach: the sum that the receiving others get.
        """
        n = self.others.shape[1]
        cap, mass = v - self.margin, self.total - v
        full = (mass / cap).long().clamp(0, n - 1)
        above = torch.searchsorted(self.negative, -cap)
        first = torch.maximum(n - full, above)
        rest = mass - full * cap - self.others.gather(1, n - 1 - full)
        received = (n - first) * cap - self._sum_from(first)
        return cap, mass, full, above, received + rest.clamp(min=0)

    def _sum_from(self, first: Tensor) -> Tensor:
        return self.sums[:, -1:] - self.sums.gather(1, first)

    def cost_at(self, v: Tensor) -> tuple[Tensor, Tensor]:
        """Return the least cost with top-1 value v, and its slope there; all N×1.

        The others are, from the likely to the unlikely: empty, the giver (what it has
        left), at the cap because they would stick out, unchanged, the receiver (partly
        filled), at the cap. Where ε does not bind, giver and receiver are one.
        """
        n = self.others.shape[1]
        cap, mass, full, above, reach = self._meeting(v)
        rise = v - self.top
        taken = self.half - rise.clamp(min=0)
        met = reach <= taken
        taken = torch.minimum(taken, reach)
        start = torch.searchsorted(self.fills_until, v).clamp(min=1)
        start = torch.where(met, n - full, start)
        receiver, full = start - 1, n - start
        giver = self._giver(taken + rise, cap, above)
        giver = torch.where(met, receiver, torch.minimum(giver, receiver))
        end = torch.where(met, 0, above).maximum(giver + 1)
        capped = full + end - giver - 1
        price = self.price_sums[:, -1:] - self.price_sums.gather(1, start)
        price += self.price_sums.gather(1, end) - self.price_sums.gather(1, giver + 1)
        gets = self.others.gather(1, receiver) + taken
        gets = gets - full * cap + self._sum_from(start)
        unchanged = self.sums.gather(1, receiver) - self.sums.gather(1, end)
        keeps = mass - capped * cap - gets - unchanged
        p_gets, p_keeps = (self.prices.gather(1, at) for at in (receiver, giver))
        cost = self.top_price * v + price * cap + p_gets * gets + p_keeps * keeps
        cost += self.costs.gather(1, receiver) - self.costs.gather(1, end)
        rises = full + (rise > 0)  # are paid by the receiver, the rest by the giver
        slope = self.top_price + price - rises * p_gets - (capped + 1 - rises) * p_keeps
        return cost, slope

    def _giver(self, given: Tensor, cap: Tensor, above: Tensor) -> Tensor:
        """Return the first class that does not give all it has; others give `given`."""
        beyond = self.sums.gather(1, above)
        plain = torch.searchsorted(self.sums, given, right=True) - 1
        evenly = ((given - beyond) / cap + above).long()
        return torch.where(beyond <= given, plain, evenly)

    def answer(self, v: Tensor) -> Tensor:
        """Return the best rows with top-1 values v, N×1: N×C, sorted as y is."""
        cap, _, _, _, reach = self._meeting(v)
        taken = torch.minimum(self.half - (v - self.top).clamp(min=0), reach)
        kept = torch.minimum(self.others, cap)
        given = taken + v - self.top - (self.others - kept).sum(1, keepdim=True)
        gives = (given + kept - kept.cumsum(1)).clamp(min=0).minimum(kept)
        room = cap - kept
        later = room.sum(1, keepdim=True) - room.cumsum(1)
        takes = (taken - later).clamp(min=0).minimum(room)
        return torch.cat([v, kept - gives + takes], 1)


def _prefix(values: Tensor) -> Tensor:
    """Return the sums of the first 0, 1, … n columns."""
    return F.pad(values.cumsum(1), (1, 0))


def _pick(where: Tensor, yes: tuple, no: tuple) -> list[Tensor]:
    return [torch.where(where, a, b) for a, b in zip(yes, no, strict=True)]
