"""The defences that ask a network of their own: MAD and Adaptive Misinformation."""

import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from predictions import dirichlet, distance, hard, leads, on_simplex
from torch import nn

from lottolab import modelguard
from lottolab.images.batches import normalise
from lottolab.modelguard.defences import mad, misinformation
from lottolab.nets import models, predict, train

pytestmark = pytest.mark.usefixtures("on_one_thread")
FLOATS = [torch.float32, torch.float64]
MEAN_STD = (torch.tensor([0.5]), torch.tensor([0.25]))


def pictures(count, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, 12, 12)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def network(classes, seed=0):
    return models.build("cnn4", channels=1, classes=classes, width=4, seed=seed)


def logits(model, images):
    model.eval()
    return model(normalise(images, *MEAN_STD))


# --- MAD


@pytest.mark.parametrize("classes", [3, 12])
def test_the_deviation_is_that_of_autograds_gradient_of_the_last_weight(classes):
    images, model = pictures(4), network(classes)
    surrogate = predict.logits(model, images, MEAN_STD).softmax(1)
    y, other = dirichlet(4, classes, 1.0, 0), dirichlet(4, classes, 1.0, 1)
    found = mad.deviation(other, y, surrogate)
    for row, image in enumerate(images):
        log_p = F.log_softmax(logits(model, image[None]), 1)[0]
        rows = [
            torch.autograd.grad(v, model.fc.weight, retain_graph=True) for v in log_p
        ]
        jacobian = torch.stack([g.flatten() for (g,) in rows]).double()
        turned, straight = other[row] @ jacobian, y[row] @ jacobian
        expected = turned / turned.norm() - straight / straight.norm()
        assert float(found[row]) == pytest.approx(float(expected.square().sum()), 1e-4)


def vertices(classes, top):
    """List the rows of equal shares for sets that contain `top`."""
    every = itertools.product((0.0, 1.0), repeat=classes)
    sets = np.array([s for s in every if s[top]])
    return torch.from_numpy(sets / sets.sum(1, keepdims=True))


@pytest.mark.parametrize("classes", [2, 3, 7, 10])
def test_up_to_ten_classes_the_vertex_is_the_best_of_all(classes):
    probs = dirichlet(20, classes, 0.7, seed=0)
    surrogate = dirichlet(20, classes, 5.0, seed=1)
    chosen = mad.best_vertex(probs, surrogate, probs.argmax(1, keepdim=True)).double()
    chosen /= chosen.sum(1, keepdim=True)
    found = mad.deviation(chosen, probs, surrogate)
    for y, p, best in zip(probs, surrogate, found, strict=True):
        every = vertices(classes, int(y.argmax()))
        all_of_them = mad.deviation(every, y.expand_as(every), p.expand_as(every))
        assert float(best) == pytest.approx(float(all_of_them.max()), abs=1e-12)
        assert len(every) == 2 ** (classes - 1)


def test_beyond_ten_classes_the_set_grows_by_the_best_class_while_one_helps():
    probs, surrogate = dirichlet(6, 15, 0.5, seed=0), dirichlet(6, 15, 5.0, seed=1)
    chosen = mad.grown_vertex(probs, surrogate, probs.argmax(1, keepdim=True))
    sizes = chosen.sum(1)
    for row in range(6):
        y, p = probs[row], surrogate[row]

        def value(members, y=y, p=p):
            vertex = torch.zeros(1, 15, dtype=torch.float64)
            vertex[0, sorted(members)] = 1 / len(members)
            return float(mad.deviation(vertex, y[None], p[None]))

        members = {int(y.argmax())}
        while True:
            rest = set(range(15)) - members
            best = max(rest, key=lambda c, m=members: value(m | {c}))
            if value(members | {best}) <= value(members):
                break
            members.add(best)
        assert chosen[row].nonzero()[:, 0].tolist() == sorted(members)
    assert len(sizes.unique()) > 1


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_mad_keeps_its_promises(classes, dtype):
    probs = hard(classes).to(dtype)
    surrogate = torch.full_like(probs, 1 / classes).lerp(
        hard(classes, 5).to(dtype), 0.1
    )
    for epsilon in (1e-6, 0.25, 2.0):
        answers = mad.deviate(probs, surrogate, epsilon)
        assert answers.dtype == dtype
        assert on_simplex(answers)
        assert distance(answers, probs).max() <= epsilon + 1e-6
        assert torch.equal(answers.argmax(1), probs.argmax(1))
    assert torch.equal(mad.deviate(probs, surrogate, 0.0), probs)


