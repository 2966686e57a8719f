"""What a defence's own formula gives away."""

import pytest
import torch
from predictions import dirichlet, distance, on_simplex

from lottolab import modelguard
from lottolab.modelguard.attacks import averaging, inverses
from lottolab.modelguard.defences import grown


def predictions(classes=100, count=200):
    """Return float32 rows as a network gives: sure and unsure, never exactly 0."""
    generator = torch.Generator().manual_seed(classes)
    scale = torch.linspace(2, 8, count)[:, None]
    return (torch.randn(count, classes, generator=generator) * scale).softmax(1)


def guessed(y):
    """Return what a poor substitute might think: the logits are half wrong."""
    mixed = (y * predictions(y.shape[1], len(y)).flip(0)).sqrt()
    return mixed / mixed.sum(1, keepdim=True)


@pytest.mark.parametrize(
    ("classes", "beta"), [(10, 0.21), (100, 0.02), (100, 0.005), (200, 0.011)]
)
def test_reverse_sigmoid_is_inverted_class_by_class(classes, beta):
    y = predictions(classes)
    answers = modelguard.ReverseSigmoid(beta, 0.2)(y)
    found = inverses.reverse_sigmoid(answers, beta, 0.2)
    assert on_simplex(found, 1e-5)
    assert torch.equal(found.argmax(1), y.argmax(1))
    before, after = distance(answers, y).mean(), distance(found, y).mean()
    assert after < 0.15 * before
    again = modelguard.ReverseSigmoid(beta, 0.2)(found)
    assert distance(again, answers).mean() < 0.02


def test_two_predictions_of_one_answer_are_told_apart_by_nothing():
    """Below β/2 two numbers of a row have one answer: the smaller is taken."""
    y = torch.tensor([[0.9, 0.0999, 0.0001]])
    answers = modelguard.ReverseSigmoid(0.5, 1.0)(y)
    found = inverses.reverse_sigmoid(answers, 0.5, 1.0)
    assert on_simplex(found, 1e-5)


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("epsilon", [0.5, 1.0])
def test_modelguard_w_is_read_off_its_answers(classes, epsilon):
    y = predictions(classes)
    guess = guessed(y)
    answers = modelguard.ModelGuardW(epsilon)(y)
    found = inverses.modelguard_w(answers, guess, epsilon)
    assert on_simplex(found, 1e-5)
    assert (found.argmax(1) == y.argmax(1)).double().mean() > 0.8
    off = distance(found, y).mean()
    assert off < 0.5 * distance(answers, y).mean()
    assert off < 0.7 * distance(guess, y).mean()
    sure = inverses.modelguard_w(answers, y, epsilon)  # what a right guess is worth
    assert distance(sure, y).mean() < off


@pytest.mark.parametrize("aim", grown.AIMS)
@pytest.mark.parametrize("classes", [4, 10, 100])
def test_mad_is_inverted_where_its_own_answer_confirms_it(classes, aim):
    y = predictions(classes)
    surrogate = dirichlet(len(y), classes, 500.0, seed=0).float()
    answers = grown.deviate(y, surrogate, 0.8, aim)
    guess = guessed(y)
    found = inverses.mad(answers, surrogate, guess, 0.8, aim)
    right = distance(found, y) < 1e-3
    assert right.double().mean() > 0.6
    assert distance(found, y).mean() < 0.5 * distance(answers, y).mean()


def test_rounding_leaves_a_cell():
    y = predictions(10)
    answers = modelguard.Rounding(1)(y)
    found = inverses.rounding(answers, y, 1)
    assert distance(found, y).max() < 1e-5  # a right guess is in the cell
    guess = guessed(y)
    found = inverses.rounding(answers, guess, 1)
    assert distance(found, y).mean() < distance(guess, y).mean()


def test_lies_are_the_wrong_networks_answers():
    wrong = predictions(10).flip(0)
    answers = predictions(10).clone()
    answers[::3] = wrong[::3]
    marked = inverses.lied(answers, wrong)
    assert marked[::3].all()
    assert marked.sum() == len(answers[::3])


def test_a_touched_image_differs_by_one_level_in_one_pixel():
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (50, 3, 6, 5), generator=generator).to(torch.uint8)
    images[:10] = 255
    found = averaging.touched(images, generator)
    moved = (found.int() - images.int()).abs()
    assert (moved.flatten(1).sum(1) == 1).all()
    assert found.dtype == torch.uint8
    other = averaging.touched(images, generator)
    assert (other != found).any()


@pytest.mark.parametrize(
    "call",
    [
        lambda y: inverses.reverse_sigmoid(y, 0.0, 0.2),
        lambda y: inverses.modelguard_w(y, y[:1], 1.0),
        lambda y: inverses.modelguard_w(y, y, True),
        lambda y: inverses.rounding(-y, y, 1),
        lambda y: inverses.lied(y, y[:, :2]),
    ],
)
def test_bad_input_is_refused(call):
    with pytest.raises(ValueError, match=r"must be|got"):
        call(predictions(4, 6))
