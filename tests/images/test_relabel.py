"""Cells of Fashion-MNIST: nested, equal, exact, and the first cut by another way."""

import hashlib

import numpy as np
import pytest
import torch

from lottolab.images import datasets, partition, relabel


def test_cells_are_nested_and_equal_on_the_training_part():
    base = datasets.load("fashion-mnist")
    labels = {
        c: datasets.load("fashion-cells", classes=c).labels for c in (10, 100, 1000)
    }
    assert torch.equal(labels[10], base.labels)
    assert torch.equal(labels[100] // 10, labels[10])
    assert torch.equal(labels[1000] // 10, labels[100])
    for classes, found in labels.items():
        counts = found[~base.test].bincount(minlength=classes)
        assert counts.tolist() == [60_000 // classes] * classes
        tests = found[base.test].bincount(minlength=classes)
        assert len(tests) == classes
        assert tests.min() >= 1
        assert tests.max() < 3 * 10_000 / classes


def test_only_the_labels_are_others():
    base, found = datasets.load("fashion-mnist"), datasets.load("fashion-cells")
    assert (found.name, found.classes, found.synthetic) == ("fashion-cells", 100, False)
    assert torch.equal(found.images, base.images)
    assert torch.equal(found.test, base.test)
    assert datasets.load("fashion-cells", classes=100) is found
    sums = {datasets.load("fashion-cells", classes=c).checksum for c in (10, 100, 1000)}
    assert len({base.checksum, *sums}) == 4
    parts = partition.splits(found, train=2000, val=10, test=500, seed=0)
    same = partition.splits(base, train=2000, val=10, test=500, seed=0)
    assert all(torch.equal(parts[key], same[key]) for key in parts)


def test_the_labels_are_the_same_on_every_machine():
    """Pin them: whoever gets others has cut in floating point somewhere."""
    expected = {
        100: "bbb7a35fa6b07e5b50a9a0ccf208ce1f13a00a7ea1ddd5ba310da0c911a3f6f5",
        1000: "7b2ceb775b8c5fa94928463072c429e887cc59dcaf8b7f50105339ce22e2f145",
    }
    base = datasets.load("fashion-mnist")
    for classes, digest in expected.items():
        found = relabel.cells(base.images, base.labels, base.test, classes)
        assert hashlib.sha256(found.numpy().tobytes()).hexdigest() == digest


@pytest.mark.parametrize("label", [0, 7])
def test_the_cuts_are_those_of_a_float_svd_on_shrunken_images(label):
    base = datasets.load("fashion-mnist")
    found = datasets.load("fashion-cells", classes=1000).labels
    level = {label: base.labels, 10 * label + 4: found // 10}
    for cell, parents in level.items():
        inside = parents == cell
        train = (inside & ~base.test).numpy()[inside.numpy()]
        small = torch.nn.functional.avg_pool2d(base.images[inside].double(), 4)
        points = small.flatten(1).numpy()
        centred = points - points[train].mean(0)
        vector = np.linalg.svd(centred[train], full_matrices=False)[2][0]
        vector *= np.sign(vector[abs(vector).argmax()])
        along = centred @ vector
        cuts = np.quantile(along[train], np.arange(1, 10) / 10)
        expected = np.searchsorted(cuts, along)
        children = found[inside] // (10 if cell == label else 1) % 10
        same = children.numpy() == expected
        assert same[train].mean() > 0.99
        assert same[~train].mean() > 0.95


def lines(values, test=()):
    """Make images of one bright pixel, so that the values lie on a line."""
    images = torch.zeros(len(values), 1, 28, 28, dtype=torch.uint8)
    images[:, 0, 9, 9] = torch.tensor(values, dtype=torch.uint8)
    mark = torch.zeros(len(values), dtype=torch.bool)
    mark[list(test)] = True
    return images, torch.zeros(len(values), dtype=torch.int64), mark


def test_parts_are_ranks_and_the_test_part_obeys_their_cuts():
    # 23 for training: three parts of three, seven of two; the brighter the higher.
    values = [10 * k for k in range(23)] + [0, 29, 30, 31, 225, 255]
    found = relabel.cells(*lines(values, range(23, 29)), 100).tolist()
    sizes = [3, 3, 3] + [2] * 7
    assert found[:23] == [k for k, size in enumerate(sizes) for _ in range(size)]
    assert found[23:] == [0, 0, 1, 1, 9, 9]
    turned = relabel.cells(*lines(values[22::-1]), 100).tolist()
    assert turned == found[:23][::-1]


def test_equals_are_parted_by_their_place_and_go_up_in_the_test_part():
    values = [60 if k % 7 < 4 else 50 for k in range(210)] + [50, 60, 55]
    found = relabel.cells(*lines(values, (210, 211, 212)), 100).tolist()
    order = sorted(range(210), key=lambda k: (values[k], k))
    expected = {k: rank // 21 for rank, k in enumerate(order)}
    assert found[:210] == [expected[k] for k in range(210)]
    # Parts 0 to 3 are all 50; part 4 begins in the 50s and ends in the 60s.
    assert found[210:] == [4, 9, 4]


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="classes must be one of 10, 100, 1000, got 9"):
        datasets.load("fashion-cells", classes=9)
    with pytest.raises(ValueError, match="classes must be an integer"):
        datasets.load("fashion-cells", classes=100.0)
    with pytest.raises(ValueError, match="did you mean classes"):
        datasets.load("fashion-cells", clases=100)
    with pytest.raises(ValueError, match="at least 10 training images, got 9"):
        relabel.cells(*lines(range(12), (0, 1, 2)), 100)
    assert relabel.cells(*lines(range(10)), 100).tolist() == list(range(10))
