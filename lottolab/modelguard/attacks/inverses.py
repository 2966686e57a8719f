"""Undo each defence by what its own formula gives away; no table and no oracle.

`answers` are the service's, float N×C, and so is what comes back: rows of
probabilities, in float32. A `guess`, N×C, is what the thief's own substitute predicts
of the images: it settles what a formula leaves open. Not in the paper.

Raises ValueError where answers or a guess are not float N×C, finite and >= 0.
"""

import torch
from torch import Tensor

from lottolab.checks import require, within
from lottolab.modelguard.defences import grown, simplex
from lottolab.modelguard.defences.linear_program import MARGIN
from lottolab.modelguard.queries import checked

STEPS = 48  # halvings of an interval
LEVEL = 2e-6  # answers that differ by less are equal: float32
EMPTY = 1e-8  # what a class had that was filled
NEAR = 0.02  # a class that was filled in part had less than this
SETS, LARGEST = 12, 24  # classes that MAD raises, and answers to look for them in
SAME = 1e-3
CLOSE = 0.05
ROUNDS = 2


def reverse_sigmoid(answers: Tensor, beta: float, gamma: float) -> Tensor:
    """Invert Reverse Sigmoid class by class.

    An answer times its row's normaliser is g(y) = y − β·(s(γ·s⁻¹(y)) − ½), which falls
    from β/2 at 0 and then rises: below β/2 the smaller y is taken, of which there are
    many, above it is the only one. The normaliser is the one for which y sums to 1.
    """
    within("beta", beta, "(0, inf)")
    within("gamma", gamma, "(0, inf)")
    a = checked(answers).double()
    low = torch.logspace(-14, -1, 20_000, dtype=torch.float64)
    y = torch.cat([low, torch.linspace(0.1, 1, 10_001, dtype=torch.float64)[1:]])
    g = (y - beta * ((gamma * y.logit()).sigmoid() - 0.5)).clamp(min=0)
    turn = int(g.argmin())
    down = g[: turn + 1].flip(0), y[: turn + 1].flip(0)
    up = g[turn:].contiguous(), y[turn:].contiguous()

    def inverse(values: Tensor) -> Tensor:
        values = values.clamp(min=float(g[turn]))
        small, large = (
            ys[torch.searchsorted(gs, values).clamp(max=len(gs) - 1)]
            for gs, ys in (down, up)
        )
        return torch.where(values < float(g[0]), small, large)

    lower = torch.full_like(a[:, :1], 1e-3)
    upper = torch.full_like(lower, 1.1 + a.shape[1] * beta / 2)
    for _ in range(STEPS):
        middle = (lower + upper) / 2
        short = inverse(a * middle).sum(1, keepdim=True) < 1
        lower = torch.where(short, middle, lower)
        upper = torch.where(short, upper, middle)
    return _row(inverse(a * upper))


def rounding(answers: Tensor, guess: Tensor, decimals: int) -> Tensor:
    """Put a guess into the cell of numbers that round to the answer."""
    a, q = _both(answers, guess)
    half = 0.5 * 10.0**-decimals
    return _row(q.clamp((a - half).clamp(min=0), a + half))


def modelguard_w(answers: Tensor, guess: Tensor, epsilon: float) -> Tensor:
    """Read off an answer of ModelGuard-W what its linear program has done.

    It empties likely classes and fills unlikely ones up to just below the top-1; all
    others it leaves bit for bit. So a class at that level was filled, or was cut down
    to it; ε/2 is enough to fill so many, and these are the ones that the guess finds
    least likely. One class more may have been filled with what is left. What is
    missing then from 1 belonged to the top-1, to the cut and to the emptied classes,
    in the guess's proportions.
    """
    simplex.check_epsilon(epsilon)
    a, q = _both(answers, guess)
    v, top = a.max(1, keepdim=True)
    cap = v - MARGIN
    is_top = torch.zeros_like(a, dtype=torch.bool).scatter_(1, top, True)
    level = ((a - cap).abs() < LEVEL) & ~is_top
    room = (epsilon / 2 / cap.clamp(min=1e-9)).floor()
    order = torch.where(level, q, torch.inf).argsort(dim=1, stable=True).argsort(1)
    filled = level & (order < room)
    rest = epsilon / 2 - filled.sum(1, keepdim=True) * cap
    plain = ~level & ~is_top & (a > 0)
    gap = torch.where(plain, (a - rest).abs(), torch.inf)
    partly = (gap == gap.amin(1, keepdim=True)) & (gap < NEAR) & (rest > MARGIN)
    givers = is_top | (level & ~filled) | (a == 0)
    kept = torch.where(filled | partly, EMPTY, a).masked_fill(givers, 0)
    held = a.masked_fill(~givers, 0)
    missing = 1 - kept.sum(1, keepdim=True)
    wish = (q.masked_fill(~givers, 0) + 1e-12 * givers).clamp(min=0)
    wish = (wish / wish.sum(1, keepdim=True) * missing - held).clamp(min=0)
    extra = (missing - held.sum(1, keepdim=True)).clamp(min=0)
    y = kept + held + extra * wish / wish.sum(1, keepdim=True).clamp(min=1e-12)
    return _ahead(_row(y), top)


