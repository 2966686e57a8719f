"""PGD and its kin against closed forms; ARC against all subsets, by linear programs."""

import copy
import doctest
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import stats
from scipy.optimize import linprog
from torch import nn

from lottolab.ensembles import folding, queries
from lottolab.ensembles.attacks import autoattack, gradient
from lottolab.ensembles.attacks.arc import accuracy, arc
from lottolab.ensembles.attacks.gradient import pgd, universal
from lottolab.images import datasets
from lottolab.nets import models, predict

pytestmark = pytest.mark.usefixtures("on_one_thread")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def pictures(n=6, channels=2, size=8, classes=3, seed=0, low=0.0, high=1.0):
    """Return float images, some pixels of which are at the ends, and labels."""
    made = generator(seed)
    x = torch.rand(n, channels, size, size, generator=made) * 1.4 - 0.2
    y = torch.randint(classes, (n,), generator=made)
    return x.clamp(0, 1) * (high - low) + low, y


def network(name="cnn4", channels=2, classes=3, seed=0, **options):
    """Return a network in training mode whose batch norms have statistics."""
    shape = {"channels": channels, "classes": classes, "seed": seed}
    model = models.build(name, **shape, **({"width": 3} | options))
    made = generator(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            size = (module.num_features,)
            module.running_mean.copy_(torch.randn(size, generator=made) * 0.3)
            module.running_var.copy_(torch.rand(size, generator=made) + 0.5)
            with torch.no_grad():
                module.weight.copy_(torch.rand(size, generator=made) + 0.5)
                module.bias.copy_(torch.randn(size, generator=made) * 0.3)
    return model.train()


def line(weights, offset=0.0):
    """Return a model of two classes whose first logit is a line, the second 0."""

    def model(x):
        first = x.flatten(1) @ weights + offset
        return torch.stack([first, torch.zeros_like(first)], 1)

    return model


def waves(weights):
    return lambda x: (x.flatten(1) @ weights).sin()


BALL = {"epsilon": 0.1, "step": 0.03, "steps": 5}


# The ball


SHAPES = [(1, 1, 1, 1), (4, 3, 2, 5), (3, 1, 9, 4), (7, 2, 6, 6)]
ATTACKS = {
    "pgd": lambda m, x, y, e: pgd(m, x, y, epsilon=e, step=0.07, steps=4, seed=1),
    "starts": lambda m, x, y, e: pgd(
        m, x, y, epsilon=e, step=0.5, steps=3, seed=1, restarts=3, stop=True, batch=2
    ),
    "eot": lambda m, x, y, e: pgd(
        m, x, y, epsilon=e, step=9.0, steps=2, seed=1, eot=2, over="logits"
    ),
    "arc": lambda m, x, y, e: arc([m, m], x, y, epsilon=e, step=0.07, steps=4),
    "rescale": lambda m, x, y, e: arc(
        [m, m], x, y, epsilon=e, step=0.07, steps=4, inner="rescale"
    ),
    "universal": lambda m, x, y, e: (
        x + universal(m, x, y, epsilon=e, step=0.07, epochs=4, seed=1)
    ).clamp(0, 1),
    "apgd": lambda m, x, y, e: autoattack.apgd(m, x, y, epsilon=e, steps=4, seed=1),
    "square": lambda m, x, y, e: autoattack.square(
        m, x, y, epsilon=e, queries=4, seed=1
    ),
}


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("epsilon", [0.0, 0.013, 0.4, 1.0])
def test_every_example_is_in_the_ball_and_an_image(attack, epsilon):
    if attack in ("apgd", "square"):
        pytest.importorskip("pyautoattack")
        if epsilon == 0:
            pytest.skip("AutoAttack has no ball of radius 0")
    for shape in SHAPES if attack != "square" else SHAPES[1:]:
        made = generator(sum(shape))
        x = (torch.rand(shape, generator=made) * 1.6 - 0.3).clamp(0, 1)
        y = torch.randint(3, shape[:1], generator=made)
        model = waves(torch.randn(x[0].numel(), 3, generator=made))
        before = x.clone()
        with torch.random.fork_rng():
            found = ATTACKS[attack](model, x, y, epsilon)
        assert found.shape == x.shape
        assert found.dtype == x.dtype
        assert 0 <= found.min() <= found.max() <= 1
        assert (found - x).abs().max() <= epsilon + 1e-7
        assert torch.equal(x, before)
        assert not found.requires_grad
        if epsilon == 0:
            assert torch.equal(found, x)


@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_repeats_and_leaves_the_model_and_global_numbers_alone(attack):
    if attack in ("apgd", "square"):
        pytest.importorskip("pyautoattack")
    x, y = pictures()
    model = network()
    model.bn2.eval()
    model.conv1.weight.requires_grad_(False)
    before = copy.deepcopy(model.state_dict())
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    found = [ATTACKS[attack](model, x, y, 0.1) for _ in range(2)]
    assert torch.equal(torch.rand(3), expected)
    assert torch.equal(*found)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model.training
    assert model.bn1.training
    assert not model.bn2.training
    grads = {k for k, p in model.named_parameters() if not p.requires_grad}
    assert grads == {"conv1.weight"}
    assert all(p.grad is None for p in model.parameters())
    quiet = ATTACKS[attack](model.eval(), x, y, 0.1)
    assert torch.equal(quiet, found[0])  # so batch norm was in evaluation mode


def test_a_model_is_put_back_after_an_error():
    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.calls = nn.Parameter(torch.ones(1)), 0

        def forward(self, x):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("broken")
            return x.flatten(1)[:, :3] * self.weight

    model = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        pgd(model, *pictures(), **BALL, seed=0)
    assert model.training
    assert model.weight.requires_grad


# PGD


@pytest.mark.parametrize("loss", ["ce", "margin"])
@pytest.mark.parametrize("over", gradient.OVER)
def test_pgd_reaches_the_optimum_of_a_line(loss, over):
    """The loss of two classes grows with −w·x alone: every pixel goes to its end."""
    x, y = pictures(n=20, classes=2)
    weights = torch.randn(x[0].numel(), generator=generator(1))
    ball = {"epsilon": 0.15, "step": 0.05, "steps": 6, "restarts": 2, "eot": 2}
    found = pgd(line(weights), x, y, **ball, seed=0, loss=loss, over=over)
    sign = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1) * weights.view(x[0].shape)
    assert torch.equal(
        found, (x + 0.15 * sign.sign()).clamp(x - 0.15, x + 0.15).clamp(0, 1)
    )


