"""What the honest user pays, and the paper's lemmas as numbers."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from predictions import dirichlet, hard
from scipy import stats
from sklearn import metrics

from lottolab import modelguard
from lottolab.modelguard import lemmas, utility
from lottolab.modelguard.defences.linear_program import FLOOR


def drawn(count=4000, classes=10, seed=0):
    """Return calibrated predictions: each row's label is drawn from it."""
    probs = dirichlet(count, classes, 0.5, seed)
    generator = torch.Generator().manual_seed(seed)
    return probs, torch.multinomial(probs, 1, generator=generator)[:, 0]


# --- calibration


def test_calibrated_predictions_have_no_calibration_error_but_noise():
    probs, labels = drawn(100_000)
    assert utility.calibration_error(probs, labels) < 0.01


@pytest.mark.parametrize("bins", [1, 5, 15])
def test_calibration_error_is_guos_equation(bins):
    probs, labels = drawn(500)
    sharp = (probs**2) / (probs**2).sum(1, keepdim=True)
    confidence, guess = (part.numpy() for part in sharp.max(1))
    edges = np.linspace(0, 1, bins + 1)
    total = 0.0
    for low, high in itertools.pairwise(edges):
        inside = (confidence > low) & (confidence <= high)
        if inside.any():
            right = (guess[inside] == labels.numpy()[inside]).mean()
            total += inside.mean() * abs(right - confidence[inside].mean())
    assert utility.calibration_error(sharp, labels, bins) == pytest.approx(total)
    assert total > 0.05


def test_one_hot_answers_are_off_by_their_error_rate():
    probs, labels = drawn(1000)
    hot = modelguard.TopOne()(probs)
    wrong = 1 - float((hot.argmax(1) == labels).double().mean())
    assert utility.calibration_error(hot, labels) == pytest.approx(wrong)
    assert utility.log_loss(hot, labels) == pytest.approx(-wrong * math.log(1e-6))


# --- the others


def test_log_loss_and_top_k_and_auroc_equal_scikit_learns():
    probs, labels = drawn(800)
    y = labels.numpy()
    expected = metrics.log_loss(y, probs.numpy(), labels=range(10))
    assert utility.log_loss(probs, labels, 1e-15) == pytest.approx(expected)
    for k in (1, 3, 5):
        expected = metrics.top_k_accuracy_score(y, probs.numpy(), k=k, labels=range(10))
        assert utility.top_k(probs, labels, k) == pytest.approx(expected)
    foreign = dirichlet(300, 10, 5.0, seed=1)
    known, unknown = (part.amax(1).numpy() for part in (probs, foreign))
    pairs = stats.mannwhitneyu(known, unknown).statistic / (800 * 300)
    assert utility.auroc(probs, foreign) == pytest.approx(pairs, abs=1e-5)


def test_one_hot_answers_tell_nothing_foreign():
    probs, _ = drawn(100)
    hot = modelguard.TopOne()
    foreign = hot(dirichlet(70, 10, 5.0, seed=1))
    assert utility.auroc(hot(probs), foreign) == 0.5


def test_ties_count_by_the_chance_of_a_fair_draw():
    answers = torch.tensor([[1.0, 0, 0, 0], [0.25, 0.25, 0.25, 0.25], [0.5, 0.5, 0, 0]])
    labels = torch.tensor([2, 0, 1])
    assert utility.top_k(answers, labels, 1) == pytest.approx((0 + 1 / 4 + 1 / 2) / 3)
    assert utility.top_k(answers, labels, 2) == pytest.approx((1 / 3 + 1 / 2 + 1) / 3)
    assert utility.top_k(answers, labels, 4) == 1


