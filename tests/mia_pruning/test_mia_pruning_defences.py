"""The two defences that train otherwise: the Min-Max game and DP-SGD."""

import copy
import itertools
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.optimize import brentq
from scipy.special import logsumexp
from sklearn.metrics import roc_auc_score
from torch import nn

from lottolab.images import datasets
from lottolab.membership import signals
from lottolab.mia_pruning.defences import accounting, admm, dp, minmax
from lottolab.nets import masks, models, predict, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:Optimal order"),
    pytest.mark.usefixtures("on_one_thread"),
]
MEAN_STD = (torch.tensor([0.5]), torch.tensor([0.125]))


def pictures(n=50, channels=3, size=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, channels, size, size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.randint(classes, (n,), generator=generator)


def network(seed=0, name="cnn4", width=3):
    shape = {"channels": 3, "classes": 4, "size": 12 if name == "lenet5" else 8}
    return models.build(name, width=width, seed=seed, **shape)


def recipe(**settings):
    return train.Recipe(**{"epochs": 3, "batch": 16, "crop": 1} | settings)


def plain(**settings):
    """Return a recipe whose steps are gradient × lr and nothing else."""
    bare = {"momentum": 0.0, "weight_decay": 0.0, "crop": 0, "flip": False}
    return train.Recipe(**bare | {"schedule": "constant"} | settings)


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


class Killed(Exception):
    pass


# --- the Min-Max game


def play(model, settings, n=50, **options):
    options = {"gamma": 1.0, "width": 0.1, "seed": 3} | options
    sides = *pictures(n), *pictures(30, seed=1)
    return minmax.minmax_train(model, *sides, settings, **options)


@pytest.mark.parametrize(
    ("inner_steps", "precision"), [(1, "float32"), (3, "bfloat16")]
)
def test_with_gamma_0_training_is_plain_training_to_the_bit(inner_steps, precision):
    alone, watched = network(), network()
    kept = masks.random(masks.dense(alone), 0.5, seed=0)
    options = {"seed": 3, "masks": kept, "rewind_at": 1, "precision": precision}
    expected = train.fit(alone, *pictures(), recipe(), **options)
    options |= {"gamma": 0.0, "inner_steps": inner_steps}
    fitted = play(watched, recipe(), **options)
    assert same(state(watched), state(alone))
    assert same(fitted.rewind, expected.rewind)
    assert fitted.history.drop(columns="gain").equals(expected.history)
    assert fitted.history["gain"].nunique() == 3  # the attacker did learn
    other = network()
    play(other, recipe(), **options | {"gamma": 30.0})
    assert not same(state(other), state(alone))


def test_a_killed_game_resumes_to_the_bit(tmp_path):
    settings = recipe(epochs=4)
    kept = masks.random(masks.dense(network()), 0.5, seed=0)
    options = {"inner_steps": 2, "masks": kept, "rewind_at": 3}

    def kill(game, step):
        if step == 7:
            raise Killed

    whole, second = network(), network(seed=7)
    expected = play(whole, settings, **options)
    options["checkpoint"] = tmp_path
    with pytest.raises(Killed):
        play(network(), settings, after_step=kill, **options)
    taken = []
    options["after_step"] = lambda game, step: taken.append(step)
    fitted = play(second, settings, **options)
    assert taken == [6, 7, 8, 9, 10, 11]
    assert same(state(second), state(whole))
    assert same(fitted.rewind, expected.rewind)
    assert fitted.rewind.keys() == second.state_dict().keys()
    assert fitted.history.equals(expected.history)
    assert all((second.state_dict()[n][~m] == 0).all() for n, m in kept.items())


def test_a_game_depends_on_its_seed_and_leaves_the_global_generator_alone():
    found = []
    for outside, seed in ((1, 3), (2, 3), (2, 4)):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        model = network()
        fitted = play(model, recipe(), seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        found.append((state(model), fitted.history))
    assert same(found[0][0], found[1][0])
    assert found[0][1].equals(found[1][1])
    assert not same(found[1][0], found[2][0])


def numbered(pixels, start=0):
    """Make images of one row: the pixels, then a number that no two images share."""
    number = torch.arange(start, start + len(pixels))
    row = torch.stack([*pixels.T, number // 256, number % 256], 1)
    return row.round().clamp(0, 255).to(torch.uint8)[:, None, None]


class Slope(nn.Module):
    """Give class 1 the logit s · first pixel; note what it is asked."""

    def __init__(self):
        super().__init__()
        self.s, self.asked = nn.Parameter(torch.tensor(1.0)), []

    def forward(self, x):
        values = (x[:, 0, 0] * 0.125 + 0.5) * 255
        number = values[:, -2].round() * 256 + values[:, -1].round()
        self.asked.append((self.training, number.long().tolist()))
        z = self.s * x[:, 0, 0, 0]
        return torch.stack([-z / 2, z / 2], 1)


def test_each_minibatch_has_inner_steps_on_fresh_members_and_references(monkeypatch):
    steps, adam = [], torch.optim.Adam.step
    monkeypatch.setattr(torch.optim.Adam, "step", lambda o: steps.append(adam(o)))
    members = numbered(torch.full((60, 1), 100.0)), torch.zeros(60).long()
    others = numbered(torch.full((40, 1), 100.0), start=60), torch.zeros(40).long()
    model, settings = Slope(), plain(epochs=2, batch=20)
    options = {"gamma": 1.0, "inner_steps": 4, "width": 0.02, "seed": 0}
    minmax.minmax_train(
        model, *members, *others, settings, mean_std=MEAN_STD, **options
    )
    assert len(steps) == 2 * 3 * 4
    asked = model.asked[3:]  # at first, one image each: does it answer with logits?
    queries = [numbers for training, numbers in asked if not training]
    assert [training for training, _ in asked] == ([False] * 4 + [True]) * 6
    assert {len(numbers) for numbers in queries} == {40}
    inside = [numbers[:20] for numbers in queries]
    outside = [numbers[20:] for numbers in queries]
    assert set(itertools.chain(*inside)) == set(range(60))
    assert set(itertools.chain(*outside)) == set(range(60, 100))
    assert len(set(map(tuple, inside))) == len(set(map(tuple, outside))) == 24
    own = [tuple(numbers) for training, numbers in asked if training]
    assert not set(own) & set(map(tuple, inside))


# Cells of first pixel (three values) × label (two): shares of members and of others.
P = np.array([[0.40, 0.10], [0.15, 0.15], [0.05, 0.15]])
Q = np.array([[0.05, 0.15], [0.20, 0.10], [0.30, 0.20]])


def test_the_attacker_finds_the_likelihood_ratio():
    """With a fixed classifier the best h is p / (p + q), the gain −log 4 + 2·JS."""

    def side(shares, start):
        counts = (shares * 400).round().astype(int).ravel()
        cells = torch.repeat_interleave(torch.arange(6), torch.from_numpy(counts))
        values = torch.tensor([96.0, 128.0, 160.0])[cells // 2]
        return numbered(values[:, None], start), cells % 2

    model, settings = Slope(), plain(epochs=25, batch=100, lr=1e-12)
    game = minmax.Game(
        model,
        side(P, 0),
        side(Q, 400),
        gamma=1.0,
        batch=100,
        inner_steps=4,
        attack_lr=3e-3,
        width=0.1,
        seed=0,
        mean_std=MEAN_STD,
    )
    train.fit(
        game, *game.sides[0], settings, seed=0, loss=minmax.Game.loss, mean_std=MEAN_STD
    )
    x = (torch.tensor([96.0, 128.0, 160.0]) / 255 - 0.5) / 0.125
    z = torch.stack([-x / 2, x / 2], 1).repeat_interleave(2, 0)
    labels = torch.tensor([0, 1] * 3)
    h = game.log_h(z, labels).exp().detach().numpy().reshape(3, 2)
    np.testing.assert_allclose(h, P / (P + Q), atol=0.06)
    again = 1 - game.log_h(z, labels, sign=-1).exp().detach().numpy().reshape(3, 2)
    np.testing.assert_allclose(again, h, atol=1e-6)
    best = (P * np.log(P / (P + Q)) + Q * np.log(Q / (P + Q))).sum()
    found = torch.stack(game.gains)
    assert found[-40:].mean().item() == pytest.approx(best, abs=0.03)
    assert found[0].item() == pytest.approx(-math.log(4), abs=0.01)


class Direction(nn.Module):
    """Give the classes the logits ∓ u·x for a unit vector u over two pixels."""

    def __init__(self):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([1.0, 1.0]))

    def forward(self, x):
        z = (x[:, 0, 0, :2] * self.w / self.w.norm()).sum(1)
        return torch.stack([-z, z], 1)


@pytest.mark.parametrize(
    ("gamma", "expected"), [(0.0, 1.5 / math.hypot(1.5, 0.7)), (10.0, 0.0)]
)
def test_a_strong_attacker_drives_members_and_references_together(gamma, expected):
    """The first pixel tells the label of members alone, the second of all.

    Cross-entropy wants u along the class means, (1.5, 0.7). Members and references
    look alike for u = (0, 1) only.
    """
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(1000) % 2
    sign = (2 * labels - 1)[:, None]

    def side(first, start):
        means = torch.tensor([first, 0.7]) * sign
        x = means + torch.randn(1000, 2, generator=generator)
        return numbered((x * 0.125 + 0.5) * 255, start), labels

    weights, model = [], Direction()
    fitted = minmax.minmax_train(
        model,
        *side(1.5, 0),
        *side(0.0, 1000),
        plain(epochs=24, batch=100, lr=0.05),
        gamma=gamma,
        attack_lr=3e-3,
        width=0.1,
        seed=0,
        mean_std=MEAN_STD,
        after_step=lambda game, _: weights.append(model.w.detach().clone()),
    )
    found = F.normalize(torch.stack(weights[-50:]))[:, 0].mean()
    assert found.item() == pytest.approx(expected, abs=0.2)
    last = fitted.history["gain"].iloc[-5:].mean()
    if gamma:
        assert last == pytest.approx(-math.log(4), abs=0.03)
    else:
        assert last > -math.log(4) + 0.1


def test_the_game_lowers_the_attackers_gain_on_an_overfitted_network():
    digits = datasets.load("digits")
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    parts = [(digits.images[p], digits.labels[p]) for p in order.split([100, 700, 997])]
    scale = datasets.normalisation(parts[0][0])
    gains, aucs = [], []
    for gamma in (0.0, 3.0):
        shape = {"channels": 1, "classes": 10, "size": 8}
        model = models.build("cnn4", width=4, seed=0, **shape)
        settings = plain(epochs=32, batch=50, lr=0.05, momentum=0.9)
        options = {"inner_steps": 5, "width": 0.2, "seed": 0}
        fitted = minmax.minmax_train(
            model, *parts[0], *parts[1], settings, gamma=gamma, **options
        )
        gains.append(fitted.history["gain"].iloc[-10:].mean())
        # The game's own attacker may just be bad: ask one that never played.
        scores = [
            signals.loss(predict.logits(model, x, scale), y)
            for x, y in (parts[0], parts[2])
        ]
        member = torch.arange(1097) < 100
        aucs.append(roc_auc_score(member, torch.cat(scores)))
    assert gains[0] > gains[1] + 0.1
    assert aucs[0] > aucs[1] + 0.04


def played(gamma):
    options = {"batch": 16, "width": 0.1, "seed": 0}
    options["mean_std"] = datasets.normalisation(pictures()[0])
    sides = pictures(), pictures(30, seed=1)
    return minmax.Game(network(), *sides, gamma=gamma, **options)


def test_the_loss_is_cross_entropy_plus_gamma_times_log_h():
    game = played(gamma=2.5)
    game.train()
    x, y = torch.randn(20, 3, 8, 8), torch.arange(20) % 4
    value = game.loss(x, y, torch.arange(20))
    value.backward()
    assert all(p.grad is None for p in game.attacker.parameters())
    found = [p.grad.clone() for p in game.classifier.parameters()]
    logits = game.classifier(x)
    h = torch.sigmoid(game.attacker(logits.softmax(1), y))
    expected = F.cross_entropy(logits, y) + 2.5 * h.log().mean()
    assert value.item() == pytest.approx(expected.item(), abs=1e-6)
    gradients = torch.autograd.grad(expected, list(game.classifier.parameters()))
    for a, b in zip(found, gradients, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_admm_plays_the_game_too():
    """Equation 3: pruning and the game at once; the attacker is not pruned."""
    game = played(gamma=1.0)
    before = state(game.attacker)
    counts = {minmax.PREFIX + "conv2.weight": 20, minmax.PREFIX + "fc.weight": 7}
    options = {"rho": 0.1, "retrain": recipe(), "seed": 0, "loss": minmax.Game.loss}
    admm.admm_prune(game, *pictures(), recipe(), counts, **options)
    assert len(game.gains) == 2 * 3 * 3
    weights = game.classifier.state_dict()
    assert int((weights["conv2.weight"] != 0).sum()) == 20
    assert int((weights["fc.weight"] != 0).sum()) == 7
    moved = [not torch.equal(before[n], w) for n, w in game.attacker.named_parameters()]
    assert sum(moved) > len(moved) / 2
    assert all(int((w == 0).sum()) == 0 for w in game.attacker.parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"gamma": -0.1}, "gamma must be >= 0 and finite, got -0.1"),
        ({"gamma": math.nan}, "gamma must be >= 0 and finite, got nan"),
        ({"gamma": math.inf}, "gamma must be >= 0 and finite, got inf"),
        ({"inner_steps": 0}, "inner_steps must be a whole number >= 1, got 0"),
        ({"attack_lr": 0}, "attack_lr must be > 0 and finite, got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        ({"width": 0}, "width must be > 0 and finite, got 0"),
        (
            {"reference_images": pictures()[0][20:50]},
            "reference_images must hold no training image, got 30",
        ),
        (
            {"reference_images": pictures(30, size=9, seed=1)[0]},
            "images and reference_images must be of one shape C×H×W, "
            "got [3, 8, 8] and [3, 9, 9]",
        ),
        (
            {"reference_labels": torch.zeros(29).long()},
            "reference_labels must be int64 of shape [30], got torch.int64 [29]",
        ),
        (
            {"reference_labels": torch.full((30,), 4)},
            "reference_labels must be in [0, 3], got [4]",
        ),
        (
            {"labels": torch.full((50,), -1)},
            "labels must be in [0, 3], got [-1]",
        ),
        (
            {"reference_images": torch.zeros(0, 3, 8, 8, dtype=torch.uint8),
             "reference_labels": torch.zeros(0).long()},
            "reference_images must be uint8 of shape N×C×H×W, N >= 1, "
            "got torch.uint8 [0, 3, 8, 8]",
        ),
    ],
)  # fmt: skip
def test_the_game_refuses_bad_input(changed, message):
    names = ("images", "labels", "reference_images", "reference_labels")
    given = dict(zip(names, (*pictures(), *pictures(30, seed=1)), strict=True))
    given |= {"recipe": recipe(), "gamma": 1.0, "width": 0.02, "seed": 0}
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match=r".") as caught:
        minmax.minmax_train(model, **given | changed)
    assert str(caught.value) == message
    assert same(state(model), before)


# --- DP-SGD


def private(model, images, labels, **options):
    options = {"epsilon": 2.0, "delta": 1e-5, "clip": 1.0, "seed": 0, **options}
    return dp.dp_train(model, images, labels, mean_std=scale(images), **options)


def scale(images):
    channels = images.shape[1]
    return torch.full((channels,), 0.5), torch.full((channels,), 0.125)


def linear(inputs, outputs=2):
    model = nn.Sequential(nn.Flatten(), nn.Linear(inputs, outputs, bias=False))
    nn.init.zeros_(model[1].weight)
    return model


@pytest.fixture
def fixed_noise(monkeypatch):
    """Return a function that sets σ, whatever ε is asked for."""
    return lambda sigma: monkeypatch.setattr(dp, "noise_multiplier", lambda *_: sigma)


def subsampled_rdp(sigma, q, order):
    """Return the Rényi divergence of one step, Mironov et al. (2019), section 3.

    It is that of (1 − q) N(0, σ²) + q N(1, σ²) from N(0, σ²), here by quadrature.
    """
    x = np.linspace(-12 * sigma, order + 12 * sigma, 5000)
    ratio = np.logaddexp(math.log1p(-q), math.log(q) + (2 * x - 1) / (2 * sigma**2))
    integrand = stats.norm.logpdf(x, scale=sigma) + order * ratio
    return (logsumexp(integrand) + math.log(x[1] - x[0])) / (order - 1)


def converted(rdp, order, delta):
    """Turn (α, rdp)-RDP into an ε at δ: Canonne, Kamath & Steinke (2020), prop. 12."""
    return rdp + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)


@pytest.mark.parametrize("epsilon", [0.5, 6.28])
def test_the_spent_epsilon_agrees_with_the_closed_form(epsilon):
    x, y = pictures(100, 1, 2, 2)
    found = private(linear(4), x, y, epochs=2, batch=10, lr=0.1, epsilon=epsilon)
    assert 0.998 * epsilon < found.epsilon <= epsilon
    sigma, orders = found.noise_multiplier, [*np.arange(1.1, 11, 0.1), *range(12, 64)]
    spent = [
        min(converted(t * subsampled_rdp(sigma, 0.1, a), a, 1e-5) for a in orders)
        for t in (10, 20)
    ]
    np.testing.assert_allclose(found.history["epsilon"], spent, rtol=1e-6)
    assert found.epsilon == found.history["epsilon"].iloc[-1]


@pytest.mark.parametrize("epsilon", [0.5, 2.0, 6.28])
def test_the_spent_epsilon_bounds_the_exact_one_of_full_batches(epsilon):
    """T full batches are one Gaussian mechanism of μ = √T / σ.

    Its δ(ε) is in Balle & Wang (2018), theorem 8.
    """
    x, y = pictures(20, 1, 2, 2)
    found = private(linear(4), x, y, epochs=9, batch=20, lr=0.1, epsilon=epsilon)
    mu = 3 / found.noise_multiplier

    def excess(e):
        delta = stats.norm.cdf(mu / 2 - e / mu)
        return delta - math.exp(e) * stats.norm.cdf(-mu / 2 - e / mu) - 1e-5

    exact = brentq(excess, 1e-6, 50)
    assert exact < found.epsilon < 1.2 * exact


def clipped_descent(model, x, y, clip, lr, momentum, kept):
    """Take a step on the mean clipped gradient, example by example; return norms."""
    weights = dict(model.named_parameters())
    total, norms = {n: torch.zeros_like(w) for n, w in weights.items()}, []
    for i in range(len(x)):
        loss = F.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        found = dict(
            zip(weights, torch.autograd.grad(loss, weights.values()), strict=True)
        )
        found |= {n: found[n] * m for n, m in kept.items()}
        norms.append(math.sqrt(sum(float(g.square().sum()) for g in found.values())))
        for n, g in found.items():
            total[n] += g * min(1, clip / norms[-1]) / len(x)
    with torch.no_grad():
        for n, w in weights.items():
            momentum[n] = 0.9 * momentum.get(n, 0) + total[n]
            w -= lr * momentum[n]
    return norms


@pytest.mark.parametrize("chunk", [5, 12, 100])
def test_each_examples_gradient_is_clipped_on_its_own(fixed_noise, chunk):
    fixed_noise(0.0)
    images, labels = pictures(12, size=12)
    ours, other = network(name="lenet5"), network(name="lenet5")
    kept = masks.random(masks.dense(ours, first=True), 0.5, seed=0)
    options = {"epochs": 3, "batch": 12, "lr": 0.2, "momentum": 0.9, "clip": 1.7}
    private(ours, images, labels, masks=kept, chunk=chunk, **options)
    masks.apply_(other, kept)
    x, norms, momentum = (images / 255 - 0.5) / 0.125, [], {}
    for _ in range(3):
        norms += clipped_descent(other, x, labels, 1.7, 0.2, momentum, kept)
    assert min(norms) < 1.7 < max(norms)
    for (name, a), b in zip(ours.named_parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5, msg=name)
    assert all((ours.state_dict()[n][~m] == 0).all() for n, m in kept.items())


def test_the_noise_has_deviation_sigma_times_clip(fixed_noise):
    """Black images have no gradient: what moves the weights is noise."""
    fixed_noise(1.7)
    images = torch.full((8, 1, 50, 50), 127.5).to(torch.uint8)
    black = (images[0, 0, 0, :1] / 255.0, torch.ones(1))
    model = linear(2500)
    options = {"epsilon": 1.0, "delta": 1e-5, "clip": 0.3, "seed": 0, "chunk": 3}
    options |= {"epochs": 2, "batch": 4, "lr": 0.5, "mean_std": black}
    dp.dp_train(model, images, torch.zeros(8).long(), **options)
    # Four steps of lr × noise / batch.
    noise = model[1].weight.detach().double().flatten() / (2 * 0.5 / 4)
    assert stats.kstest(noise / (1.7 * 0.3), "norm").pvalue > 0.01
    spread = float((noise / (1.7 * 0.3)).square().sum())
    assert stats.chi2(5000).cdf(spread) == pytest.approx(0.5, abs=0.495)


def test_a_step_that_draws_nobody_is_noise_alone(fixed_noise, monkeypatch):
    fixed_noise(1.0)
    nobody = torch.zeros(0).long()
    monkeypatch.setattr(dp, "_poisson", lambda *_: itertools.repeat(nobody))
    model = linear(2500)
    images = torch.zeros(8, 1, 50, 50, dtype=torch.uint8)
    options = {"epochs": 1, "batch": 8, "lr": 8.0}
    found = private(model, images, torch.zeros(8).long(), **options)
    assert found.history["examples"].tolist() == [0]
    assert math.isnan(found.history["loss"][0])
    assert stats.kstest(model[1].weight.detach().flatten(), "norm").pvalue > 0.01


def test_each_example_joins_a_batch_on_its_own(fixed_noise):
    """Each image has a pixel of its own, so the weights tell who was in the batch."""
    fixed_noise(0.0)
    n, runs, q = 36, 300, 0.75
    images = torch.eye(n).mul(255).to(torch.uint8).view(n, 1, 1, n)
    zero = (torch.zeros(1), torch.ones(1))
    options = {"epsilon": 1, "delta": 1e-5, "clip": 1.0, "mean_std": zero}
    options |= {"epochs": 1, "batch": 27, "lr": 1.0}
    drawn, sizes = [], []
    for seed in range(runs):
        model = linear(n)
        found = dp.dp_train(model, images, torch.zeros(n).long(), seed=seed, **options)
        drawn.append((model[1].weight[0].detach() > 0).numpy())
        sizes += found.history["examples"].tolist()
    drawn = np.array(drawn)
    assert drawn.sum(1).tolist() == sizes
    # As for independent coins: number of heads, spread of the sizes, pairs.
    assert stats.binomtest(int(drawn.sum()), n * runs, q).pvalue > 0.01
    spread = ((drawn.sum(1) - n * q) ** 2).sum() / (n * q * (1 - q))
    assert 0.005 < stats.chi2(runs).cdf(spread) < 0.995
    each = ((drawn.sum(0) - runs * q) ** 2).sum() / (runs * q * (1 - q))
    assert 0.005 < stats.chi2(n).cdf(each) < 0.995


def audit(sigma: float, runs: int) -> float:
    """Return the largest TPR − e^ε FPR − δ that is certain, for ε = 1.

    A run trains with a canary or without one, on one batch. The other images are black
    and move nothing, the canary is white and has a huge gradient. The adversary knows
    σ and asks whether the weights have gone the canary's way by 1, 2 or 3 deviations.
    """
    white = torch.zeros(8, 1, 1, 4, dtype=torch.uint8)
    white[0] = 255
    options = {"epochs": 1, "batch": 6, "lr": 6.0, "epsilon": 1.0, "delta": 1e-5}
    options |= {"clip": 1.0, "mean_std": (torch.zeros(1), torch.full((1,), 0.1))}
    moved = []
    for seed in range(2 * runs):
        model, images = linear(4), white if seed < runs else white * 0
        dp.dp_train(model, images, torch.zeros(8).long(), seed=seed, **options)
        weights = model[1].weight.detach()
        moved.append(float((weights[0] - weights[1]).sum()))
    found = []
    for cut in np.array([1, 2, 3]) * sigma * math.sqrt(8):
        hits, false = (np.reshape(moved, (2, runs)) > cut).sum(1)
        low = stats.binomtest(int(hits), runs).proportion_ci(0.998, "exact").low
        high = stats.binomtest(int(false), runs).proportion_ci(0.998, "exact").high
        found.append(low - math.e * high - 1e-5)
    return max(found)


@pytest.mark.parametrize("runs", [60, pytest.param(150, marks=pytest.mark.long)])
def test_a_canary_audit_stays_below_its_bound(fixed_noise, runs):
    sigma = accounting.noise_multiplier(1.0, 1e-5, 0.75, 1)
    assert audit(sigma, runs) <= 0
    # The audit can find a fault, and by far: with a thirtieth of the noise it is sure
    # of the canary whenever that is drawn, in three of four runs.
    fixed_noise(sigma / 30)
    assert audit(sigma / 30, runs) > 0.1


def test_a_private_run_repeats_and_leaves_the_global_generator_alone(fixed_noise):
    fixed_noise(1.0)
    images, labels = pictures(60, size=12)
    found = []
    for outside, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        model = network(name="lenet5")
        fitted = private(model, images, labels, epochs=2, batch=20, lr=0.1, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        assert all(p.grad is None for p in model.parameters())
        found.append((state(model), fitted.history))
    assert same(found[0][0], found[1][0])
    assert found[0][1].equals(found[1][1])
    assert not same(found[1][0], found[2][0])
    assert not found[1][1]["examples"].equals(found[2][1]["examples"])


def test_noise_batches_and_dropout_come_from_streams_of_their_own():
    seeds = [x for seed in range(20) for x in (seed, *dp._seeds(seed))]
    assert len(set(seeds)) == 80


def test_dropout_is_each_examples_own_and_repeats(fixed_noise):
    """Of 40 equal examples each pixel's weight counts those that did not drop it."""
    fixed_noise(0.0)
    images = torch.full((40, 1, 8, 8), 255, dtype=torch.uint8)
    found = []
    for outside in (1, 2):
        torch.manual_seed(outside)
        model = nn.Sequential(nn.Dropout(0.5), linear(64))
        before = torch.get_rng_state()
        options = {"epochs": 1, "batch": 40, "lr": 40.0, "clip": 1e6, "chunk": 16}
        private(model, images, torch.zeros(40).long(), **options)
        assert torch.equal(torch.get_rng_state(), before)
        # Gradient of a kept pixel: 1/2 off the label × a pixel of 4 doubled.
        found.append(model[1][1].weight.detach()[0] / 4)
    assert torch.equal(*found)
    counts = found[0].double()
    torch.testing.assert_close(counts, counts.round(), atol=1e-3, rtol=0)
    assert stats.kstest(counts, stats.binom(40, 0.5).cdf).pvalue > 0.001
    assert len(counts.round().unique()) > 5


class TwoBiases(nn.Module):
    """A linear layer whose two biases share the tensor of their gradients."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4, bias=False)
        self.biases = nn.ParameterList([torch.zeros(4), torch.zeros(4)])

    def forward(self, x):
        return self.linear(x.flatten(1)) + (self.biases[0] + self.biases[1])


def test_weights_that_share_a_gradient_and_frozen_and_tied_ones_are_trained(
    fixed_noise,
):
    fixed_noise(0.0)
    images, labels = pictures(12, 1)
    options = {"epochs": 1, "batch": 12, "lr": 0.2, "clip": 0.5}
    torch.manual_seed(0)
    double, frozen = TwoBiases(), TwoBiases()
    frozen.linear.weight.requires_grad_(False)
    tied = nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
    tied[3].weight = tied[1].weight
    for model in (double, frozen, tied):
        twin = copy.deepcopy(model)
        before = state(model)
        private(model, images, labels, **options)
        x, names = (images / 255 - 0.5) / 0.125, dict(twin.named_parameters())
        free = [p for p in names.values() if p.requires_grad]
        total = [torch.zeros_like(p) for p in free]
        for i in range(12):
            loss = F.cross_entropy(twin(x[i : i + 1]), labels[i : i + 1])
            own = torch.autograd.grad(loss, free)
            norm = math.sqrt(sum(float(g.square().sum()) for g in own))
            for part, g in zip(total, own, strict=True):
                part += g * min(1, 0.5 / norm) / 12
        moved = {id(p): g for p, g in zip(free, total, strict=True)}
        for name, p in names.items():
            wanted = p - 0.2 * moved.get(id(p), 0)
            got = model.state_dict()[name]
            torch.testing.assert_close(got, wanted, rtol=1e-4, atol=1e-6, msg=name)
        assert not same(state(model), before)


class Decides(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(64, 4)

    def forward(self, x):
        return self.linear(x.flatten(1) if x.sum().item() > 0 else -x.flatten(1))


@pytest.mark.parametrize(
    ("layers", "part"),
    [
        (
            [
                nn.InstanceNorm2d(1, track_running_stats=True),
                nn.Flatten(),
                nn.Linear(64, 4),
            ],
            "without running statistics, .*running_mean",
        ),
        ([Decides()], r"torch.func their gradient: .*item\(\)"),
        ([nn.Flatten(), nn.Linear(63, 4)], "shapes cannot be multiplied"),
        (
            [nn.Flatten(), nn.Linear(64, 4).requires_grad_(False)],
            "model must have a weight that is not frozen, got none",
        ),
    ],
)
def test_what_cannot_be_trained_privately_is_refused_before_a_step(layers, part):
    model = nn.Sequential(*layers)
    before = state(model)
    with pytest.raises(ValueError, match=part) as caught:
        private(model, *pictures(12, 1), epochs=1, batch=12, lr=0.2)
    assert len(str(caught.value).splitlines()) == 1
    assert same(state(model), before)


def test_private_training_learns_the_digits():
    digits = datasets.load("digits")
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    (images, labels), test = (
        (digits.images[part], digits.labels[part]) for part in order.split([1500, 297])
    )
    options = {"epochs": 5, "batch": 150, "lr": 2.0, "epsilon": 6.28, "delta": 1e-5}
    model = linear(64, 10)
    dp.dp_train(model, images, labels, clip=1.0, seed=0, **options)
    logits = predict.logits(model, test[0], datasets.normalisation(images))
    assert predict.accuracy(logits, test[1]) > 0.85


def test_group_norm_makes_a_network_that_looks_at_each_example_alone(fixed_noise):
    fixed_noise(1.0)
    model = network(width=4)
    before = state(model)
    fixed = dp.group_norm(model, groups=2)
    assert same(state(model), before)
    norms = [m for m in fixed.modules() if isinstance(m, nn.GroupNorm)]
    assert [(m.num_groups, m.num_channels) for m in norms] == [
        (2, 4),
        (2, 8),
        (2, 16),
        (2, 16),
    ]
    assert torch.equal(fixed.conv1.weight, model.conv1.weight)
    x = torch.randn(6, 3, 8, 8)
    alone = torch.cat([fixed.train()(x[i : i + 1]) for i in range(6)])
    torch.testing.assert_close(fixed(x), alone)
    images, labels = pictures()
    private(fixed, images, labels, epochs=1, batch=10, lr=0.1)
    assert not torch.equal(fixed.conv1.weight, model.conv1.weight)
    with pytest.raises(
        ValueError, match="groups must divide the 4 channels of bn1, got 3"
    ):
        dp.group_norm(model, groups=3)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epsilon": 0}, "epsilon must be in (0, 1e6], got 0"),
        ({"epsilon": -1.0}, "epsilon must be in (0, 1e6], got -1.0"),
        ({"epsilon": math.nan}, "epsilon must be in (0, 1e6], got nan"),
        ({"delta": 0.0}, "delta must be in (0, 1), got 0.0"),
        ({"delta": 1.0}, "delta must be in (0, 1), got 1.0"),
        ({"clip": 0}, "clip must be > 0 and finite, got 0"),
        ({"clip": math.inf}, "clip must be > 0 and finite, got inf"),
        ({"lr": 0}, "lr must be > 0 and finite, got 0"),
        ({"momentum": 1.0}, "momentum must be in [0, 1), got 1.0"),
        ({"batch": 51}, "batch must be at most the 50 images, got 51"),
        ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
        ({"epochs": 0}, "epochs must be a whole number >= 1, got 0"),
        ({"chunk": 0}, "chunk must be a whole number >= 1, got 0"),
        ({"seed": -1}, "seed must be a whole number >= 0, got -1"),
        (
            {"labels": torch.zeros(49).long()},
            "labels must be int64 of shape [50], got torch.int64 [49]",
        ),
        (
            {"images": torch.zeros(50, 3, 12, 12)},
            "images must be uint8 of shape N×C×H×W, N >= 1, "
            "got torch.float32 [50, 3, 12, 12]",
        ),
        (
            {"model": network()},
            "model must have no batch norm, which mixes examples (see dp.group_norm), "
            "got bn1, bn2, bn3, bn4",
        ),
        (
            {"masks": {"fc1.weight": torch.ones(1, dtype=torch.bool)}},
            "mask fc1.weight must have the shape [60, 8], got [1]",
        ),
    ],
)
def test_private_training_refuses_bad_input(changed, message):
    images, labels = pictures(size=12)
    model = network(name="lenet5")
    before = state(model)
    given = {"model": model, "images": images, "labels": labels}
    given |= {"epochs": 1, "batch": 10, "lr": 0.1, "epsilon": 1.0, "delta": 1e-5}
    with pytest.raises(ValueError, match=r".") as caught:
        dp.dp_train(**given | {"clip": 1.0, "seed": 0} | changed)
    assert str(caught.value) == message
    assert same(state(model), before)


def test_an_epsilon_out_of_reach_and_a_loss_that_explodes_are_refused(fixed_noise):
    images, labels = pictures(size=12)
    options = {"epochs": 3, "batch": 10}
    with pytest.raises(ValueError, match="budget is too low"):
        private(network(name="lenet5"), images, labels, lr=0.1, epsilon=1e-7, **options)
    fixed_noise(1.0)
    with pytest.raises(ValueError, match="the loss must stay finite; lower lr, got"):
        private(network(name="lenet5"), images, labels, lr=1e30, **options)