def test_without_a_step_the_start_is_left_and_it_is_uniform():
    x = torch.full((40, 1, 8, 8), 0.5)
    y = torch.zeros(40, dtype=torch.int64)
    model = line(torch.ones(64))
    start = pgd(model, x, y, epsilon=0.2, step=0.0, steps=1, seed=3)
    noise = ((start - x) / 0.2).flatten().numpy()
    assert stats.kstest(noise, "uniform", args=(-1, 2)).pvalue > 1e-3
    other = pgd(model, x, y, epsilon=0.2, step=0.0, steps=1, seed=4)
    assert abs(np.corrcoef(noise, ((other - x) / 0.2).flatten())[0, 1]) < 0.1
    chunked = pgd(model, x, y, epsilon=0.2, step=0.0, steps=1, seed=3, batch=7)
    assert torch.equal(chunked, start)


def test_one_step_is_fast_adversarial_trainings_attack():
    x, y = pictures(low=0.3, high=0.7)
    model = network().eval()
    start = pgd(model, x, y, epsilon=0.1, step=0.0, steps=1, seed=3).requires_grad_()
    slope, *_ = torch.autograd.grad(F.cross_entropy(model(start), y), start)
    wanted = (start.detach() + 0.125 * slope.sign() - x).clamp(-0.1, 0.1) + x
    found = pgd(model, x, y, epsilon=0.1, step=0.125, steps=1, seed=3)
    assert torch.allclose(found, wanted, atol=1e-7)


