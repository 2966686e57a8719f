"""Chapter 1: a lottery ticket proves who owns it (Chen et al., 2021)."""

from typing import TYPE_CHECKING

from lottolab import lazily

if TYPE_CHECKING:  # they are imported when they are asked for
    from lottolab.ownership.channels.alignment import align
    from lottolab.ownership.signatures.key import SignatureKey, commit
    from lottolab.ownership.signatures.signature import (
        Decoded,
        Verification,
        calibrate,
        decode,
        embed,
        extract,
        verify,
    )
    from lottolab.ownership.split import split_key
    from lottolab.ownership.triggers import (
        Triggers,
        TriggerVerification,
        verify_triggers,
    )

__all__ = [
    "Decoded",
    "SignatureKey",
    "TriggerVerification",
    "Triggers",
    "Verification",
    "align",
    "calibrate",
    "commit",
    "decode",
    "embed",
    "extract",
    "split_key",
    "verify",
    "verify_triggers",
]

__getattr__ = lazily(__name__)
