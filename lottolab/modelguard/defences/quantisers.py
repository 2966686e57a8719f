"""ModelGuard-S: answer many predictions with one (paper, section 3.5, Algorithm 1)."""

from pathlib import Path
from typing import Self

import torch
from torch import Tensor

from lottolab.checks import require
from lottolab.checks.tensors import tensor
from lottolab.modelguard.defences import simplex
from lottolab.modelguard.defences.centroids import (
    NONE,
    Centroids,
    Rows,
    grid,
    read,
    take,
)

BLOCK = 2048  # rows checked at a time, so that they stay in the cache


class ModelGuardS:
    """Answer with the first centroid of the prediction's class within ε of it.

    Where there is none, the prediction becomes the class's next centroid and is its own
    answer. A batch gets the answers that its rows would get one by one, in order.

    Guarantees: each answer is an earlier prediction or this one, so on the simplex; of
    the same top-1 class; within ε of the prediction in ℓ1 (within C·2⁻⁴⁰ if ε is less).
    Once a prediction is answered, it and all that equal it in multiples of 2⁻⁴⁰ get the
    same answer for ever, bit by bit in a dtype. It does not guarantee to reveal
    nothing: whoever opens a centroid is told the exact prediction.

    State: the centroids, on the CPU; it grows without bound. `save` and `load` keep it.

    Raises:
        ValueError: epsilon is not in [0, 2], num_classes no whole number >= 2, rows are
            off the simplex or have another number of classes.

    >>> defence = ModelGuardS(0.5, num_classes=2)
    >>> defence(torch.tensor([[0.9, 0.1], [0.7, 0.3], [0.6, 0.4]]))
    tensor([[0.9000, 0.1000],
            [0.9000, 0.1000],
            [0.6000, 0.4000]])
    >>> defence.count
    2
    """

    def __init__(self, epsilon: float, num_classes: int) -> None:
        self.centroids = Centroids(epsilon, num_classes)

    def __call__(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return the answers, N×C, in the dtype of `probs`; `x` is not needed."""
        places = self._places(*self._rows(probs), opening=True)
        return self.centroids.answers(places, probs.dtype).to(probs.device)

    def peek(self, probs: Tensor, x: Tensor | None = None) -> Tensor:
        """Return what each row would be answered if it came next; nothing changes."""
        places = self._places(*self._rows(probs), opening=False)
        known = (places != NONE).nonzero()[:, 0]
        answers = probs.detach().clone()
        if len(known):
            held = self.centroids.answers(places[known], probs.dtype)
            answers[known.to(probs.device)] = held.to(probs.device)
        return answers

    @property
    def count(self) -> int:
        """The number of centroids."""
        return self.centroids.count

    def save(self, path: str | Path) -> None:
        """Write the state to a safetensors file, in one step."""
        self.centroids.save(path)

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Return a defence with the state of a file that `save` wrote.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is not what `save` writes.
        """
        epsilon, values = read(path)
        defence = cls(epsilon, values.shape[1])
        if len(values):
            defence(values)  # each opens itself, as none is within ε of another
        what = f"{path} must hold centroids that are not within epsilon"
        require(defence.count == len(values), what, f"{len(values)} with {epsilon}")
        return defence

    def _rows(self, probs: Tensor) -> tuple[Tensor, Rows]:
        """Check predictions; return them on the CPU, and what `Centroids` asks of."""
        tensor("probs", probs)
        require(probs.ndim == 2, "probs must be [N, C]", list(probs.shape))
        probs, labels, peaks = probs.detach().cpu(), [], []
        for block in probs.split(BLOCK):
            simplex.check(block, self.centroids.num_classes)
            labels.append(torch.from_numpy(block.numpy().argmax(1)))  # twice as fast
            peaks.append(block.gather(1, labels[-1][:, None])[:, 0].double())
        rows = torch.arange(len(probs)), torch.cat(labels), torch.cat(peaks)
        return probs, rows

    def _places(self, probs: Tensor, rows: Rows, opening: bool) -> Tensor:
        """Return each row's centroid.

        Rows that have none open them in rounds, one a class: its first row that is
        left. All that are left compare with it, which is what they would do one by one:
        they come later, and no older centroid is within ε of them.
        """
        known = self.centroids
        found = known.first(probs, rows)
        rows = take((found == NONE).nonzero()[:, 0], *rows)
        places = torch.full((known.num_classes,), NONE)
        peaks = torch.empty(known.num_classes, dtype=torch.float64)
        while opening and len(rows[0]):
            index, labels, _ = rows
            first = torch.full_like(places, NONE)
            first.scatter_reduce_(0, labels, index, "amin")
            new = (first != NONE).nonzero()[:, 0]
            opener = take(first[new], probs)[0]
            places[new], peaks[new] = known.open(opener, new)
            # A later round replaces what is not near.
            found.scatter_(0, index, *take(labels, places))
            rows = take(known.outside(probs, rows, places, peaks), *rows)
        return found


class UnorderedQuantiser(ModelGuardS):
    """Answer with the nearest centroid of the prediction's class that is within ε.

    The paper's counter-example to ModelGuard-S (section 3.5, Figure 2 a to c; Table 6).
    All is as in `ModelGuardS` but one guarantee: a later centroid may be nearer, so
    that the same prediction may get another answer the next time, which tells an
    attacker where it lies. Of equally near centroids the older one answers.
    """

    def _places(self, probs: Tensor, rows: Rows, opening: bool) -> Tensor:
        labels = rows[1]
        found = torch.empty_like(labels)
        for label in labels.unique():
            own = (labels == label).nonzero()[:, 0]
            found[own] = self._of_class(probs[own], label, opening)
        return found

    def _of_class(self, probs: Tensor, label: Tensor, opening: bool) -> Tensor:
        """Return the centroids of rows, all of class `label`, one after the other."""
        known, mine = self.centroids, grid(probs)
        own = known.places[:, label]
        own = own[own != NONE].tolist()
        best = torch.full((len(probs),), torch.inf, dtype=torch.float64)
        found = torch.empty(len(probs), dtype=torch.int64)

        def compare(place: int, first: int) -> None:
            far = (mine[first:] - grid(known.values[place])).abs_().sum(1)
            closer = far < best[first:]
            best[first:][closer], found[first:][closer] = far[closer], place

        for place in own:
            compare(place, 0)
        while True:
            outside = (best > known.limit).nonzero()[:, 0]
            if not opening:
                found[outside] = NONE
            if not opening or len(outside) == 0:
                return found
            row = int(outside[0])
            known.open(probs[row : row + 1], label[None])
            compare(known.count - 1, row)
