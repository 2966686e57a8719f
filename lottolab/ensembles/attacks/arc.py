"""ARC, the attack on randomised ensembles (Dbouk & Shanbhag, 2022), in the l∞ ball.

"Adversarial vulnerability of randomized ensembles", ICML. The ensemble draws member k
with probability p_k; the attacker minimises the expected accuracy

    Σ_k p_k [f_k(x + δ) = y],

by fooling members one after another, the likeliest first, without losing those that are
fooled already. The gradient of the mean loss, which EOT follows, need not do so.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from lottolab.checks import one_of, tensors, whole
from lottolab.checks.attacks import alike, attackable, one_each, several
from lottolab.ensembles.queries import Model, ball, evaluating, frozen

ROUNDS = 50
CHECK = 5  # rounds, after which who is done leaves
SPARE = 0.05  # the paper's ρ, as a share of the step


def arc(
    members: Sequence[Model],
    x: Tensor,
    y: Tensor,
    *,
    probabilities: Sequence[float] | None = None,
    epsilon: float,
    step: float,
    steps: int,
    targets: int = 1,
    inner: str = "minimax",
    batch: int = 128,
) -> Tensor:
    """Return images near `x` with the least expected accuracy that was found.

    In each of `steps` every member stands for the nearest of its decision boundaries,
    linearised: the margin between `y` and another class, and its gradient. With these
    lines `inner` chooses whom to fool, and where to go:

    `rescale` is the paper's Algorithm 2 as we read it. Of a member with descent
        direction g (signs, in l∞) at distance ζ, δ becomes η (δ + β g) / ‖δ + β g‖,
        where η is the step and β = η / (η − ζ) × what is left of ζ, plus a little: so
        large that the triangle inequality puts the member behind its boundary. It is
        kept unless the expected accuracy, which is measured, rises: K² calls a step.
        All pixels weigh alike, so that two members whose gradients are independent can
        use only the half of the pixels on which they agree.
    `minimax`, ours, adds a member to the fooled if some δ in the ball brings all their
        lines below 0, which minimising the highest decides: K calls a step, and on
        lines exact for two members, greedy for more.

    Args:
        members: deterministic models: R2S's networks, or teams that a sampler drew
            (`Sampler.teams`), to be judged on teams drawn afresh.
        x, y, epsilon, batch: as for `pgd`. Nothing is random.
        probabilities: one a member, > 0, in sum 1; uniform if None.
        step: the most a pixel changes in a step. steps: >= 1.
        targets: how many classes are looked at for the nearest boundary, those with the
            largest logits; each costs a backward pass.

    Returns:
        As `x`, within ε of it and in [0, 1].

    Raises:
        ValueError: anything is not as above.
    """
    several(members)
    for member in members:
        attackable(member, x, y, epsilon=epsilon, step=step)
    alike(members, x)
    for name, value in {"steps": steps, "targets": targets, "batch": batch}.items():
        whole(name, value, 1)
    one_of("inner", inner, INNER)
    x = x.clamp(0, 1)
    one_each(probabilities, len(members))
    given = probabilities or [1 / len(members)] * len(members)
    chances = torch.tensor(given, dtype=x.dtype, device=x.device)
    found = []
    with frozen(*members), evaluating(*members):
        for part, labels in zip(x.split(batch), y.split(batch), strict=True):
            box = ball(part, epsilon)
            ask = partial(accuracy, members, chances, y=labels)
            lowest, best, now = ask(part), part, part
            for _ in range(steps):
                margins, slopes = _lines(members, now, labels, targets)
                room = [(end - now).flatten(1) for end in box]
                measure = _measured(ask, now, box)
                move = INNER[inner](margins, slopes, room, chances, step, measure)
                now = (now + move.clamp(-step, step).view_as(now)).clamp(*box)
                value = ask(now)
                best = torch.where((value < lowest).view(-1, 1, 1, 1), now, best)
                lowest = torch.minimum(value, lowest)
            found.append(best)
    return torch.cat(found)


@torch.no_grad()
def accuracy(members: Sequence[Model], chances: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """Return each image's expected accuracy, float [n]; `chances` float [K]."""
    right = torch.stack([member(x).argmax(1) == y for member in members], 1)
    return right.to(chances.dtype) @ chances


def _measured(ask: Callable, now: Tensor, box: tuple[Tensor, Tensor]) -> Callable:
    return lambda move: ask((now + move.view_as(now)).clamp(*box))


def _lines(members, x: Tensor, y: Tensor, targets: int) -> tuple[Tensor, Tensor]:
    """Return margins, n×K, > 0 where a member is right, and gradients, n×K×pixels."""
    margins, slopes = [], []
    for member in members:
        x = x.detach().requires_grad_()
        with torch.enable_grad():
            logits = member(x)
            tensors.logits("the member's logits", logits)
            own = logits.gather(1, y[:, None])
            others = logits.scatter(1, y[:, None], -torch.inf)
            near = others.topk(min(targets, others.shape[1] - 1), 1).values
            apart = (own - near).unbind(1)
            last = len(apart) - 1
            grads = [
                torch.autograd.grad(a.sum(), x, retain_graph=i < last)[0].flatten(1)
                for i, a in enumerate(apart)
            ]
        apart, grads = torch.stack(apart, 1).detach(), torch.stack(grads, 1)
        # Signed: of a member that is wrong, the boundary farthest behind.
        nearest = (apart / grads.abs().sum(2).clamp_min(1e-12)).argmin(1)
        rows = torch.arange(len(x), device=x.device)
        margins.append(apart[rows, nearest])
        slopes.append(grads[rows, nearest])
    return torch.stack(margins, 1), torch.stack(slopes, 1)