def test_more_budget_turns_more_and_the_rest_is_on_the_way_to_the_vertex():
    probs, surrogate = dirichlet(50, 10, 0.5, seed=0), dirichlet(50, 10, 8.0, seed=1)
    turned = [
        mad.deviation(mad.deviate(probs, surrogate, e), probs, surrogate)
        for e in (0.1, 0.5, 1.0, 2.0)
    ]
    for less, more in itertools.pairwise(turned):
        assert (more >= less - 1e-9).all()
    half, full = (mad.deviate(probs, surrogate, e) - probs for e in (0.2, 0.4))
    assert torch.allclose(2 * half, full, atol=1e-9)
    assert torch.allclose(half.abs().sum(1), torch.tensor(0.2).double(), atol=1e-9)


@pytest.mark.parametrize("classes", [2, 6, 10])
def test_with_all_the_budget_the_answer_is_the_vertex_with_the_top_class_ahead(classes):
    probs, surrogate = dirichlet(300, classes, 0.2, 0), dirichlet(300, classes, 5.0, 1)
    top = probs.argmax(1, keepdim=True)
    answers = mad.deviate(probs, surrogate, 2.0)
    chosen = mad.best_vertex(probs, surrogate, top).double()
    sizes = chosen.sum(1, keepdim=True)
    assert (answers - chosen / sizes).abs().max() < 1e-4
    several = sizes[:, 0] > 1
    assert (leads(answers, top)[several] > 0.9e-5 / classes).all()
    if classes == 10:  # where growing a set finds the best one in most rows, not all
        grown = mad.grown_vertex(probs, surrogate, top).double()
        assert 0.95 < (grown == chosen).all(1).double().mean() < 1


def test_a_gradient_of_zero_has_no_direction():
    probs, surrogate = dirichlet(5, 4, 1.0, 0), dirichlet(5, 4, 1.0, 1)
    assert (mad.deviation(surrogate, probs, surrogate) == 0).all()
    assert (mad.deviation(probs, surrogate, surrogate) == 0).all()


def test_mad_asks_its_surrogate_about_the_images():
    images, model = pictures(9), network(4)
    probs = dirichlet(9, 4, 0.5, seed=0).float()
    model.train()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    defence = modelguard.MAD(model, MEAN_STD, 1.0)
    surrogate = logits(network(4), images).softmax(1).detach()
    expected = mad.deviate(probs, surrogate, 1.0)
    assert torch.allclose(defence(probs, images), expected, atol=1e-6)
    one_by_one = [defence(probs[i : i + 1], images[i : i + 1]) for i in range(9)]
    assert torch.allclose(torch.cat(one_by_one), defence(probs, images), atol=1e-6)
    after = model.state_dict()
    assert all(torch.equal(after[k], v) for k, v in before.items())


def test_mad_does_not_depend_on_its_blocks(monkeypatch):
    probs, surrogate = hard(5), hard(5, seed=1)
    together = mad.deviate(probs, surrogate, 1.0)
    monkeypatch.setattr(mad, "BLOCK", 100)
    assert torch.equal(mad.deviate(probs, surrogate, 1.0), together)


# --- Adaptive Misinformation


