"""QR codes as matrices of modules: what to write, where, and how to read it again.

Writing is qrcode's, error correction reedsolo's. What stands here is what neither
offers: the places of the data modules, and reading a matrix that is known to be a code
of a given version, level and mask, with its doubtful bytes erased first.
"""

import functools
from dataclasses import dataclass

import numpy as np
import qrcode
from qrcode import base, constants, util

from lottolab.checks import one_of, require, whole
from lottolab.ownership.signatures import correcting

LEVELS = {
    "L": constants.ERROR_CORRECT_L,
    "M": constants.ERROR_CORRECT_M,
    "Q": constants.ERROR_CORRECT_Q,
    "H": constants.ERROR_CORRECT_H,
}


@dataclass(frozen=True)
class Format:
    """What fixes how a matrix is read: version 1 to 40, level and mask 0 to 7.

    In an ordinary code the format is written into the picture; an owner keeps it.
    """

    version: int
    ecc: str
    mask: int

    @property
    def size(self) -> int:
        """Return the number of modules a side: 21 for version 1, 4 more for each."""
        return 17 + 4 * self.version


@dataclass(frozen=True)
class Decoded:
    """What was read: the text, None if it cannot be read, and the bytes corrected."""

    text: str | None
    corrected: int


def encode(
    text: str,
    ecc: str = "H",
    largest: int = 177,
    *,
    version: int | None = None,
    mask: int | None = None,
) -> tuple[np.ndarray, Format]:
    """Write `text` (UTF-8) into a code at level `ecc`.

    Args:
        largest: modules a side that there is room for.
        version: of the code; the smallest that holds the text if None.
        mask: its mask pattern; the one that the standard prefers if None.

    Returns its modules, bool size×size, True = dark, and its format.

    Raises:
        ValueError: an argument is not as above, or the code would not hold the text;
            the message says how many bytes would fit.
    """
    one_of("ecc", ecc, LEVELS)
    require(isinstance(text, str), "text must be a string", type(text).__name__)
    whole("largest", largest, 0)
    one_of("version", version, (None, *range(1, 41)))
    if mask is not None:
        one_of("mask", mask, range(8))
    length = len(text.encode())
    versions = [v for v in range(1, 41) if 17 + 4 * v <= largest]
    versions = [v for v in versions if version in (None, v)]
    fitting = [v for v in versions if capacity(v, ecc) >= length > 0]
    if not fitting:
        longest = max((capacity(v, ecc) for v in versions), default=0)
        raise ValueError(
            f"the text must have 1 to {longest} bytes to fit {largest}×{largest} "
            f"modules at level {ecc}, got {length}; shorten it or lower ecc"
        )
    code = _code(fitting[0], ecc, mask)
    code.add_data(util.QRData(text.encode(), mode=util.MODE_8BIT_BYTE), optimize=0)
    if mask is None:
        mask = code.mask_pattern = code.best_mask_pattern()
    code.make(fit=False)
    return np.array(code.modules, dtype=bool), Format(fitting[0], ecc, mask)


def capacity(version: int, ecc: str) -> int:
    """Return how many bytes of text a code holds."""
    data = sum(block.data_count for block in base.rs_blocks(version, LEVELS[ecc]))
    return data - (2 if version < 10 else 3)  # 4 bits of mode, 8 or 16 of length


@functools.cache
def places(version: int) -> np.ndarray:
    """Return (row, column) of each data module in the order of the bits, int n×2.

    Left out are the finder, alignment and timing patterns and the format and version
    information: what looks alike in every code, and would give it away.
    """
    free = _free(version)
    size, found, upwards = len(free), [], True
    columns = [c for c in range(size - 1, 0, -2) if c > 6]
    columns += [5, 3, 1]  # column 6 is a timing pattern, so pairs shift by one
    for right in columns:
        rows = range(size - 1, -1, -1) if upwards else range(size)
        pairs = [(r, c) for r in rows for c in (right, right - 1)]
        found += [pair for pair in pairs if free[pair]]
        upwards = not upwards
    return np.array(found)


def bits(modules: np.ndarray, form: Format) -> np.ndarray:
    """Read the data modules in order and take the mask off, bool n."""
    where = places(form.version)
    return modules[where[:, 0], where[:, 1]] ^ _mask(form)


