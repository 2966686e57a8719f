"""Bind a key and a claim by a hash, as owners do before a release."""

from lottolab import ownership

NONCE = "0123456789abcdef"


def dated(key, text, reference, groups=None):
    """Return the options of `verify` that bring a reference and the hash.

    The secret of the key must have been drawn after the reference and the groups, as
    `embed` does for its files. All but the text are paths.
    """
    named = {"reference": reference} | ({"groups": groups} if groups else {})
    told = ownership.commit(ownership.SignatureKey.load(key), text, nonce=NONCE)
    files = [word for n, path in named.items() for word in (f"--{n}", str(path))]
    return [*files, "--published", told, "--nonce", NONCE]
