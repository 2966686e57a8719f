"""Each defence keeps what it promises, and ModelGuard-W equals an LP solver."""

import math

import numpy as np
import pytest
import torch
from predictions import dirichlet, distance, hard, leads, on_simplex
from scipy import sparse
from scipy.optimize import linprog

from lottolab import modelguard
from lottolab.modelguard.defences import linear_program, simplex

FLOOR, MARGIN = 1e-6, 1e-4
CLASSES = [2, 3, 10, 100, 1000]
FLOATS = [torch.float32, torch.float64]
NAN = math.nan


# --- ModelGuard-W


def highs(y: np.ndarray, epsilon: float) -> np.ndarray:
    """Return the optimum of each row's linear program by HiGHS, ten rows at a time."""
    found = []
    for rows in np.split(y, range(10, len(y), 10)):
        n, classes = rows.shape
        size, top = n * classes, rows.argmax(1) + np.arange(n) * classes
        lead = rows.ravel()[top] - np.sort(rows, 1)[:, -2]
        prices = np.log(rows + FLOOR).ravel()
        each = sparse.kron(sparse.identity(n), np.ones((1, classes)))
        ones = (np.arange(size), np.repeat(top, classes))
        peak = sparse.csr_array((np.ones(size), ones), shape=(size, size))
        others = np.delete(np.arange(size), top)
        behind = (sparse.identity(size) - peak).tocsr()[others]
        # Two variables a class: what it gets and, up to y, what it gives.
        limits = sparse.vstack([sparse.hstack([behind, -behind])])
        limits = sparse.vstack([limits, sparse.hstack([each, each])])
        gaps = np.repeat(rows.ravel()[top], classes) - rows.ravel()
        gaps = (gaps - np.repeat(np.minimum(lead, MARGIN), classes))[others]
        high = np.concatenate([np.full(size, np.inf), rows.ravel()])
        solved = linprog(
            np.concatenate([prices, -prices]),
            limits,
            np.concatenate([gaps, np.full(n, epsilon)]),
            sparse.hstack([each, -each]),
            np.zeros(n),
            np.stack([np.zeros(2 * size), high], 1),
            method="highs",
        )
        assert solved.status == 0
        answer = solved.x[:size] - solved.x[size:] + rows.ravel()
        found.append((answer * prices).reshape(n, classes).sum(1))
    return np.concatenate(found)


def against_highs(probs: torch.Tensor, epsilon: float):
    """Hold ModelGuard-W's answers to the LP's optimum and to all its constraints."""
    answers = modelguard.ModelGuardW(epsilon)(probs)
    objective = (answers * (probs + FLOOR).log()).sum(1)
    best = torch.from_numpy(highs(probs.numpy(), epsilon))
    assert (objective - best).abs().max() < 1e-6
    assert distance(answers, probs).max() <= epsilon + 1e-6
    assert on_simplex(answers)
    top = probs.argmax(1, keepdim=True)
    wanted = leads(probs, top).clamp(max=MARGIN)
    assert (leads(answers, top) >= wanted - 1e-6).all()


@pytest.mark.parametrize("epsilon", [0, 0.25, 1, 1.75, 2])
@pytest.mark.parametrize("classes", [2, 10, 100, 256])
def test_w_reaches_the_optimum_of_highs_within_its_constraints(classes, epsilon):
    rows = hard(classes, seed=classes)
    assert len(rows) >= 100
    against_highs(rows, epsilon)


@pytest.mark.long
@pytest.mark.parametrize("epsilon", [0, 0.25, 1, 1.75, 2])
@pytest.mark.parametrize("classes", [2, 10, 100, 256])
def test_w_reaches_the_optimum_of_highs_on_2000_rows(classes, epsilon):
    rows = torch.cat([hard(classes, seed) for seed in range(20)])
    assert len(rows) >= 2000
    against_highs(rows[:2000], epsilon)


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", CLASSES)
def test_w_keeps_its_promises(classes, dtype):
    probs = hard(classes).to(dtype)
    for epsilon in (1e-6, 0.25, 1, 2.0):
        answers = modelguard.ModelGuardW(epsilon)(probs)
        assert answers.dtype == dtype
        assert on_simplex(answers)
        assert distance(answers, probs).max() <= epsilon + 1e-6
        assert torch.equal(answers.argmax(1), probs.argmax(1))


@pytest.mark.parametrize("dtype", FLOATS)
def test_w_with_no_budget_returns_the_prediction(dtype):
    probs = hard(10).to(dtype)
    assert torch.equal(modelguard.ModelGuardW(0.0)(probs), probs)


@pytest.mark.parametrize("classes", [3, 10, 100])
def test_w_answers_a_prediction_alike_in_any_batch(classes, monkeypatch):
    probs = hard(classes)
    together = modelguard.ModelGuardW(1.0)(probs)
    alone = torch.cat([modelguard.ModelGuardW(1.0)(row[None]) for row in probs])
    assert torch.equal(alone, together)
    monkeypatch.setattr(linear_program, "BLOCK", 7 * classes)
    assert torch.equal(modelguard.ModelGuardW(1.0)(probs), together)


