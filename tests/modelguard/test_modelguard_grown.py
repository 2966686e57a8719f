"""MAD by its authors' rule, against that rule written out one set at a time."""

import numpy as np
import pytest
import torch
from predictions import dirichlet, distance, hard, on_simplex
from torch import nn

from lottolab import modelguard
from lottolab.modelguard.defences import grown, mad

MEAN_STD = (torch.zeros(1), torch.ones(1))
CLASSES = [2, 3, 7, 10, 11, 12, 13, 50, 100, 1000]


def turn(vertex, y, jacobian):
    """Return ‖Gᵀv/‖Gᵀv‖ − Gᵀy/‖Gᵀy‖‖², with all of G."""
    a, b = vertex @ jacobian, y @ jacobian
    a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b)
    return ((a - b) ** 2).sum(-1)


def shares(sets, top):
    """Give the classes of each set equal shares, and the top one 1e-5 more."""
    rows = sets.astype(float)
    rows[:, top] += 1e-5
    return rows / rows.sum(1, keepdims=True)


def authors_vertex(y, p, features):
    """Search as the authors say: all sets to ten classes, else 1,024 grown ones."""
    classes, top = len(y), int(y.argmax())
    jacobian = (np.eye(classes) - p)[:, :, None] * features[None, None]
    jacobian = jacobian.reshape(classes, -1)
    if classes <= 10:
        bits = (np.arange(2**classes)[:, None] >> np.arange(classes)) & 1
        sets = bits[bits[:, top] == 1]
        rows = shares(sets, top)
        return rows[turn(rows, y, jacobian).argmax()]
    members, best, tried, vertex = [top], -1.0, 0, None
    while tried < 1024 and len(members) < classes:
        rest = [k for k in range(classes) if k not in members]
        sets = np.zeros((len(rest), classes), dtype=int)
        sets[:, members] = 1
        sets[np.arange(len(rest)), rest] = 1
        rows = shares(sets, top)
        values = turn(rows, y, jacobian)
        if values.max() > best:
            best, vertex = values.max(), rows[values.argmax()]
        members.append(rest[values.argmax()])
        tried += len(rest)
    return vertex


@pytest.mark.parametrize("flat", [1.0, 300.0])
@pytest.mark.parametrize("classes", CLASSES)
def test_mad_is_the_authors_search_and_a_line(classes, flat):
    """`flat`: a surrogate of random weights is nearly uniform."""
    count = 2 if classes == 1000 else 5
    probs = dirichlet(count, classes, 0.3, seed=classes)
    surrogate = dirichlet(count, classes, flat, seed=classes + 1)
    features = np.random.default_rng(0).normal(size=3)
    answers = grown.deviate(probs, surrogate, 1.0)
    for y, p, answer in zip(probs.numpy(), surrogate.numpy(), answers, strict=True):
        goal = authors_vertex(y, p, features)
        step = min(1.0, 1.0 / np.abs(goal - y).sum())
        wanted = y + step * (goal - y)
        if classes == 2:  # on a line many vertices turn a gradient alike: by 0 or 4
            jacobian = (np.eye(2) - p)[:, :, None] * features[None, None]
            rows = np.stack([wanted, answer.numpy()])
            one, other = turn(rows, y, jacobian.reshape(2, -1))
            assert one == pytest.approx(other, abs=1e-9)
            continue
        assert np.abs(wanted - answer.numpy()).max() < 1e-9


@pytest.mark.parametrize(("classes", "most"), [(50, 31), (100, 12), (1000, 3)])
def test_growth_ends_after_1024_sets(classes, most):
    probs = dirichlet(8, classes, 0.3, seed=0)
    flat = dirichlet(8, classes, 1000.0, seed=1)
    top = probs.argmax(1, keepdim=True)
    sizes = grown.grown(probs, flat, top).sum(1)
    assert sizes.max() == most
    assert (sizes >= 2).all()


def test_growth_without_an_end_turns_nothing_where_the_surrogate_is_unsure():
    """What handicapped MAD in the first edition."""
    probs, flat = dirichlet(60, 100, 0.05, 0), dirichlet(60, 100, 3000.0, 1)
    top = probs.argmax(1, keepdim=True)
    assert mad.grown_vertex(probs, flat, top).sum(1).double().mean() > 80
    old, new, best = (
        float(mad.deviation(answers, probs, flat).mean())
        for answers in (
            mad.deviate(probs, flat, 1.0),
            grown.deviate(probs, flat, 1.0),
            grown.deviate(probs, flat, 1.0, "answer"),
        )
    )
    assert old < 0.02 < 0.1 < new < best


def test_the_search_by_the_answer_takes_the_best_answer_of_its_growth():
    probs, surrogate = dirichlet(6, 15, 0.4, seed=0), dirichlet(6, 15, 50.0, seed=1)
    found = grown.deviate(probs, surrogate, 0.8, "answer")
    for y, p, answer in zip(probs, surrogate, found, strict=True):
        top, members, best = int(y.argmax()), [int(y.argmax())], -1.0
        while len(members) < 15:
            rest = [k for k in range(15) if k not in members]
            tried = []
            for k in rest:
                goal = torch.zeros(15, dtype=torch.float64)
                goal[[*members, k]] = 1.0
                goal[top] += 1e-5
                goal /= goal.sum()
                step = min(1.0, 0.8 / float((goal - y).abs().sum()))
                row = (y + step * (goal - y))[None]
                tried.append((float(mad.deviation(row, y[None], p[None])), row[0]))
            value, place = max((v, i) for i, (v, _) in enumerate(tried))
            if value > best:
                best, wanted = value, tried[place][1]
            members.append(rest[place])
        assert (wanted - answer).abs().max() < 1e-9


@pytest.mark.parametrize("aim", grown.AIMS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("classes", [2, 3, 10, 11, 100, 1000])
def test_mad_keeps_its_promises(classes, dtype, aim):
    probs = hard(classes).to(dtype)
    level = torch.full_like(probs, 1 / classes)
    surrogate = level.lerp(hard(classes, 5).to(dtype), 0.1)
    for epsilon in (1e-6, 0.25, 2.0):
        answers = grown.deviate(probs, surrogate, epsilon, aim)
        assert answers.dtype == dtype
        assert on_simplex(answers)
        assert distance(answers, probs).max() <= epsilon + 1e-6
        assert torch.equal(answers.argmax(1), probs.argmax(1))
    assert torch.equal(grown.deviate(probs, surrogate, 0.0, aim), probs)


class Fixed(nn.Module):
    def __init__(self, row):
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row))

    def forward(self, x):
        return self.row.expand(len(x), -1)


def test_a_surrogate_that_ends_in_softmax_is_refused():
    probs, images = hard(3)[:2].float(), torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    good = modelguard.MAD(Fixed([1.0, -1.0, 0.5]), MEAN_STD, 1.0)
    assert good(probs, images).shape == (2, 3)
    bad = modelguard.MAD(Fixed([0.5, 0.25, 0.25]), MEAN_STD, 1.0)
    with pytest.raises(ValueError, match="leave the softmax out"):
        bad(probs, images)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: modelguard.MAD(Fixed([1.0]), MEAN_STD, True), "epsilon must be"),
        (lambda: modelguard.MAD(Fixed([1.0]), MEAN_STD, 1.0, "best"), "aim must be"),
        (lambda: grown.deviate(hard(3), hard(3)[:4], 1.0), "must have shape"),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
