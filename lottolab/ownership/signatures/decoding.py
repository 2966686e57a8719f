"""What a reader of damaged codes is worth."""

from collections.abc import Sequence
from types import ModuleType

import numpy as np
import pandas as pd
from qrcode import base
from scipy import special, stats

from lottolab.checks import one_of, require, within
from lottolab.ownership.signatures import qr

READERS = ("hard", "soft", "zbar", "zxing")
PIXELS = 4  # a module in the picture


def compare(
    text: str,
    ecc: str,
    flips: list[float],
    trials: int,
    seed: int,
    readers: Sequence[str],
) -> pd.DataFrame:
    """Flip data modules of a text's code at random and count who still reads the text.

    All readers see the same draws of `channel`. `hard` corrects errors in the matrix of
    modules, `soft` erases doubtful bytes too, and `zbar` and `zxing` read a picture in
    which the finder, timing and format patterns are whole.

    Args:
        flips: probabilities that a module flips, each in [0, 0.2].
        trials: draws for each of them, at least 1.
        readers: some of `READERS`, none of them `absent`.

    Returns a row for each reader and flip: reader, flipped (the probability), read
    (share of the trials in which the text was read) and trials.

    Raises:
        ValueError: an argument is not allowed, or a reader is absent.
    """
    missing = absent(text)
    for reader in readers:
        one_of("reader", reader, READERS)
        why = missing.get(reader)
        require(why is None, f"readers must leave {reader} out where {why}", readers)
    inside = len(flips) > 0 and all(0 <= flip <= 0.2 for flip in flips)
    require(inside, "flips must be probabilities in [0, 0.2]", flips)
    require(trials >= 1, "trials must be at least 1", trials)
    modules, form = qr.encode(text, ecc)
    rows = []
    for place, flip in enumerate(flips):
        random = np.random.default_rng([seed, place])
        counts = dict.fromkeys(readers, 0)
        for _ in range(trials):
            noisy, doubt = channel(modules, flip, random)
            for reader in readers:
                counts[reader] += _read(reader, noisy, form, doubt) == text
        rows += [(reader, flip, n / trials, trials) for reader, n in counts.items()]
    return pd.DataFrame(rows, columns=["reader", "flipped", "read", "trials"])


def absent(text: str) -> dict[str, str]:
    """Say which of `READERS` cannot read `text` on this machine, and why not."""
    found = {}
    if _zbar() is None:
        found["zbar"] = (
            "the library zbar is missing (apt install libzbar0, brew install zbar, "
            "dnf install zbar)"
        )
    elif not text.isascii():
        found["zbar"] = "the text is not ASCII: zbar guesses the alphabet of its bytes"
    if _zxing() is None:
        found["zxing"] = "zxing-cpp is missing (pip install zxing-cpp)"
    return found


def channel(
    modules: np.ndarray, flip: float, random: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Send modules through a channel with Gaussian noise, each with its own.

    A module is sent as ±1 and received as v = ±1 + σ·N(0, 1), where σ makes the sign of
    v wrong with probability `flip`, in [0, 0.5).

    Returns the signs, bool as `modules`, and the doubts: the probability that a sign is
    wrong, given |v|, which is 1 / (1 + exp(2|v| / σ²)), float in [0, 0.5].
    """
    require(0 <= flip < 0.5, "flip must be in [0, 0.5)", flip)
    if flip == 0:
        return modules.copy(), np.zeros(modules.shape)
    sigma = -1 / stats.norm.ppf(flip)
    received = np.where(modules, 1, -1) + sigma * random.standard_normal(modules.shape)
    return received > 0, special.expit(-2 * np.abs(received) / sigma**2)


def expected(version: int, ecc: str, flip: float) -> float:
    """Return the probability that all blocks of a code are corrected, in [0, 1].

    Exact for data modules that flip independently with probability `flip`, in [0, 1]: a
    byte is wrong with probability 1 − (1 − flip)⁸, and a block with c check bytes is
    corrected if at most c / 2 of its bytes are wrong.

    Raises:
        ValueError: version, ecc or flip is not allowed.
    """
    one_of("version", version, range(1, 41))
    one_of("ecc", ecc, qr.LEVELS)
    within("flip", flip, "[0, 1]")
    wrong = 1 - (1 - flip) ** 8
    chance = 1.0
    for block in base.rs_blocks(version, qr.LEVELS[ecc]):
        corrected = (block.total_count - block.data_count) // 2
        chance *= stats.binom.cdf(corrected, block.total_count, wrong)
    return float(chance)


def _read(
    reader: str, modules: np.ndarray, form: qr.Format, doubt: np.ndarray
) -> str | None:
    if reader in ("zbar", "zxing"):
        read = {"zbar": _read_zbar, "zxing": _read_zxing}[reader]
        found = read(_picture(modules, form))
        return None if found is None else found.decode(errors="replace")
    return qr.decode(modules, form, doubt if reader == "soft" else None).text


def _picture(modules: np.ndarray, form: qr.Format) -> np.ndarray:
    """Draw the code with the four light modules around it that readers expect: uint8,
    pixels a side × the same."""
    whole = np.pad(qr.draw(modules, form), 4)
    grey = np.where(whole, 0, 255).astype(np.uint8)
    return np.kron(grey, np.ones((PIXELS, PIXELS), dtype=np.uint8))


def _read_zbar(picture: np.ndarray) -> bytes | None:
    zbar = _zbar()
    codes = zbar.decode(picture, symbols=[zbar.ZBarSymbol.QRCODE])
    return codes[0].data if codes else None


def _read_zxing(picture: np.ndarray) -> bytes | None:
    zxing = _zxing()
    kind = zxing.BarcodeFormat.QRCode
    code = zxing.read_barcode(picture, formats=kind, is_pure=True)
    # What cannot be read in a pure picture is no None, but a code that is not valid.
    return code.bytes if code is not None and code.valid else None


def _zbar() -> ModuleType | None:
    """Import pyzbar where its library, which pip does not install, can be loaded."""
    try:
        from pyzbar import pyzbar
    except (ImportError, OSError):
        return None
    return pyzbar


def _zxing() -> ModuleType | None:
    try:
        import zxingcpp
    except (ImportError, OSError):
        return None
    return zxingcpp
