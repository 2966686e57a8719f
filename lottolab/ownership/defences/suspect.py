"""Judge a suspect's file: as it came, tamed, merged and brought back into order."""

import sys
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from pathlib import Path

from lottolab.jobs import display
from lottolab.ownership.channels import alignment, matching, naming
from lottolab.ownership.channels.naming import State
from lottolab.ownership.defences import merging, taming
from lottolab.ownership.signatures import networks, signature
from lottolab.ownership.signatures.key import SignatureKey
from lottolab.ownership.signatures.signature import Verification

ENOUGH = 0.9  # of the reference's likeness to itself: no need to look further


def judged(
    state: State,
    owner: SignatureKey,
    claim: str | None,
    dated: bool,
    where: tuple[Path, Path | None] | None,
) -> tuple[str, Verification]:
    """Verify the network as it came and, unless that is accepted, tamed.

    Both are functions of the suspect alone; the p-value pays for two networks, also
    where there is nothing to tame.

    Args:
        owner, claim, dated: as in `networks.verify`.
        where: the file of the reference and that of the groups, as in `aligned`; None
            without a reference.

    Returns the layer's name and what `signature.verify` says of it.

    Raises:
        ValueError: as `networks.verify` and `aligned`.
    """
    sound = {n: w for n, w in state.items() if w.numel() and w.element_size() > 1}
    sound = {n: w for n, w in sound.items() if w.ndim > 1 and w.isfinite().all()}
    found = []
    for tamed in (False, True):
        seen = state | taming.tame(sound) if tamed else state
        if tamed and all(seen[name].equal(state[name]) for name in sound):
            break
        if where:
            seen = aligned(seen, *where, owner.shape)
        layer, said = networks.verify(seen, owner, claim=claim, dated=dated)
        p = min(1.0, 2 * said.p_value)
        found.append((layer, replace(said, p_value=p, accepted=p < signature.ACCEPT)))
        if found[-1][1].accepted:
            break
    return min(found, key=lambda pair: pair[1].p_value)


def _merged(state: State, reference: State) -> State:
    """Merge hidden channels, if there are others than the reference has."""
    shared = state.keys() & reference.keys()
    if all(state[name].shape == reference[name].shape for name in shared):
        return state
    try:
        return merging.merge(state, reference)
    except ValueError:  # the hidden channels are not known, or have no counterpart
        return state


def aligned(
    state: State, twin: Path, file: Path | None, shape: tuple[int, int] | None = None
) -> State:
    """Align by the groups in a file, as a ResNet of lottolab, or as a chain.

    Returns what is of the shape alone, outputs and inputs, if one is given.
    """
    reference = networks.unwrapped(networks.read(twin))
    every = [*state.items(), *reference.items()]
    names = {n for n, w in every if shape in (None, tuple(w.shape[:2]))}
    search = {"enough": ENOUGH, "names": names}
    with shown("looking for the channels"):
        if file:
            groups = {
                group: {networks.bare(name): axis for name, axis in places.items()}
                for group, places in matching.read(file).items()
            }
            return matching.align(state, reference, groups, **search)
        state = _merged(state, reference)
        known = naming.residual(reference)
        try:
            naming.groups(known)
        except ValueError:
            groups = matching.chain(reference)
            return matching.align(state, reference, groups, **search)
        return alignment.align(state, known, **search)


def shown(title: str) -> AbstractContextManager:
    """Show on a terminal what is being done, and for how long."""
    return display.watch(title) if sys.stderr.isatty() else nullcontext()
