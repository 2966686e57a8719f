"""Does a model hide its gradient, so that a gradient attack only seems to fail?

The signs are those of Athalye et al. (2018), "Obfuscated gradients give a false sense
of security", and Carlini et al. (2019), "On evaluating adversarial robustness".
"""

from itertools import chain

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from lottolab.checks import check_seed, require, whole, within
from lottolab.checks.attacks import attackable
from lottolab.ensembles.attacks.gradient import gradient, pgd
from lottolab.ensembles.queries import (
    Model,
    answers,
    correct,
    evaluating,
    frozen,
    margin,
)

ROUNDING = 1e-9  # a difference of shares that is its limit is not beyond it


def findings(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    epsilon: float,
    step: float,
    steps: int,
    black_box: dict[str, Tensor] | None = None,
    eot: int = 1,
    slack: float = 0.02,
    corners: int = 20,
    stop: bool = False,
    seed: int,
) -> pd.DataFrame:
    """Look for signs of masked gradients; return a row a check.

    The white-box attack that is checked is `pgd` with these settings. Each value should
    be at most its limit; `masked` marks those that are not.

    - `no gradient`: share of images whose gradient is 0 or not finite.
    - `large epsilon`: accuracy at ε = 1, where any image may be shown.
    - `more steps`: accuracy that five times the steps and two starts more leave, above
      what the attack leaves.
    - `other loss`: accuracy that the attack leaves, above what it leaves when it
      climbs the margin in place of the cross-entropy.
    - `one step`: accuracy that the attack leaves, above what one step of 2 ε leaves,
      which ends on the ball's corners.
    - `overfitted to one step`: accuracy that this one step leaves, above what the
      attack with more steps leaves; far apart after one-step training that collapsed
      (Wong et al., 2020). Limit 0.25.
    - `random corners`: share of images whose margin the best of random ± ε moves raises
      more than the gradient's sign does. Limit 0.1.
    - `black box: …`: accuracy that the attack leaves, above that on these images, which
      the caller has made without the model's gradient (Square, or another model's).

    Args:
        x, y, epsilon, step, steps, eot, stop, seed: as for `pgd`.
        black_box: name to images, each within ε of `x`.
        slack: the limit of every check that names none, in [0, 1).

    Returns:
        Columns `check`, `value`, `limit`, `masked`.

    Raises:
        ValueError: anything is not as above, or what `pgd` refuses.
    """
    check_seed(seed)
    attackable(model, x, y, epsilon=epsilon, step=step)
    within("slack", slack, "[0, 1)")
    whole("corners", corners, 1)
    shared = {"eot": eot, "stop": stop, "seed": seed}

    def left(**settings) -> float:
        size = {"epsilon": epsilon, "step": step, "steps": steps} | settings
        return _accuracy(model, pgd(model, x, y, **shared | size), y)

    white, other = left(), left(loss="margin")
    more = left(steps=5 * steps, restarts=3)
    once = left(step=2 * epsilon, steps=1)
    values = {
        "no gradient": _without_gradient(model, x, y, eot),
        "large epsilon": left(epsilon=1.0, step=max(step, 2.5 / steps)),
        "more steps": more - white,
        "other loss": white - other,
        "one step": white - once,
        "overfitted to one step": once - more,
        "random corners": _beaten(model, x, y, epsilon, eot, corners, seed),
    }
    for name, images in (black_box or {}).items():
        far = float((images - x).abs().max())
        require(far <= epsilon + 1e-6, f"{name} must be within epsilon of x", far)
        values[f"black box: {name}"] = white - _accuracy(model, images, y)
    table = pd.DataFrame({"check": list(values), "value": list(values.values())})
    limits = {"overfitted to one step": 0.25, "random corners": 0.1}
    table["limit"] = table["check"].map(limits).fillna(slack)
    above = table["value"] - table["limit"]
    return table.assign(masked=above > ROUNDING)


def surface(
    model: Model, x: Tensor, y: Tensor, *, epsilon: float, points: int = 11, seed: int
) -> pd.DataFrame:
    """Return the mean margin on a plane through the images, for a drawing.

    One axis is the sign of the gradient, the other random signs, both in [−ε, ε]. Where
    nothing is masked the surface is smooth and climbs along the first.

    Columns: `gradient`, `random`, `margin`; `points`² rows.
    """
    attackable(model, x, y, epsilon=epsilon)
    whole("points", points, 2)
    check_seed(seed)
    with frozen(model), evaluating(model), torch.no_grad():
        along = gradient(model, x, y, loss="margin", eot=1, over="losses")[0].sign()
        across = _signs(x, torch.Generator().manual_seed(seed))
        rows = []
        for a in np.linspace(-epsilon, epsilon, points):
            for b in np.linspace(-epsilon, epsilon, points):
                moved = (x + a * along + b * across).clamp(0, 1)
                rows.append((a, b, float(margin(model(moved), y).mean())))
    return pd.DataFrame(rows, columns=["gradient", "random", "margin"])


def _accuracy(model: Model, x: Tensor, y: Tensor) -> float:
    return float(correct(model, x, y).double().mean())


def _without_gradient(model: Model, x: Tensor, y: Tensor, eot: int) -> float:
    with frozen(model), evaluating(model):
        slope, _ = gradient(model, x, y, loss="ce", eot=eot, over="losses")
    size = slope.flatten(1).abs().amax(1)
    return float(((size == 0) | ~size.isfinite()).double().mean())


def _beaten(model, x, y, epsilon, eot, corners, seed) -> float:
    """Return the share of images where random signs beat those of the gradient."""
    generator = torch.Generator().manual_seed(seed)

    def reached(signs: Tensor) -> Tensor:
        moved = (x + epsilon * signs).clamp(0, 1)
        asked = chain.from_iterable(answers(model, moved, eot))
        return torch.stack([margin(logits, y) for logits in asked]).mean(0)

    with frozen(model), evaluating(model), torch.no_grad():
        slope, _ = gradient(model, x, y, loss="margin", eot=eot, over="losses")
        ours = reached(slope.sign())
        theirs = [reached(_signs(x, generator)) for _ in range(corners)]
    return float((torch.stack(theirs).amax(0) > ours).double().mean())


def _signs(x: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.randint(2, x.shape, generator=generator)
    return (2 * drawn - 1).to(x.device, x.dtype)
