"""Read a layer whose zeros are full of dust and whose channels hide behind a giant.

`squeeze` measures a kernel against the largest of its output channel. A thief who puts
a huge weight where it does nothing, and a tiny one wherever there was none, leaves no
share that tells living kernels from empty ones. Living weights are most of what is
large, though, so that a quantile of them can stand for the channel: a few giants do not
move it.
"""

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import number
from lottolab.ownership.channels.naming import State
from lottolab.ownership.signatures import qr, squeeze
from lottolab.ownership.signatures.key import SignatureKey

SPARE = 0.02  # of a row's kernels may be giants, and are never what they hide
FEW = 0.05  # of a row's kernels that are tiny are the owner's own
MIDDLE = (0.3, 0.7)  # shares of living modules that coins do not leave


def tame(state: State, *, gap: float = 2.0, most: float = 100.0) -> State:
    """Take dust and giants out of every weight of two and more axes.

    In each row the kernels' largest |w| are put in order and parted wherever the next
    is `gap` decades larger, but for the few smallest, which are the owner's own. The
    lowest part is dust and becomes zero if it is larger than the number of zeros, which
    the thief filled, and if more than a few stand above. Of the others the part of most
    kernels is the owner's: what is larger than `most` times its median becomes that
    large, however many giants there are and whatever their sizes. A network of neither
    stays as it is.

    Raises:
        ValueError: gap or most out of range.
    """
    number("gap", gap, 0.1)
    number("most", most, 1)
    wide = {n: w for n, w in state.items() if w.ndim > 1 and w.is_floating_point()}
    wide = {n: w for n, w in wide.items() if w.numel()}
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
    ordered, part = _parted(strength, gap)
    columns = strength.shape[1]
    count = torch.zeros(len(part), columns + 2, dtype=torch.long)
    count.scatter_add_(1, part, torch.ones_like(part))
    above = count[:, 2:].amax(1)
    dusty = (count[:, 1] > max(1, FEW * columns)) & (count[:, 1] > count[:, 0])
    dusty &= above > max(1, SPARE * columns)
    count[:, 0] = 0
    count[dusty, 1] = 0
    own = part == count.argmax(1, keepdim=True)
    low = ordered.masked_fill(part != 1, 0).amax(1)
    edge = low.where(dusty, torch.zeros(()).double()).view(-1, 1, 1)
    middle = ordered.where(own & (part > 0), torch.nan).nanmedian(1).values
    limit = (most * middle).nan_to_num(torch.inf, torch.inf).view(-1, 1, 1)
    clean = kernels.masked_fill(kernels.abs() <= edge, 0)
    clean = torch.maximum(torch.minimum(clean, limit), -limit)
    same = (kernels.abs() > edge) & (kernels.abs() <= limit)
    clean = torch.where(same, weight.reshape(kernels.shape), clean.to(weight.dtype))
    return clean.view_as(weight)


def _parted(strength: Tensor, gap: float) -> tuple[Tensor, Tensor]:
    """Order each row and number its parts: 0 what is zero, 1 what is smallest …"""
    ordered = strength.sort(1).values
    some = ordered > 0
    logs = ordered.clamp_min(1e-300).log10()
    few = max(1, int(FEW * strength.shape[1]))
    starts = torch.zeros_like(some)
    starts[:, 1:] = (logs.diff(dim=1) >= gap) & (some.cumsum(1)[:, :-1] > few)
    return ordered, some.long() + (starts & some).long().cumsum(1) * some
