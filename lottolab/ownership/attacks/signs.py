"""Add channels that change nothing and are no positive multiples of any other.

`obfuscation` splits a channel into parts with the same input, which can be found by
just that. But ReLU is linear on either side of zero: relu(z) − relu(−z) = z, and z may
be taken apart into sums at will. And a channel whose weights and constant are nowhere
positive is zero wherever its inputs, which ReLU gave, are not negative: so it may be
read with any weights at all. Both cost nothing, as in Yan et al., 2023, section 4. The
first two need nothing but ReLU and means before the next layer: a maximum over places,
as in pooling, is not linear.

A state dict goes in, another of the same dtypes comes out; the first is left alone.
"""

import torch
from torch import Tensor

from lottolab.checks import number, require, whole
from lottolab.ownership.attacks.obfuscation import _generator, _noise, _read, _settled
from lottolab.ownership.channels.hidden import (
    EPS,
    Places,
    columns,
    count,
    incoming,
    norm_in,
    rectified,
    writer,
)
from lottolab.ownership.channels.matching import Groups
from lottolab.ownership.channels.naming import NORM, State


def split_by_sign(
    state: State,
    seed: int,
    *,
    size: float = 1.0,
    spread: float = 1.0,
    groups: Groups | None = None,
) -> State:
    """Write each hidden channel four times: z, −z, and the parts of z by their sign.

    Where w read relu(z), now w + n reads relu(z), −n reads relu(−z) and relu(z⁺), and n
    reads relu(z⁻), for z⁺ − z⁻ = z with weights and constants that are not negative:
    relu(z)·n − relu(−z)·n − z⁺·n + z⁻·n = 0 for inputs that are not negative.

    Args:
        size, spread: as in `obfuscation.duplicate`.
        groups: of hidden channels whose layers read what ReLU gave; `rectified` of the
            state if None.

    Raises:
        ValueError: size <= 0, spread < 1, or groups that do not fit.
    """
    generator = _generator(seed, size, spread)
    result = dict(state)
    for places in _named(state, groups).values():
        n = count(state, places)
        own = incoming(result, places)
        rows = torch.cat([-own, own.clamp_min(0), (-own).clamp_min(0)])
        parts = {}
        for name in _read(places):
            noise = _noise(result[name], n, n, size, generator)
            first = columns(result[name], n) + noise
            parts[name] = torch.cat([first, -noise, -noise, noise])
        result = _joined(result, places, rows, torch.arange(n).repeat(3))
        result = _settled(result, places, n, parts, spread, generator)
    return result


def add_sixes(
    state: State,
    extra: int,
    seed: int,
    *,
    density: float = 0.3,
    size: float = 1.0,
    spread: float = 1.0,
    groups: Groups | None = None,
) -> State:
    """Add `extra` cliques of six: ±(a + b), ±a and ±b for random a, b, that cancel.

    relu(z) − relu(−z) is linear in z, so those of a + b less those of a and b are
    nothing, whatever the inputs.

    Args:
        extra: cliques to each group, >= 1.
        density: share of weights that a row of a and of b has, in [0, 1].
        size, spread, groups: as in `split_by_sign`.

    Raises:
        ValueError: as `split_by_sign`, extra < 1, or density outside [0, 1].
    """
    whole("extra", extra, 1)
    number("density", density, 0, 1)
    generator = _generator(seed, size, spread)
    result = dict(state)
    for places in _named(state, groups).values():
        n = count(state, places)
        a, b = (_random(result, places, extra, density, generator) for _ in range(2))
        rows = torch.cat([a + b, -a - b, a, -a, b, -b])
        signs = torch.tensor([1.0, -1, -1, 1, -1, 1]).double()
        parts = {}
        for name in _read(places):
            noise = _noise(result[name], n, extra, size, generator)
            noise = torch.kron(signs[:, None], noise)
            parts[name] = torch.cat([columns(result[name], n), noise])
        donors = torch.randint(n, (extra,), generator=generator)
        result = _joined(result, places, rows, donors.repeat(6))
        result = _settled(result, places, n, parts, spread, generator)
    return result


def add_dead(
    state: State,
    share: float,
    seed: int,
    *,
    density: float = 0.3,
    size: float = 1.0,
    spread: float = 1.0,
    groups: Groups | None = None,
) -> State:
    """Add channels that are always zero, and that are read with dense random weights.

    Args:
        share: of each group's channels that are added, > 0, at least one.
        density: share of weights that a row has; they and its constant are negative.
        size, spread, groups: as in `split_by_sign`.

    Raises:
        ValueError: as `split_by_sign`, share <= 0, or density outside [0, 1].
    """
    number("share", share, 1e-9)
    number("density", density, 0, 1)
    generator = _generator(seed, size, spread)
    result = dict(state)
    for places in _named(state, groups).values():
        n = count(state, places)
        extra = max(1, round(share * n))
        rows = -_random(result, places, extra, density, generator).abs()
        parts = {}
        for name in _read(places):
            noise = _noise(result[name], n, extra, size, generator)
            parts[name] = torch.cat([columns(result[name], n), noise])
        donors = torch.randint(n, (extra,), generator=generator)
        result = _joined(result, places, rows, donors)
        result = _settled(result, places, n, parts, spread, generator)
    return result


def _named(state: State, groups: Groups | None) -> Groups:
    return rectified(state) if groups is None else groups


def _random(
    state: State,
    places: Places,
    extra: int,
    density: float,
    generator: torch.Generator,
) -> Tensor:
    """Draw rows of `incoming`, of the mean size that living weights have there."""
    own = incoming(state, places)
    sizes = own[own != 0].abs()
    mean = sizes.mean() if len(sizes) else torch.ones(()).double()
    shape = (extra, own.shape[1])
    drawn = torch.randn(shape, generator=generator, dtype=torch.float64) * mean
    kept = torch.rand(shape, generator=generator) < density
    kept[:, -1] = True  # the constant
    return drawn * kept


def _joined(state: State, places: Places, rows: Tensor, donors: Tensor) -> State:
    """Add channels of which `rows` are the `incoming`; columns are left to `_settled`.

    donors: the channels whose running variance, or dtype alone, the new ones get.
    """
    layer, norm = writer(state, places), norm_in(places)
    constant = f"{norm}.bias" if norm else f"{layer}.bias"
    require(constant in places, f"{layer} must have batch norm or a bias", "neither")
    changed = {}
    for name in [name for name, axis in places.items() if axis == 0]:
        new = torch.zeros_like(state[name][donors])
        if name == f"{layer}.weight":
            new = rows[:, :-1].view_as(new)
        elif name == constant:
            new = rows[:, -1]
        elif norm and name == f"{norm}.{NORM[3]}":
            new = state[name][donors]
        elif norm and name == f"{norm}.{NORM[0]}":
            new = (state[f"{norm}.{NORM[3]}"][donors].double() + EPS).sqrt()
        changed[name] = torch.cat([state[name], new.to(state[name].dtype)])
    return state | changed
