"""Judge a suspect's file: as it came, tamed, merged and brought back into order."""

import sys
from collections.abc import Iterator
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
    """Verify the network as it came and, unless that is accepted, after the answers.

    Without a reference that is the tamed network; with one also both in its order,
    merged in two ways and not. All are functions of suspect and reference alone; the
    p-value pays for each of them, also where some are alike.

    Args:
        owner, claim, dated: as in `networks.verify`.
        where: the file of the reference and that of the groups, as in `aligned`; None
            without a reference, which must be older than secret and suspect.

    Returns the layer's name and what `signature.verify` says of it.

    Raises:
        ValueError: as `networks.verify` and `aligned`.
    """
    looks, found = 7 if where else 2, []
    for seen in _seen(state, owner.shape, where):
        layer, said = networks.verify(seen, owner, claim=claim, dated=dated)
        p = min(1.0, looks * said.p_value)
        found.append((layer, replace(said, p_value=p, accepted=p < signature.ACCEPT)))
        if found[-1][1].accepted:
            break
    return min(found, key=lambda pair: pair[1].p_value)


def _seen(
    state: State, shape: tuple[int, int], where: tuple[Path, Path | None] | None
) -> Iterator[State]:
    """Yield what is read, cheapest first; with a reference what has the shape alone."""
    sound = {n: w for n, w in state.items() if w.numel() and w.element_size() > 1}
    sound = {n: w for n, w in sound.items() if w.ndim > 1 and w.isfinite().all()}
    came = [state, state | taming.tame(sound)]
    came = came[:1] if all(came[1][n].equal(state[n]) for n in sound) else came
    if where is None:
        yield from came
        return
    twin, file = where
    reference = networks.unwrapped(networks.read(twin))
    if any(tuple(weight.shape[:2]) == shape for weight in sound.values()):
        yield state
    for network in (naming.shared(network, reference) for network in came):
        ways = [] if file else merging.WAYS
        merged = [_merged(network, reference, how) for how in ways]
        for other in [one for one in merged if one is not network] + [network]:
            yield _ordered(other, reference, file, shape)


def _merged(state: State, reference: State, how: dict) -> State:
    """Merge hidden channels, if there are others than the reference has."""
    both = state.keys() & reference.keys()
    if all(state[name].shape == reference[name].shape for name in both):
        return state
    try:
        return merging.merge(state, reference, **how)
    except ValueError:  # the hidden channels are not known, or have no counterpart
        return state


def aligned(state: State, twin: Path, file: Path | None) -> State:
    """Merge and align by the groups in a file, as a ResNet of lottolab, or as a chain.

    Where there is a file, nothing is merged.
    """
    reference = networks.unwrapped(networks.read(twin))
    state = naming.shared(state, reference)
    merged = state if file else _merged(state, reference, merging.WAYS[0])
    return _ordered(merged, reference, file, None)


def _ordered(
    state: State, reference: State, file: Path | None, shape: tuple[int, int] | None
) -> State:
    """Align; return what is of the shape alone, outputs and inputs, if one is given."""
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