def mad(
    answers: Tensor,
    surrogate: Tensor,
    guess: Tensor,
    epsilon: float,
    aim: str = "vertex",
) -> Tensor:
    """Invert MAD: a = (1 − t)·y + t·v, where t is ε / (ε + ‖v − a‖₁).

    Which classes v stands for is read off the answer, see `raised`, or found by MAD's
    own search for the guess; from either the search goes on once. That prediction is
    taken of which MAD, asked with the surrogate's predictions, makes what is nearest to
    the answer; where nothing is near, the guess.
    """
    a, q = _both(answers, guess)
    p, top = surrogate.to(a), a.argmax(1, keepdim=True)
    best, y = torch.full_like(a[:, :1], CLOSE), q
    for chosen in (raised(a, top, epsilon), grown.search(q, p, top, epsilon, aim)):
        for _ in range(ROUNDS):
            found = _before(a, grown.vertex(chosen, top), epsilon)
            chosen = grown.search(found, p, top, epsilon, aim)
            goal = grown.vertex(chosen, top)
            step = epsilon / (goal - found).abs().sum(1, keepdim=True)
            again = torch.lerp(found, goal, step.clamp(max=1))
            off = (again - a).abs().sum(1, keepdim=True)
            y = torch.where(off < best, found, y)
            best = torch.minimum(off, best)
    return _row(y)


def raised(a: Tensor, top: Tensor, epsilon: float) -> Tensor:
    """Tell which classes MAD has raised: bool N×C, the top-1 class among them.

    All m of them got t/m, and most had nothing before: so they are neighbours among
    the sorted answers, and level with t/m, behind those that were large before.

    Args:
        a: float64 N×C, the answers. top: int64 N×1.
    """
    none = torch.zeros_like(a, dtype=torch.bool)
    order = a.scatter(1, top, torch.inf).argsort(1, descending=True)[:, :LARGEST]
    values, rest = a.gather(1, order), 1 - a.gather(1, order).sum(1, keepdim=True)
    best, found = torch.full_like(a[:, :1], torch.inf), none.scatter(1, top, True)
    most = values.shape[1]
    for size in range(2, min(SETS, most) + 1):
        for large in range(most - size + 1):
            inside = torch.zeros(most, dtype=torch.bool)
            inside[0] = inside[large + 1 : large + size] = True
            far = (inside / size - values).abs().sum(1, keepdim=True) + rest
            level = epsilon / (epsilon + far) / size
            off = (values[:, large + 1 : large + size] - level).abs()
            off = off.mean(1, keepdim=True)
            chosen = none.scatter(1, order, inside.expand_as(order))
            found = torch.where(off < best, chosen, found)
            best = torch.minimum(off, best)
    return found


def _before(a: Tensor, v: Tensor, epsilon: float) -> Tensor:
    """Return the predictions that MAD has moved by ε towards v, if it was v."""
    t = epsilon / (epsilon + (v - a).abs().sum(1, keepdim=True))
    found = ((a - t * v) / (1 - t)).nan_to_num(0, 0, 0).clamp(min=0) + 1e-12
    return found / found.sum(1, keepdim=True)


def lied(answers: Tensor, wrong: Tensor) -> Tensor:
    """Mark answers of Adaptive Misinformation that are the wrong network's; bool N.

    All others, but for the few in between, are the prediction itself.
    """
    a, w = _both(answers, wrong)
    return (a - w).abs().sum(1) < SAME


def _both(answers: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
    a, b = checked(answers).double(), checked(other).double()
    given = f"{list(a.shape)} and {list(b.shape)}"
    require(a.shape == b.shape, "answers and guess must be of one shape", given)
    return a, b


def _row(y: Tensor) -> Tensor:
    y = y.clamp(min=0)
    sums = y.sum(1, keepdim=True)
    level = torch.full_like(y, 1 / y.shape[1])
    return torch.where(sums > 0, y / sums.clamp(min=1e-30), level).float()


def _ahead(y: Tensor, top: Tensor) -> Tensor:
    """Level the largest class with the top-1, which the defence has kept."""
    peak, place = y.max(1, keepdim=True)
    mean = (peak + y.gather(1, top)) / 2
    return y.scatter(1, place, mean).scatter(1, top, mean)