def rugged(x):
    """Return logits with many hills, so that the start matters."""
    rows = x.flatten(1)
    return torch.stack(
        [(9 * rows).sin().sum(1), (11 * rows).cos().sum(1), rows[:, 0]], 1
    )


@pytest.mark.parametrize("stop", [False, True])
def test_of_several_starts_the_best_is_kept_for_each_image(stop):
    x, y = pictures(n=40)
    radius = 0.02 if stop else 0.3  # some images must be left for a second start
    settings = {"epsilon": radius, "step": 0.05, "steps": 4, "seed": 0, "stop": stop}
    one, five = (pgd(rugged, x, y, **settings, restarts=r) for r in (1, 5))
    reached = [queries.margin(rugged(found), y) for found in (one, five)]
    fooled = reached[0] > 0
    assert (fooled <= (reached[1] > 0)).all()
    rows = ~fooled if stop else slice(None)
    assert (reached[1][rows] >= reached[0][rows]).all()
    assert (reached[1] > reached[0]).any()
    if not stop:
        alone = [pgd(rugged, x, y, **settings | {"seed": s}) for s in range(5)]
        best = torch.stack([queries.margin(rugged(a), y) for a in alone]).amax(0)
        assert reached[1].mean() > 0.5 * best.mean()


def test_stopping_fools_whom_the_full_attack_fools_with_fewer_questions():
    x, y = pictures(n=40)
    asked = []

    def counted(x):
        asked.append(len(x))
        return rugged(x)

    found, cost = [], []
    for stop in (False, True):
        asked.clear()
        found.append(
            pgd(counted, x, y, epsilon=0.2, step=0.03, steps=12, seed=0, stop=stop)
        )
        cost.append(sum(asked))
    right = [queries.correct(rugged, f, y) for f in found]
    assert (right[1] <= right[0]).all()
    assert (~right[1]).sum() > 0
    assert cost[0] == 1 + 12 * 40
    assert cost[1] < cost[0] / 2
    clean = queries.correct(rugged, x, y)
    start = pgd(rugged, x, y, epsilon=0.2, step=0.0, steps=1, seed=0)
    lost = ~queries.correct(rugged, start, y)
    assert lost.any()
    assert clean.any()
    assert torch.equal(found[1][lost], start[lost])


@pytest.mark.parametrize("steps", [1, 2, 40, 41])
def test_steps_that_repeat_are_left_out_and_change_nothing(steps):
    """Nobody is fooled; on the hills most images soon go to and fro."""
    x, _ = pictures(n=40)
    y, asked = torch.full((40,), 2), []

    def counted(x):
        asked.append(len(x))
        return rugged(x) + 1000 * torch.eye(3)[2]

    settings = {"epsilon": 0.25, "step": 0.0625, "steps": steps, "loss": "margin"}
    found, cost = [], []
    for stop in (False, True):
        asked.clear()
        found.append(pgd(counted, x, y, **settings, seed=0, stop=stop))
        cost.append(sum(asked) - 1)
    assert torch.equal(*found)
    assert cost[0] == 40 * steps
    assert cost[1] == cost[0] if steps < 3 else cost[1] < cost[0] / 2


def test_one_draw_after_another_is_averaged_as_asked():
    """Two models in turn: the three means, each written out."""
    x, y = pictures(n=5)
    pair = [network(seed=s).eval() for s in (0, 1)]
    turns = itertools.cycle(pair)
    means = {
        "losses": lambda a, b: (F.cross_entropy(a, y) + F.cross_entropy(b, y)) / 2,
        "logits": lambda a, b: F.cross_entropy((a + b) / 2, y),
        "probabilities": lambda a, b: F.nll_loss(
            ((a.softmax(1) + b.softmax(1)) / 2).log(), y
        ),
    }
    for over, mean in means.items():
        slope, outputs = gradient.gradient(
            lambda x: next(turns)(x), x, y, loss="ce", eot=2, over=over
        )
        point = x.clone().requires_grad_()
        wanted, *_ = torch.autograd.grad(5 * mean(*(m(point) for m in pair)), point)
        assert torch.allclose(slope, wanted, rtol=1e-4, atol=1e-7), over
        if over != "logits":
            shares = sum(m(x).softmax(1) for m in pair) / 2
            assert torch.allclose(outputs.exp(), shares, atol=1e-6)


