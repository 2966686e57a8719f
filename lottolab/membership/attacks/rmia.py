"""Membership by relative likelihood: RMIA (Zarifzadeh et al., 2024).

An example x is compared with population examples z: how much likelier than usual is
x's label under the target model, p(x|θ)/p(x), against the same for z? The score is
the share of all z with [p(x|θ)/p(x)] / [p(z|θ)/p(z)] ≥ γ (equations 3 to 10).

In both attacks `target` is float[N], the probability (softmax) of each example's
label under the target model; `references` is float[M, N], the same of M reference
models; `member` is bool[M, N], True where a reference model had the example in
training. `population_target` float[Z] and `population_references` float[M, Z] are the
same of examples that no model, target or reference, has trained on. All are in
[0, 1]. Scores are float64[N] in [0, 1], larger for "more likely a member".

For one target the score rises with x's own ratio, in Z + 1 steps, and with nothing
else: γ and the population move no example past another, they only make ties (more
with a larger γ, fewer with a larger Z) and put the scores of several targets on one
scale. So a false-positive rate of 0.1 % needs thousands of z.

A probability below 2.2e-308 counts as that, so that 0/0 is 1: no evidence.

They raise ValueError for shapes that do not fit, probabilities outside [0, 1], a
`member` that is not bool, γ < 1, and an example without a reference of a kind that is
needed.
"""

import torch
from torch import Tensor

from lottolab.checks import number, require
from lottolab.checks.taking import floats
from lottolab.membership.attacks.lira import checked, count


def online(
    target: Tensor,
    references: Tensor,
    member: Tensor,
    population_target: Tensor,
    population_references: Tensor,
    *,
    gamma: float = 2.0,
) -> Tensor:
    """Score with references that had x in training (IN) and that had not (OUT).

    p(x) is the mean over references half IN and half OUT, and so ½(p_in + p_out),
    whatever their numbers: a plain mean over unequal numbers would tell which side
    the target is on where each example is in just half of all models. p(z) is the
    mean over all references.

    >>> p, member = torch.tensor([[0.75], [0.25]]), torch.tensor([[True], [False]])
    >>> z, usual = torch.tensor([0.125, 0.25, 0.375, 0.5]), torch.full((2, 4), 0.25)
    >>> online(torch.tensor([1.0]), p, member, z, usual)
    tensor([0.5000], dtype=torch.float64)
    """
    given = (target, references, member, population_target, population_references)
    target, references, member, z, references_z = _checked(*given, gamma)
    usual = _mean(references, member, "with") + _mean(references, ~member, "without")
    ratios = _ratio(target, usual / 2), _ratio(z, references_z.mean(0))
    return _share(*ratios, gamma)


def offline(
    target: Tensor,
    references: Tensor,
    member: Tensor,
    population_target: Tensor,
    population_references: Tensor,
    *,
    gamma: float = 2.0,
    a: float = 0.3,
) -> Tensor:
    """Score with OUT references alone, p_in being guessed from p_out.

    The paper's linear guess p_in = a·p_out + 1 − a makes p(x) = ½((1 + a)·p_out +
    1 − a). `a` is in [0, 1]; 0.3 is what the paper used for CIFAR-10. p(z) comes of
    the same formula with the mean over all references as its p_out, so that a
    non-member and a z are alike: a non-member's score at γ = 1 is uniform.

    Raises ValueError also for an `a` outside [0, 1].
    """
    given = (target, references, member, population_target, population_references)
    number("a", a, 0, 1)
    target, references, member, z, references_z = _checked(*given, gamma)
    outside = _mean(references, ~member, "without")
    usual, usual_z = (
        ((1 + a) * p + 1 - a) / 2 for p in (outside, references_z.mean(0))
    )
    ratios = _ratio(target, usual), _ratio(z, usual_z)
    return _share(*ratios, gamma)


def largest_half(population_references: Tensor) -> Tensor:
    """Return references of z whose mean is that of each z's largest half, [M, Z].

    The published tool takes p(z) so; give this for `population_references`. Of an odd
    number of references the middle one counts as large.

    >>> largest_half(torch.tensor([[0.1], [0.5], [0.3]]))[:, 0]
    tensor([0.4000, 0.4000, 0.4000], dtype=torch.float64)
    """
    p = floats("population_references", population_references).double()
    fits = p.ndim == 2 and p.numel() > 0
    require(fits, "population_references must be [M, Z]", tuple(p.shape))
    large = p.sort(0, descending=True).values[: (len(p) + 1) // 2]
    return large.mean(0).expand(len(p), -1)


def _mean(references: Tensor, side: Tensor, how: str) -> Tensor:
    """Average each example's references of one side, float64[N]."""
    return torch.where(side, references, 0).sum(0) / count(side, 1, how)


def _ratio(target: Tensor, usual: Tensor) -> Tensor:
    tiny = torch.finfo(torch.float64).tiny
    return target.clamp(min=tiny) / usual.clamp(min=tiny)


def _share(ratio: Tensor, population: Tensor, gamma: float) -> Tensor:
    """Return for each x the share of all z whose ratio is at most x's over γ."""
    below = torch.searchsorted(population.sort().values, ratio / gamma, right=True)
    return below.double() / len(population)


def _checked(target, references, member, population, population_references, gamma):
    number("gamma", gamma, 1)
    target, references, member = checked(target, references, member)
    population = floats("population_target", population).double()
    population_references = floats("population_references", population_references)
    population_references = population_references.double()
    shape = tuple(population.shape)
    fits = len(shape) == 1 and shape[0] > 0
    require(fits, "population_target must be [Z], Z > 0", shape)
    shape = (len(references), len(population))
    fits = population_references.shape == shape
    what = f"population_references must be {shape}"
    require(fits, what, tuple(population_references.shape))
    for p in (target, references, population, population_references):
        odd = p[~((p >= 0) & (p <= 1))]
        require(len(odd) == 0, "probabilities must be in [0, 1]", odd[:1].tolist())
    return target, references, member, population, population_references
