"""Account for privacy: the noise that keeps to an ε, and the ε that steps have spent.

Opacus adds up the Rényi divergences of the steps. It is imported where it is used: that
takes a second.
"""

import functools

import numpy as np

from lottolab.checks import number, require, whole, within

# Orders of Rényi divergence: those of Opacus, and more for an ε below 1/2.
ORDERS = [*np.arange(11, 110) / 10, *range(12, 65), 80, 96, 128, 192, 256, 512, 1024]


@functools.lru_cache
def noise_multiplier(epsilon: float, delta: float, rate: float, steps: int) -> float:
    """Find the σ with which `steps` steps spend at most ε, and at least 0.999 ε.

    `rate` is q in (0, 1], `steps` >= 1. Raises ValueError for anything else, ε <= 0,
    δ outside (0, 1), or an ε that no σ up to a million reaches.

    >>> round(noise_multiplier(6.28, 1e-5, 0.05, 200), 2)
    0.93
    """
    from opacus.accountants.utils import get_noise_multiplier

    within("epsilon", epsilon, "(0, 1e6]")
    _check_steps(rate, steps, delta)
    asked = {"target_epsilon": epsilon, "epsilon_tolerance": 1e-3 * epsilon}
    asked |= {"target_delta": delta, "sample_rate": rate, "steps": steps}
    return get_noise_multiplier(**asked, accountant="rdp", alphas=ORDERS)


@functools.lru_cache
def spent(sigma: float, rate: float, steps: int, delta: float) -> float:
    """Return the ε of `steps` steps at δ, by Rényi differential privacy.

    Of the subsampled Gaussian mechanism (Mironov et al., 2019), as Opacus adds it up.
    It is an upper bound: exact accounting gives some 10 % less.

    Without noise it is infinite.

    Raises ValueError for σ < 0, and what `noise_multiplier` refuses.
    """
    from opacus.accountants import RDPAccountant

    number("sigma", sigma, 0, 1e100)
    require(sigma == 0 or sigma >= 1e-6, "sigma must be 0 or >= 1e-6", sigma)
    _check_steps(rate, steps, delta)
    accountant = RDPAccountant()
    accountant.history = [(sigma, rate, steps)]
    # With a large δ the conversion gives a number below 0, which no ε is.
    return max(0.0, accountant.get_epsilon(delta=delta, alphas=ORDERS))


def _check_steps(rate: float, steps: int, delta: float) -> None:
    within("rate", rate, "(0, 1]")
    whole("steps", steps, 1)
    within("delta", delta, "(0, 1)")