def test_normalised_asks_as_the_ground_floor_does():
    images = torch.randint(256, (5, 2, 8, 8), dtype=torch.uint8, generator=generator())
    model, scale = network(), datasets.normalisation(images)
    wanted = predict.logits(model, images, scale)
    found = queries.Normalised(model, scale).eval()(images / 255)
    assert torch.allclose(found, wanted, atol=1e-5)
    right = queries.correct(
        queries.Normalised(model, scale), images / 255, wanted.argmax(1)
    )
    assert right.all()


BAD = [
    ({"epsilon": -0.1}, r"epsilon must be in \[0, 1\], got -0.1"),
    ({"epsilon": float("nan")}, r"epsilon must be in \[0, 1\], got nan"),
    ({"epsilon": 8.0}, r"epsilon must be in \[0, 1\], got 8.0"),
    ({"step": -1.0}, "step must be >= 0 and finite, got -1.0"),
    ({"step": float("inf")}, "step must be >= 0 and finite, got inf"),
    ({"steps": 0}, "steps must be a whole number >= 1, got 0"),
    ({"restarts": 0}, "restarts must be a whole number >= 1, got 0"),
    ({"eot": 1.5}, "eot must be a whole number >= 1, got 1.5"),
    ({"batch": 0}, "batch must be a whole number >= 1, got 0"),
    ({"loss": "cw"}, "loss must be one of ce, margin, got 'cw'"),
    ({"over": "logit"}, "over must be one of .*did you mean logits"),
]


@pytest.mark.parametrize(("setting", "message"), BAD)
def test_a_setting_out_of_range_is_refused(setting, message):
    with pytest.raises(ValueError, match=message):
        pgd(network(), *pictures(), **BALL | {"seed": 0} | setting)


@pytest.mark.parametrize("attack", ATTACKS)
def test_images_and_labels_out_of_range_are_refused(attack):
    if attack in ("apgd", "square"):
        pytest.importorskip("pyautoattack")
    x, y = pictures()
    cases = {
        r"x must be in \[0, 1\], got \[0.0, 1.5": (x * 1.5, y),
        r"x must be in \[0, 1\], got \[-0.5": (x - 0.5, y),
        r"x must be in \[0, 1\], got \[nan": (x * float("nan"), y),
        "x must be float32 of shape n×C×H×W, n > 0, got torch.uint8": (x.byte(), y),
        r"n > 0, got torch.float32 \[0, 2, 8, 8\]": (x[:0], y[:0]),
        r"y must be in \[0, 2\], got \[3\]": (x, y * 0 + 3),
        r"y must be in \[0, 2\], got \[-1\]": (x, y * 0 - 1),
        r"y must be int64 of shape \[6\] .*got torch.float32": (x, y.float()),
        r"y must be int64 of shape \[6\], got torch.int64 \[5\]": (x, y[:5]),
    }
    for message, given in cases.items():
        with pytest.raises(ValueError, match=message):
            ATTACKS[attack](network(), *given, 0.1)
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 1\], got -0.1"):
        ATTACKS[attack](network(), x, y, -0.1)


def test_a_model_without_a_gradient_is_refused():
    x, y = pictures()
    with pytest.raises(ValueError, match="logits must depend on x"):
        pgd(lambda x: rugged(x.detach()), x, y, **BALL, seed=0)


# One perturbation for all


