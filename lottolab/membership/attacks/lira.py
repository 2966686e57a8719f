"""Membership by likelihood ratio: LiRA (Carlini et al., 2022).

The target model's signal on an example is compared with the signals of reference
models that had it in training (IN) and of others that had not (OUT); both kinds are
taken to be normal. The signal is log(p/(1 − p)) of the label's probability p, which
is roughly normal where p is not (section VI-A).

In all functions `target` is float[N], a signal an example; `references` is
float[M, N], the same of M reference models; `member` is bool[M, N], True where a
reference model had the example in training. Larger signals speak for a member. Scores
are float64[N], larger for "more likely a member".

The variance of IN and of OUT is `"global"`, one number pooled over all examples'
residuals about their own means (recommended for fewer than 64 reference models), or
`"example"`, one for each example (section VI-B). Both are unbiased.

All raise ValueError for shapes that do not fit, signals that are not finite, a
`member` that is not bool, another variance, references that all agree, and too few
references: each example needs two of a kind for `"example"`, and one for `"global"`
if some example has two. The offline scores need only OUT references.
"""

import warnings
from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor
from torch.distributions import Normal

from lottolab.checks import attacks as refusing
from lottolab.checks import one_of, require
from lottolab.checks.taking import floats, taken
from lottolab.checks.tensors import finite

Attack = Callable[[Tensor, Tensor, Tensor], Tensor]


def online(
    target: Tensor, references: Tensor, member: Tensor, *, variance: str = "global"
) -> Tensor:
    """Return log N(t; μ_in, σ_in²) − log N(t; μ_out, σ_out²), Algorithm 1.

    >>> references = torch.tensor([[3.0], [5.0], [0.0], [2.0]])
    >>> member = torch.tensor([[True], [True], [False], [False]])
    >>> online(torch.tensor([4.0]), references, member)
    tensor([2.2500], dtype=torch.float64)
    """
    target, references, member = checked(target, references, member)
    inside = _normal(references, member, "with", variance)
    outside = _normal(references, ~member, "without", variance)
    return inside.log_prob(target) - outside.log_prob(target)


def offline_tail(
    target: Tensor, references: Tensor, member: Tensor, *, variance: str = "global"
) -> Tensor:
    """Return −log Pr[Z > t] with Z ~ N(μ_out, σ_out²), the paper's offline score.

    Equation 4 scores by Pr[Z ≤ t] = 1 − Pr[Z > t], which rounds to 1.0 from 8.3
    standard deviations on, so that the surest members tie. This increasing function
    of it has the same ROC curve without those ties.
    """
    target, references, member = checked(target, references, member)
    outside = _normal(references, ~member, "without", variance)
    z = (target - outside.loc) / outside.scale
    return -torch.special.log_ndtr(-z)


def offline_density(
    target: Tensor, references: Tensor, member: Tensor, *, variance: str = "global"
) -> Tensor:
    """Return −log N(t; μ_out, σ_out²), the formula of the published code.

    Its values differ: it takes medians and another spread, see `offline_published`.
    The formula is not the paper's (tensorflow/privacy, issue 598), and it is a trap:
    an unusually *low* signal scores as high as an unusually high one, so an example
    that the target knows worse than any reference does is called a member.
    """
    target, references, member = checked(target, references, member)
    return -_normal(references, ~member, "without", variance).log_prob(target)


def offline_published(
    target: Tensor, references: Tensor, member: Tensor, *, variance: str = "global"
) -> Tensor:
    """Return the offline score by the estimates of the published code of LiRA.

    The formula is that of `offline_density`. But of each example the first OUT
    references are taken, as many as the example with the fewest has; μ is their median;
    and σ divides by the count: over an example's own for `"example"`, over *all* values
    of all examples for `"global"`, which also holds how much the examples differ.
    """
    one_of("variance", variance, ("global", "example"))
    target, references, member = checked(target, references, member)
    least = int(count(~member, 2 if variance == "example" else 1, "without").min())
    order = member.int().argsort(dim=0, stable=True)[:least]
    kept = references.gather(0, order).numpy()
    spread = kept.std(0) if variance == "example" else kept.std()
    equal = int((spread <= 0).sum())
    what = (
        "references trained without an example must differ (or use variance='global')"
    )
    require(equal == 0, what, f"the same signal for {equal} of {len(target)} examples")
    middle, spread = (
        torch.from_numpy(np.asarray(x)) for x in (np.median(kept, 0), spread)
    )
    return -Normal(middle, spread).log_prob(target)


