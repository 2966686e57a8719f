"""What the owner of a signature keeps, and how it goes to a file and back."""

import hashlib
import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import numpy as np
from torch import Tensor

from lottolab import files
from lottolab.checks import require
from lottolab.ownership import qr


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
            values = json.loads(Path(path).read_text())
            unknown = set(values) ^ {f.name for f in fields(cls)}
        except (ValueError, TypeError) as error:
            raise ValueError(f"{path} is no signature key: {error}") from error
        require(not unknown, f"{path} must have the fields of a key", sorted(unknown))
        return cls(**values)


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