def test_a_report_has_every_measure():
    probs, labels = drawn(300)
    foreign = dirichlet(100, 10, 5.0, seed=1)
    answers = modelguard.ModelGuardW(0.6)(probs)
    found = utility.report(answers, probs, labels, modelguard.ModelGuardW(0.6)(foreign))
    right = float((probs.argmax(1) == labels).double().mean())
    assert found["protected accuracy"] == pytest.approx(right)
    assert found["top-5 accuracy"] == utility.top_k(answers, labels, 5)
    assert found["maximal ℓ1"] == pytest.approx(0.6)
    assert 0.3 < found["mean ℓ1"] < 0.6001
    assert found["calibration error"] > 0.05
    assert found["log-loss"] > utility.log_loss(probs, labels)
    assert 0 < found["AUROC"] < utility.auroc(probs, foreign)
    assert "AUROC" not in utility.report(answers, probs, labels)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda p, y: utility.top_k(p, y, 0), "k must be a whole number >= 1, got 0"),
        (lambda p, y: utility.top_k(p, y[:2], 1), r"int64 of shape \[3\]"),
        (lambda p, y: utility.top_k(p, y + 1, 1), r"in \[0, 2\], got \[3\]"),
        (lambda p, y: utility.top_k(p * math.nan, y, 1), "answers must be finite"),
        (lambda p, y: utility.log_loss(p, y, 0), r"floor must be in \(0, 1\), got 0"),
        (lambda p, y: utility.calibration_error(p, y, 0), "bins must be a whole"),
        (lambda p, y: utility.calibration_error(p, y.float()), "labels must be int64"),
        (lambda p, y: utility.l1(p, p[:2]), "answers and clean must be alike, got"),
    ],
)
def test_bad_input_is_refused(call, message):
    probs, labels = torch.eye(3), torch.tensor([0, 1, 2])
    with pytest.raises(ValueError, match=message):
        call(probs, labels)


# --- Lemma 1


def test_lemma_1_holds_for_a_linear_softmax_model_and_is_tight_somewhere():
    generator = torch.Generator().manual_seed(0)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    ratios = []
    for classes, size in ((2, 0.01), (2, 1.0), (10, 0.1), (10, 3.0)):
        features, weight = normal(200, 5), 0.1 * normal(classes, 5)
        smooth = lemmas.softmax_smoothness(features)
        target = (features @ weight.T).softmax(1)
        best = F.cross_entropy(features @ weight.T, target)
        steepest = torch.linalg.svd(features).Vh[0]
        against = torch.eye(classes, dtype=torch.float64)[:2].diff(dim=0).T
        for other in (normal(classes, 5), against * steepest):
            moved = weight + size * other
            gap = F.cross_entropy(features @ moved.T, target) - best
            bound = 2 * float(gap) / smooth
            actual = float((moved - weight).square().sum())
            assert 0 < bound <= actual
            ratios.append(bound / actual)
    assert max(ratios) > 0.3


def test_softmax_smoothness_bounds_the_hessian():
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0)).double()
    target = torch.full((30, 2), 0.5).double()

    def loss(weight):
        return F.cross_entropy(features @ weight.view(2, 4).T, target)

    hessian = torch.autograd.functional.hessian(loss, torch.zeros(8).double())
    largest = float(torch.linalg.eigvalsh(hessian)[-1])
    assert largest == pytest.approx(lemmas.softmax_smoothness(features))  # at p = 1/2


# --- Lemma 2


def test_the_bound_is_met_with_equality_by_a_gaussian():
    dimension, variance = 7, 0.3
    entropy = dimension / 2 * math.log(2 * math.pi * math.e * variance)
    bound = lemmas.recovery_bound(entropy, dimension)
    assert bound == pytest.approx(dimension * variance)


def test_the_printed_bound_says_nothing_on_the_simplex():
    """In R^C a row is a plane, thickened by σ its entropy falls without end."""
    inside = lemmas.simplex_entropy(3)
    bounds = []
    for thickness in 10.0 ** -np.arange(0, 100, 20):
        across = math.log(2 * math.pi * math.e * thickness**2) / 2
        bounds.append(lemmas.recovery_bound(inside + across, 3))
    assert bounds == sorted(bounds, reverse=True)
    assert bounds[-1] < 1e-50
    assert lemmas.recovery_bound(-math.inf, 3) == 0


def test_the_entropy_of_a_uniform_row_is_the_log_of_the_volume():
    for classes, volume in ((2, math.sqrt(2)), (3, math.sqrt(3) / 2), (4, 1 / 3)):
        assert math.exp(lemmas.simplex_entropy(classes)) == pytest.approx(volume)


