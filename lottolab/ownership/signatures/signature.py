"""Scheme V2: write a text into the sparsity pattern of one layer, and read it again.

A layer's masks are squeezed to one bit a kernel, *empty* or *alive* (paper, Algorithm
2). A window of these bits is made equal to the data modules of a QR code, XORed with a
stream that only the owner's secret gives: to anybody else the bits are fair coins.
"""

import functools
import hashlib
import math
import secrets
import unicodedata
from dataclasses import dataclass, replace

import numpy as np
from scipy import stats
from torch import Tensor

from lottolab.checks import check_seed, one_of, require
from lottolab.ownership.channels import alignment
from lottolab.ownership.channels.matching import natural
from lottolab.ownership.signatures import embedding, qr
from lottolab.ownership.signatures.key import SignatureKey, digest
from lottolab.ownership.signatures.qr import Decoded
from lottolab.ownership.signatures.squeeze import (
    alive,
    calibrate,
    doubts,
    extract,
    median,
)

__all__ = [
    "ACCEPT",
    "UNREAD",
    "Decoded",
    "Verification",
    "alive",
    "calibrate",
    "choose",
    "covered",
    "decode",
    "doubts",
    "embed",
    "evidence",
    "extract",
    "longest",
    "verify",
]

ACCEPT = 1e-6  # a claim is made below this p-value
READINGS = 2  # of the modules, which a p-value pays for: see `verify`


@dataclass(frozen=True)
class Verification:
    """What a signature proves of a network.

    text: what was read, None if it cannot be read. corrected: bytes that the code
    corrected. agreement: share of the data modules that agree with the text's code.
    p_value: how likely an unrelated network agrees as well, see `verify`.
    """

    text: str | None
    corrected: int
    agreement: float
    p_value: float
    accepted: bool


UNREAD = Verification(None, 0, math.nan, 1.0, False)