@pytest.mark.parametrize("half", [0.05, 0.3, 0.6, 1.0])
@pytest.mark.parametrize("classes", [2, 3, 6, 20])
def test_the_cost_is_that_of_the_answer_and_its_slope_a_subgradient(classes, half):
    """At any top-1 value that is allowed, the best or not."""
    y = hard(classes).sort(dim=1, descending=True).values
    rows = linear_program._Rows(y, half)
    points, costs, slopes = [], [], []
    for share in np.linspace(0, 1, 41):
        v = rows.lowest.lerp(rows.highest, float(share))
        answer = rows.answer(v)
        cost, slope = rows.cost_at(v)
        actual = (answer * (y + FLOOR).log()).sum(1, keepdim=True)
        assert torch.allclose(cost, actual, atol=1e-9)
        assert torch.equal(answer[:, :1], v)
        cap = v - leads(y, torch.zeros_like(v).long())[:, None].clamp(max=MARGIN)
        assert (answer[:, 1:] <= cap + 1e-12).all()
        assert (answer > -1e-12).all()
        assert torch.allclose(answer.sum(1), y.sum(1), atol=1e-9)
        assert (distance(answer, y) <= 2 * half + 1e-9).all()
        points.append(v), costs.append(cost), slopes.append(slope)
    for v, f in zip(points, costs, strict=True):
        for v0, f0, s0 in zip(points, costs, slopes, strict=True):
            assert (f >= f0 + s0 * (v - v0) - 1e-9).all()


def test_without_the_margin_an_optimum_often_is_a_tie():
    """Why the program keeps the top-1 class ahead: notes, section 8."""
    probs = dirichlet(200, 10, 0.3, seed=0)
    answers = modelguard.ModelGuardW(1.0)(probs)
    lead = leads(answers, probs.argmax(1, keepdim=True))
    assert (lead < MARGIN * 1.001).double().mean() > 0.5


# --- the others
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", CLASSES)
def test_the_simple_defences_keep_their_promises(classes, dtype):
    probs = hard(classes).to(dtype)
    top = probs.argmax(1)
    for beta, gamma in ((0.02, 0.2), (0.9, 0.2), (2.0, 1.0), (5.0, 3.0)):
        answers = modelguard.ReverseSigmoid(beta, gamma)(probs)
        assert answers.dtype == dtype
        assert on_simplex(answers, 1e-5 if dtype == torch.float32 else 1e-9)
    hot = modelguard.TopOne()(probs)
    assert hot.dtype == dtype
    assert on_simplex(hot, 0)
    assert torch.equal(hot.argmax(1), top)
    wanted = 2 * (1 - probs.double().amax(1))
    assert torch.allclose(distance(hot, probs), wanted, atol=1e-6)
    for decimals in (0, 1, 3):
        rounded = modelguard.Rounding(decimals)(probs)
        unit = 10.0**-decimals
        assert rounded.dtype == dtype
        assert ((rounded >= 0) & (rounded <= 1)).all()
        assert ((rounded - probs).abs() <= unit / 2 + 1e-6).all()
        assert torch.equal(rounded.gather(1, top[:, None])[:, 0], rounded.amax(1))
    clean = modelguard.NoDefence()(probs)
    assert clean.dtype == dtype
    assert torch.equal(clean, probs)


def test_reverse_sigmoid_is_its_formula():
    probs = dirichlet(50, 10, 1.0, seed=0).clamp(min=1e-12)
    probs /= probs.sum(1, keepdim=True)
    y, beta, gamma = probs.numpy(), 0.6, 0.2
    odds = (y / (1 - y)) ** gamma
    expected = y - beta * (odds / (1 + odds) - 0.5)
    assert (expected > 0).all()  # nothing is cut off at this beta
    expected /= expected.sum(1, keepdims=True)
    found = modelguard.ReverseSigmoid(beta, gamma)(probs).numpy()
    assert np.abs(found - expected).max() < 1e-12


def test_reverse_sigmoid_keeps_a_clear_top_class_for_small_beta_only():
    probs = dirichlet(500, 100, 0.3, seed=1)
    changed = {
        beta: float(
            (modelguard.ReverseSigmoid(beta, 0.2)(probs).argmax(1) != probs.argmax(1))
            .double()
            .mean()
        )
        for beta in (1e-4, 1.0)
    }
    assert changed[1e-4] < 0.02
    assert changed[1.0] > 0.3


def test_the_papers_setting_moves_a_hundred_classes_by_about_one():
    """Beta 0.02 and gamma 0.2 "make the maximal distortion around 1.0" at C = 100."""
    probs = torch.eye(100, dtype=torch.float64)[:1]
    far = distance(modelguard.ReverseSigmoid(0.02, 0.2)(probs), probs)
    assert 0.9 < float(far) < 1.1


