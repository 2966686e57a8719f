"""Refuse what no attack on a model's images can work with, before it starts."""

import math
import warnings
from collections.abc import Sequence
from numbers import Real

import torch
from torch import Tensor, nn

from lottolab.checks import number, require
from lottolab.checks.tensors import asked, described, labels, tensor

STILL = (
    "the gradient is 0 for images that the model gets right: its loss does not change "
    'any more. Attack with loss="margin" (dlr of APGD), or see masking.findings'
)
ROUNDING = 1e-6  # by which an image may leave [0, 1] after it was normalised and back


def attackable(model, x: Tensor, y: Tensor, *, least: int = 2, **sizes: float) -> None:
    """Raise ValueError unless `pgd` can attack `model` on these images.

    x: float32 or float64, n×C×H×W in [0, 1], but for rounding. y: int64, n.
    least: how many classes the attack needs. sizes: >= 0 and finite; `epsilon` <= 1.
    """
    for name, size in sizes.items():
        number(name, size, 0, 1 if name == "epsilon" else math.inf)
    tensor("x", x)
    right = x.dtype in (torch.float32, torch.float64) and x.ndim == 4 and x.numel() > 0
    require(right, "x must be float32 of shape n×C×H×W, n > 0", described(x))
    _differentiable(model, x, y)
    ends = [float(end) for end in x.detach().aminmax()]  # NaN where there is one
    right = ends[0] >= -ROUNDING and ends[1] <= 1 + ROUNDING
    require(right, "x must be in [0, 1]", ends)
    classes = asked(model, x[:1]).shape[1]
    what = f"model must have {least} classes or more"
    require(classes >= least, what, classes)
    labels("y", y, len(x), classes)


def _differentiable(model, x: Tensor, y: Tensor) -> None:
    what = "{} must have gradients: {} outside of torch.inference_mode()"
    inside = torch.is_inference_mode_enabled()
    for name, given in (("x", x), ("y", y)):
        made = isinstance(given, Tensor) and given.is_inference()
        lacks = what.format(name, "clone it")
        require(not (inside or made), lacks, "an inference tensor")
    own = isinstance(model, nn.Module)
    held = [*model.parameters(), *model.buffers()] if own else []
    lacks = what.format("model", "make or load it")
    require(not any(t.is_inference() for t in held), lacks, "inference tensors")


def moving(slope: Tensor, logits: Tensor, y: Tensor) -> None:
    """Warn where an image that is still right has no gradient to follow."""
    still = (slope.flatten(1) == 0).all(1) & (logits.argmax(1) == y)
    if still.any():
        warnings.warn(STILL, stacklevel=4)


def several(members) -> None:
    """Raise ValueError unless this is a list of models, at least one."""
    right = isinstance(members, Sequence | nn.ModuleList)
    require(right, "members must be a list of models", described(members))
    require(len(members) > 0, "members must hold at least one model", 0)


def one_each(probabilities, count: int) -> None:
    """Raise ValueError unless these are `count` numbers > 0 in sum 1; or None."""
    if probabilities is not None:
        listed = isinstance(probabilities, list | tuple)
        right = listed and len(probabilities) == count
        right = right and all(isinstance(p, Real) and p > 0 for p in probabilities)
        right = right and math.isclose(sum(probabilities), 1, abs_tol=1e-6)
        what = "probabilities must be > 0, one a member, in sum 1, in a list"
        shown = probabilities if listed else described(probabilities)
        require(right, what, shown)


def alike(models: Sequence, x: Tensor) -> None:
    """Raise ValueError unless models answer each of several times alike, of one width.

    Who has `many` draws. Of others that draw, several draws may be the same, so this is
    no proof.
    """
    drawing = [place for place, model in enumerate(models) if hasattr(model, "many")]
    what = "members must not draw: give teams that a sampler drew (Sampler.teams)"
    require(not drawing, what, f"samplers at {drawing}")
    answers = [[asked(model, x[:8]) for _ in range(4)] for model in models]
    widths = [first.shape[1] for first, *_ in answers]
    require(len(set(widths)) == 1, "members must be of the same classes", widths)
    odd = [
        place
        for place, (first, *others) in enumerate(answers)
        if not all(torch.allclose(first, other) for other in others)
    ]
    require(not odd, what, f"other logits when asked again at {odd}")


def counted_out(member: Tensor, paired: bool) -> None:
    """Warn where models share examples so evenly that the others tell of the last.

    member: bool [M, N]. Counts of models that have an example vary, if each model draws
    its own, by M·p·(1 − p); where they vary by less than half of that, an example that
    the others have seldom is more likely in the one that is left. Nothing is said
    where all are in just half, of which `leave_one_out` warns itself.
    """
    counts = member.sum(0)
    counts = counts[(counts > 0) & (counts < len(member))].double()
    if paired or len(counts) < 2 or bool((2 * member.sum(0) == len(member)).all()):
        return
    share = counts.mean() / len(member)
    expected = len(member) * share * (1 - share)
    constant = bool((counts == counts[0]).all())
    few = len(counts) < 30  # so few vary little by chance
    if constant or (not few and counts.var() < expected / 2):
        warnings.warn(
            "the examples are in almost equally many models: the others give the "
            "target away, and an AUC of 0.5 comes out lower; draw each model's "
            "examples on their own, or say paired=True of models in pairs",
            stacklevel=3,
        )
