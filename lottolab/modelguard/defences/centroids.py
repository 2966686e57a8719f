"""What a quantising defence has answered so far: the centroids of each class.

Predictions are compared as integers, each probability rounded to a multiple of 2⁻⁴⁰.
Sums of such numbers are exact in float64, so a comparison does not depend on the order
of a sum: neither the size of a batch nor the processor can move an answer.
"""

import math
import os
from pathlib import Path

import torch
from torch import Tensor

from lottolab.checks import require, whole
from lottolab.modelguard.defences import simplex
from lottolab.nets import models

GRID = 2.0**40
SLACK = 4 * simplex.TOLERANCE  # what rows that do not quite sum to 1 add to a bound
PAIRS = 1024  # of predictions and centroids at a time, so that they stay in the cache
NONE = torch.iinfo(torch.int64).max
Rows = tuple[
    Tensor, ...
]  # places in a batch, top-1 classes and probabilities, each [n]


class Centroids:
    """Keep centroids in the order in which each class opened them.

    count: of all centroids. opened: int64 [num_classes], of each class.
    places: int64 [K, num_classes], row k tells where each class's k-th centroid stands
        among all, or `NONE`. peaks: float64, its largest probability, or −∞.
    """

    def __init__(self, epsilon: float, num_classes: int) -> None:
        simplex.check_epsilon(epsilon)
        whole("num_classes", num_classes, 2)
        self.epsilon, self.num_classes, self.count = epsilon, num_classes, 0
        # Less what rounding two predictions to integers can do to their distance.
        self.limit = max(0, math.floor(epsilon * GRID) - num_classes)
        self.opened = torch.zeros(num_classes, dtype=torch.int64)
        self.places = torch.full((1, num_classes), NONE)
        self.peaks = torch.full((1, num_classes), -torch.inf, dtype=torch.float64)
        self.values = torch.empty(1, num_classes, dtype=torch.float64)
        self.singles = self.values.float()

    def open(self, probs: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Make predictions the next centroids of their classes; return places, peaks.

        Args:
            labels: int64, the predictions' top-1 classes, all different.
        """
        first, self.count = self.count, self.count + len(probs)
        while self.count > len(self.values):
            self.values = torch.cat([self.values, self.values])
            self.singles = torch.cat([self.singles, self.singles])
        ranks = self.opened[labels]
        if int(ranks.max()) == len(self.places):
            self.places = torch.cat([self.places, torch.full_like(self.places, NONE)])
            empty = torch.full_like(self.peaks, -torch.inf)
            self.peaks = torch.cat([self.peaks, empty])
        values, singles, top = probs.double(), probs.float(), labels[:, None]
        if probs.dtype != singles.dtype:
            moved = singles.argmax(1) != labels  # rounding has brought them level
            settled = simplex.settle(values[moved], top[moved], singles.dtype)
            singles[moved] = settled
        self.values[first : self.count] = values
        self.singles[first : self.count] = singles
        places, peaks = torch.arange(first, self.count), values.gather(1, top)[:, 0]
        self.places[ranks, labels], self.peaks[ranks, labels] = places, peaks
        self.opened[labels] = ranks + 1
        return places, peaks

    def first(self, probs: Tensor, rows: Rows) -> Tensor:
        """Return the first centroid of its class within ε of each row, or `NONE`."""
        found = torch.empty_like(rows[1])
        for rank in range(int(self.opened.max())):
            places, peaks = self.places[rank], self.peaks[rank]
            found.scatter_(0, rows[0], *take(rows[1], places))
            rows = take(self.outside(probs, rows, places, peaks), *rows)
            there = places[rows[1]] != NONE  # others have NONE, and are done
            rows = take(there.nonzero()[:, 0], *rows)
            if len(rows[0]) == 0:
                break
        return found.scatter_(0, rows[0], NONE)

    def outside(self, probs: Tensor, rows: Rows, places: Tensor, peaks: Tensor):
        """Return which rows are not within ε of a centroid of their class: int64.

        Rows of one top-1 class with peaks p and q differ in ℓ1 by 2·|p − q| at least
        and by 2·(1 − min(p, q)) at most, which settles most.

        Args:
            places, peaks: [num_classes], of the centroids; `NONE` and −∞ are within ε
                of nothing.
        """
        index, labels, mine = rows
        (theirs,) = take(labels, peaks)
        near = torch.minimum(mine, theirs) > 1 - (self.epsilon - SLACK) / 2
        left = near.logical_not_().nonzero()[:, 0]
        apart = mine[left] - theirs[left]
        doubt = (apart.abs_() < (self.epsilon + SLACK) / 2).nonzero()[:, 0]
        far = torch.ones(len(left), dtype=torch.bool)
        for part in doubt.split(PAIRS):
            of, label = take(left[part], index, labels)
            far[part] = ~self._near(probs, of, places[label])
        return left[far]

    def _near(self, probs: Tensor, rows: Tensor, places: Tensor) -> Tensor:
        """Tell which rows are within ε of a centroid each: roughly, then exactly."""
        mine, theirs = *take(rows, probs), *take(places, self.singles)
        rough = (mine.float() - theirs).abs_().sum(1)
        near = rough < self.epsilon
        doubt = (rough - self.epsilon).abs() < self.num_classes * 1e-6
        if doubt.any():
            far = distance(probs[rows[doubt]], self.values[places[doubt]])
            near[doubt] = far <= self.limit
        return near

    def answers(self, places: Tensor, dtype: torch.dtype) -> Tensor:
        """Return the centroids at these places, N×C, in float32 or float64."""
        table = self.singles if dtype == torch.float32 else self.values
        # NumPy asks the system for huge pages and so takes a third of torch's time.
        return torch.from_numpy(table.numpy().take(places.numpy(), 0))

    def save(self, path: str | Path) -> None:
        """Write ε and the centroids, by rank and class, to a safetensors file.

        It appears under its name in one step, complete, or not at all.
        """
        values = self.values[self.places[self.places != NONE]]
        epsilon = torch.tensor(self.epsilon, dtype=torch.float64)
        new = Path(f"{path}.new")
        models.save({"epsilon": epsilon, "centroids": values}, new)
        with new.open("rb+") as file:
            os.fsync(file.fileno())
        os.replace(new, path)


def take(index: Tensor, *tensors: Tensor) -> Rows:
    """Return tensor[index] of each, in half the time that takes."""
    return tuple(tensor.index_select(0, index) for tensor in tensors)


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the ℓ1 distance of rows, N×C each, in units of 2⁻⁴⁰: float64, whole."""
    return (grid(a) - grid(b)).abs_().sum(1)


def grid(probs: Tensor) -> Tensor:
    """Return probabilities in units of 2⁻⁴⁰, rounded: float64, whole."""
    return (probs.double() * GRID).round_()


def read(path: str | Path) -> tuple[float, Tensor]:
    """Read what `Centroids.save` wrote: ε, and the centroids in the order saved.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not what `save` writes.
    """
    state = models.load_state(path)
    right = state.keys() == {"epsilon", "centroids"}
    require(right, f"{path} must hold epsilon and centroids", sorted(state))
    values = state["centroids"]
    shape = list(values.shape)
    require(values.ndim == 2, f"{path} must hold centroids [K, C]", shape)
    try:
        if len(values):
            simplex.check(values)
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    return float(state["epsilon"]), values
