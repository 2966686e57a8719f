"""ModelGuard-S for a service: one prediction at a time, by a scan of its class.

`ModelGuardS` compares many predictions with one centroid of each class at a time, which
is quick for a large batch. A single prediction pays for every one of those rounds;
here it is compared with all centroids of its class at once.
"""

from typing import Self

import numpy as np
import torch
from torch import Tensor

from lottolab.modelguard.defences.centroids import NONE, Rows, distance
from lottolab.modelguard.defences.quantisers import ModelGuardS
from lottolab.modelguard.queries import Defence

DOUBT = 1e-6  # a class, by which a float32 distance may be off; as in `Centroids`


class Scanned(ModelGuardS):
    """Answer as `ModelGuardS` does, bit by bit, row after row."""

    def __init__(self, epsilon: float, num_classes: int) -> None:
        super().__init__(epsilon, num_classes)
        empty = np.empty((1, num_classes), np.float32)
        self._tables = [empty] * num_classes  # of each class's centroids, with room
        self._own: list[list[int]] = [[] for _ in range(num_classes)]  # their places
        self._seen = 0

    @classmethod
    def of(cls, defence: ModelGuardS) -> Self:
        """Return one that goes on with another's centroids, which both then share."""
        known = defence.centroids
        new = cls(known.epsilon, known.num_classes)
        new.centroids = known
        return new

    def _places(self, probs: Tensor, rows: Rows, opening: bool) -> Tensor:
        _, labels, _ = rows
        found, singles = torch.full_like(labels, NONE), probs.float().numpy()
        for row, label in enumerate(labels.tolist()):
            self._follow()
            place = self._first(singles[row], probs[row], label)
            if place is None and opening:
                place = self.centroids.count
                self.centroids.open(probs[row : row + 1], labels[row : row + 1])
            if place is not None:
                found[row] = place
        return found

    def _first(self, row: np.ndarray, probs: Tensor, label: int) -> int | None:
        """Return the place of the class's first centroid within ε, if there is one."""
        own, known = self._own[label], self.centroids
        rough = np.abs(self._tables[label][: len(own)] - row).sum(1)
        doubt = known.num_classes * DOUBT
        for rank in np.flatnonzero(rough < known.epsilon + doubt):
            place = own[rank]
            if abs(rough[rank] - known.epsilon) >= doubt:
                return place
            if distance(probs[None], known.values[place, None]) <= known.limit:
                return place
        return None

    def _follow(self) -> None:
        """Put centroids that were opened meanwhile into their classes' tables."""
        known = self.centroids
        for place in range(self._seen, known.count):
            row = known.singles[place].numpy()
            label = int(row.argmax())
            own, table = self._own[label], self._tables[label]
            if len(own) == len(table):
                self._tables[label] = table = np.concatenate([table, table])
            elif not own:
                self._tables[label] = table = table.copy()
            table[len(own)] = row
            own.append(place)
        self._seen = known.count


def quick(defence: Defence | None) -> Defence | None:
    """Return what answers single predictions as `defence` does, in less time."""
    plain = type(defence) is ModelGuardS
    return Scanned.of(defence) if plain else defence
