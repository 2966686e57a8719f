"""Recover predictions from a known defence: the partial Bayes attack.

Paper, section 3.4 and appendix B.1, Equations 11 to 13 and 21. The posterior mean of y
given p(y) is the best guess in squared error; it is estimated by a table of pairs
(p(y), y) with y drawn around plausible predictions.
"""

import math
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from lottolab.checks import check_seed, require, whole, within
from lottolab.checks.taking import floats
from lottolab.modelguard.defences import simplex
from lottolab.modelguard.queries import Defence, Service, checked

SLACK = 1e-6  # distances that differ by less are equal: float32 sums of an ℓ1 norm
ROWS = 50_000


class Table(NamedTuple):
    """Hold pairs (p(y), y), one a row, each float32 M×K."""

    perturbed: Tensor
    clean: Tensor


def pairs(
    predictions: Iterable[tuple[Tensor, Tensor | None]], defence: Defence
) -> Table:
    """Pass blocks of (predictions, images or None) through the defence, in order."""
    perturbed, clean = [], []
    for block, images in predictions:
        perturbed.append(checked(defence(block, images), len(block)))
        clean.append(block.float())
    return Table(torch.cat(perturbed), torch.cat(clean))


def lookup_table(
    means: Tensor,
    defence: Defence,
    *,
    images: Tensor | None = None,
    draws: int = 20,
    concentration: float = 8.0,
    seed: int,
) -> Table:
    """Draw predictions around `means` and perturb them as the defence does.

    y ~ Dirichlet(s · mean) with precision s = `concentration` · K (Equation 21,
    Remark 5). A class whose mean is 0 is 0 in all draws, the limit of the Dirichlet.

    The paper's `means` are the target's true predictions of the very queries: that is
    an oracle, an upper bound of what an attacker can do, although the pairing of means
    and answers is not used. See `own_table` for what he can do by himself.

    Args:
        means: float N×K, rows of probabilities.
        defence: `defence(probabilities, images)`, as the attacker knows it; for a
            quantiser its `peek`, which opens no centroid.
        images: uint8 [N, …], one a mean, for a defence that looks at them.
        draws: per mean, >= 1. concentration: > 0.

    Returns:
        N · draws pairs; those of a mean are neighbours.

    Raises:
        ValueError: anything is not as above.
    """
    simplex.check(means)
    whole("draws", draws, 1)
    check_seed(seed)
    within("concentration", concentration, "(0, inf)")
    count = None if images is None else len(images)
    require(count in (None, len(means)), f"images must be {len(means)}", count)
    shape = (concentration * means.shape[1] * means.detach().double()).cpu().numpy()
    numbers = np.random.default_rng(seed)

    def blocks():
        size = max(1, ROWS // draws)
        for start in range(0, len(shape), size):
            part = slice(start, start + size)
            gamma = numbers.standard_gamma(shape[part].repeat(draws, 0))
            clean = torch.from_numpy(gamma / gamma.sum(1, keepdims=True)).float()
            seen = None if images is None else images[part]
            yield clean, None if seen is None else seen.repeat_interleave(draws, 0)

    return pairs(blocks(), defence)


def own_table(
    substitute: nn.Module,
    images: Tensor,
    mean_std: tuple[Tensor, Tensor],
    defence: Defence,
    **options,
) -> Table:
    """Draw around the predictions of the attacker's own substitute: no oracle.

    `images` are the queries, and `mean_std` what the substitute was trained with. The
    options are those of `lookup_table`.
    """
    means = Service(substitute, mean_std)(images)
    return lookup_table(means, defence, images=images, **options)


def recover_partial_bayes(
    answers: Tensor,
    table: Table,
    *,
    tolerance: float = 0.01,
    elements: int = 2**25,
) -> Tensor:
    """Return the mean clean prediction of all table entries that match each answer.

    Equation 12, with predictions taken one by one. An entry matches if p(y) has the
    largest class of the answer and lies within `tolerance` of it in ℓ1; where none
    does, the nearest entry of that class counts, with all that are as near. An answer
    with a largest class that no entry has is compared with the whole table.

    Equal answers are looked up once, and no more than `elements` distances are held at
    a time.

    Args:
        answers: float N×K. table: see `lookup_table`.
        tolerance: δ >= 0, which the paper does not give.

    Returns:
        N×K, rows of probabilities, of the answers' dtype and on their device.

    Raises:
        ValueError: anything is not as above.
    """
    asked, answers = checked(answers), floats("answers", answers)
    perturbed, clean = (checked(part) for part in table)
    same = perturbed.shape == clean.shape and clean.shape[1] == asked.shape[1]
    given = [list(part.shape) for part in (asked, perturbed, clean)]
    require(same, "the table must be of as many classes as the answers", given)
    within("tolerance", tolerance, "[0, inf]")
    require(
        tolerance <= 3e38 or tolerance == math.inf,
        "tolerance must be at most 3e38, which float32 holds, or infinite",
        tolerance,
    )
    whole("elements", elements, 1)
    distinct, place = torch.unique(asked, dim=0, return_inverse=True)
    labels, found = distinct.argmax(1), torch.empty_like(distinct)
    entries = perturbed.argmax(1).to(labels.device)
    for label in labels.unique():
        rows = (labels == label).nonzero()[:, 0]
        near = (entries == label).nonzero()[:, 0].to(clean.device)
        group = perturbed[near], clean[near]
        if not len(near):
            group = perturbed, clean
        group = tuple(part.to(asked.device) for part in group)
        for part in rows.split(max(1, elements // len(group[0]))):
            found[part] = _matched(distinct[part], *group, tolerance)
    return found[place].to(answers.dtype)


def _matched(answers: Tensor, perturbed: Tensor, clean: Tensor, tolerance: float):
    """Return the mean of the rows of `clean` that match, B×K."""
    distance = torch.cdist(answers, perturbed, p=1)
    limit = distance.amin(1, keepdim=True).clamp(min=tolerance) + SLACK
    match = (distance <= limit).float()
    return match @ clean / match.sum(1, keepdim=True)
