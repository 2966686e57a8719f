"""Chapter 1: a lottery ticket proves who owns it (Chen et al., 2021)."""

from lottolab.ownership.key import SignatureKey
from lottolab.ownership.signature import (
    Verification,
    calibrate,
    decode,
    embed,
    extract,
    verify,
)
from lottolab.ownership.split import split_key

__all__ = [
    "SignatureKey",
    "Verification",
    "calibrate",
    "decode",
    "embed",
    "extract",
    "split_key",
    "verify",
]