class Fixed(nn.Module):
    """Return the same logits for every image."""

    def __init__(self, row):
        super().__init__()
        self.row = nn.Parameter(torch.tensor(row))

    def forward(self, x):
        return self.row.expand(len(x), -1)


def test_misinformation_is_mixed_in_below_the_threshold():
    wrong = torch.tensor([0.1, 0.2, 0.7]).double()
    model = Fixed(wrong.log().tolist())
    defence = modelguard.AdaptiveMisinformation(0.6, 20.0, model, MEAN_STD)
    probs = torch.tensor([[0.9, 0.1, 0.0], [0.6, 0.2, 0.2], [0.4, 0.3, 0.3]]).double()
    answers = defence(probs, pictures(3))
    for y, answer in zip(probs, answers, strict=True):
        alpha = 1 / (1 + math.exp(20 * (float(y.max()) - 0.6)))
        assert torch.allclose(answer, (1 - alpha) * y + alpha * wrong, atol=1e-7)
    assert torch.equal(answers.argmax(1), torch.tensor([0, 2, 2]))  # top-1 may change


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("classes", [2, 10, 1000])
def test_misinformation_keeps_its_promises(classes, dtype):
    probs = hard(classes).to(dtype)
    model = Fixed(torch.linspace(-5, 5, classes).tolist())
    defence = modelguard.AdaptiveMisinformation(0.5, model=model, mean_std=MEAN_STD)
    answers = defence(probs, pictures(len(probs)))
    assert answers.dtype == dtype
    assert on_simplex(answers)
    alpha = 1 / (1 + (1000 * (probs.double().amax(1) - 0.5)).exp())
    assert (distance(answers, probs) <= 2 * alpha + 1e-6).all()
    sure = probs.amax(1) > 0.6
    assert torch.allclose(answers[sure], probs[sure])


def test_the_misinformation_loss_is_the_reverse_cross_entropy():
    model = Fixed([1.0, -2.0, 0.5])
    labels = torch.tensor([0, 2, 1])
    p = torch.tensor([1.0, -2.0, 0.5]).softmax(0)
    found = misinformation.misinformation_loss(model, torch.zeros(3, 1), labels, None)
    assert found.item() == pytest.approx(float(-(1 - p[labels]).log().mean()), 1e-6)
    sure, one = Fixed([200.0, 0.0, 0.0]), torch.zeros(1, 1)  # 1 − p is 0 in float32
    found = misinformation.misinformation_loss(sure, one, torch.tensor([0]), None)
    assert found.item() == pytest.approx(200 - math.log(2))