def test_the_universal_perturbation_of_a_line_is_known():
    x, _ = pictures(n=30, low=0.3, high=0.7)
    weights = torch.randn(x[0].numel(), generator=generator(1))
    y = torch.zeros(30, dtype=torch.int64)
    settings = {"epsilon": 0.2, "step": 0.02, "epochs": 2, "seed": 0, "batch": 5}
    found = universal(line(weights), x, y, **settings)
    assert found.shape == (1, *x.shape[1:])
    assert torch.allclose(found[0], -0.2 * weights.sign().view(x[0].shape))


def test_the_universal_perturbation_does_not_push_where_an_image_ends():
    """Two in three images are black where they ask to go down, which is no use."""
    x = torch.zeros(12, 1, 1, 2)
    x[::3] = 0.5
    y = torch.zeros(12, dtype=torch.int64)
    y[::3] = 1
    settings = {"epsilon": 0.1, "step": 0.02, "epochs": 21, "seed": 0, "batch": 12}
    found = universal(line(torch.tensor([1.0, -1.0])), x, y, **settings).flatten()
    assert abs(found[0]) <= 0.02 + 1e-6  # not −0.1, where it would do harm only
    assert found[1] == pytest.approx(0.1)


# Folding


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("cnn4", {}),
        ("resnet8", {}),
        ("resnet18", {"stem": "stride2"}),
        ("resnet50", {"width": 2}),
        ("vgg16_bn", {"width": 2}),
    ],
)
def test_folding_leaves_no_batch_norm_and_the_same_answers(name, options):
    x, y = pictures(size=16)
    model = network(name, **options)
    before = copy.deepcopy(model.state_dict())
    found = folding.folded(model, x[:2])
    assert not any(isinstance(m, nn.BatchNorm2d) for m in found.modules())
    assert not any(p.requires_grad for p in found.parameters())
    assert model.training
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    model.eval()
    assert torch.allclose(found(x), model(x), rtol=1e-3, atol=1e-4)
    slopes = [
        gradient.gradient(m, x, y, loss="ce", eot=1, over="losses")[0]
        for m in (model, found)
    ]
    assert torch.allclose(*slopes, rtol=1e-3, atol=1e-4 * slopes[0].abs().max())


def test_folding_refuses_what_it_would_change():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            inner = network()
            self.conv, self.norm = inner.conv1, inner.bn1

        def forward(self, x):
            x = self.conv(x)
            return (self.norm(x) + x).mean((2, 3))

    with pytest.raises(ValueError, match="logits must not change when batch norm"):
        folding.folded(Twice(), pictures()[0])


# ARC


def lines(members, images, pixels, seed, height=0.9):
    """Return random linear members, all right at grey images, labels 0."""
    made = generator(seed)
    weights = torch.randn(members, pixels, generator=made)
    reach = 0.5 * weights.abs().sum(1) * torch.rand(members, generator=made) * height
    x = torch.full((images, 1, 1, pixels), 0.5)
    return [line(w, r - 0.5 * w.sum()) for w, r in zip(weights, reach, strict=True)], x


def optimum(members, x, chances, epsilon):
    """Return the least expected accuracy, over all subsets, by linear programs.

    Also how far the closest of the programs is from changing its answer.
    """
    pixels = x.numel()
    origin = [float(m(x)[0, 0]) for m in members]
    unit = [
        [float(m(x + e.view(x.shape))[0, 0]) for e in torch.eye(pixels)]
        for m in members
    ]
    slopes = np.array(unit) - np.array(origin)[:, None]
    best, closest = 1.0, np.inf
    for size in range(1, len(members) + 1):
        for chosen in itertools.combinations(range(len(members)), size):
            rows = list(chosen)
            solved = linprog(
                [0] * pixels + [1],
                A_ub=np.c_[slopes[rows], -np.ones(size)],
                b_ub=-np.array(origin)[rows],
                bounds=[(-epsilon, epsilon)] * pixels + [(None, None)],
            )
            reach = epsilon * np.abs(slopes[rows]).sum(1).max()
            closest = min(closest, abs(solved.fun) / reach)
            if solved.fun < 0:
                best = min(best, 1 - sum(chances[i] for i in chosen))
    return best, closest