def _minimax(margins, slopes, room, chances, step, measure) -> Tensor:
    """Fool as many lines as can be fooled together, the likeliest first."""
    low, high = room
    ends = torch.where(slopes > 0, low[:, None], high[:, None]).where(slopes != 0, 0)
    depth = margins + (slopes * ends).sum(2)
    order = depth.argsort(dim=1, stable=True)  # among equals, first who falls deepest
    order = order.gather(1, (-chances)[order].argsort(dim=1, stable=True))
    rows = torch.arange(len(margins), device=margins.device)
    # Where nobody can be fooled, move towards the line that comes nearest.
    move = ends[rows, depth.argmin(1)]
    values = _heights(margins, slopes, move)
    fooled = torch.zeros_like(margins, dtype=torch.bool)
    for place in order.unbind(1):
        trial = fooled.scatter(1, place[:, None], True)
        # Whom the box cannot bring down costs nothing, nor who is low already.
        fits = (values < 0).where(trial, True).all(1)
        asked = (~fits & (depth[rows, place] < 0)).nonzero()[:, 0]
        if len(asked):
            given = (t[asked] for t in (margins, slopes, trial, low, high))
            move[asked], values[asked], fits[asked] = _kept(
                move[asked], values[asked], *given, quick=True
            )
        fooled = torch.where(fits[:, None], trial, fooled)
    some = fooled.any(1).nonzero()[:, 0]
    if len(some):
        given = (t[some] for t in (margins, slopes, fooled, low, high))
        move[some], *_ = _kept(move[some], values[some], *given)
    return move


def _heights(margins: Tensor, slopes: Tensor, move: Tensor) -> Tensor:
    """Return the lines' values, n×K, after a move, n×pixels."""
    return margins + torch.bmm(slopes, move[:, :, None])[:, :, 0]


def _kept(move, values, margins, slopes, chosen, low, high, quick=False):
    """Return moves that bring the chosen below 0, or those given; and who has one."""
    found = _lowest(margins, slopes, chosen, low, high, quick)
    there = _heights(margins, slopes, found)
    fits = (there < 0).where(chosen, True).all(1)
    keep = fits[:, None]
    return torch.where(keep, found, move), torch.where(keep, there, values), fits


def _lowest(margins, slopes, chosen, low, high, quick=False) -> Tensor:
    """Minimise the highest of the chosen lines over a box of moves.

    Nesterov's smoothing: accelerated projected gradient on their log-sum-exp, while its
    temperature and the step fall. Lines are scaled to a range of about 1. `quick` ends
    where all are below 0, and where they cannot be: no move brings the highest below
    what it brings a mean of them, with whatever weights.
    """
    half, centre = (high - low) / 2, (high + low) / 2
    most = int(chosen.sum(1).max())
    own = chosen.long().argsort(dim=1, descending=True, stable=True)[:, :most]
    there = chosen.gather(1, own)
    tilt = slopes.gather(1, own[:, :, None].expand(-1, -1, slopes.shape[2]))
    level = margins.gather(1, own) + torch.bmm(tilt, centre[:, :, None])[:, :, 0]
    tilt = tilt * half[:, None]
    size = tilt.abs().sum(2).where(there, 0).amax(1).clamp_min(1e-12)
    tilt, level = tilt / size[:, None, None], level / size[:, None]
    z = ahead = -centre / half.clamp_min(1e-12)  # no move
    done = z.clone()
    rows = torch.arange(len(z), device=z.device)
    for i in range(ROUNDS):
        left = 1 - i / ROUNDS
        values = _heights(level, tilt, ahead).masked_fill(~there, -torch.inf)
        share = torch.softmax(values / (0.3 * 0.02 ** (1 - left)), 1)
        down = torch.bmm(share[:, None], tilt)[:, 0]
        if quick and i % CHECK == CHECK - 1:
            never = (share * level).sum(1) > down.abs().sum(1)
            over = (values < 0).all(1) | never
            done[rows[over]] = ahead[over]
            kept = (~over).nonzero()[:, 0]
            if not len(kept):
                break
            given = (rows, z, ahead, tilt, level, there, down)
            rows, z, ahead, tilt, level, there, down = (t[kept] for t in given)
        down = down / down.abs().mean(1, keepdim=True).clamp_min(1e-12)
        before, z = z, (ahead - 0.3 * left * down).clamp(-1, 1)
        ahead = (z + i / (i + 3) * (z - before)).clamp(-1, 1)
    else:
        done[rows] = z
    return centre + half * done


def _rescale(margins, slopes, room, chances, step, measure) -> Tensor:
    """Take in one member after another, as the paper does."""
    norms = slopes.abs().sum(2).clamp_min(1e-12)
    move = torch.zeros_like(slopes[:, 0])
    lowest = measure(move)
    for k in chances.argsort(descending=True, stable=True).tolist():
        distance = margins[:, k] / norms[:, k]
        left = distance + (slopes[:, k] * move).sum(1) / norms[:, k]
        enough = step / (step - distance) * left + SPARE * step
        first = (distance >= step) | (move == 0).all(1)
        beta = torch.where(first, step, enough)[:, None]
        mixed = move - beta * slopes[:, k].sign()
        trial = step * mixed / mixed.abs().amax(1, keepdim=True).clamp_min(1e-12)
        value = measure(trial)
        keep = ((value <= lowest) & (left > 0))[:, None]
        move = torch.where(keep, trial, move)
        lowest = torch.where(keep[:, 0], value, lowest)
    return move


INNER = {"minimax": _minimax, "rescale": _rescale}