def halves(count, seed=0):
    """Return images that are bright on the left or on the right, and which."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(100, (count, 1, 12, 12), generator=generator)
    labels = torch.arange(count) % 2
    images[labels == 0, :, :, :6] += 150
    images[labels == 1, :, :, 6:] += 150
    return images.to(torch.uint8), labels


RECIPE = train.Recipe(epochs=3, batch=16, lr=0.05, crop=0, flip=False)


def test_a_fitted_misinformation_network_is_wrong(monkeypatch):
    images, labels = halves(160)
    defence = modelguard.AdaptiveMisinformation(0.7)
    fitted = defence.fit(network(2), images, labels, RECIPE, seed=0)
    assert list(fitted.history["epoch"]) == [1, 2, 3]
    fresh, truth = halves(80, seed=1)
    unsure = torch.full((80, 2), 0.5)
    answers = defence(unsure, fresh)
    assert predict.accuracy(answers, truth) < 0.1
    sure = torch.eye(2)[truth] * 0.98 + 0.01
    assert torch.equal(defence(sure, fresh), sure)


def test_a_fit_resumes_with_the_same_bits(tmp_path):
    images, labels = halves(64)
    states = []
    for stops in ((3,), (1, 3)):
        folder = tmp_path / str(len(stops))
        folder.mkdir()
        for stop in stops:
            model = network(2)
            options = {"stop": stop, "checkpoint": folder, "seed": 0}
            loss = misinformation.outlier_exposure(pictures(40), MEAN_STD)
            train.fit(model, images, labels, RECIPE, loss=loss, **options)
        states.append(model.state_dict())
    assert all(torch.equal(states[0][k], states[1][k]) for k in states[0])


def test_outlier_exposure_is_its_formula():
    model, outliers = network(3), pictures(1)
    model.eval()
    x, y = normalise(pictures(5, seed=1), *MEAN_STD), torch.tensor([0, 1, 2, 0, 1])
    known = -F.log_softmax(model(x), 1)[torch.arange(5), y].mean()
    foreign = -F.log_softmax(logits(model, outliers), 1).mean()
    for weight in (0.0, 1.0, 2.5):
        loss = misinformation.outlier_exposure(outliers, MEAN_STD, weight)
        found = loss(model, x, y, torch.arange(5))
        assert found.item() == pytest.approx((known + weight * foreign).item(), 1e-5)


def test_outlier_exposure_makes_the_target_unsure_of_outliers_alone():
    images, labels = halves(160)
    fresh, truth = halves(80, seed=1)

    def bright(seed):
        return pictures(100, seed) // 2 + 128

    exposed = misinformation.outlier_exposure(bright(2), MEAN_STD)
    confident = []
    for loss in (train.cross_entropy, exposed):
        model = network(2)
        train.fit(model, images, labels, RECIPE, seed=0, loss=loss, mean_std=MEAN_STD)
        known = predict.logits(model, fresh, MEAN_STD)
        assert predict.accuracy(known, truth) > 0.95
        foreign = predict.logits(model, bright(3), MEAN_STD)
        confident.append(float(foreign.softmax(1).amax(1).mean()))
    assert confident[1] < 0.55
    assert confident[0] > confident[1] + 0.1


# --- bad input


def asked(name, **change):
    """Call a defence of three classes about two predictions."""
    given = {"probs": torch.full((2, 2), 0.5), "x": pictures(2)} | change
    made = {
        "mad": lambda: modelguard.MAD(network(2), MEAN_STD, 1.0),
        "am": lambda: modelguard.AdaptiveMisinformation(
            0.5, model=network(2), mean_std=MEAN_STD
        ),
    }
    return made[name]()(given["probs"], given["x"])


@pytest.mark.parametrize("name", ["mad", "am"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": None}, "x must hold the images that were asked about, got None"),
        ({"x": pictures(3)}, "x must hold 2 images, got 3"),
        ({"probs": torch.full((2, 2), 0.4)}, "each row of probs must sum to 1"),
        ({"probs": torch.full((2, 4), 0.25)}, "must have"),
    ],
)
def test_what_does_not_fit_is_refused(name, change, message):
    with pytest.raises(ValueError, match=message):
        asked(name, **change)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: modelguard.MAD(network(2), MEAN_STD, 2.5), r"epsilon must be in"),
        (lambda: mad.deviate(hard(3), hard(3), -1.0), "epsilon must be in"),
        (lambda: modelguard.AdaptiveMisinformation(1.5), r"tau must be in \[0, 1\]"),
        (lambda: modelguard.AdaptiveMisinformation(0.5, 0), "nu must be > 0"),
        (
            lambda: modelguard.AdaptiveMisinformation(0.5)(hard(2)[:1], pictures(1)),
            "must be fitted, or get model and mean_std",
        ),
        (
            lambda: misinformation.outlier_exposure(pictures(1).float(), MEAN_STD),
            r"outliers must be uint8 of shape N×C×H×W",
        ),
        (
            lambda: misinformation.outlier_exposure(pictures(0), MEAN_STD),
            "outliers must be uint8",
        ),
        (
            lambda: misinformation.outlier_exposure(pictures(1), MEAN_STD, -1),
            "weight must be >= 0 and finite, got -1",
        ),
    ],
)
def test_settings_out_of_range_are_refused(make, message):
    with pytest.raises(ValueError, match=message):
        make()