def reached(members, x, chances, **settings):
    y = torch.zeros(len(x), dtype=torch.int64)
    found = arc(members, x, y, probabilities=chances, epsilon=0.5, **settings)
    return float(accuracy(members, torch.tensor(chances), found, y)[0])


@pytest.mark.parametrize("inner", ["minimax", "rescale"])
def test_arc_fools_one_line_exactly_when_it_can_be_fooled(inner):
    for seed in range(30):
        members, x = lines(1, 1, 5, seed, height=2.0)
        best, _ = optimum(members, x, [1.0], 0.5)
        assert reached(members, x, [1.0], step=1.0, steps=1, inner=inner) == best


@pytest.mark.parametrize("pixels", [2, 3, 12])
def test_arc_is_exact_for_two_lines(pixels):
    chances = [0.3, 0.7]
    outcomes = []
    for seed in range(60):
        members, x = lines(2, 1, pixels, 1000 * pixels + seed)
        best, closest = optimum(members, x, chances, 0.5)
        if closest > 0.02:
            found = reached(members, x, chances, step=1.0, steps=1)
            assert found == pytest.approx(best), seed
            outcomes.append(round(best, 3))
    assert len(outcomes) > 40
    assert set(outcomes) >= {0.0, 0.3}


def test_arc_with_more_members_is_seldom_above_the_optimum_and_never_below():
    chances = [0.15, 0.2, 0.3, 0.35]
    equal = rescaled = count = 0
    for seed in range(40):
        members, x = lines(4, 1, 6, seed)
        best, closest = optimum(members, x, chances, 0.5)
        if closest > 0.02:
            found = reached(members, x, chances, step=1.0, steps=1)
            paper = reached(members, x, chances, step=1.0, steps=1, inner="rescale")
            assert min(found, paper) >= best - 1e-6
            equal, count = equal + (found <= best + 1e-6), count + 1
            rescaled += paper <= best + 1e-6
    assert count > 10
    assert equal >= 0.8 * count
    assert rescaled <= equal


