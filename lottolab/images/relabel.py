"""Label images more finely: nested cells inside the classes of a data set.

Only the number of classes changes, not one image, so that what more classes do can be
told from what other images do. Every class is cut into ten along its first principal
direction, and each of these again along its own: a k-d tree of principal directions.
The cells are ours; no human would name them.
"""

import numpy as np
import torch
from torch import Tensor

from lottolab.checks import one_of, require, tensors

PARTS = 10
DEPTHS = {10: 0, 100: 1, 1000: 2}


def cells(images: Tensor, labels: Tensor, test: Tensor, classes: int) -> Tensor:
    """Return finer labels of Fashion-MNIST, int64 [N] in [0, `classes`).

    `images` uint8 [N, 1, 28, 28], `labels` int64 [N] in [0, 10), `test` bool [N]; 10
    `classes` are the labels as given, 100 and 1,000 their cells. A label // 10 is the
    label of the cell around it.

    Directions and cuts are measured where `test` is False: there the ten parts of a
    cell are as large as each other, ± 1, and of equals at a cut the later ones go up.
    The same cuts divide the test part, so that its parts are only about as large.

    Numbers stay whole (sums of 4×4 pixels; directions in 1/10,000), so that no machine
    rounds an image into another cell.

    Raises ValueError for another number of classes, or a cell with under ten images to
    measure on.
    """
    one_of("classes", classes, DEPTHS)
    tensors.images("images", images)
    shape = list(images.shape[1:])
    require(shape == [1, 28, 28], "images must be [N, 1, 28, 28]", shape)
    tensors.labels("labels", labels, len(images), PARTS)
    tensors.tensor("test", test)
    right = test.dtype == torch.bool and test.shape == labels.shape
    require(right, f"test must be bool [{len(images)}]", tensors.described(test))
    pixels = images.numpy().reshape(-1, 7, 4, 7, 4)
    points = pixels.sum((2, 4), dtype=np.int64).reshape(-1, 49)
    found, train = labels.numpy(), ~test.numpy()
    for _ in range(DEPTHS[classes]):
        finer = np.empty_like(found)
        for cell in np.unique(found):
            inside = found == cell
            finer[inside] = PARTS * cell + _parts(points[inside], train[inside])
        found = finer
    return torch.from_numpy(found)


def _parts(points: np.ndarray, train: np.ndarray) -> np.ndarray:
    """Cut points, int64 [n, d], into ten by rank along their principal direction."""
    least = f"a cell must hold at least {PARTS} training images"
    require(train.sum() >= PARTS, least, train.sum())
    along = points @ _direction(points[train])
    order = np.flatnonzero(train)[np.argsort(along[train], kind="stable")]
    ranked = np.array_split(order, PARTS)
    cuts = along[[part[0] for part in ranked[1:]]]
    parts = np.searchsorted(cuts, along, side="right")
    for i, part in enumerate(ranked):
        parts[part] = i
    return parts


def _direction(points: np.ndarray) -> np.ndarray:
    """Return the first principal direction × 10,000, rounded, its largest entry > 0."""
    # Exact: every sum in here is a whole number under 2^53.
    exact = points.astype(np.float64)
    total = exact.sum(0)
    scatter = len(points) * (exact.T @ exact) - np.outer(total, total)
    vector = np.linalg.eigh(scatter).eigenvectors[:, -1]
    vector = vector * np.sign(vector[np.abs(vector).argmax()])
    return np.rint(1e4 * vector).astype(np.int64)
