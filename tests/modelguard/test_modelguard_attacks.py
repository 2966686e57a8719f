"""Queries, averaged answers, substitutes and the losses that the paper lacks."""

import copy
import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from torch import nn

from lottolab.images import datasets
from lottolab.modelguard import queries
from lottolab.modelguard.attacks import adaptive, averaging, extraction
from lottolab.nets import models, predict, train

UNIT = (torch.zeros(1), torch.ones(1))  # mean and deviation: pixels are x / 255
NETWORK = {"name": "cnn4", "width": 4}
RECIPE = train.Recipe(epochs=8, batch=32, flip=False, weight_decay=0.0)


def noise(count, size=6, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, size, size)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator)


def linear(classes, pixels=36, seed=0, size=1.0):
    generator = torch.Generator().manual_seed(seed)
    layer = nn.utils.skip_init(nn.Linear, pixels, classes, bias=False)
    layer.weight.data = size * torch.randn(classes, pixels, generator=generator)
    return nn.Sequential(nn.Flatten(), layer)


class Recorder:
    """Answer by a function of the images, and keep what was asked."""

    def __init__(self, answer):
        self.answer, self.asked = answer, []

    def __call__(self, images):
        self.asked.append(images)
        return self.answer(images)


def quantiser(epsilon):
    """Make an ordered quantiser, row by row: Algorithm 1."""
    centroids = []

    def defence(probabilities, x=None):
        answers = []
        for y in probabilities:
            near = (c for c in centroids if c.argmax() == y.argmax())
            near = (c for c in near if (c - y).abs().sum() <= epsilon)
            answers.append(next(near, y))
            if answers[-1] is y:
                centroids.append(y)
        return torch.stack(answers)

    return defence


@pytest.fixture
def global_generator():
    """Check that the test leaves torch's global generator as it was."""
    before = torch.get_rng_state()
    yield
    assert torch.equal(before, torch.get_rng_state())


# The service


def test_a_service_passes_predictions_and_images_through_its_defence():
    model, images, seen = linear(3), noise(7), []
    scale = datasets.normalisation(images)

    def half(probabilities, x=None):
        seen.append(x)
        return probabilities / 2

    pixels = (images.double().flatten(1) / 255 - scale[0]) / scale[1]
    with torch.no_grad():
        expected = model.double()(pixels).softmax(1)
    model.float()
    clean, service = (queries.Service(model, scale, d) for d in (None, half))
    assert torch.allclose(clean(images).double(), expected, atol=1e-5)
    assert torch.equal(service(images), clean(images) / 2)
    assert seen[0] is images
    service(images[:2])
    assert (clean.asked, service.asked) == (14, 9)


def test_knockoff_draws_without_replacement_and_grows_in_place(global_generator):
    places = queries.knockoff(1000, 400, seed=3)
    assert len(set(places.tolist())) == 400
    assert 0 <= places.min() <= places.max() < 1000
    assert torch.equal(queries.knockoff(1000, 90, seed=3), places[:90])
    assert not torch.equal(queries.knockoff(1000, 400, seed=4), places)
    assert stats.kstest(places / 1000, "uniform").pvalue > 1e-3


# JBDA-TR


def test_jbda_asks_for_its_budget_and_starts_each_image_at_a_known_one():
    service, trained = queries.Service(linear(5), UNIT), []

    def substitute(images, answers):
        trained.append((images, answers))
        return linear(5, seed=len(trained))

    seeds, options = noise(10), {"mean_std": UNIT, "seed": 1}
    images, answers = queries.jbda(service, seeds, 95, substitute, **options)
    assert [len(x) for x, _ in trained] == [10, 40]
    assert (len(images), service.asked) == (95, 95)
    assert torch.equal(answers, service(images))
    for known, told in trained:
        assert torch.equal(known, images[: len(known)])
        assert torch.equal(told, answers[: len(known)])
    origin = torch.cat([torch.arange(10).repeat(3), torch.arange(40).repeat(2)[:55]])
    moved = images[10:].int() - images[origin].int()
    assert moved.abs().amax() <= 25  # 0.1 · 255, rounded down
    assert (moved != 0).flatten(1).any(1).all()
    assert len(images.flatten(1).unique(dim=0)) == 95
    trained.clear()
    again, _ = queries.jbda(service, seeds, 95, substitute, **options)
    assert torch.equal(again, images)


