"""Laws of who answers a query: a team of networks, drawn at random.

Peng et al. (2022), section 2.3: θ(α, n, s) says which structures take part (α), how
many networks each sends (n) and which (s). `theta` is that law; `one` is R2S of Fu et
al. (2021), which draws one network; `matched` draws teams as large as those of `theta`
from a single structure, the control that tells diversity from size.

A law maps the number of networks of each structure, in order, and a generator to a
team: a list of (structure, network), both counted from 0. `votes` draws many teams.
"""

from collections.abc import Callable, Sequence
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from lottolab.checks import number, require, whole

Team = list[tuple[int, int]]
Law = Callable[[list[int], torch.Generator], Team]
SIZES = {1: 0.65, 2: 0.35}
MOST = 62  # structures, one a bit of the number that chooses them


def theta(
    counts: list[int],
    generator: torch.Generator,
    *,
    sizes: dict[int, float] = SIZES,
    replace: bool = False,
) -> Team:
    """Draw a team by the paper's law, its steps B to D.

    α ∈ {0, 1}^S chooses the structures, n_i ∈ {1, 2} with probability 0.65 and 0.35 how
    many networks structure i sends, and then n_i of its ratios are drawn uniformly. The
    paper does not say how α is drawn: here uniformly from all but α = 0, with which
    nobody would answer; nor whether a ratio may come twice: here it may not, unless
    `replace`.

    Args:
        sizes: n_i to its probability.

    Raises:
        ValueError: a size is below 1, a structure has fewer networks than the largest,
            or the probabilities do not sum to 1.
    """
    _check_counts(counts, generator)
    _check_sizes(sizes, 1 if replace else min(counts), replace)
    chosen = int(torch.randint(1, 2 ** len(counts), (), generator=generator))
    team: Team = []
    for i, count in enumerate(counts):
        if chosen >> i & 1:
            size = _size(sizes, generator)
            team += [(i, j) for j in _several(count, size, replace, generator)]
    return team


def one(counts: list[int], generator: torch.Generator) -> Team:
    """Draw one network, uniformly from all: R2S (Fu et al., 2021, section 4)."""
    _check_counts(counts, generator)
    place = int(torch.randint(sum(counts), (), generator=generator))
    return [_everyone(counts)[place]]


def matched(
    counts: list[int],
    generator: torch.Generator,
    *,
    structures: int = 4,
    sizes: dict[int, float] = SIZES,
) -> Team:
    """Draw a team as large as `theta`'s over `structures`, from all networks alike.

    With the networks of one structure this is the paper's ensemble without its
    structures. No network comes twice; where the size drawn is larger than the number
    of networks, all of them answer.
    """
    _check_counts(counts, generator)
    whole("structures", structures, 1)
    require(structures <= MOST, f"structures must be at most {MOST}", structures)
    _check_sizes(sizes, 1, True)
    chosen = int(torch.randint(1, 2**structures, (), generator=generator))
    size = sum(_size(sizes, generator) for _ in range(chosen.bit_count()))
    everyone = _everyone(counts)
    size = min(size, len(everyone))
    return [everyone[p] for p in _several(len(everyone), size, False, generator)]


def votes(law: Law, counts: list[int], rows: int, generator: torch.Generator) -> Tensor:
    """Draw a team for each of `rows`; int64 [rows, sum(counts)], who answers how often.

    The laws of this module, also with options by `functools.partial`, are drawn all at
    once: the same law from other random numbers. Any other is called row by row.

    Raises:
        ValueError: what the law refuses, or it draws nobody, or a network that is not
            there.
    """
    _check_counts(counts, generator)
    whole("rows", rows, 1)
    bare, options = law, {}
    if isinstance(law, partial) and not law.args:
        bare, options = law.func, law.keywords
    if bare in TOGETHER:
        law(counts, torch.Generator())  # which refuses options that are not the law's
        return TOGETHER[bare](counts, rows, generator, **options)
    found = torch.zeros(rows, sum(counts), dtype=torch.int64)
    for row in found:
        for member in drawn(law, counts, generator):
            row[place(counts, member)] += 1
    return found


def drawn(law: Law, counts: list[int], generator: torch.Generator) -> Team:
    """Draw a team; raises ValueError if it is nobody, or what the law refuses."""
    require(callable(law), "law must be a function (see laws.theta)", repr(law))
    team = law(counts, generator)
    what = "law must draw a list of (structure, network)"
    require(isinstance(team, Sequence), what, type(team).__name__)
    require(len(team) > 0, "law must draw at least one network", team)
    for member in team:
        place(counts, member)
    return team


