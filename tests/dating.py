"""Bind a key, a claim and a reference by a hash, as owners do before a release."""

import hashlib
from pathlib import Path

from lottolab import ownership

NONCE = "0123456789abcdef"


def dated(key, text, reference, groups=None):
    """Return the options of `verify` that bring a reference and the hash that binds it.

    All but the text are paths; the files have the contents that are bound.
    """
    named = {"reference": reference} | ({"groups": groups} if groups else {})
    bound = {
        n: hashlib.sha256(Path(p).read_bytes()).hexdigest() for n, p in named.items()
    }
    owner = ownership.SignatureKey.load(key)
    told = ownership.commit(owner, text, nonce=NONCE, **bound)
    files = [word for n, path in named.items() for word in (f"--{n}", str(path))]
    return [*files, "--published", told, "--nonce", NONCE]
