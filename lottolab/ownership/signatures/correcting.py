"""Correct the bytes of one block of a QR code: Reed and Solomon's code, by reedsolo."""

import functools
import math

import numpy as np
from reedsolo import ReedSolomonError, RSCodec


def correct(
    block: bytes, parity: int, doubts: np.ndarray | None, *, first: bool
) -> tuple[bytes, int] | None:
    """Correct one block, erasing its 0, 2, 4 … most doubtful bytes before.

    Of what decodes the `first` is kept, or the best (generalised minimum distance;
    Forney, 1966): a byte that is changed counts the more the surer it was, from 0 for
    the most doubtful of the block to 1.

    Args:
        parity: how many of the bytes are check bytes. doubts: of each byte, the larger
            the worse; without them only errors are corrected.

    Returns the message and how many bytes were changed; None if nothing decodes.
    """
    codec, best, least = _codec(parity), None, math.inf
    steps = range(0, 1 if doubts is None else parity - 1, 2)
    doubts = np.zeros(len(block)) if doubts is None else doubts
    order = np.argsort(-doubts, kind="stable").tolist()
    sure = 1 - doubts / max(doubts.max(), 1e-300)
    for erased in steps:
        try:
            message, whole, _ = codec.decode(block, erase_pos=order[:erased])
        except ReedSolomonError:
            continue
        wrong = np.frombuffer(whole, np.uint8) != np.frombuffer(block, np.uint8)
        cost = float(sure[wrong].sum())
        if cost < least:
            best, least = (bytes(message), int(wrong.sum())), cost
        # From here on no other codeword can be as near.
        if first or len(block) - sure[~wrong].sum() + cost < parity + 1:
            break
    return best


_codec = functools.cache(RSCodec)