@pytest.mark.parametrize("inner", ["minimax", "rescale"])
def test_arc_fools_the_likelier_where_the_mean_gradient_is_nothing(inner):
    """Two opposed lines: one can be fooled, the mean of the logits never changes."""
    weights = torch.ones(4)
    members = [line(w, 0.1 - 0.5 * float(w.sum())) for w in (weights, -weights)]
    x, y = torch.full((3, 1, 2, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    turns = itertools.cycle(members)
    blind = pgd(lambda x: next(turns)(x), x, y, **BALL, eot=2, over="logits", seed=0)
    halves = torch.tensor([0.5, 0.5])
    start = pgd(lambda x: next(turns)(x), x, y, **BALL | {"step": 0.0}, seed=0, eot=2)
    moved = (blind - start).abs().max()
    assert moved <= 1e-6
    settings = {"epsilon": 0.1, "step": 0.1, "steps": 3, "inner": inner}
    for chances in ([0.4, 0.6], [0.6, 0.4]):
        found = arc(members, x, y, probabilities=chances, **settings)
        value = accuracy(members, torch.tensor(chances), found, y)
        assert value.tolist() == pytest.approx([0.4] * 3)
    uniform = arc(members, x, y, **settings)
    assert accuracy(members, halves, uniform, y).tolist() == [0.5] * 3


@pytest.mark.parametrize("inner", ["minimax", "rescale"])
def test_arc_never_gives_up_accuracy_and_small_steps_add_up(inner):
    x, y = pictures(n=24)
    members = [network(seed=s).eval() for s in range(3)]
    chances = torch.full((3,), 1 / 3)
    y = members[0](x).argmax(1)
    clean = accuracy(members, chances, x, y)
    settings = {"epsilon": 0.3, "inner": inner, "batch": 7}
    values = []
    for step, steps in ((0.02, 1), (0.02, 20)):
        found = arc(members, x, y, step=step, steps=steps, **settings)
        assert (found - x).abs().max() <= step * steps + 1e-6
        values.append(accuracy(members, chances, found, y))
        assert (values[-1] <= clean + 1e-6).all()
    assert values[1].mean() < values[0].mean() - 0.1
    assert values[1].mean() < clean.mean() - (0.3 if inner == "minimax" else 0.2)


def test_arc_looks_for_the_nearest_boundary_among_the_targets():
    """The second class has the larger logit, but the third is nearer."""

    def model(x):
        a, b = x.flatten(1).unbind(1)
        return torch.stack([0 * a + 1.0, 0.9 + 0.1 * a - 0.05, 9 * b - 4.0], 1)

    x, y = torch.full((1, 1, 1, 2), 0.5), torch.zeros(1, dtype=torch.int64)
    settings = {"epsilon": 0.2, "step": 0.2, "steps": 1}
    near, far = (arc([model], x, y, **settings, targets=t) for t in (1, 9))
    assert model(near).argmax(1).item() == 0
    assert model(far).argmax(1).item() == 2


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"probabilities": [0.5, 0.6]}, "probabilities must be > 0, one a member"),
        ({"probabilities": [1.0]}, "probabilities must be > 0, one a member"),
        ({"probabilities": [0.0, 1.0]}, "probabilities must be > 0, one a member"),
        ({"inner": "lp"}, "inner must be one of minimax, rescale"),
        ({"targets": 0}, "targets must be a whole number >= 1, got 0"),
        ({"step": -0.1}, "step must be >= 0 and finite, got -0.1"),
    ],
)
def test_arc_refuses_what_it_cannot_use(setting, message):
    x, y = pictures()
    with pytest.raises(ValueError, match=message):
        arc([network(), network()], x, y, **BALL | setting)
    with pytest.raises(ValueError, match="members must hold at least one model, got 0"):
        arc([], x, y, **BALL)


# AutoAttack's


def test_apgd_finds_the_optimum_of_a_line_and_square_needs_no_gradient():
    pytest.importorskip("pyautoattack")
    x, y = pictures(n=12, classes=2, low=0.3, high=0.7)
    weights = torch.randn(x[0].numel(), generator=generator(1))
    model = line(weights, -float((x.flatten(1) @ weights).mean()))
    y = model(x).argmax(1)
    found = autoattack.apgd(model, x, y, epsilon=0.05, steps=20, eot=2, seed=0)
    sign = torch.where(y == 0, -1.0, 1.0).view(-1, 1, 1, 1) * weights.view(x[0].shape)
    assert torch.allclose(found, x + 0.05 * sign.sign(), atol=1e-6)
    blind = autoattack.square(
        lambda x: model(x.detach()), x, y, epsilon=0.05, queries=100, eot=2, seed=0
    )
    clean, after, best = (queries.margin(model(v), y) for v in (x, blind, found))
    assert (after > clean).all()
    assert (after <= best + 1e-5).all()
    assert (after > 0).sum() > 0


def uphill(x):
    """Return five logits: class 1 is next and never moves, class 3 can be reached."""
    a, b = x.flatten(1)[:, :2].unbind(1)
    steep = [8 * b - 4.2, 0 * a + 0.7, 2 * b - 1.5]
    return torch.stack([0 * a + 1, 0 * a + 0.9, steep[1], steep[0], steep[2]], 1)