def longest(masks: dict[str, Tensor], ecc: str) -> int:
    """Return how many bytes of text the largest layer has room for; 0 if none has.

    Raises:
        ValueError: no such level of error correction.
    """
    one_of("ecc", ecc, qr.LEVELS)
    version = min((embedding.room(masks) - 17) // 4, 40)
    return qr.capacity(version, ecc) if version > 0 else 0


def choose(
    masks: dict[str, Tensor],
    text: str,
    secret: str,
    *,
    ecc: str = "H",
    layer: str | None = None,
) -> tuple[np.ndarray, SignatureKey]:
    """Choose where to write `text`; nothing is written. Arguments as in `embed`.

    Of the windows the one that agrees most already is taken, so that the fewest weights
    move (paper, section 3.3.2).

    The text is written in Unicode's composed form (NFC).

    Returns the covered modules that are wanted there, bool size×size, and the key.

    Raises:
        ValueError: the text or the layer does not fit.
    """
    require(isinstance(text, str), "text must be a string", type(text).__name__)
    one_of("ecc", ecc, qr.LEVELS)
    text = unicodedata.normalize("NFC", text)
    modules, form = _encode(text, ecc, embedding.room(masks, layer))
    if layer is None:
        large = [n for n in masks if embedding.side(masks[n]) >= form.size]
        sparse = [n for n in large if not masks[n].all()] or large
        layer = min(sparse, key=lambda name: natural(str(name)))
    shape = tuple(masks[layer].shape[:2])
    windows = (shape[0] - form.size + 1) * (shape[1] - form.size + 1)
    place = {"layer": layer, "shape": shape, "row": 0, "column": 0}
    code = {"version": form.version, "ecc": ecc, "mask": form.mask}
    key = SignatureKey(
        **place,
        **code,
        secret=secret,
        windows=windows,
        threshold=0.0,
        digest=digest(text),
    )
    wanted = covered(modules, key)
    row, column = embedding.most_similar(alive(masks[layer]), wanted, form)
    return wanted, replace(key, row=row, column=column)


def embed(
    masks: dict[str, Tensor],
    text: str,
    *,
    ecc: str = "H",
    layer: str | None = None,
    seed: int = 0,
    secret: str | None = None,
) -> tuple[dict[str, Tensor], SignatureKey]:
    """Write `text` into the masks; each layer keeps exactly as many weights as it had.

    Args:
        masks: state-dict name to bool tensor, outputs × inputs × kernel.
        layer: the one to use; by default the first that is large enough and not dense,
            by name, numbers by value, since early layers lose the fewest weights
            (paper, section 3.3.2).
        seed: of the random connections. secret: hexadecimal; a new one if None.

    Returns new masks and the owner's key.

    Raises:
        ValueError: the text or the layer does not fit, or the layer has too few or
            too many weights for the code, or keeps two of every four.
    """
    check_seed(seed)
    secret = secrets.token_hex(32) if secret is None else secret
    wanted, key = choose(masks, text, secret, ecc=ecc, layer=layer)
    random = np.random.default_rng(seed)
    changed = embedding.write(masks[key.layer], wanted, key, random)
    return masks | {key.layer: changed}, key


def public(seed: int) -> str:
    """Return what stands for a secret in an experiment, which has to be repeatable."""
    return hashlib.sha256(f"lottolab signature {seed}".encode()).hexdigest()


def covered(modules: np.ndarray, key: SignatureKey) -> np.ndarray:
    """Put the owner's stream over the data modules, or take it off: bool size×size."""
    where = qr.places(key.version)
    result = modules.copy()
    result[where[:, 0], where[:, 1]] ^= key.stream()
    return result


def decode(
    modules: np.ndarray, key: SignatureKey, doubt: np.ndarray | None = None
) -> Decoded:
    """Read the text of covered modules, bool size×size; `doubt` as in `qr.decode`."""
    return qr.decode(covered(modules, key), key.form, doubt)


def verify(
    state: dict[str, Tensor],
    key: SignatureKey,
    *,
    claim: str | None = None,
    reference: dict[str, Tensor] | None = None,
) -> Verification:
    """Decide whether the network carries the owner's signature.

    The null hypothesis is that the network does not depend on the owner's secret. Then
    each data module agrees with a given code by the toss of a fair coin, whatever the
    mask looks like, and the p-value is the binomial tail times the windows that
    embedding chose from. The modules are read twice, at the key's threshold and at the
    window's median, which depends on the network alone and holds against small noise
    in every pruned place; the p-value pays for both.

    Without a `claim` the text is read blindly, and the p-value pays for every text that
    could have been read (a union bound over all codes). If neither reading gives one,
    the doubtful bytes are erased; only a text that is accepted then counts as read.

    With a `reference` the network's channels are brought into its order first, see
    `alignment.align`. It must not depend on the secret: the owner's ticket as it was
    before the secret was drawn.

    Raises:
        ValueError: the claim is not the text whose hash the key holds, or the network
            does not fit the key.
    """
    if claim is not None:
        written = key.spelling(claim)
        is_it = "the claim must be the text that the key was made for"
        require(written is not None, is_it, ascii(claim))  # shows what looks the same
    if reference is not None:
        state = alignment.align(state, reference)
    readings = [extract(state, key), extract(state, key, threshold=median(state, key))]
    decoded = [decode(modules, key) for modules in readings]
    found = next((d for d in decoded if d.text is not None), decoded[0])
    if claim is not None:
        agreement, p = max(evidence(m, key, written, READINGS) for m in readings)
        return Verification(found.text, found.corrected, agreement, p, p < ACCEPT)
    again = found.text is None
    if again:
        found = decode(readings[0], key, doubts(state, key))
    if found.text is None:
        return UNREAD
    texts = (READINGS + 1) * 256 ** qr.capacity(key.version, key.ecc)
    agreement, p = max(evidence(m, key, found.text, texts) for m in readings)
    if again and p >= ACCEPT:
        return UNREAD
    return Verification(found.text, found.corrected, agreement, p, p < ACCEPT)


def evidence(
    modules: np.ndarray, key: SignatureKey, text: str, tries: int = 1
) -> tuple[float, float]:
    """Compare covered modules, bool size×size, with the covered code of a text.

    Returns the share of data modules that agree, and the p-value of `verify`: times
    the windows, times the `tries` (texts and readings) that could have been made.
    """
    where = tuple(qr.places(key.version).T)
    code = _encode(text, key.ecc, version=key.version, mask=key.mask)[0]
    agree = int((modules[where] == covered(code, key)[where]).sum())
    count = len(where[0])
    log_p = stats.binom.logsf(agree - 1, count, 0.5) + math.log(key.windows * tries)
    return agree / count, math.exp(min(log_p, 0.0))


_encode = functools.lru_cache(maxsize=64)(qr.encode)