def test_a_step_goes_against_the_gradient_of_a_class_drawn_anew(global_generator):
    """With two classes and a linear model the sign of the gradient is known."""
    images = torch.full((400, 1, 6, 6), 128, dtype=torch.uint8)
    model = linear(2, size=0.01)
    towards = (model[1].weight[1] - model[1].weight[0]).detach().sign().view(6, 6)

    def moves(scale=UNIT, classes=2, **sizes):
        generator = torch.Generator().manual_seed(0)
        options = {"epsilon": 1.0, "step": 10 / 255, "generator": generator, **sizes}
        found = queries.perturbed(model, images, classes, scale, **options)
        moves = (found.int() - 128) * towards.int()
        assert (moves == moves[:, :, :1, :1]).all()
        return moves[:, 0, 0, 0]

    for scale in (UNIT, (torch.tensor([0.2]), torch.tensor([0.05]))):
        one, counts = moves(scale, steps=1).unique(return_counts=True)
        assert one.tolist() == [-10, 10]
        assert stats.binomtest(int(counts[0]), 400).pvalue > 1e-3
    assert moves(steps=1, classes=1).unique().tolist() == [-10]  # to class 0
    two, counts = moves(steps=2).unique(return_counts=True)
    assert two.tolist() == [-20, 0, 20]
    assert stats.chisquare(counts, [100, 200, 100]).pvalue > 1e-3
    assert moves(steps=4, epsilon=0.05).abs().max() == 12  # 12.75, rounded down
    default = moves(steps=3, step=None, epsilon=0.4).unique()
    length = 1.85 / 3 * 0.4 * 255  # two steps one way reach the end of the ball, 102
    ends = {round(length), 102, round(102 - length)}
    assert set(default.abs().tolist()) == ends


def test_perturbed_images_stay_in_the_range_of_a_pixel():
    images = torch.tensor([0, 3, 252, 255], dtype=torch.uint8).view(4, 1, 1, 1)
    images, model = images.repeat(50, 1, 6, 6), linear(3)
    options = {"epsilon": 0.1, "generator": torch.Generator().manual_seed(0)}
    found = queries.perturbed(model, images, 3, UNIT, steps=1, step=0.09, **options)
    moved = found.int() - images.int()
    assert moved.abs().max() == 23  # 0.09 · 255, and never around the corner
    assert (moved == 0).any()


# Averages


def test_every_shift_and_mirror_is_as_likely_and_of_its_own_image(global_generator):
    image = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3)
    images = torch.cat([image, image + 100]).repeat(1800, 2, 1, 1)
    generator = torch.Generator().manual_seed(0)
    found = averaging.shifted(images, 1, True, generator)
    assert found.shape == images.shape
    assert torch.equal(found[:, 0], found[:, 1])
    for part in (0, 1):
        padded = np.pad(images[part, 0].numpy(), 1)
        crops = [padded[i : i + 3, j : j + 3] for i in range(3) for j in range(3)]
        crops += [crop[:, ::-1] for crop in crops]
        expected = {crop.tobytes() for crop in crops}
        seen = [x.numpy().tobytes() for x in found[part::2, 0]]
        assert set(seen) == expected
        counts = [seen.count(x) for x in expected]
        assert stats.chisquare(counts).pvalue > 1e-3
    assert torch.equal(averaging.shifted(images, 0, False, generator), images)


def by_corner(images):
    """Answer by the brightness of the upper left pixel."""
    p = images[:, 0, 0, 0].double() / 255
    return torch.stack([p, 1 - p], 1)


def test_smoothing_averages_the_answers_to_each_images_copies(global_generator):
    images, service = noise(50), Recorder(by_corner)
    found = averaging.smoothed(service, images, copies=4, crop=1, flip=True, seed=2)
    assert [len(x) for x in service.asked] == [50] * 4
    mean = np.mean([by_corner(x).numpy() for x in service.asked], 0)
    assert np.allclose(found.numpy(), mean, atol=1e-12)
    assert len({x.numpy().tobytes() for x in service.asked}) == 4
    alone = averaging.smoothed(service, images, copies=3, crop=0, flip=False, seed=2)
    assert torch.allclose(alone, by_corner(images))


def sharpened(power, images):
    return by_corner(images) ** power


