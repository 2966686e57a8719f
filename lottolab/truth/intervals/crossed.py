"""Say how sure a measure is that models and images share: networks × images.

Where the models of a pool answer about the same images, and refer to each other, they
are no independent replicates: a t interval over them is too narrow. Both are samples
here: another pool would have other images, another run other networks. A measure θ is
taken apart into what each answer moves it by, its *influence* ψ [models, images] with
θ̂ ≈ θ + mean ψ, and ψ is analysed like a table of two crossed factors,

    Var θ̂ = V_rows + V_columns − V_cells,

where V_rows is the squared standard error of the rows' means, V_columns that of the
columns' and V_cells that of the residuals, which the first two both count (Searle,
Casella and McCulloch, 1992, "Variance components", chapter 4; Cameron, Gelbach and
Miller, 2011, equation 2.5, for clusters in two ways; Owen, 2007, "The pigeonhole
bootstrap", shows that resampling both ways counts the residual three times). Rows are
clusters of models: where 2k and 2k + 1 train on complementary halves, the pair. The
degrees of freedom are Satterthwaite's (1946).

What models share through their references lies within an image, so V_columns has it.
`influence` has the measures, and `coverage` simulates how often these intervals hold:
not where networks differ much more than their images explain.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats as distributions

from lottolab.checks import require
from lottolab.truth.intervals.influence import Linear
from lottolab.truth.stats import LEVEL, Interval, confidence


@dataclass(frozen=True)
class Parts:
    """Hold what the variance of an estimate is made of; see the head of this module.

    `rows`, `columns` and `cells` are V_rows, V_columns and V_cells of so many
    `clusters` and `images`.
    """

    rows: float
    columns: float
    cells: float
    clusters: int
    images: int

    @property
    def variance(self) -> float:
        """Return the variance of the estimate.

        Where the difference comes out too small by chance, the smaller of V_rows and
        V_columns stands in: each holds the residual once.
        """
        floor = min(self.rows, self.columns)
        return max(self.rows + self.columns - self.cells, floor)

    @property
    def freedom(self) -> float:
        """Return Satterthwaite's degrees of freedom, at least `clusters` − 1."""
        rows, columns = self.clusters - 1, self.images - 1
        squares = self.rows**2 / rows + self.columns**2 / columns
        squares += self.cells**2 / (rows * columns)
        return max(self.variance**2 / squares, rows) if squares else float(rows)


def parts(measured: Linear, clusters: ArrayLike) -> Parts:
    """Take the variance of a measure apart.

    `clusters` holds a label for each model; those with the same one (a pair that trains
    on complementary halves, the same seed) are no replicates of each other. Each must
    have as many models as every other.

    Raises ValueError for fewer than two clusters or images.
    """
    psi = measured.influence
    names = np.asarray(clusters)
    what = f"clusters must hold {len(psi)} labels, one a model"
    require(names.shape == (len(psi),), what, names.shape)
    _, place, sizes = np.unique(names, return_inverse=True, return_counts=True)
    require(np.ptp(sizes) == 0, "clusters must be of one size", sizes.tolist())
    count, images = len(sizes), psi.shape[1]
    enough = "there must be at least two clusters and two images"
    require(min(count, images) > 1, enough, f"{count} and {images}")
    cells = psi[np.argsort(place, kind="stable")]
    cells = cells.reshape(count, sizes[0], images).mean(1)
    rows, columns = cells.mean(1), cells.mean(0)
    rest = cells - rows[:, None] - (columns - cells.mean())
    freedom = (count - 1) * (images - 1)
    residual = float(np.square(rest).sum()) / freedom / (count * images)
    return Parts(_squared(rows), _squared(columns), residual, count, images)


def interval(
    measured: Linear | Sequence[Linear], clusters: ArrayLike, level: float = LEVEL
) -> Interval:
    """Return a measure with its t interval over models and images; `n` are clusters.

    Several measures are those of independent pools, with other images and other models
    in the same `clusters`: the estimate is their mean.

    >>> from lottolab.truth.intervals.influence import share
    >>> right = np.random.default_rng(0).random((10, 400)) < 0.8
    >>> print(interval(share(right), range(10)))
    0.801 [0.782, 0.819], n = 10
    """
    confidence(level)
    pools = [measured] if isinstance(measured, Linear) else list(measured)
    require(len(pools) > 0, "there must be at least one pool", "none")
    found = [parts(pool, clusters) for pool in pools]
    each = np.array([p.variance for p in found]) / len(pools) ** 2
    variance, squares = each.sum(), sum(each**2 / [p.freedom for p in found])
    freedom = variance**2 / squares if squares else found[0].freedom
    half = float(distributions.t.isf((1 - level) / 2, freedom) * math.sqrt(variance))
    mean = float(np.mean([pool.estimate for pool in pools]))
    return Interval(
        mean, mean - half, mean + half, sum(p.clusters for p in found), level
    )


def _squared(means: np.ndarray) -> float:
    """Return the squared standard error of the mean of such means."""
    return float(means.var(ddof=1)) / len(means)
