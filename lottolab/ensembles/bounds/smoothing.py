"""Certify an l2 radius by randomised smoothing: a number that no attack can lower.

Cohen, Rosenfeld and Kolter (2019), "Certified adversarial robustness via randomized
smoothing", ICML. The smoothed classifier answers an image with the class that `model`
gives most often to the image under noise N(0, σ² I). If that class has a probability of
at least p > 1/2, the answer is the same for every image nearer than σ Φ⁻¹(p) in l2
(their Theorem 1 with the runner-up's probability bounded by 1 − p).

The theorem asks of `model` only that its answer to a noisy image is a class, or a draw
of one that does not know where the noise was centred. So it holds for a team that is
drawn anew for each noisy image too: of the ensemble that smooths *and* draws. It says
nothing of the model without noise.
"""

import numpy as np
import pandas as pd
import torch
from scipy import stats
from torch import Tensor

from lottolab.checks import check_seed, require, tensors, whole, within
from lottolab.checks.attacks import attackable
from lottolab.ensembles.queries import Model, evaluating
from lottolab.truth.rates import binomial_upper

ABSTAINS = -1


def certify(
    model: Model,
    x: Tensor,
    y: Tensor,
    *,
    sigma: float,
    first: int = 100,
    draws: int = 1000,
    alpha: float = 0.001,
    seed: int,
    batch: int = 500,
) -> pd.DataFrame:
    """Return the smoothed answer to each image, and the radius in which it stays.

    The paper's algorithm Certify: `first` noisy images choose the class, `draws` others
    count it, and p is the exact lower bound (Clopper and Pearson, 1934) of its share.

    Args:
        model: asked in evaluation mode, about images that noise takes out of [0, 1].
            Train it under the same noise, or most of its answers are lost. A `Sampler`
            must draw for each image, and draws from a generator of its own.
        x, y: as for `pgd`.
        sigma: the noise's standard deviation, > 0, on pixels in [0, 1].
        draws: the radius is at most σ Φ⁻¹(α^(1/draws)): 2.5 σ of 1,000 at α = 0.001.
        alpha: the probability, an image, of a radius that is too large, in (0, 0.5).
        seed: of the noise. batch: noisy images that go through the model together;
            another number is other noise.

    Returns:
        A row an image: `label`, −1 where it abstains; `hits`, how many of `draws`
        agreed; `lower`, p; `radius`, in l2, 0 where it abstains; `right`, whether the
        label is y's.

    Raises:
        ValueError: anything is not as above, or what `pgd` refuses.
    """
    within("sigma", sigma, "(0, inf)")
    within("alpha", alpha, "(0, 0.5)")
    for name, value in {"first": first, "draws": draws, "batch": batch}.items():
        whole(name, value, 1)
    check_seed(seed)
    per = getattr(model, "per", "image")
    what = 'a sampler must draw for each image (per="image"), or votes are not its own'
    require(per == "image", what, repr(per))
    attackable(model, x, y)
    generator = torch.Generator().manual_seed(seed)
    rows = []
    for image, own in zip(x, y.tolist(), strict=True):
        chosen = int(votes(model, image, sigma, first, generator, batch).argmax())
        counts = votes(model, image, sigma, draws, generator, batch)
        hits = int(counts[chosen])
        lower = 1 - binomial_upper(draws - hits, draws, 1 - alpha)
        sure = lower > 0.5
        label = chosen if sure else ABSTAINS
        radius = sigma * float(stats.norm.ppf(lower)) if sure else 0.0
        rows.append((label, hits, lower, radius, label == own))
    return pd.DataFrame(rows, columns=["label", "hits", "lower", "radius", "right"])


@torch.no_grad()
def votes(
    model: Model,
    image: Tensor,
    sigma: float,
    draws: int,
    generator: torch.Generator,
    batch: int = 500,
) -> Tensor:
    """Count the classes of an image, float [C, H, W], under noise; int64 [classes]."""
    counts: Tensor | int = 0
    with evaluating(model):
        for size in [batch] * (draws // batch) + [draws % batch] * (draws % batch > 0):
            noise = torch.randn(size, *image.shape, generator=generator)
            logits = model(image + sigma * noise.to(image))
            tensors.logits("the model's logits", logits)
            require(len(logits) == size, f"logits must be {size} rows", len(logits))
            counts += logits.argmax(1).bincount(minlength=logits.shape[1]).cpu()
    return counts


def accuracy(table: pd.DataFrame, radii) -> np.ndarray:
    """Return the certified accuracy at each radius: right, and not nearer than that.

    It bounds the smoothed classifier's accuracy under any attack within that l2
    radius; an l∞ ball of ε has the l2 radius ε √pixels around it.

    Args:
        table: what `certify` returned. radii: numbers >= 0.

    >>> table = pd.DataFrame({"right": [True, True, False], "radius": [0.5, 0.1, 1.0]})
    >>> accuracy(table, [0.0, 0.2]).round(2).tolist()
    [0.67, 0.33]
    """
    radii = np.asarray(radii, dtype=float)
    require(bool((radii >= 0).all()), "radii must be >= 0", radii.tolist())
    there = table["right"].to_numpy() & (table["radius"].to_numpy() >= radii[..., None])
    return there.mean(-1)