def test_votes_count_labels_and_see_through_any_defence_that_keeps_them():
    images, options = noise(60), {"copies": 5, "crop": 1, "seed": 0}
    service = Recorder(by_corner)
    found = averaging.voted(service, images, **options)
    won = torch.stack([by_corner(x).argmax(1) == 0 for x in service.asked])
    assert torch.allclose(found[:, 0], won.double().mean(0))
    assert torch.allclose(found.sum(1), torch.ones(60, dtype=torch.float64))
    for power in (0.1, 20):
        defended = functools.partial(sharpened, power)
        other = averaging.voted(defended, images, **options)
        assert torch.equal(other, found)


def test_dither_turns_a_one_bit_answer_into_a_normal_distribution(global_generator):
    """The answer is whether the pixel is over 127; noise of σ makes it Φ."""
    levels = torch.tensor([100, 120, 126, 128, 140, 160], dtype=torch.uint8)
    images, sigma, copies = levels.view(-1, 1, 1, 1), 20, 4000

    def one_bit(images):
        over = images[:, 0, 0, 0] > 127
        return torch.stack([over, ~over], 1).float()

    service = Recorder(one_bit)
    options = {"copies": copies, "noise": sigma / 255, "seed": 0}
    found = averaging.dithered(service, images, **options)[:, 0]
    assert sum(len(x) for x in service.asked) == 6 * copies
    expected = stats.norm.cdf((levels.numpy() - 127.5) / sigma)
    for share, p in zip(found.tolist(), expected, strict=True):
        assert stats.binomtest(round(share * copies), copies, p).pvalue > 1e-3


def test_repeated_queries_mark_what_changed_by_more_than_a_thousandth():
    asked = []

    def drifting(images):
        answers = torch.full((4, 2), 0.5, dtype=torch.float64)
        if asked:
            answers[1] += torch.tensor([6e-4, -6e-4])  # 8.5e-4 in ℓ2
            answers[2] += torch.tensor([8e-4, -8e-4])  # 1.13e-3
        if len(asked) == 1:
            answers[3] = torch.tensor([0.8, 0.2])
        asked.append(images)
        return answers

    mean, changed = averaging.repeated(drifting, noise(4), times=3)
    assert changed.tolist() == [False, False, True, True]
    assert mean[:, 0].tolist() == pytest.approx([0.5, 0.5004, 0.5 + 16e-4 / 3, 0.6])
    assert len(asked) == 3
    alone, changed = averaging.repeated(quantised_service(), noise(30), times=2)
    assert torch.equal(alone, quantised_service()(noise(30)))  # ordered: consistent
    assert not changed.any()


def quantised_service(epsilon=0.5):
    return queries.Service(linear(3, seed=5), UNIT, quantiser(epsilon))


def test_tenants_hear_what_each_state_says_in_an_order_of_its_own():
    images, opened = noise(80), []
    clean = queries.Service(linear(3, seed=5), UNIT)(images)

    def open_service():
        opened.append(Recorder(quantised_service()))
        return opened[-1]

    found, exact = averaging.tenants(open_service, images, 4, seed=0)
    assert torch.equal(opened[0].asked[0], images)
    answers, first = np.zeros((4, 80, 3)), np.zeros((4, 80), bool)
    rows = [x.numpy().tobytes() for x in images]
    for state, service in enumerate(opened):
        asked = service.asked[0]
        order = [rows.index(x.numpy().tobytes()) for x in asked]
        assert sorted(order) == list(range(80))
        told = quantised_service()(asked).numpy()
        for place, answer in zip(order, told, strict=True):
            first[state, place] = answer.tolist() not in answers[state].tolist()
            answers[state, place] = answer
    assert len({x.asked[0].numpy().tobytes() for x in opened}) == 4
    assert (exact.numpy() == first.any(0)).all()
    assert torch.allclose(found[exact], clean[exact], atol=1e-6)
    rest = ~exact.numpy()
    assert rest.sum() > 20
    assert np.allclose(found.numpy()[rest], answers.mean(0)[rest], atol=1e-6)
    alone, _ = averaging.tenants(open_service, images, 1, seed=0)
    assert torch.equal(alone, quantised_service()(images))
    one = (alone - clean).abs().sum(1).mean()
    assert (found - clean).abs().sum(1).mean() < 0.8 * one


# What a quantiser tells


