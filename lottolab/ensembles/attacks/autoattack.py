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

from lottolab.checks import one_of, require, whole
from lottolab.checks.attacks import attackable
from lottolab.ensembles.queries import Model, ball, evaluating, frozen, merged


def apgd(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    steps: int,
    restarts: int = 1,
    loss: str = "ce",
    eot: int = 1,
    over: str = "probabilities",
    seed: int,
    batch: int = 128,
) -> Tensor:
    """Return the images of the largest loss that APGD found in the ball.

    Auto-PGD chooses its step size from its progress, image by image. `loss` is `ce` or
    `dlr`, the difference of logits ratio, which takes at least three classes; `over` is
    `logits` or `probabilities`. All else, and what is raised, is as for `pgd`; ε > 0.
    """
    from pyautoattack.autopgd_base import APGDAttack

    one_of("loss", loss, ("ce", "dlr"))
    attackable(model, x, y, least=3 if loss == "dlr" else 2, epsilon=epsilon)
    settings = {"n_iter": steps, "n_restarts": restarts, "eps": epsilon, "loss": loss}

    def run(ask: Model, x: Tensor, y: Tensor) -> Tensor:
        attack = APGDAttack(ask, **settings, seed=seed, device=x.device)
        return attack.perturb(x, y, best_loss=True)

    whole("steps", steps, 1)
    whole("restarts", restarts, 1)
    return _each(run, model, x, y, epsilon, eot, over, seed, batch)


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


def _each(run: Callable, model, x, y, epsilon, eot, over, seed, batch) -> Tensor:
    """Attack batch by batch, and keep the package's randomness to itself."""
    attackable(model, x, y, epsilon=epsilon)
    require(epsilon > 0, "epsilon must be > 0", epsilon)
    whole("eot", eot, 1)
    whole("batch", batch, 1)
    one_of("over", over, ("logits", "probabilities"))

    def ask(x: Tensor) -> Tensor:
        return merged(model, x, eot, over)

    found = []
    with frozen(model), evaluating(model), _seeded(seed), warnings.catch_warnings():
        # Of masked gradients, which `masking.findings` looks for.
        warnings.filterwarnings("ignore", "there are .* zero gradient", Warning)
        for part, labels in zip(x.split(batch), y.split(batch), strict=True):
            low, high = ball(part, epsilon)
            found.append(run(ask, part, labels).detach().clamp(low, high))
    return torch.cat(found)


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    with torch.random.fork_rng(devices=range(torch.cuda.device_count())):
        torch.manual_seed(seed)
        yield
