"""Make the data of the lab on ownership: a signed sparse layer, and suspects.

The weights are drawn at random and trained for nothing: only their pattern matters.
"""

import hashlib

import numpy as np

LAYER, SIDE = 48, (16, 14)  # channels; kernels of the window: 32 words of 7 bits
SUSPECTS = 8
LETTERS = list("ABCDEFGHJKLMNPQRSTUVWXYZ23456789")
# Columns are the positions 1 to 7; the parity bits stand at 1, 2 and 4.
PLACES = [3, 5, 6, 7]


def prepare(variant: int) -> tuple[dict, dict]:
    """Return what students get and what only the teacher knows."""
    random = np.random.default_rng(variant)
    text, known = ("".join(random.choice(LETTERS, 16)) for _ in range(2))
    keys = [make_key(random) for _ in range(2)]
    ticket = damaged(sign(text, keys[0], random), keys[0], random)
    stolen = np.zeros(SUSPECTS, dtype=bool)
    stolen[random.permutation(SUSPECTS)[:3]] = True
    own, rates = sign(known, keys[1], random), np.linspace(0.05, 0.5, SUSPECTS)
    suspects = np.stack([prune(own, rate) for rate in random.permutation(rates)])
    for place in np.flatnonzero(~stolen):  # strangers: signed by others, or not at all
        signed = sign("".join(random.choice(LETTERS, 16)), make_key(random), random)
        suspects[place] = signed if place % 2 else layer(random)
    given = {"ticket": ticket, "suspects": suspects, "text": known}
    for name, key in zip(("key", "own_key"), keys, strict=True):
        given |= {f"{name}_secret": key["secret"], f"{name}_place": key["place"]}
    return given, {"text": text, "stolen": stolen}


def make_key(random) -> dict:
    """Draw a secret of 16 bytes and the upper left corner of the window."""
    place = [random.integers(0, LAYER - side + 1) for side in SIDE]
    return {"secret": random.bytes(16).hex(), "place": np.array(place)}


def layer(random) -> np.ndarray:
    """Draw a layer in which half of the kernels have one or two weights."""
    kernels = np.zeros((LAYER**2, 9), dtype=np.float16)
    for place in np.flatnonzero(random.random(LAYER**2) < 0.5):
        fill(kernels[place], random)
    return kernels.reshape(LAYER, LAYER, 3, 3)


def fill(kernel: np.ndarray, random) -> None:
    """Write one or two weights into an empty kernel, in place."""
    where = random.choice(9, random.integers(1, 3), replace=False)
    signs = random.choice([-1, 1], len(where))
    kernel[where] = signs * random.uniform(0.02, 0.3, len(where))


def encode(text: str) -> np.ndarray:
    """Return the Hamming code of a text's bits, 7 rows, a column a word."""
    bits = np.unpackbits(np.frombuffer(text.encode(), dtype=np.uint8)).reshape(-1, 4)
    words = np.zeros((len(bits), 8), dtype=int)  # position 0 is not used
    words[:, PLACES] = bits
    for parity in (1, 2, 4):
        covered = [p for p in PLACES if p & parity]
        words[:, parity] = words[:, covered].sum(1) % 2
    return words[:, 1:].T.astype(bool)


def sign(text: str, key: dict, random) -> np.ndarray:
    """Draw a layer and make the window's kernels alive where the covered code has 1."""
    stream = hashlib.shake_256(bytes.fromhex(key["secret"])).digest(28)
    cover = np.unpackbits(np.frombuffer(stream, dtype=np.uint8)).astype(bool)
    wanted = (encode(text).flatten() ^ cover).reshape(SIDE)
    weights = layer(random)
    for (row, column), bit in np.ndenumerate(wanted):
        kernel = weights[row + key["place"][0], column + key["place"][1]].reshape(9)
        kernel[:] = kernel if bit else 0
        if bit and not kernel.any():
            fill(kernel, random)
    return weights


def prune(weights: np.ndarray, rate: float) -> np.ndarray:
    """Remove the smallest weights, `rate` of them."""
    size = np.abs(weights[weights != 0])
    return np.where(np.abs(weights) <= np.quantile(size, rate), 0, weights)


def damaged(weights: np.ndarray, key: dict, random) -> np.ndarray:
    """Empty one kernel of each of twelve words of the code, which can be corrected."""
    row, column = key["place"]
    window = weights[row : row + SIDE[0], column : column + SIDE[1]]
    flat = window.reshape(7, 32, 9).copy()  # a column a word
    alive = flat.any(2)
    for word in random.permutation(32)[:12]:
        candidates = np.flatnonzero(alive[:, word])
        flat[random.choice(candidates), word] = 0
    window[:] = flat.reshape(window.shape)
    return weights