def test_a_new_answer_of_an_ordered_quantiser_is_the_exact_prediction():
    images = noise(300)
    clean = queries.Service(linear(3, seed=5), UNIT)(images)
    answers = quantised_service()(images)
    first, seen = adaptive.first_seen(answers), set()
    for row, mark in zip(answers.tolist(), first.tolist(), strict=True):
        assert mark == (tuple(row) not in seen)
        seen.add(tuple(row))
    assert 3 <= first.sum() == len(seen) < 100
    assert torch.equal(answers[first], clean[first])
    assert not torch.equal(answers[~first], clean[~first])


def at(logits):
    """Make a model whose logits are parameters; `x` is not looked at."""
    model = nn.Module()
    model.logits = nn.Parameter(torch.as_tensor(logits))
    model.forward = lambda x: model.logits
    return model


def test_weights_scale_the_loss_and_the_gradient_of_their_examples():
    model, y = at(torch.randn(3, 4)), torch.rand(3, 4).softmax(1)
    weights, index = torch.tensor([0.0, 9, 1, 2, 4, 8]), torch.tensor([5, 0, 2])
    value = adaptive.weighted(weights)(model, None, y, index)
    logs = model.logits.detach().double().log_softmax(1)
    each = -(y * logs).sum(1) * torch.tensor([8, 0, 1]) / 4  # the mean weight is 4
    assert float(value.detach()) == pytest.approx(float(each.mean()), rel=1e-5)
    same = adaptive.weighted(torch.full((6,), 7.0))(model, None, y, index)
    assert float(same.detach()) == pytest.approx(-float((y * logs).sum(1).mean()))


def test_the_cell_loss_is_zero_inside_and_pulls_by_p_minus_y_outside():
    y = torch.tensor([[0.6, 0.3, 0.1]]).repeat(5, 1)
    p = torch.tensor(
        [
            [0.5, 0.4, 0.1],  # ℓ1 = 0.2: inside
            [0.42, 0.48, 0.1],  # 0.36, but another top class
            [0.7, 0.15, 0.15],  # 0.3: inside
            [0.81, 0.1, 0.09],  # 0.42: too far
            [0.6, 0.3, 0.1],  # the answer itself
        ]
    )
    model, index = at(p.log()), torch.arange(5)
    value = adaptive.cell(0.4)(model, None, y, index)
    value.backward()
    outside = torch.tensor([False, True, False, True, False])
    divergence = stats.entropy(y[outside].T.numpy(), p[outside].T.numpy())
    assert float(value.detach()) == pytest.approx(divergence.sum() / 5, rel=1e-5)
    expected = (p - y) * outside[:, None] / 5
    assert torch.allclose(model.logits.grad, expected, atol=1e-6)


def test_a_cell_of_no_size_is_the_cross_entropy_and_sizes_go_by_index():
    y, p = torch.tensor([[0.7, 0.3], [0.7, 0.3]]), torch.tensor([[0.6, 0.4]] * 2)
    index = torch.tensor([3, 1])
    for epsilon, outside in (
        (0.0, [1, 1]),
        (torch.tensor([0.0, 0.5, 0, 0]), [1, 0]),
        (torch.tensor([0.0, 0, 0, 2]), [0, 1]),
    ):
        model = at(p.log())
        adaptive.cell(epsilon)(model, None, y, index).backward()
        expected = (p - y) / 2 * torch.tensor(outside)[:, None]
        assert torch.allclose(model.logits.grad, expected, atol=1e-6)


# Substitutes


