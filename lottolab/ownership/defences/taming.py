"""Read a layer whose zeros are full of dust and whose channels hide behind a giant.

`squeeze` measures a kernel against the largest of its output channel. A thief who puts
a huge weight where it does nothing, and a tiny one wherever there was none, leaves no
share that tells living kernels from empty ones. Living weights are most of what is
large, though, so that a quantile of them can stand for the channel: one giant does not
move it.
"""

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import number
from lottolab.ownership.channels.naming import State
from lottolab.ownership.signatures import qr, squeeze
from lottolab.ownership.signatures.key import SignatureKey

SPARE = 0.02  # of a row's kernels may be giants, whatever they hide
FEW = 0.05  # of a row's kernels that are tiny are the owner's own
MIDDLE = (0.3, 0.7)  # shares of living modules that coins do not leave


def tame(state: State, *, gap: float = 2.0, most: float = 100.0) -> State:
    """Take dust and giants out of every weight of two and more axes.

    In each row the kernels' largest |w| are put in order, without the largest 2 %, at
    least one. What lies below the widest gap, if it is `gap` decades or wider and there
    are more than a few, is dust and becomes zero; what is larger than `most` times the
    median of those above becomes that large. A network of neither stays as it is.

    Raises:
        ValueError: gap or most out of range.
    """
    number("gap", gap, 0.1)
    number("most", most, 1)
    wide = {n: w for n, w in state.items() if w.ndim > 1 and w.is_floating_point()}
    return state | {name: _tamed(weight, gap, most) for name, weight in wide.items()}


def window_shares(state: State, key: SignatureKey) -> np.ndarray:
    """Divide each kernel of the window by its row's typical living one: size × size.

    Half of a covered row's kernels live, up to chance, so that the upper quartile of
    the row's largest |w| is the median of the living.

    Raises:
        ValueError: as `squeeze.extract`.
    """
    squeeze.extract(state, key)  # refuses what cannot be read
    weights = state[key.layer][key.window].double().abs()
    strength = weights.flatten(2).amax(2)
    typical = strength.quantile(0.75, dim=1, keepdim=True)
    return (strength / typical).nan_to_num(0.0, posinf=np.inf).cpu().numpy()


def threshold(state: State, key: SignatureKey) -> float:
    """Return the share, in `window_shares`, that parts living from empty modules.

    The middle of the widest gap, in decades, among the data modules; only gaps count
    that leave between 30 and 70 % of them alive. It depends on the network alone.

    Raises:
        ValueError: as `squeeze.extract`.
    """
    places = tuple(qr.places(key.version).T)
    shares = np.sort(window_shares(state, key)[places])
    low, high = (round(len(shares) * (1 - part)) for part in MIDDLE[::-1])
    tiny = shares[shares > 0].min(initial=1.0) * 1e-3
    logs = np.log10(shares.clip(tiny, 1e300))[low : high + 1]
    widest = int(np.diff(logs).argmax())
    return float(10 ** logs[widest : widest + 2].mean())


def extract(state: State, key: SignatureKey) -> np.ndarray:
    """Read the covered modules by `window_shares` and `threshold`, bool size×size."""
    return window_shares(state, key) > threshold(state, key)


def _tamed(weight: Tensor, gap: float, most: float) -> Tensor:
    kernels = weight.double().reshape(*weight.shape[:2], -1)
    strength = kernels.abs().amax(2)
    logs = strength.clamp_min(1e-300).log10().sort(1).values
    columns = logs.shape[1]
    inner = logs[:, : columns - max(1, int(SPARE * columns))]
    steps = inner.diff(dim=1).where(inner[:, :-1] > -299, torch.zeros(()).double())
    if not steps.shape[1]:
        return weight
    widest, at = steps.max(1)
    rows = torch.arange(len(logs))
    edge = 10 ** ((inner[rows, at] + inner[rows, (at + 1)]) / 2)
    below = ((strength > 0) & (strength <= edge[:, None])).sum(1)
    many = below > max(1, FEW * columns)
    edge = edge.where((widest >= gap) & many, torch.zeros(()).double())
    dust = kernels.abs() <= edge.view(-1, 1, 1)
    living = strength.where(strength > edge[:, None], torch.nan)
    limit = (most * living.nanmedian(1).values).nan_to_num(torch.inf).view(-1, 1, 1)
    clean = kernels.masked_fill(dust, 0)
    clean = torch.maximum(torch.minimum(clean, limit), -limit)
    same = ~dust & (kernels.abs() <= limit)
    clean = torch.where(same, weight.reshape(kernels.shape), clean.to(weight.dtype))
    return clean.view_as(weight)
