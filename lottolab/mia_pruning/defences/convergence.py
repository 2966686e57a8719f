"""Say whether ADMM has converged, and choose penalties with which it can.

ADMM splits "train, but sparsely" into W, which trains, and Z, which is sparse. It has
converged when they are one: the primal residual ‖W − Z‖ and the dual residual
ρ‖Z − Z_before‖ are small beside the weights (Boyd et al., 2011, section 3.3.1). Before
that, cutting W to Z's places is pruning by magnitude after some more training, and says
nothing about ADMM.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from torch import Tensor, nn

from lottolab.checks import one_of, require, tensors, whole, within
from lottolab.mia_pruning.defences import admm
from lottolab.nets import train
from lottolab.nets.masks import Masks

SMALL = 0.01  # a residual, beside the norm of the weights, that counts as none
RESIDUALS = ["epoch", "rho", "primal", "dual", "primal_relative", "dual_relative"]
COLUMNS = ["iteration", "primal", "dual"]


class Run(NamedTuple):
    """What `admm_run` leaves beside the pruned model.

    masks, history: those of `admm_prune`. residuals: see `residuals`.
    settled: the epoch from which on both are small; None where they never are.
    overlap: the share of the kept weights that pruning by magnitude keeps too, each
        layer as sparse, of the weights that ADMM started from.
    """

    masks: Masks
    history: pd.DataFrame
    residuals: pd.DataFrame
    settled: int | None
    overlap: float


def admm_run(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    recipe: train.Recipe,
    counts: admm.Counts,
    *,
    tolerance: float = SMALL,
    **options,
) -> Run:
    """Prune by `admm.admm_prune`, and say whether it has converged.

    `options` are that function's, and so are all other arguments. The penalty has to
    let it: see `rhos`.

    Raises ValueError for a tolerance outside (0, 1), and what `admm_prune` refuses.
    """
    within("tolerance", tolerance, "(0, 1)")
    tensors.network(model)
    admm.cardinalities(dict(model.named_parameters()), counts)
    found = dict(model.named_parameters())
    start = {name: found[name].detach().cpu().clone() for name in counts}
    scale = float(sum(w.double().square().sum() for w in start.values())) ** 0.5
    masks, history = admm.admm_prune(model, images, labels, recipe, counts, **options)
    shown = residuals(history, scale)
    by_size = admm.support(start, counts)
    return Run(
        masks, history, shown, settled(shown, tolerance), overlap(masks, by_size)
    )


def residuals(history: pd.DataFrame, scale: float) -> pd.DataFrame:
    """Return the residuals of each epoch of ADMM: a row an epoch.

    `history` is that of `admm_prune`; `scale` > 0 is the norm of the weights that ADMM
    started from, over all layers that it prunes. The columns are `epoch`, `rho`,
    `primal` = ‖W − Z‖, `dual` = ρ‖Z − Z_before‖, and both without ρ, divided by the
    scale: `primal_relative` and `dual_relative`.

    Raises ValueError where there is no epoch of ADMM, or the scale is not > 0.
    """
    within("scale", scale, "(0, inf)")
    missing = sorted({"phase", "rho", "primal", "moved"} - set(history))
    require(not missing, "history must be that of admm_prune", f"none of {missing}")
    part = history[history["phase"] == "admm"]
    require(len(part) > 0, "history must have an epoch of ADMM", "none")
    shown = part[["epoch", "rho", "primal"]].assign(dual=part["rho"] * part["moved"])
    shown["primal_relative"] = part["primal"] / scale
    shown["dual_relative"] = part["moved"] / scale
    return shown[RESIDUALS].reset_index(drop=True)


def settled(shown: pd.DataFrame, tolerance: float = SMALL) -> int | None:
    """Return the epoch from which on both relative residuals are small, or None.

    They have to be so to the end: a residual that is small once and grows again is that
    of a swing.
    """
    within("tolerance", tolerance, "(0, 1)")
    both = shown[["primal_relative", "dual_relative"]].to_numpy().max(axis=1)
    large = np.flatnonzero(~(both <= tolerance))
    first = int(large[-1]) + 1 if len(large) else 0
    return int(shown["epoch"].iloc[first]) if first < len(shown) else None


def rhos(
    recipe: train.Recipe, images: int, *, least: float = 3.0, most: float = 100.0
) -> list[float]:
    """Return the first and the last ρ of a run that can follow Z, and settles.

    What matters is how far an epoch of SGD brings W towards Z, ρ × lr × steps / (1 −
    momentum): at `least` it follows, at `most` nothing is left between them. The rate
    must be constant.

    Raises ValueError for an optimiser other than SGD, a rate that falls, and a `most`
    for which SGD diverges: ρ × lr must stay below 2 (1 + momentum).

    >>> recipe = train.Recipe(lr=0.1, batch=100, schedule="constant", momentum=0.9)
    >>> [round(rho, 6) for rho in rhos(recipe, 1000)]
    [0.3, 10.0]
    """
    one_of("optimiser", recipe.optimiser, ("sgd",))
    one_of("schedule", recipe.schedule, ("constant",))
    whole("images", images, recipe.batch)
    within("least", least, "(0, inf)")
    within("most", most, "(0, inf)")
    require(least <= most, f"most must be at least {least}", most)
    unit = recipe.lr * (images // recipe.batch) / (1 - recipe.momentum)
    limit = 2 * (1 + recipe.momentum)
    pull = recipe.lr * most / unit
    what = f"most must keep rho × lr below {limit:g}, or SGD diverges"
    require(pull < limit, what, f"{pull:g}")
    return [least / unit, most / unit]


def overlap(masks: Masks, others: Masks) -> float:
    """Return the share of the weights kept by `masks` that `others` keep too.

    Raises ValueError unless both have the same layers, and something is kept.
    """
    same = sorted(set(masks) ^ set(others))
    require(not same, "both must have the same layers", f"{same} in one")
    kept = sum(int(mask.sum()) for mask in masks.values())
    require(kept > 0, "masks must keep at least one weight", kept)
    both = sum(int((mask.cpu() & others[n].cpu()).sum()) for n, mask in masks.items())
    return both / kept


def solve(
    minimise: Callable[[np.ndarray, float], np.ndarray],
    project: Callable[[np.ndarray], np.ndarray],
    start: Sequence[float],
    *,
    rho: float,
    iterations: int,
) -> tuple[np.ndarray, pd.DataFrame]:
    """Run ADMM with exact steps: of a problem so small that it can be solved otherwise.

    Minimise f(z) over a set. `minimise(v, rho)` returns the w that minimises f(w) +
    ρ/2 ‖w − v‖², `project(v)` the nearest point of the set. Where both are convex it
    converges to the solution for every ρ > 0, and the residuals fall to 0.

    Returns z, in the set, and a row an iteration: `iteration`, `primal` = ‖w − z‖ and
    `dual` = ρ‖z − z_before‖.

    Raises ValueError for a ρ that is not > 0, or no iteration.
    """
    within("rho", rho, "(0, inf)")
    whole("iterations", iterations, 1)
    z = project(np.asarray(start, dtype=float))
    u, rows = np.zeros_like(z), []
    for iteration in range(1, iterations + 1):
        w, before = minimise(z - u, rho), z
        z = project(w + u)
        u = u + w - z
        far, went = (float(np.linalg.norm(step)) for step in (w - z, z - before))
        rows.append((iteration, far, rho * went))
    return z, pd.DataFrame(rows, columns=COLUMNS)