def test_rounding_leaves_the_simplex_and_may_answer_nothing_or_tie():
    probs = dirichlet(500, 100, 0.3, seed=2)
    answers = modelguard.Rounding(1)(probs)
    off = (answers.sum(1) - 1).abs() > 1e-9
    assert off.double().mean() > 0.9
    assert (answers.argmax(1) != probs.argmax(1)).double().mean() > 0.05
    flat = torch.full((1, 100), 0.01)
    assert (modelguard.Rounding(1)(flat) == 0).all()
    example = torch.tensor([[0.12, 0.31, 0.26, 0.31]])  # the paper's, section 4.1
    wanted = torch.tensor([[0.1, 0.3, 0.3, 0.3]])
    assert torch.equal(modelguard.Rounding(1)(example), wanted)


# --- bad input


SIMPLE = {
    "none": modelguard.NoDefence(),
    "top-1": modelguard.TopOne(),
    "rounding": modelguard.Rounding(1),
    "reverse sigmoid": modelguard.ReverseSigmoid(0.1, 0.2),
    "w": modelguard.ModelGuardW(1.0),
    "s": modelguard.ModelGuardS(1.0, 2),
    "unordered": modelguard.UnorderedQuantiser(1.0, 2),
}
BAD_ROWS = {
    "sum": (torch.tensor([[0.5, 0.5], [0.5, 0.6]]), "sum to 1 within 1e-05, got one"),
    "negative": (torch.tensor([[1.5, -0.5]]), "probs must be >= 0, got -0.5"),
    "nan": (torch.tensor([[0.5, 0.5], [NAN, 1.0]]), "probs must be >= 0, got nan"),
    "infinite": (torch.tensor([[math.inf, 0.0]]), "sum to 1 within 1e-05, got one"),
    "integer": (torch.tensor([[1, 0]]), r"float32 or float64 \[N, C\]"),
    "half": (torch.tensor([[0.5, 0.5]]).half(), r"float32 or float64 \[N, C\]"),
    "one row": (torch.tensor([0.5, 0.5]), r"\[N, C\]"),
    "one class": (torch.ones(3, 1), r"N >= 1 and C >= 2, got torch.float32 \[3, 1\]"),
    "no row": (torch.ones(0, 2), r"N >= 1 and C >= 2, got torch.float32 \[0, 2\]"),
}


@pytest.mark.parametrize("bad", BAD_ROWS)
@pytest.mark.parametrize("name", SIMPLE)
def test_rows_off_the_simplex_are_refused(name, bad):
    probs, message = BAD_ROWS[bad]
    with pytest.raises(ValueError, match=message):
        SIMPLE[name](probs)


def test_a_float32_softmax_over_1000_classes_is_on_the_simplex():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(500, 1000, generator=generator)
    for scale in (0.1, 3, 100):
        simplex.check((scale * logits).softmax(1))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: modelguard.ModelGuardW(2.1), r"epsilon must be in \[0, 2\], got 2.1"),
        (lambda: modelguard.ModelGuardW(-0.1), r"epsilon must be in \[0, 2\]"),
        (lambda: modelguard.ModelGuardW(NAN), r"epsilon must be in \[0, 2\], got nan"),
        (lambda: modelguard.ModelGuardS(3, 10), r"epsilon must be in \[0, 2\], got 3"),
        (
            lambda: modelguard.UnorderedQuantiser(NAN, 10),
            r"epsilon must be in \[0, 2\]",
        ),
        (lambda: modelguard.ModelGuardS(1, 1), "num_classes must be a whole number >="),
        (lambda: modelguard.ModelGuardS(1, 2.0), "num_classes must be a whole number"),
        (lambda: modelguard.ReverseSigmoid(0, 0.2), "beta must be > 0 and finite, got"),
        (lambda: modelguard.ReverseSigmoid(0.1, 0), "gamma must be > 0 and finite"),
        (lambda: modelguard.ReverseSigmoid(NAN, 1), "beta must be > 0 and finite, got"),
        (
            lambda: modelguard.ReverseSigmoid(1, math.inf),
            "gamma must be > 0 and finite",
        ),
        (lambda: modelguard.Rounding(-1), "decimals must be a whole number >= 0, got"),
        (lambda: modelguard.Rounding(1.5), "decimals must be a whole number >= 0, got"),
    ],
)
def test_a_setting_out_of_range_is_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("kind", ["ModelGuardS", "UnorderedQuantiser"])
def test_another_number_of_classes_is_refused(kind):
    defence = getattr(modelguard, kind)(1.0, 3)
    with pytest.raises(ValueError, match="probs must have C = 3 columns, got 2"):
        defence(torch.tensor([[0.5, 0.5]]))
    assert defence.count == 0
