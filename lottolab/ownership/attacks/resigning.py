"""Write another signature where the owner's stands, and keep it by training.

The paper's insider fills the owner's region with a pattern of noise (fake_3). A thief
who goes on to use the network signs it again in the very window, which he knows or
finds (`detector`): what the owner wrote there is gone, the layer keeps its number of
weights, and a few epochs under the new mask repair the accuracy.
"""

import math
import unicodedata

import numpy as np

from lottolab.checks import check_seed, one_of, require
from lottolab.ownership.channels.naming import State
from lottolab.ownership.signatures import embedding, qr, signature
from lottolab.ownership.signatures.key import SignatureKey, digest


def resign(
    state: State,
    text: str,
    secret: str,
    *,
    layer: str,
    row: int,
    column: int,
    version: int,
    ecc: str = "H",
    seed: int = 0,
) -> tuple[State, SignatureKey]:
    """Sign a stolen network with `text` in a window that is given.

    New weights have the layer's mean |w| and a random sign; the masks to train on under
    are `removal.sparsity` of the result.

    Args:
        secret: the thief's own. layer: a convolution. row, column: of the window's
            first output and input channel. version: of the code, the owner's so that
            all of the window is rewritten.

    Returns the network with the thief's signature, and his key.

    Raises:
        ValueError: the window is not in the layer, the text does not fit, or the layer
            has too few or too many weights for the code.
    """
    check_seed(seed)
    one_of("layer", layer, state)
    right = state[layer].ndim == 4
    require(right, f"{layer} must be a convolution", f"{state[layer].ndim} axes")
    text = unicodedata.normalize("NFC", text)
    modules, form = qr.encode(text, ecc, version=version)
    shape = tuple(state[layer].shape[:2])
    key = SignatureKey(
        layer=layer,
        shape=shape,
        row=row,
        column=column,
        version=version,
        ecc=ecc,
        mask=form.mask,
        secret=secret,
        windows=math.prod(max(n - form.size + 1, 0) for n in shape),
        threshold=0.0,
        digest=digest(text),
    )
    wanted = signature.covered(modules, key)
    random = np.random.default_rng(seed)
    mask = embedding.write(state[layer] != 0, wanted, key, random)
    filled = embedding.fill(state[layer], mask, seed)
    return state | {layer: filled}, key
