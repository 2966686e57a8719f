"""APGD and Square of AutoAttack (Croce & Hein, 2020), with expectation over draws.

The attacks are the authors' own code, the package `pyautoattack`. As they stop at the
first success, which a stochastic model may give away by chance, they are asked here for
the images with the largest loss instead, and what they ask is the mean of `eot` draws.
"""

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from lottolab.checks import check_seed, one_of, require, whole, within
from lottolab.checks.attacks import attackable, moving
from lottolab.ensembles.attacks.gradient import gradient
from lottolab.ensembles.queries import (
    Model,
    ball,
    evaluating,
    frozen,
    margin,
    merged,
)

LEAST = {"ce": 2, "dlr": 3, "targeted": 4}  # classes that a loss needs


def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    steps: int,
    restarts: int = 1,
    loss: str = "ce",
    targets: int = 9,
    eot: int = 1,
    over: str = "probabilities",
    seed: int,
    batch: int = 128,
) -> Tensor:
    """Return the images of the largest loss that APGD found in the ball.

    Auto-PGD chooses its step size from its progress, image by image. `loss` is `ce`,
    `dlr`, the difference of logits ratio, which takes at least three classes, or
    `targeted`, the same towards one class after another, which takes four. Then
    `targets` classes are tried, the likeliest of the clean image first (as many as
    there are, if those are fewer), each from `restarts` starts; of all these the one
    with the largest `margin` of the mean of `eot` draws is returned, where the package
    would stop at a first success. `over` is `logits` or `probabilities`. All else, and
    what is raised, is as for `pgd`; ε > 0.
    """
    from pyautoattack.autopgd_base import APGDAttack, APGDAttack_targeted

    one_of("loss", loss, LEAST)
    counts = {"steps": steps, "restarts": restarts, "targets": targets}
    for name, value in counts.items():
        whole(name, value, 1)
    settings = {"n_iter": steps, "n_restarts": restarts, "eps": epsilon, "seed": seed}

    def run(ask: Model, x: Tensor, y: Tensor) -> Tensor:
        if loss == "targeted":
            attack = APGDAttack_targeted(ask, **settings, device=x.device)
            return _targeted(attack, ask, x, y, targets)
        if loss == "ce":
            moving(*gradient(ask, x, y, loss="ce", eot=1, over="logits"), y)
        attack = APGDAttack(ask, **settings, loss=loss, device=x.device)
        return attack.perturb(x, y, best_loss=True)

    return _each(run, model, x, y, epsilon, eot, over, seed, batch, LEAST[loss])


def _targeted(attack, ask: Model, x: Tensor, y: Tensor, targets: int) -> Tensor:
    """Go for each of the likeliest other classes; keep the largest margin."""
    with torch.no_grad():
        clean = ask(x)
    best, highest = x.clone(), x.new_full((len(x),), -torch.inf)
    others = clean.scatter(1, y[:, None], -torch.inf)
    likeliest = others.topk(min(targets, clean.shape[1] - 1), 1).indices
    attack.init_hyperparam(x)
    for target in likeliest.unbind(1):
        attack.y_target = target
        for _ in range(attack.n_restarts):
            found = attack.attack_single_run(x, y)[0].detach()
            with torch.no_grad():
                value = margin(ask(found), y)
            better = value > highest
            best[better], highest[better] = found[better], value[better]
    return best


def square(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    queries: int,
    eot: int = 1,
    over: str = "probabilities",
    seed: int,
    batch: int = 500,
) -> Tensor:
    """Return the images where Square ended, which asks for logits and no gradients.

    Random search with squares (Andriushchenko et al., 2020) on the margin; an image is
    done when the mean of `eot` draws takes it for something else, so on a stochastic
    model a small `eot` ends early. `queries` means evaluations, each of `eot` draws.
    All else, and what is raised, is as for `pgd`; ε > 0.
    """
    from pyautoattack.square import SquareAttack

    def run(ask: Model, x: Tensor, y: Tensor) -> Tensor:
        attack = SquareAttack(
            ask, eps=epsilon, n_queries=queries, seed=seed, device=x.device
        )
        attack.init_hyperparam(x)
        return attack.attack_single_run(x, y)[1]

    whole("queries", queries, 1)
    return _each(run, model, x, y, epsilon, eot, over, seed, batch)


def _each(
    run: Callable, model, x, y, epsilon, eot, over, seed, batch, least=2
) -> Tensor:
    """Attack batch by batch, and keep the package's randomness to itself."""
    within("epsilon", epsilon, "[0, 1]")
    require(epsilon > 0, "epsilon must be > 0", epsilon)
    whole("eot", eot, 1)
    whole("batch", batch, 1)
    check_seed(seed)
    one_of("over", over, ("logits", "probabilities"))
    attackable(model, x, y, least=least, epsilon=epsilon)

    def ask(part: Tensor) -> Tensor:
        return merged(model, part.to(x.dtype), eot, over).float()

    found = []
    with frozen(model), evaluating(model), _seeded(seed), warnings.catch_warnings():
        # Of masked gradients, which `masking.findings` looks for.
        warnings.filterwarnings("ignore", "there are .* zero gradient", Warning)
        for part, labels in zip(x.split(batch), y.split(batch), strict=True):
            best = run(ask, part.float(), labels).detach().to(x.dtype)
            found.append(best.clamp(*ball(part, epsilon)))
    return torch.cat(found)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