def place(counts: list[int], member: tuple[int, int]) -> int:
    """Return where a network stands among all; raises ValueError if it does not.

    >>> place([2, 3], (1, 0))
    2
    """
    what = f"law must draw (structure, network) of {counts} networks"
    pair = isinstance(member, Sequence) and len(member) == 2
    pair = pair and all(type(part) is int for part in member)
    require(pair, what, member)
    structure, network = member
    there = 0 <= structure < len(counts) and 0 <= network < counts[structure]
    require(there, what, member)
    return sum(counts[:structure]) + network


def _thetas(counts, rows, generator, *, sizes=SIZES, replace=False) -> Tensor:
    chosen = torch.randint(1, 2 ** len(counts), (rows,), generator=generator)
    size = _sizes(sizes, (rows, len(counts)), generator)
    parts = []
    for i, count in enumerate(counts):
        sent = size[:, i] * (chosen >> i & 1)
        if replace:
            drawn = torch.randint(count, (rows, max(sizes)), generator=generator)
            counted = torch.arange(max(sizes)) < sent[:, None]
            parts.append((F.one_hot(drawn, count) * counted[:, :, None]).sum(1))
        else:
            parts.append(_ranked(count, sent, generator))
    return torch.cat(parts, 1)


def _ones(counts, rows, generator) -> Tensor:
    places = torch.randint(sum(counts), (rows,), generator=generator)
    return F.one_hot(places, sum(counts))


def _matcheds(counts, rows, generator, *, structures=4, sizes=SIZES) -> Tensor:
    chosen = torch.randint(1, 2**structures, (rows, 1), generator=generator)
    size = _sizes(sizes, (rows, structures), generator)
    sent = (size * (chosen >> torch.arange(structures) & 1)).sum(1)
    return _ranked(sum(counts), sent, generator)


def _sizes(sizes: dict[int, float], shape, generator) -> Tensor:
    chances = torch.tensor(list(sizes.values()), dtype=torch.float64)
    places = chances.multinomial(shape[0] * shape[1], True, generator=generator)
    return torch.tensor(list(sizes))[places].view(shape)


def _ranked(count: int, sent: Tensor, generator) -> Tensor:
    """Choose `sent` [rows] of `count` without replacement; int64 [rows, count]."""
    noise = torch.rand(len(sent), count, generator=generator, dtype=torch.float64)
    return (noise.argsort(1).argsort(1) < sent[:, None]).long()


TOGETHER = {theta: _thetas, one: _ones, matched: _matcheds}


def _everyone(counts: list[int]) -> Team:
    return [(i, j) for i, count in enumerate(counts) for j in range(count)]


def _check_counts(counts: list[int], generator: torch.Generator) -> None:
    drawing = isinstance(generator, torch.Generator)
    require(drawing, "generator must be a torch.Generator", type(generator).__name__)
    right = isinstance(counts, Sequence) and len(counts) > 0
    require(right, "counts must be one a structure and at least one", counts)
    require(len(counts) <= MOST, f"counts must be at most {MOST}", len(counts))
    for count in counts:
        whole("counts", count, 1)


def _check_sizes(sizes: dict[int, float], most: int, replace: bool) -> None:
    right = isinstance(sizes, dict) and len(sizes) > 0
    require(right, "sizes must be a dict of probabilities", sizes)
    for size, chance in sizes.items():
        whole("sizes", size, 1)
        number("probabilities of sizes", chance, 0)
    what = f"sizes must be at most {most}, a structure's networks, without replacement"
    require(replace or max(sizes) <= most, what, max(sizes))
    total = sum(sizes.values())
    right = min(sizes.values()) >= 0 and abs(total - 1) < 1e-9
    require(right, "sizes must have probabilities that sum to 1", sizes)


def _size(sizes: dict[int, float], generator: torch.Generator) -> int:
    chances = torch.tensor(list(sizes.values()), dtype=torch.float64)
    return list(sizes)[int(chances.multinomial(1, generator=generator))]


def _several(count: int, size: int, replace: bool, generator) -> list[int]:
    if replace:
        return torch.randint(count, (size,), generator=generator).tolist()
    return torch.randperm(count, generator=generator)[:size].tolist()