def leave_one_out(
    signals: Tensor, member: Tensor, attack: Attack, *, paired: bool = False
) -> Tensor:
    """Attack each of M models with the others as its references.

    Where every example is in exactly half of the M models, the others give the
    target away: to a member they hold one IN reference less than to a non-member.
    The mean over fewer is noisier, so that LiRA falls below 0.5 on models that leak
    nothing (AUC 0.47 with M = 8, 0.49 with 16). Either draw each model's examples on
    their own, or train models 2k and 2k + 1 on complementary halves and say
    `paired`: the target's partner is then left out too.

    Args:
        signals: float[M, N], of each model. member: bool[M, N].
        attack: `attack(target, references, member)` -> scores. What it needs of
            further examples, as RMIA does, can be columns of `signals` that it cuts.
        paired: see above.

    Returns the scores, [M, N], a row for each target. Raises ValueError also if
    `paired` and an example is in both models of a pair, or only in one of some.
    """
    signals, member = floats("signals", signals), taken("member", member)
    require(signals.ndim == 2, "signals must be [M, N]", tuple(signals.shape))
    _check_member(member, signals)
    refusing.counted_out(member, paired)
    size = 2 if paired else 1
    half = bool((2 * member.sum(0) == len(member)).all())
    if half and not paired:
        warnings.warn(
            "each example is in half of the models: without paired=True the others "
            "give the target away, and an AUC of 0.5 comes out lower",
            stacklevel=2,
        )
    if paired:
        require(
            len(member) % 2 == 0, "paired models must be even in number", len(member)
        )
        pairs = member[::2].int() + member[1::2]
        fits = (pairs == 1).all(0) | (pairs == 0).all(0)
        what = "paired models must hold each example once a pair, or never at all"
        require(bool(fits.all()), what, f"{int((~fits).sum())} examples that differ")
    group = torch.arange(len(signals), device=signals.device) // size
    others = [group != g for g in group]
    rows = zip(signals, others, strict=True)
    return torch.stack([attack(one, signals[o], member[o]) for one, o in rows])


def checked(target, references, member) -> tuple[Tensor, Tensor, Tensor]:
    """Return finite float64[N], finite float64[M, N] and bool[M, N], or refuse."""
    target, references = floats("target", target), floats("references", references)
    target, references = target.double(), references.double()
    member = taken("member", member)
    shape = tuple(target.shape)
    require(target.ndim == 1 and len(target) > 0, "target must be [N], N > 0", shape)
    fits = references.ndim == 2 and references.shape[1] == len(target)
    shape = tuple(references.shape)
    require(fits, f"references must be [M, {len(target)}] as target is", shape)
    finite("target", target)
    finite("references", references)
    _check_member(member, references)
    return target, references, member


def count(side: Tensor, need: int, how: str) -> Tensor:
    """Count an example's references, int64[N]; refuse fewer than `need` for any."""
    counts = side.sum(0)
    what = f"too few shadows: each example needs >= {need} references trained {how} it"
    fewest = int(counts.argmin())
    require(int(counts[fewest]) >= need, what, f"{counts[fewest]} for example {fewest}")
    return counts


def _check_member(member: Tensor, signals: Tensor) -> None:
    require(member.dtype == torch.bool, "member must be bool", member.dtype)
    shape = tuple(signals.shape)
    require(member.shape == shape, f"member must be {shape}", tuple(member.shape))


def _normal(references: Tensor, side: Tensor, how: str, variance: str) -> Normal:
    """Fit a normal distribution to each example's references of one side."""
    one_of("variance", variance, ("global", "example"))
    n = count(side, 2 if variance == "example" else 1, how)
    what = f"too few shadows: some example needs >= 2 references trained {how} it"
    require(int(n.max()) > 1, what, f"{n.max()} for each")
    mean = torch.where(side, references, 0).sum(0) / n
    squares = torch.where(side, references - mean, 0).square()
    if variance == "example":
        spread = squares.sum(0) / (n - 1)
    else:
        spread = squares.sum() / (n.sum() - len(n))
    # Equal numbers may differ from their mean by rounding.
    equal = int((spread <= 1e-24 * mean.square()).sum())
    what = f"references trained {how} an example must differ (or use variance='global')"
    require(equal == 0, what, f"the same signal for {equal} of {len(n)} examples")
    return Normal(mean, spread.sqrt())