def blobs(count, seed):
    """Draw 12×12 images with a bright square in one of three corners."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.randint(60, (count, 1, 12, 12), generator=generator)
    labels = torch.arange(count) % 3
    for corner, (row, column) in enumerate(((1, 1), (1, 7), (7, 1))):
        images[labels == corner, :, row : row + 4, column : column + 4] += 150
    return images.to(torch.uint8), labels


TOLD = torch.tensor([[0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.25, 0.15, 0.6]])


@pytest.mark.parametrize("strategy", ["naive", "top1", "s4l"])
def test_a_substitute_learns_what_it_is_told(strategy, on_one_thread, global_generator):
    images, labels = blobs(192, seed=0)
    recipe = train.Recipe(epochs=12, batch=32, crop=1, flip=False)
    options = {"strategy": strategy, "seed": 0}
    found = extraction.extract(images, TOLD[labels], NETWORK, recipe, **options)
    test, wanted = blobs(300, seed=1)
    logits = predict.logits(found, test, datasets.normalisation(images))
    assert predict.accuracy(logits, wanted) > 0.98
    error = (logits.softmax(1) - TOLD[wanted]).abs().sum(1).mean()
    assert error > 0.5 if strategy == "top1" else error < 0.15


def same(a, b) -> bool:
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_strategies_train_as_the_ground_floor_does(on_one_thread):
    images, labels = blobs(64, seed=0)
    recipe, answers = train.Recipe(epochs=2, batch=16), TOLD[labels].double()
    other = torch.randint(3, (64,), generator=torch.Generator().manual_seed(0))
    confused = F.one_hot(other, 3) * 0.4 + 0.2

    def expected(targets, loss):
        shape = {"channels": 1, "classes": 3, "size": 12}
        model = models.build(**NETWORK, **shape, seed=5)
        train.fit(model, images, targets, recipe, seed=5, loss=loss)
        return model

    def soft(model, x, y, index):
        return -(answers[index].float() * model(x).log_softmax(1)).sum(1).mean()

    options = {"recipe": recipe, "seed": 5}
    found = extraction.extract(images, answers, NETWORK, **options)
    other_way = expected(labels, soft).state_dict()
    for name, value in found.state_dict().items():
        assert torch.allclose(value, other_way[name], atol=1e-4), name
    hard = extraction.extract(images, confused, NETWORK, strategy="top1", **options)
    assert same(hard, expected(other, train.cross_entropy))
    cell = adaptive.cell(2.0)  # all is inside if the class is right
    found = extraction.extract(images, answers, NETWORK, loss=cell, **options)
    assert same(found, expected(TOLD[labels], cell))
    scaled = extraction.extract(images, answers, NETWORK, mean_std=UNIT, **options)
    assert not same(scaled, extraction.extract(images, answers, NETWORK, **options))


def test_quarter_turns_are_numpys_and_in_order():
    x = torch.rand(5, 2, 4, 4)
    for j, part in enumerate(extraction.rotations(x).split(5)):
        assert np.array_equal(part.numpy(), np.rot90(x.numpy(), j, (2, 3)))


@pytest.mark.parametrize("name", ["cnn4", "resnet8", "vgg16_bn", "lenet5"])
def test_s4l_adds_the_papers_rotation_loss(name, monkeypatch):
    """Appendix B.1, by one forward pass for each rotation, with batch norm at rest."""
    images, labels = blobs(24, seed=0)
    fits = []
    keep = lambda *given, **other: fits.append((given, other))  # noqa: E731
    monkeypatch.setattr(train, "fit", keep)
    network = {"name": name, "width": 4}
    options = {"strategy": "s4l", "seed": 0}
    found = extraction.extract(images, TOLD[labels], network, RECIPE, **options)
    (both, _, y, _), given = fits[0]
    assert torch.equal(y, TOLD[labels])
    trained = {id(p) for p in both.parameters()}
    assert {id(p) for p in found.parameters()} < trained
    both.eval()
    x = torch.rand(24, 1, 12, 12)
    value = given["loss"](both, x, y, torch.arange(24))
    body, last = copy.deepcopy(found), list(found.named_modules())[-1][0]
    body.set_submodule(last, nn.Identity())
    expected = -(y * found(x).log_softmax(1)).sum(1).mean()
    for j in range(4):
        turned = torch.from_numpy(np.rot90(x.numpy(), j, (2, 3)).copy())
        logs = both["head"](body(turned)).log_softmax(1)
        expected = expected - logs[:, j].mean() / 4
    assert float(value.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    value.backward()
    assert all(p.grad is not None for p in both.parameters())
    assert not any(m._forward_pre_hooks for m in found.modules())


# Bad input

IMAGES = noise(4)
ANSWERS = torch.full((4, 2), 0.5)
GENERATOR = torch.Generator()
LABELS = torch.arange(4)


def moved(**sizes):
    options = {"generator": GENERATOR, **sizes}
    return queries.perturbed(linear(2), IMAGES, 2, UNIT, **options)


def extracted(images=IMAGES, answers=ANSWERS, recipe=RECIPE, **options):
    return extraction.extract(images, answers, NETWORK, recipe, seed=0, **options)


def grown(budget, **options):
    options = {"mean_std": UNIT, "seed": 0, **options}
    return queries.jbda(by_corner, IMAGES, budget, None, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: queries.knockoff(5, 6, seed=0), "at most the pool, 5 images, got 6"),
        (lambda: queries.knockoff(5, 0, seed=0), "whole number >= 1, got 0"),
        (
            lambda: queries.Service(linear(2), UNIT)(IMAGES.float()),
            r"images must be uint8 of shape N×C×H×W.*got torch.float32 \[4, 1, 6, 6\]",
        ),
        (lambda: queries.Service(linear(2), UNIT)(IMAGES[:0]), "N >= 1, got"),
        (lambda: grown(3), "budget must be a whole number >= 4, got 3"),
        (lambda: grown(5, copies=0), "copies must be a whole number >= 1, got 0"),
        (lambda: moved(epsilon=0.003), r"epsilon must be in \[1/255, 1\], got 0.003"),
        (lambda: moved(epsilon=1.5), r"epsilon must be in \[1/255, 1\], got 1.5"),
        (lambda: moved(step=0.0), "step must be > 0 and finite, got 0.0"),
        (lambda: moved(steps=0), "steps must be a whole number >= 1, got 0"),
        (lambda: averaging.repeated(by_corner, IMAGES, 0), "times must be .*got 0"),
        (
            lambda: averaging.smoothed(by_corner, IMAGES, copies=0, seed=0),
            "copies must be a whole number >= 1, got 0",
        ),
        (
            lambda: averaging.voted(by_corner, IMAGES, crop=-1, seed=0),
            "crop must be a whole number >= 0, got -1",
        ),
        (
            lambda: averaging.dithered(by_corner, IMAGES, noise=0.001, seed=0),
            r"noise must be in \[0.00196.*, 1\], got 0.001",
        ),
        (
            lambda: averaging.dithered(by_corner, IMAGES, copies=2.5, seed=0),
            "copies must be a whole number >= 1, got 2.5",
        ),
        (
            lambda: averaging.tenants(lambda: by_corner, IMAGES, 0, seed=0),
            "states must be a whole number >= 1, got 0",
        ),
        (lambda: adaptive.first_seen(ANSWERS[0]), "answers must be float .*got"),
        (lambda: adaptive.weighted(torch.tensor([1.0, -1])), r"got \[2\] of mean 0"),
        (lambda: adaptive.weighted(torch.tensor([3.0, -1])), "weights must be"),
        (lambda: adaptive.weighted(torch.zeros(3)), "not all 0, got"),
        (lambda: adaptive.weighted(ANSWERS), "weights must be"),
        (lambda: adaptive.cell(True), "epsilon must be a number, got True"),
        (lambda: adaptive.cell(2.1), r"epsilon must be in \[0, 2\].*got \[2.0999"),
        (lambda: adaptive.cell(float("nan")), r"in \[0, 2\].*got \[nan\]"),
        (lambda: adaptive.cell(ANSWERS), r"one an example, got \[4, 2\]"),
        (lambda: adaptive.cell(LABELS.float() - 1), r"one an example, got \[-1.0\]"),
        (
            lambda: adaptive.cell(1.0)(linear(2), IMAGES / 255, LABELS, LABELS),
            "strategy must be naive, got torch.int64",
        ),
        (lambda: extracted(strategy="top-1"), "did you mean top1"),
        (lambda: extracted(answers=ANSWERS[:3]), "answers must be 4, one an image"),
        (lambda: extracted(answers=ANSWERS.long()), "answers must be float"),
        (lambda: extracted(answers=ANSWERS - 0.6), r"finite and >= 0, got \[-0.1"),
        (lambda: extracted(answers=ANSWERS / 0), r"finite and >= 0, got \[inf"),
        (lambda: extracted(answers=ANSWERS[:, :1]), "classes >= 2, got"),
        (lambda: extracted(images=IMAGES.int()), "images must be uint8"),
        (lambda: extracted(), "at least batch = 32"),
        (
            lambda: extracted(images=IMAGES[..., :5], strategy="s4l"),
            r"images must be square for s4l, got \[6, 5\]",
        ),
        (
            lambda: extracted(strategy="s4l", loss=adaptive.cell(1.0)),
            "loss must be left alone with s4l, got",
        ),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
