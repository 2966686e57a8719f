"""What the owner of a signature keeps, and how it goes to a file and back."""

import hashlib
import json
import math
import re
import secrets
import unicodedata
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from torch import Tensor

from lottolab.checks import one_of, require, whole
from lottolab.ownership.signatures import qr
from lottolab.runs import files


@dataclass(frozen=True)
class SignatureKey:
    """What the owner keeps: where the signature is and the secret that uncovers it.

    layer: state-dict name of the weight; shape: its outputs and inputs.
    row, column: the window's first output and input channel.
    version, ecc, mask: of the QR code, see `qr.Format`.
    secret: hexadecimal; its stream covers the modules.
    windows: places that embedding chose from; verification pays for them.
    threshold: share of an output channel's largest |w| up to which a kernel counts as
        empty; 0 until `calibrate` sets it.
    digest: sha256 of the text. Decoding never reads it.

    A key may come from a claimant, so no field is believed: ValueError is raised for
    what embedding could not have written.
    """

    layer: str
    shape: tuple[int, int]
    row: int
    column: int
    version: int
    ecc: str
    mask: int
    secret: str
    windows: int
    threshold: float
    digest: str

    def __post_init__(self) -> None:
        _validate(self)
        object.__setattr__(self, "shape", tuple(self.shape))  # JSON knows lists only

    @property
    def form(self) -> qr.Format:
        """Return the format of the code."""
        return qr.Format(self.version, self.ecc, self.mask)

    @property
    def window(self) -> tuple[slice, slice]:
        """Return the rows and columns of the layer's kernels that hold the code."""
        side = self.form.size
        rows = slice(self.row, self.row + side)
        return rows, slice(self.column, self.column + side)

    def fits(self, state: dict[str, Tensor]) -> bool:
        """Does the network have the layer that the key is for, in the same shape?"""
        return self.layer in state and tuple(state[self.layer].shape[:2]) == self.shape

    def stream(self) -> np.ndarray:
        """Return the covering bits, one for each data module, bool n."""
        count = len(qr.places(self.version))
        raw = hashlib.shake_256(bytes.fromhex(self.secret)).digest(count // 8 + 1)
        return np.unpackbits(np.frombuffer(raw, dtype=np.uint8))[:count].astype(bool)

    def spelling(self, text: str) -> str | None:
        """Return `text` in the form of Unicode that was written; None if it was not.

        What looks the same, as "ã" and "a" with a tilde, may be two texts.
        """
        forms = [text, *(unicodedata.normalize(form, text) for form in ("NFC", "NFD"))]
        return next((t for t in forms if digest(t) == self.digest), None)

    def save(self, path: str | Path) -> None:
        """Write the key as JSON, for its owner's eyes only."""
        with files.replacing(path, secret=True) as new:
            new.write_text(json.dumps(asdict(self), indent=1))

    @classmethod
    def load(cls, path: str | Path) -> "SignatureKey":
        """Read a key from JSON.

        Raises:
            ValueError: the file is no key.
        """
        try:
            values = json.loads(Path(path).read_text(encoding="utf-8"))
            require(isinstance(values, dict), "it must be a JSON object", type(values))
            unknown = sorted(set(values) ^ {f.name for f in fields(cls)})
            require(not unknown, "it must have the fields of a key", unknown)
            return cls(**values)
        except (OSError, ValueError, RecursionError) as error:
            raise ValueError(f"{path} is no signature key: {error}") from error


def digest(text: str) -> str:
    """Return the hash by which a key knows its text."""
    return hashlib.sha256(text.encode()).hexdigest()


def draw_secret(reference: str, groups: str | None = None) -> str:
    """Draw a secret that shows that a reference was there before.

    What is read after alignment depends on the reference too, and whoever knows the
    secret can make one that draws every network towards his code. So half of the secret
    is random and the other half a hash of that, the reference and its groups: of a
    reference that was changed later it is another.

    Args:
        reference, groups: sha256 of the files, 64 hexadecimal digits.

    Raises:
        ValueError: a hash is none.
    """
    for name, given in {"reference": reference, "groups": groups}.items():
        right = (name == "groups" and given is None) or (
            isinstance(given, str) and re.fullmatch("[0-9a-f]{64}", given)
        )
        require(bool(right), f"{name} must be a sha256, 64 hexadecimal digits", given)
    free = secrets.token_hex(16)
    return free + _bound(free, reference, groups)


def drawn_after(secret: str, reference: str, groups: str | None = None) -> bool:
    """Was a secret drawn by `draw_secret` for just these files?"""
    return secret[32:] == _bound(secret[:32], reference, groups)


def _bound(free: str, reference: str, groups: str | None) -> str:
    content = json.dumps([free, reference, groups])
    return hashlib.sha256(content.encode()).hexdigest()[:32]


def commit(key: SignatureKey, text: str, *, nonce: str) -> str:
    """Return a hash that binds the owner to key and text and tells nothing of them.

    Published with a date before the network is, it settles who came first. `nonce` is
    random, kept and shown with the key: without it short texts could be guessed.

    Raises:
        ValueError: the nonce has fewer than 16 characters.
    """
    require(len(nonce) >= 16, "nonce must have at least 16 characters", len(nonce))
    content = json.dumps([asdict(key), text, nonce], sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()


def _validate(key: SignatureKey) -> None:
    """Compute what can be computed of a key, and refuse what no embedding writes."""
    require(isinstance(key.layer, str), "the key's layer must be a name", key.layer)
    whole("the key's version", key.version, 1)
    require(key.version <= 40, "the key's version must be at most 40", key.version)
    one_of("the key's ecc", key.ecc, qr.LEVELS)
    whole("the key's mask", key.mask, 0)
    require(key.mask <= 7, "the key's mask must be at most 7", key.mask)
    pair = isinstance(key.shape, list | tuple) and len(key.shape) == 2
    side = key.form.size
    room = pair and all(type(n) is int and n >= side for n in key.shape)
    require(room, f"the key's shape must be two whole numbers >= {side}", key.shape)
    last = [count - side for count in key.shape]
    for name, given, most in zip(
        ("row", "column"), (key.row, key.column), last, strict=True
    ):
        whole(f"the key's {name}", given, 0)
        require(given <= most, f"the key's {name} must be at most {most}", given)
    windows = math.prod(most + 1 for most in last)
    right = type(key.windows) is int and key.windows == windows
    require(right, f"the key's windows must be {windows}", repr(key.windows))
    right = type(key.threshold) in (int, float) and 0 <= key.threshold < 1
    require(right, "the key's threshold must be in [0, 1)", repr(key.threshold))
    _hexadecimal("secret", key.secret, "([0-9a-f]{2}){16,}", "at least 32")
    _hexadecimal("digest", key.digest, "[0-9a-f]{64}", "64")


def _hexadecimal(name: str, given, pattern: str, count: str) -> None:
    right = isinstance(given, str) and re.fullmatch(pattern, given)
    require(right, f"the key's {name} must be {count} hexadecimal digits", repr(given))