@pytest.mark.parametrize(("classes", "epsilon"), [(3, 0.2), (3, 1.0), (5, 0.6)])
def test_the_mended_lemma_2_bounds_every_recovery_and_not_by_far(classes, epsilon):
    """Uniform rows, quantised: the posterior mean is the centre of a cell."""
    probs = dirichlet(100_000, classes, 1.0, seed=0)
    answers = modelguard.ModelGuardS(epsilon, classes)(probs)
    _, cell, size = torch.unique(
        answers, dim=0, return_inverse=True, return_counts=True
    )
    means = torch.zeros(len(size), classes, dtype=torch.float64)
    means.index_add_(0, cell, probs).div_(size[:, None])
    error = float((probs - means[cell]).square().sum(1).mean())
    information = lemmas.discrete_entropy(answers)
    entropy = lemmas.simplex_entropy(classes) - information
    bound = lemmas.recovery_bound(entropy, classes - 1)
    assert bound < error < 2.5 * bound
    naive = float((probs - answers).square().sum(1).mean())
    assert naive > error


def test_a_function_of_the_prediction_tells_its_own_entropy():
    """H(Ŷ) = I(Y; Ŷ), from the joint distribution of a discrete Y."""
    rows = dirichlet(40, 3, 1.0, seed=0)
    generator = torch.Generator().manual_seed(0)
    probs = rows[torch.randint(40, (5000,), generator=generator)]
    answers = modelguard.ModelGuardS(0.5, 3)(probs)
    joint = lemmas.discrete_entropy(torch.cat([probs, answers], 1))
    parts = [lemmas.discrete_entropy(part) for part in (probs, answers)]
    assert sum(parts) - joint == pytest.approx(parts[1])
    assert 0 < parts[1] < parts[0]


def test_kl_is_at_least_half_the_squared_distance():
    """What carries Lemma 2 from squared error to cross-entropy, l = 1/2."""
    p, q = dirichlet(2000, 10, 0.7, seed=0), dirichlet(2000, 10, 0.7, seed=1)
    q = 0.999 * q + 0.0001
    kl = (torch.special.xlogy(p, p) - torch.special.xlogy(p, q)).sum(1)
    assert (kl >= 0.5 * (p - q).square().sum(1)).all()


# --- the KKT argument


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_the_relaxed_optimum_satisfies_the_kkt_conditions(classes):
    probs = hard(classes)
    answers, multiplier = lemmas.relaxed_optimum(probs)
    logs = (probs + FLOOR).log() + multiplier[:, None]  # log y + λ
    top = probs.argmax(1, keepdim=True)
    assert torch.allclose(answers.sum(1), torch.ones(len(probs)).double())
    assert (answers >= 0).all()
    assert (answers <= answers.gather(1, top) + 1e-15).all()
    # Stationarity gives μ − ν = log y + λ for the others; each is at most one of both.
    mu, nu = logs.clamp(min=0), (-logs).clamp(min=0)
    mu, nu = mu.scatter(1, top, 0), nu.scatter(1, top, 0)
    assert torch.allclose(nu.sum(1), logs.gather(1, top)[:, 0], atol=1e-9)
    assert (mu * answers).abs().max() < 1e-9
    assert (nu * (answers.gather(1, top) - answers)).abs().max() < 1e-9


@pytest.mark.parametrize("classes", [2, 3, 10, 100])
def test_w_with_all_the_budget_is_the_relaxed_optimum_but_for_its_margin(classes):
    probs = hard(classes)
    answers, multiplier = lemmas.relaxed_optimum(probs)
    prices = (probs + FLOOR).log()
    relaxed = (answers * prices).sum(1)
    assert torch.allclose(relaxed, -multiplier)
    found = (modelguard.ModelGuardW(2.0)(probs) * prices).sum(1)
    assert (found >= relaxed - 1e-9).all()
    # The margin costs at most 1e-4 a class, at the largest difference of prices.
    assert (found <= relaxed + 1e-4 * classes * math.log(1e6)).all()
    threshold = (-multiplier).exp()[:, None]
    others = torch.ones_like(probs).scatter(1, probs.argmax(1, keepdim=True), 0) > 0
    above = others & (probs + FLOOR > threshold * (1 + 1e-9))
    assert (answers[above] == 0).all()
    assert above.any() or classes == 2
