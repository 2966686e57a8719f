"""Verify a signature with all the answers at once: tamed, merged, matched, read.

`signature.verify` reads a network as it is, or as matching alone brings it back. Here
the channels that a thief split or added are merged before, and what hides behind dust
and giants is read as well. Each answer can be wrong where it is not needed, so that the
network is read without them, too. More readings are more tries, and the p-value pays.
"""

import numpy as np
import torch

from lottolab.checks import require
from lottolab.ownership.channels import alignment, matching
from lottolab.ownership.channels.naming import State, shared
from lottolab.ownership.defences import merging, taming
from lottolab.ownership.signatures import signature, squeeze
from lottolab.ownership.signatures.key import SignatureKey
from lottolab.ownership.signatures.signature import Verification

READINGS = 21  # seven networks, see `seen`, at three thresholds each


def restored(
    state: State,
    reference: State,
    *,
    groups: matching.Groups | None = None,
    enough: float = 0.9,
) -> State:
    """Merge what was split or added, then bring the channels into the owner's order.

    Args:
        reference: the owner's ticket as it was before the secret was drawn.
        groups: as for `matching`, of all channels; a ResNet of lottolab if None, or
            else a chain.
        enough: as for `alignment.align`.

    Raises:
        ValueError: as `merging.merge`, `alignment.align` and `matching.align`.
    """
    return ordered(merging.merge(state, reference), reference, groups, enough)


def ordered(
    state: State,
    reference: State,
    groups: matching.Groups | None = None,
    enough: float = 0.9,
) -> State:
    """Bring the channels into the owner's order, as `restored` does after merging."""
    if groups is None:
        try:
            return alignment.align(state, reference, enough=enough)
        except ValueError:
            groups = matching.chain(reference)
    return matching.align(state, reference, groups, enough=enough)


def seen(state: State, key: SignatureKey, reference: State | None) -> list[State]:
    """List the networks that are read: up to seven, all functions of these two alone.

    As it came; with a reference also in its order, merged in both ways and not. All but
    the first tamed as well, if there is anything to tame.

    Raises:
        ValueError: as `restored`.
    """
    networks = [state, taming.tame(state)]
    if _same(*networks):
        networks = networks[:1]
    if reference is None:
        return networks
    found = [state] if key.fits(state) else []
    for network in (shared(network, reference) for network in networks):
        merged = [merging.merge(network, reference, **how) for how in merging.WAYS]
        apart = [] if _same(*merged) else merged[1:]
        apart += [] if _same(merged[0], network) else [network]
        found += [ordered(one, reference) for one in (merged[0], *apart)]
    return found


def _same(state: State, other: State) -> bool:
    return all(torch.equal(other[name], weight) for name, weight in state.items())


def verify(
    state: State,
    key: SignatureKey,
    *,
    claim: str | None = None,
    reference: State | None = None,
) -> Verification:
    """Decide whether a network carries the owner's signature, as `signature.verify`.

    Every reading is a function of the network and the reference alone, so that each
    module agrees with a given code by the toss of a fair coin where neither depends on
    the secret; the p-value pays for 21 readings instead of two, also where
    there was nothing to merge or to tame and some of them are alike.

    Without a `claim` no doubtful byte is erased.

    Raises:
        ValueError: as `signature.verify` and, with a reference, `restored`.
    """
    written = claim if claim is None else key.spelling(claim)
    is_it = "the claim must be the text that the key was made for"
    require(claim is None or written is not None, is_it, ascii(claim))
    networks = seen(state, key, reference)
    decoded = [signature.decode(modules, key) for modules in _readings(networks, key)]
    found = next((d for d in decoded if d.text is not None), decoded[0])
    if claim is None and found.text is None:
        return signature.UNREAD
    texts = 256 ** signature.qr.capacity(key.version, key.ecc)
    tries = READINGS if claim is not None else READINGS * texts
    text = found.text if claim is None else written
    agreement, p = evidence(networks, key, text, tries)
    accepted = p < signature.ACCEPT
    return Verification(found.text, found.corrected, agreement, p, accepted)


def evidence(
    networks: list[State], key: SignatureKey, text: str, tries: int = READINGS
) -> tuple[float, float]:
    """Compare what is read from the networks of `seen` with the code of a text.

    Returns the share of data modules that agree in the best reading, and its p-value,
    which pays for windows and `tries`; see `signature.evidence`.
    """
    readings = _readings(networks, key)
    return max(signature.evidence(m, key, text, tries) for m in readings)


def _readings(networks: list[State], key: SignatureKey) -> list[np.ndarray]:
    """Read the modules at the key's threshold, the window's median, and tamed."""
    found = []
    for state in networks:
        for limit in (key.threshold, squeeze.median(state, key)):
            found.append(squeeze.extract(state, key, threshold=limit))
        found.append(taming.extract(state, key))
    return found
