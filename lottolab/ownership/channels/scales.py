"""Take all scales out of weights, which ReLU and batch norm let a thief change."""

import torch
from torch import Tensor

from lottolab.ownership.channels.naming import State, signed_weights


def features(state: State) -> State:
    """Describe weights for comparison: float64, outputs × inputs × (2 × kernel).

    The roots of their positive, then of their negative parts, after all scales are
    taken out: rows and columns are divided so that the logarithms of the kernels'
    norms, over the kernels that are not zero, are 0 on average in every row and every
    column. Whatever positive factors rows and columns had, this is the same. The sign
    of batch norm's gamma goes into the rows, where folding would put it.
    """
    result = {}
    for name, weight in signed_weights(state).items():
        norms = weight.norm(dim=2, keepdim=True)
        alive = norms > 0
        logs = norms.where(alive, torch.ones(())).log()
        scaled = weight / additive(logs, alive).exp()
        result[name] = torch.cat([scaled.relu(), (-scaled).relu()], 2).sqrt()
    return result


def additive(values: Tensor, counts: Tensor, robust: bool = False) -> Tensor:
    """Fit values[i, j, k], which counts so much, by a[i] + b[j]; return the fit, n×m×1.

    Least squares, or the least sum of absolute errors if `robust`, by reweighting.
    """
    weights = counts.double()
    rows = values.shape[0]
    for _ in range(20 if robust else 1):
        count, total = weights.sum(2), (weights * values).sum(2)
        top = torch.cat([count.sum(1).diag(), count], 1)
        normal = torch.cat([top, torch.cat([count.T, count.sum(0).diag()], 1)])
        # The ridge settles what is free: a constant between the rows and the columns.
        ridge = 1e-9 * count.sum(1).max().clamp_min(1.0)
        normal += ridge * torch.eye(len(normal), dtype=normal.dtype)
        right = torch.cat([total.sum(1), total.sum(0)])
        found = torch.linalg.solve(normal, right)
        fit = (found[:rows, None] + found[rows:])[:, :, None]
        weights = counts / (values - fit).abs().clamp_min(1e-3)
    return fit
