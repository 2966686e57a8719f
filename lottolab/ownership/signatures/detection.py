"""Look for a signature without its key: is it as imperceptible as the paper says?

The data modules of a covered code are fair coins. Where a layer's kernels are nearly
all alive, or nearly all empty, a square of coins stands out.
"""

import numpy as np

from lottolab.checks import require
from lottolab.ownership.signatures import qr


def prominence(kept: np.ndarray, version: int) -> np.ndarray:
    """Return how much more each window looks like coins than like its layer.

    The logarithm of a likelihood ratio: the window's data modules as tosses of a fair
    coin, against tosses with the share of living kernels of their output and input
    channel (the product of both shares over the layer's). The detector knows how the
    scheme works and the code's version, and nothing of the key.

    Args:
        kept: bool outputs × inputs, living kernels. version: of the QR code.

    Returns float rows × columns, one value for each place of the window.

    Raises:
        ValueError: the layer is smaller than the code.
    """
    side, where = 17 + 4 * version, qr.places(version)
    require(min(kept.shape) >= side, f"the layer must be {side}×{side}", kept.shape)
    share = kept.mean(1, keepdims=True) * kept.mean(0) / max(kept.mean(), 1e-9)
    share = share.clip(1 / kept.size, 1 - 1 / kept.size)
    usual = np.log(np.where(kept, share, 1 - share))
    gain = np.log(0.5) - usual
    rows, columns = (size - side + 1 for size in kept.shape)
    found = np.empty((rows, columns))
    for row in range(rows):
        for column in range(columns):
            found[row, column] = gain[row + where[:, 0], column + where[:, 1]].sum()
    return found
