"""White-box attacks in the l∞ ball: PGD, and one perturbation for all images.

A model is as in `queries`. Of a stochastic one the mean over `eot` draws is attacked
(expectation over transformation, Athalye et al., 2018).
"""

from collections.abc import Callable
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.checks import check_seed, one_of, require, whole
from lottolab.checks.attacks import attackable, moving
from lottolab.ensembles.queries import (
    Model,
    answers,
    ball,
    evaluating,
    frozen,
    margin,
    merge,
    merged,
    uniform,
)

Ascent = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
OVER = ("losses", "logits", "probabilities")


def pgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
    restarts: int = 1,
    eot: int = 1,
    seed: int,
    loss: str = "ce",
    over: str = "losses",
    stop: bool = False,
    batch: int = 128,
) -> Tensor:
    """Return images near `x` that the model takes for something else than `y`.

    Projected gradient ascent from a random start (Madry et al., 2018): each of `steps`
    adds `step` × the gradient's sign and goes back into the ball. Of several starts the
    one with the largest `margin` is kept, image by image. The model is asked in
    evaluation mode, and is left as it was.

    Args:
        x: float, n×C×H×W in [0, 1]. y: int64, n.
        epsilon: radius of the ball, in [0, 1]. step: >= 0.
        steps: >= 1; one of 1.25 ε is the attack that Wong et al. (2020) train with.
        eot: draws of a stochastic model that each step averages.
        seed: of the starts; a stochastic model draws from a generator of its own.
        loss: `ce`, or `margin`, whose gradient does not vanish where the model is sure.
        over: what is averaged over the draws: `losses`, or `logits` or `probabilities`
            before the loss. The last two hold all draws in memory: `eot` divides
            `batch`, unless the model has `many`.
        stop: for a deterministic model, to save time: leave an image once it is fooled,
            and once its steps go to and fro between two images, as they then would for
            ever. Who is fooled without it is fooled with it. Against a stochastic model
            a first success may only have been luck.
        batch: images that go through the model together.

    Returns:
        As `x`, within ε of it and in [0, 1].

    Raises:
        ValueError: anything is not as above, or the logits are not finite or do not
            depend on `x`.

    Warns where the gradient of an image is 0 that the model still gets right.
    """
    attackable(model, x, y, epsilon=epsilon, step=step)
    counts = {"steps": steps, "restarts": restarts, "eot": eot, "batch": batch}
    for name, value in counts.items():
        whole(name, value, 1)
    one_of("loss", loss, LOSSES)
    one_of("over", over, OVER)
    if over != "losses" and not hasattr(model, "many"):
        batch = max(1, batch // eot)

    def ascent(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        slope, logits = gradient(model, x, y, loss=loss, eot=eot, over=over)
        moving(slope, logits, y)
        return slope, logits

    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    best, highest = x.clone(), x.new_full((len(x),), -torch.inf)
    rows = torch.arange(len(x), device=x.device)
    with frozen(model), evaluating(model):
        for _ in range(restarts):
            start = x + uniform(x, epsilon, generator)
            low, high = ball(x[rows], epsilon)
            found = climb(
                ascent, start[rows], y[rows], low, high, step, steps, stop, batch
            )
            if restarts == 1:
                return found
            value = _margins(model, found, y[rows], eot, over, batch).to(x)
            better = value > highest[rows]
            best[rows[better]], highest[rows[better]] = found[better], value[better]
            if stop:
                rows = (highest <= 0).nonzero()[:, 0]
    return best


def climb(
    ascent: Ascent,
    x: Tensor,
    y: Tensor,
    low: Tensor,
    high: Tensor,
    step: float,
    steps: int,
    stop: bool = False,
    batch: int = 128,
) -> Tensor:
    """Take the steps of one start `x` in the box from `low` to `high`.

    `ascent(x, y)` gives the gradient at images and the logits there.
    """
    x = torch.clamp(x.detach(), low, high)
    before = torch.full_like(x, torch.nan)  # a step ago
    rows = torch.arange(len(x), device=x.device)
    for left in reversed(range(steps)):
        going = []
        for part in rows.split(batch):
            slope, logits = ascent(x[part], y[part])
            if stop:
                right = logits.argmax(1) == y[part]
                part, slope = part[right], slope[right]
            here = x[part]
            moved = torch.clamp(here + step * slope.sign(), low[part], high[part])
            if stop:
                repeats = (moved == before[part]).flatten(1).all(1)
                if left % 2:  # steps to go, of which the last leads back here
                    moved[repeats] = here[repeats]
                going.append(part[~repeats])
            before[part], x[part] = here, moved
        rows = torch.cat(going) if stop else rows
        if not len(rows):
            break
    return x


def gradient(
    model: Model, x: Tensor, y: Tensor, *, loss: str, eot: int, over: str
) -> tuple[Tensor, Tensor]:
    """Return the gradient in `x` of the mean loss over draws, and their mean logits."""
    x = x.detach().requires_grad_()
    loss_of, slope, outputs = LOSSES[loss], torch.zeros_like(x), []
    with torch.enable_grad():
        for drawn in answers(model, x, eot):
            depend = all(logits.requires_grad for logits in drawn)
            require(depend, "logits must depend on x", "constants")
            if over == "losses":
                value = sum(loss_of(logits, y).sum() for logits in drawn)
                slope += torch.autograd.grad(value, x)[0] / eot
                drawn = [logits.detach() for logits in drawn]
            outputs += drawn
        mean = merge(outputs, "probabilities" if over == "losses" else over)
        if over != "losses":
            slope = torch.autograd.grad(loss_of(mean, y).sum(), x)[0]
    return slope, mean.detach()


def universal(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    step: float,
    epochs: int,
    eot: int = 1,
    seed: int,
    loss: str = "ce",
    batch: int = 128,
) -> Tensor:
    """Return one perturbation for all images, float 1×C×H×W in [−ε, ε].

    Projected gradient ascent on the loss of random batches (Shafahi et al., 2020,
    "Universal adversarial training"), from 0. Add it and clamp to [0, 1]. To judge it,
    use images that it was not made on. Arguments and errors as for `pgd`.
    """
    attackable(model, x, y, epsilon=epsilon, step=step)
    for name, value in {"epochs": epochs, "eot": eot, "batch": batch}.items():
        whole(name, value, 1)
    one_of("loss", loss, LOSSES)
    check_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    delta = torch.zeros_like(x[:1])
    with frozen(model), evaluating(model):
        for _ in range(epochs):
            order = torch.randperm(len(x), generator=generator).to(x.device)
            for part in order.split(batch):
                moved = x[part] + delta
                given = {"loss": loss, "eot": eot, "over": "losses"}
                slope, logits = gradient(model, moved.clamp(0, 1), y[part], **given)
                moving(slope, logits, y[part])
                # A pixel that is at its end already gains nothing by going on.
                gains = torch.where(slope > 0, moved < 1, moved > 0)
                slope = slope.where(gains, 0).sum(0)
                delta = (delta + step * slope.sign()).clamp(-epsilon, epsilon)
    return delta


@torch.no_grad()
def _margins(model, x, y, eot, over, batch) -> Tensor:
    over = "probabilities" if over == "losses" else over
    parts = [
        margin(merged(model, a, eot, over), b)
        for a, b in zip(x.split(batch), y.split(batch), strict=True)
    ]
    return torch.cat(parts)


LOSSES = {"ce": partial(F.cross_entropy, reduction="none"), "margin": margin}