def test_targeted_apgd_tries_the_likeliest_classes_from_each_start():
    pytest.importorskip("pyautoattack")
    x, y = torch.full((3, 1, 1, 2), 0.5), torch.zeros(3, dtype=torch.int64)
    sizes = []

    def asked(x):
        sizes.append(len(x))
        return uphill(x)

    settings = {"epsilon": 0.2, "steps": 10, "seed": 0, "loss": "targeted"}
    for targets, fooled in ((1, False), (2, False), (3, True), (9, True)):
        found = autoattack.apgd(uphill, x, y, **settings, targets=targets)
        assert (uphill(found).argmax(1) == 3).all() == fooled, targets
    costs = []
    for restarts, targets in ((1, 1), (1, 4), (3, 4)):
        sizes.clear()
        given = {"targets": targets, "restarts": restarts}
        autoattack.apgd(asked, x, y, **settings, **given)
        costs.append(sum(sizes) - 4)  # three for the clean images, one for the check
    assert costs[1:] == [4 * costs[0], 12 * costs[0]]


def test_targeted_apgd_fools_whom_the_best_corner_of_all_classes_fools():
    """Towards each class the margin is a line: its best corner is known."""
    pytest.importorskip("pyautoattack")
    x, _ = pictures(n=30, low=0.3, high=0.7)
    weights = torch.randn(x[0].numel(), 6, generator=generator(1))

    def model(x):
        return x.flatten(1) @ weights

    y = model(x).argmax(1)
    apart = weights.T[None] - weights.T[y][:, None]  # image × class × pixel
    reach = (apart * x.flatten(1)[:, None]).sum(2) + 0.02 * apart.abs().sum(2)
    best = reach.scatter(1, y[:, None], -torch.inf).amax(1)
    settings = {"epsilon": 0.02, "steps": 30, "seed": 0, "over": "logits"}
    for loss, least in (("dlr", 0.5), ("targeted", 0.95)):
        found = autoattack.apgd(model, x, y, **settings, loss=loss)
        margins = queries.margin(model(found), y)
        assert (margins <= best + 1e-4).all()
        exact = ((margins > 0) == (best > 0)).double().mean()
        assert exact >= least, loss
    assert exact == 1


def test_targeted_apgd_needs_four_classes_and_a_target():
    pytest.importorskip("pyautoattack")
    x, y = pictures()
    settings = {"epsilon": 0.1, "steps": 2, "seed": 0, "loss": "targeted"}
    with pytest.raises(ValueError, match="model must have 4 classes or more, got 3"):
        autoattack.apgd(network(), x, y, **settings)
    with pytest.raises(ValueError, match="targets must be a whole number >= 1, got 0"):
        autoattack.apgd(network(classes=4), x, y, **settings, targets=0)


def test_apgd_keeps_the_largest_loss_of_the_mean_not_of_a_lucky_draw():
    """Three draws in ten are wrong by chance: who stops there leaves x as it was."""
    pytest.importorskip("pyautoattack")
    x, _ = pictures(n=8, low=0.3, high=0.7)
    weights = torch.randn(x[0].numel(), 4, generator=generator(1)) / 10
    y, noise = (x.flatten(1) @ weights).argmax(1), generator(2)

    def model(x):
        lucky = torch.rand(len(x), 1, generator=noise) < 0.3
        return (
            x.flatten(1) @ weights + 9.0 * lucky * torch.eye(4)[(y + 1) % 4][: len(x)]
        )

    def mean(x):
        return x.flatten(1) @ weights

    for loss in ("ce", "dlr", "targeted"):
        settings = {"epsilon": 0.1, "steps": 20, "eot": 10, "seed": 0}
        found = autoattack.apgd(model, x, y, loss=loss, **settings)
        gained = queries.margin(mean(found), y) - queries.margin(mean(x), y)
        assert (gained > 0).all()
        assert (found - x).abs().flatten(1).mean(1).min() > 0.05
    with pytest.raises(ValueError, match="loss must be one of ce, dlr, targeted"):
        autoattack.apgd(mean, x, y, epsilon=0.1, steps=2, loss="margin", seed=0)
    with pytest.raises(ValueError, match="epsilon must be > 0, got 0"):
        autoattack.square(mean, x, y, epsilon=0, queries=2, seed=0)


def test_examples_in_docstrings_run():
    for module in (queries, gradient):
        assert doctest.testmod(module).failed == 0