def decode(
    modules: np.ndarray, form: Format, doubt: np.ndarray | None = None
) -> Decoded:
    """Read the text of a matrix and how many bytes had to be corrected.

    Args:
        modules: bool size×size; only the data modules are looked at.
        doubt: how doubtful each module is, float size×size, larger is worse; at best
            the probability that it is wrong. Bytes are erased from the largest sum on,
            two at a time, until a block decodes; where there are many blocks, each is
            the one of all these that changes the surest bytes least, since of many one
            is soon wrong. Without it only errors are corrected.
    """
    stream = bits(modules, form)
    where = places(form.version)
    doubts = None if doubt is None else doubt[where[:, 0], where[:, 1]]
    codewords = np.packbits(stream[: len(stream) // 8 * 8])
    content, corrected = bytearray(), 0
    blocks = _blocks(form)
    for index, data in blocks:
        block, parity = bytes(codewords[index]), len(index) - data
        sums = None if doubts is None else _by_byte(doubts)[index]
        # One block alone keeps the first that decodes: data/results were made so.
        found = correcting.correct(block, parity, sums, first=len(blocks) == 1)
        if found is None:
            return Decoded(None, 0)
        content += found[0]
        corrected += found[1]
    text = _text(content, form.version)
    return Decoded(text, 0 if text is None else corrected)


def draw(modules: np.ndarray, form: Format) -> np.ndarray:
    """Put the function patterns back around the data modules: a code for any reader."""
    code = _code(form.version, form.ecc, form.mask)
    content = b"\0" * min(1, capacity(form.version, form.ecc))
    code.add_data(util.QRData(content, mode=util.MODE_8BIT_BYTE), optimize=0)
    code.make(fit=False)
    whole = np.array(code.modules, dtype=bool)
    where = places(form.version)
    whole[where[:, 0], where[:, 1]] = modules[where[:, 0], where[:, 1]]
    return whole


def layout(form: Format) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the byte of each data module, and what error correction makes of bytes.

    That is int [modules], from 0, −1 for up to seven that are in no byte; int [bytes],
    the block of each; int [blocks], how many wrong bytes each corrects at most.
    """
    blocks, count = _blocks(form), len(places(form.version))
    block = np.empty(sum(len(index) for index, _ in blocks), dtype=np.int64)
    for number, (index, _) in enumerate(blocks):
        block[index] = number
    byte = np.arange(count) // 8
    byte[byte >= len(block)] = -1
    return byte, block, np.array([(len(index) - data) // 2 for index, data in blocks])


@functools.cache
def _mask(form: Format) -> np.ndarray:
    """Return which data modules the mask pattern flips, bool n."""
    mask = util.mask_func(form.mask)
    return np.array([mask(int(r), int(c)) for r, c in places(form.version)])


def _blocks(form: Format) -> list[tuple[np.ndarray, int]]:
    """Return for each block the places of its codewords, and how many are data."""
    blocks = base.rs_blocks(form.version, LEVELS[form.ecc])
    data = [block.data_count for block in blocks]
    parity = [block.total_count - block.data_count for block in blocks]
    places: list[list[int]] = [[] for _ in blocks]
    count = 0
    for lengths in (data, parity):
        for step in range(max(lengths)):
            for block, length in enumerate(lengths):
                if step < length:
                    places[block].append(count)
                    count += 1
    return [(np.array(p), d) for p, d in zip(places, data, strict=True)]


def _text(content: bytearray, version: int) -> str | None:
    """Read the one segment of bytes that `encode` writes."""
    stream = np.unpackbits(np.frombuffer(bytes(content), dtype=np.uint8))
    length = 8 if version < 10 else 16
    mode, count = _number(stream[:4]), _number(stream[4 : 4 + length])
    body = stream[4 + length : 4 + length + 8 * count]
    if mode != util.MODE_8BIT_BYTE or len(body) < 8 * count or not count:
        return None
    try:
        return np.packbits(body).tobytes().decode()
    except UnicodeDecodeError:
        return None


def _number(stream: np.ndarray) -> int:
    return int("".join(map(str, stream)), 2)


def _by_byte(doubts: np.ndarray) -> np.ndarray:
    return doubts[: len(doubts) // 8 * 8].reshape(-1, 8).sum(1)


def _code(version: int, ecc: str, mask: int | None) -> qrcode.QRCode:
    return qrcode.QRCode(
        version=version, error_correction=LEVELS[ecc], mask_pattern=mask, border=0
    )


def _free(version: int) -> np.ndarray:
    """Mark the modules that qrcode leaves open when all patterns are drawn."""
    code = _code(version, "L", 0)
    size = code.modules_count = 17 + 4 * version
    code.modules = [[None] * size for _ in range(size)]
    for row, column in ((0, 0), (size - 7, 0), (0, size - 7)):
        code.setup_position_probe_pattern(row, column)
    code.setup_position_adjust_pattern()
    code.setup_timing_pattern()
    code.setup_type_info(True, 0)
    if version >= 7:
        code.setup_type_number(True)
    return np.array([[module is None for module in row] for row in code.modules])
