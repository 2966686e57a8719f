"""Pruning by ADMM and the gain of attacks, against brute force, numpy and integrals."""

import itertools

import numpy as np
import pytest
import torch
from scipy import integrate, optimize, stats
from scipy.spatial.distance import jensenshannon
from sklearn.metrics import log_loss
from torch import nn

from lottolab.mia_pruning.defences import admm
from lottolab.mia_pruning.divergence import best_gain, gain, jensen_shannon
from lottolab.nets import masks, models, train

pytestmark = pytest.mark.usefixtures("on_one_thread")
LOG4 = np.log(4)


# --- counts and the projection


def layers(seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = {"b": (3, 2), "a": (7,)}
    return {n: torch.randn(s, generator=generator) for n, s in shapes.items()}


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_a_rate_keeps_what_pruning_by_layers_keeps(rate):
    kept = {n: torch.ones(s, dtype=torch.bool) for n, s in (("b", 37), ("a", 250))}
    weights = {n: torch.randn(m.shape) for n, m in kept.items()}
    expected = masks.magnitude(weights, kept, rate, "layer")
    found = admm.cardinalities(kept, rate)
    assert found == {n: int(m.sum()) for n, m in expected.items()}
    assert admm.cardinalities(weights, found) == found
    chosen = admm.support(weights, found)
    assert all(torch.equal(chosen[n], expected[n]) for n in expected)


def test_among_equals_the_projection_keeps_what_pruning_keeps():
    weights = {"a": torch.tensor([1.0, -1, 1, -2, 1, -1, 2, 0])}
    kept = {"a": torch.ones(8, dtype=torch.bool)}
    for count in range(1, 9):
        expected = masks.magnitude(weights, kept, 1 - count / 8, "layer")["a"]
        assert torch.equal(admm.support(weights, {"a": count})["a"], expected)


def nearest(values: np.ndarray, count: int) -> float:
    """Return the least distance to a vector with at most `count` entries."""
    places = range(len(values))
    supports = itertools.chain(
        *(itertools.combinations(places, k) for k in range(count + 1))
    )
    cut = [np.delete(values, list(support)) for support in supports]
    return min(np.sqrt((rest**2).sum()) for rest in cut)


@pytest.mark.parametrize("counts", [{"a": 0, "b": 6}, {"a": 3, "b": 1}, {"b": 4}])
@pytest.mark.parametrize("seed", range(3))
def test_the_projection_is_the_nearest_of_all_sparse_weights(counts, seed):
    weights = layers(seed)
    before = {n: w.clone() for n, w in weights.items()}
    found = admm.project(weights, counts)
    assert found.keys() == weights.keys()
    for name, weight in weights.items():
        assert torch.equal(weight, before[name])
        count = counts.get(name, weight.numel())
        assert int((found[name] != 0).sum()) == count
        assert int(admm.support(weights, {name: count})[name].sum()) == count
        distance = float((found[name].double() - weight.double()).norm())
        least = nearest(weight.double().numpy().ravel(), count)
        assert distance == pytest.approx(least, abs=1e-12)
    again = admm.project(found, counts)
    assert all(torch.equal(again[n], found[n]) for n in found)


def test_the_penalty_is_squared_and_pulls_towards_z_minus_u():
    weights, z, u = layers(1), layers(2), layers(3)
    for weight in weights.values():
        weight.requires_grad_()
    value = admm.penalty(weights, {"a": z["a"]}, u, 0.7)
    gap = (weights["a"] - z["a"] + u["a"]).detach()
    assert value.item() == pytest.approx(0.35 * float((gap**2).sum()))
    both = admm.penalty(weights, z, u, 0.7)
    both.backward()
    for name in weights:
        expected = 0.7 * (weights[name] - z[name] + u[name]).detach()
        assert torch.allclose(weights[name].grad, expected, atol=1e-6)


# --- quadratics with a cardinality constraint


def curvature(kind: str, rng, d: int) -> np.ndarray:
    if kind == "isotropic":
        return 2.0 * np.eye(d)
    if kind == "diagonal":
        return np.diag(rng.uniform(0.5, 4, d))
    x = rng.standard_normal((40, d))
    return x.T @ x / 40


def value(q, a, w) -> float:
    return float(0.5 * (w - a) @ q @ (w - a))


def best_on(q, a, support) -> np.ndarray:
    """Minimise ½(w−a)ᵀQ(w−a) over the vectors that live on the support."""
    w, on = np.zeros(len(a)), sorted(support)
    off = np.setdiff1d(np.arange(len(a)), on)
    rest = q[np.ix_(on, off)] @ a[off]
    w[on] = a[on] + np.linalg.solve(q[np.ix_(on, on)], rest)
    return w


def iterate(q, a, count, rhos):
    """Run ADMM with its exact step in W; return the last W, Z and U."""
    z = admm.project({"w": torch.tensor(a)}, {"w": count})["w"].numpy()
    u = np.zeros(len(a))
    for rho, following in zip(rhos, [*rhos[1:], rhos[-1]], strict=True):
        w = np.linalg.solve(q + rho * np.eye(len(a)), q @ a + rho * (z - u))
        given = {"w": torch.tensor(w)}, {"w": torch.tensor(u)}
        new = admm.update(*given, {"w": count}, following / rho)
        z, u = (part["w"].numpy() for part in new)
    return w, z, u


def campaign(kind, rho, d=8, count=3):
    """Return for 50 problems what ADMM and one-shot pruning cost beyond the optimum."""
    costs = []
    for seed in range(50):
        rng = np.random.default_rng(seed)
        a, q = rng.standard_normal(d), curvature(kind, rng, d)
        scale = np.linalg.eigvalsh(q).max()
        rhos = np.array([*admm.schedule(rho, 100), *[np.max(rho)] * 40]) * scale
        w, z, u = iterate(q, a, count, rhos)
        least = min(
            value(q, a, best_on(q, a, s))
            for s in itertools.combinations(range(d), count)
        )
        pair = [
            value(q, a, best_on(q, a, np.argsort(np.abs(x), kind="stable")[-count:]))
            for x in (w, a)
        ]
        costs.append(np.array(pair) - least)
        if np.max(rho) >= 1:  # it settles: then these must hold
            assert np.abs(w - z).max() < 1e-6
            on = z != 0
            assert on.sum() == count
            assert z == pytest.approx(best_on(q, a, np.flatnonzero(on)), abs=1e-5)
            assert np.abs(u[on]).max() < 1e-6
            assert rhos[-1] * u == pytest.approx(q @ (a - z), abs=1e-4)
            assert np.abs(u[~on]).max() <= np.abs(z[on]).min() + 1e-6
    return np.array(costs).T


def test_admm_solves_isotropic_quadratics():
    """There the largest |a| are the best, and ADMM must not leave them."""
    for rho in (1.0, [0.1, 1.0]):
        found, _ = campaign("isotropic", rho)
        assert found.max() < 1e-9


def test_a_large_constant_rho_does_no_better_than_one_shot_on_diagonal_quadratics():
    """No coordinate talks to another, so the first support is never left."""
    found, oneshot = campaign("diagonal", 1.0)
    assert found == pytest.approx(oneshot, abs=1e-9)
    assert (oneshot < 1e-9).sum() < 30


@pytest.mark.parametrize(
    ("kind", "hits", "excess"), [("diagonal", 41, 0.02), ("correlated", 45, 0.01)]
)
def test_a_growing_rho_mostly_finds_the_optimum(kind, hits, excess):
    found, oneshot = campaign(kind, [0.1, 1.0])
    assert found.min() > -1e-9
    assert (found < 1e-9).sum() >= hits
    assert (oneshot < 1e-9).sum() <= hits - 8
    assert found.mean() < excess < oneshot.mean() / 3


@pytest.mark.parametrize(
    ("rho", "expected"),
    [
        (0.5, [0.5] * 4),
        (0, [0.0] * 4),
        ([1, 8], [1, 2, 4, 8]),
        ((8.0, 1.0), [8, 4, 2, 1]),
    ],
)
def test_rho_is_constant_or_grows_by_the_same_factor(rho, expected):
    assert admm.schedule(rho, 4) == pytest.approx(expected)
    assert admm.schedule(rho, 1) == pytest.approx(expected[:1])


# --- networks


def pictures(n=50, channels=3, height=8, width=8, classes=4, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shape = (n, channels, height, width)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    return images, torch.randint(classes, (n,), generator=generator)


def network(seed=0):
    return models.build("cnn4", channels=3, classes=4, width=3, size=8, seed=seed)


def recipe(**settings):
    return train.Recipe(**{"epochs": 3, "batch": 16, "crop": 1, "lr": 0.05} | settings)


def state(model):
    return {k: v.clone() for k, v in model.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def pruned(model, *, counts=None, **options):
    images, labels = pictures()
    counts = counts or admm.cardinalities(masks.dense(model), 0.7)
    given = {"rho": 0.1, "retrain": recipe(epochs=2), "seed": 3} | options
    plan = given.pop("recipe", recipe())
    return admm.admm_prune(model, images, labels, plan, counts, **given)


def softmax_regression(w, b, x, y):
    """Return the mean cross-entropy and its gradients."""
    odds = np.exp(x @ w.T + b)
    share = odds / odds.sum(1, keepdims=True)
    error = (share - np.eye(4)[y]) / len(y)
    return -np.log(share[range(len(y)), y]).mean(), error.T @ x, error.sum(0)


def cut(w, count):
    """Keep the largest |w| of a matrix; no two are alike here."""
    return w * (np.abs(w) >= np.sort(np.abs(w), axis=None)[-count])


@pytest.mark.parametrize("rho", [0.2, [0.05, 0.8]])
def test_the_whole_training_is_that_of_plain_numpy(rho):
    images, labels = pictures(n=48, channels=1, height=2, width=3)
    model = nn.Sequential(nn.Flatten(), nn.Linear(6, 4)).requires_grad_()
    w, b = (p.detach().double().numpy().copy() for p in model.parameters())
    plain = {"momentum": 0, "crop": 0, "flip": False, "schedule": "constant"}
    plan = recipe(epochs=3, lr=0.4, batch=16, weight_decay=0.05, **plain)
    retrain, count = recipe(epochs=2, lr=0.3, weight_decay=0, **plain), 7
    order = []

    def loss(given, x, y, index):
        assert given is model
        order.append((x.flatten(1).double().numpy(), y.numpy()))
        return train.cross_entropy(given, x, y, index)

    found, history = admm.admm_prune(
        model,
        images,
        labels,
        plan,
        {"1.weight": count},
        rho=rho,
        retrain=retrain,
        seed=0,
        loss=loss,
    )
    rhos = [rho] * 3 if np.isscalar(rho) else [0.05, 0.2, 0.8]
    z, u, rows, steps = cut(w, count), np.zeros_like(w), [], iter(order)
    for r, following in zip(rhos, [*rhos[1:], rhos[-1]], strict=True):
        losses, extras = [], []
        for _ in range(3):
            cost, dw, db = softmax_regression(w, b, *next(steps))
            extras.append(r / 2 * ((w - z + u) ** 2).sum())
            losses.append(cost + extras[-1])
            w = w - 0.4 * (dw + r * (w - z + u) + 0.05 * w)
            b = b - 0.4 * (db + 0.05 * b)
        before, z = z, cut(w + u, count)
        u = (u + w - z) * r / following
        gaps = [np.sqrt(((x - z) ** 2).sum()) for x in (w, before)]
        rows.append([np.mean(losses), r, np.mean(extras), *gaps])
    w = cut(w, count)
    kept = w != 0
    for x, y in steps:
        _, dw, db = softmax_regression(w, b, x, y)
        w, b = (w - 0.3 * dw) * kept, b - 0.3 * db
    assert len(order) == 15
    assert (found["1.weight"].numpy() == kept).all()
    assert model[1].weight.detach().numpy() == pytest.approx(w, abs=1e-5)
    assert model[1].bias.detach().numpy() == pytest.approx(b, abs=1e-5)
    first = history[history.phase == "admm"]
    columns = ["loss", "rho", "penalty", "primal", "moved"]
    assert first[columns].to_numpy() == pytest.approx(np.array(rows), abs=1e-5)


def test_the_sparsity_is_exact_and_holds_after_every_step_of_the_retraining():
    model, snapshots = network(), []
    names = masks.prunable(model)
    sizes = {n: dict(model.named_parameters())[n].numel() for n in names}
    counts = dict(zip(names, (5, 30, sizes[names[2]]), strict=True))

    def look(given, step):
        assert given is model
        snapshots.append((step, state(given)))

    found, history = pruned(model, counts=counts, after_step=look)
    assert [step for step, _ in snapshots] == [*range(9), *range(6)]
    assert {n: int(m.sum()) for n, m in found.items()} == counts
    assert all(m.dtype == torch.bool for m in found.values())
    for _, seen in snapshots[9:]:
        for name, mask in found.items():
            assert torch.equal(seen[name] != 0, mask)
    # ADMM itself cuts nothing, and what has no count is never cut.
    assert all((seen[names[0]] != 0).all() for _, seen in snapshots[:9])
    others = [
        n for n, _ in model.named_parameters() if n not in counts and "weight" in n
    ]
    assert all((model.state_dict()[n] != 0).all() for n in others)
    last, end = snapshots[8][1], snapshots[-1][1]
    assert all((last[n] != end[n])[m].any() for n, m in found.items())
    assert history.phase.tolist() == ["admm"] * 3 + ["retrain"] * 2
    assert history.epoch.tolist() == [1, 2, 3, 1, 2]
    assert history.primal.isna().tolist() == [False] * 3 + [True] * 2


def test_the_pull_brings_w_and_z_together():
    plan = recipe(epochs=20, lr=0.1, momentum=0, schedule="constant")
    found = [pruned(network(), rho=r, recipe=plan)[1] for r in (0, 0.3, 3)]
    for column in ("primal", "moved"):
        ends = [history[column][19] for history in found]
        assert ends[2] < 0.2 * ends[1] < 0.1 * ends[0]


def test_without_a_pull_it_is_training_then_pruning_by_magnitude():
    images, labels = pictures()
    first, second = network(), network()
    found, history = pruned(first, rho=0.0)
    train.fit(second, images, labels, recipe(), seed=3)
    expected = masks.magnitude(state(second), masks.dense(second), 0.7, "layer")
    assert same(found, expected)
    assert history.penalty[:3].tolist() == [0, 0, 0]


class Killed(Exception):
    pass


@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
@pytest.mark.parametrize(("at", "left"), [(0, 15), (7, 9), (9, 6), (13, 3)])
def test_a_killed_run_goes_on_with_the_same_bits(tmp_path, optimiser, at, left):
    plan, model = recipe(optimiser=optimiser, lr=0.01), network()
    names = sorted(masks.prunable(model))
    counts = dict.fromkeys(names, 20)
    options = {"recipe": plan, "rho": [0.05, 0.5]}
    expected, history = pruned(model, counts=counts, **options)
    taken, turned = [], dict(reversed(counts.items()))

    def kill(_, step):
        taken.append(step)
        if len(taken) == at + 1:
            raise Killed

    with pytest.raises(Killed):
        pruned(
            network(), counts=counts, after_step=kill, checkpoint=tmp_path, **options
        )
    taken.clear()
    resumed = network(seed=9 if at > 2 else 0)  # what a checkpoint holds is not asked
    found, again = pruned(
        resumed,
        counts=turned,
        after_step=lambda _, step: taken.append(step),
        checkpoint=tmp_path,
        **options,
    )
    assert len(taken) == left
    assert same(state(resumed), state(model))
    assert same(found, expected)
    assert again.equals(history)


def test_it_repeats_and_leaves_the_global_generator_alone():
    results = []
    for outside, seed in ((1, 3), (2, 3), (2, 4)):
        model = network()
        torch.manual_seed(outside)
        before = torch.get_rng_state()
        pruned(model, seed=seed)
        assert torch.equal(torch.get_rng_state(), before)
        results.append(state(model))
    assert same(results[0], results[1])
    assert not same(results[0], results[2])


def test_retraining_shows_batches_of_its_own():
    seen = []

    def loss(model, x, y, index):
        seen.append(index.tolist())
        return train.cross_entropy(model, x, y, index)

    pruned(network(), loss=loss, retrain=recipe())
    assert len(seen) == 18
    assert all(a != b for a, b in zip(seen[:9], seen[9:], strict=True))


COUNTS = [
    ({}, r"counts must name at least one layer, got \{\}"),
    ({"a": 8}, r"n_i of a must be a whole number in \[0, 7\], got 8"),
    ({"a": -1}, r"n_i of a must be a whole number in \[0, 7\], got -1"),
    ({"a": 3.0}, r"n_i of a must be a whole number in \[0, 7\], got 3.0"),
    ({"a": True}, r"n_i of a must be a whole number in \[0, 7\], got True"),
    ({"aa": 3}, "layer must be one of b, a, got 'aa'; did you mean a"),
]


@pytest.mark.parametrize(("counts", "message"), COUNTS)
def test_bad_counts_are_refused(counts, message):
    for use in (admm.cardinalities, admm.support, admm.project):
        with pytest.raises(ValueError, match=message):
            use(layers(), counts)


@pytest.mark.parametrize("rate", [-0.1, 1.0, float("nan")])
def test_a_rate_out_of_range_is_refused(rate):
    with pytest.raises(ValueError, match=rf"rate must be in \[0, 1\), got {rate}"):
        admm.cardinalities(layers(), rate)


def test_weights_that_are_not_numbers_are_refused():
    weights = {"a": torch.tensor([1.0, float("nan"), 2.0])}
    message = "weights of a must be numbers; lower lr, got 1 NaN"
    with pytest.raises(ValueError, match=message):
        admm.project(weights, {"a": 1})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"rho": -0.1}, "rho must be >= 0 and finite, got -0.1"),
        ({"rho": float("nan")}, "rho must be >= 0 and finite, got nan"),
        ({"rho": float("inf")}, "rho must be >= 0 and finite, got inf"),
        ({"rho": [0, 1]}, r"rho must be a number or two, both > 0 .*, got \[0, 1\]"),
        ({"rho": [1, 2, 3]}, r"rho must be a number or two, .*, got \[1, 2, 3\]"),
        ({"rho": [1, float("inf")]}, r"rho must be a number .*, got \[1, inf\]"),
        ({"counts": {"fc.bias": 5}}, r"n_i of fc.bias .* in \[0, 4\], got 5"),
        ({"counts": {"fc.weigth": 5}}, "'fc.weigth'; did you mean fc.weight"),
    ],
)
def test_bad_options_are_refused_before_anything_is_trained(options, message):
    model = network()
    before = state(model)
    with pytest.raises(ValueError, match=message):
        pruned(model, **options)
    assert same(state(model), before)


# --- the gain


def test_the_gain_is_the_negative_log_loss_of_both_kinds():
    rng = np.random.default_rng(0)
    f, g = rng.uniform(0.01, 1, 40), rng.uniform(0, 0.99, 70)
    expected = -sum(
        log_loss(np.full(len(x), kind), x, labels=[0, 1])
        for x, kind in ((f, 1), (g, 0))
    )
    assert gain(f, g) == pytest.approx(expected, abs=1e-12)
    assert gain(torch.tensor(f), g.tolist()) == gain(f, g)


def test_chance_certainty_and_certain_error():
    half = np.full(5, 0.5)
    assert gain(half, half[:3]) == pytest.approx(-LOG4, abs=1e-15)
    assert gain([1, 1], [0.0]) == pytest.approx(2 * np.log(1 - 1e-6), abs=1e-15)
    assert gain([0, 0], [1.0]) == pytest.approx(2 * np.log(1e-6), rel=1e-9)
    assert gain([0.0, 1.0], [0.0], floor=0.1) == pytest.approx(
        (np.log(0.1) + np.log(0.9)) / 2 + np.log(0.9)
    )


def distributions():
    """Return pairs over few and many cells, one with empty cells."""
    rng = np.random.default_rng(1)
    drawn = [rng.dirichlet(np.full(cells, 0.5), 2) for cells in (2, 5, 30)]
    return [*drawn, np.array([[0.5, 0.5, 0], [0, 0.25, 0.75]])]


@pytest.mark.parametrize("pair", distributions())
def test_no_attack_gains_more_than_the_best_and_a_search_finds_it(pair):
    p, q = pair
    total = 0.0
    for a, b in zip(p, q, strict=True):
        found = optimize.minimize_scalar(
            lambda f, a=a, b=b: -(a * np.log(f) + b * np.log1p(-f)),
            bounds=(1e-12, 1 - 1e-12),
            method="bounded",
            options={"xatol": 1e-12},
        )
        assert found.x == pytest.approx(a / (a + b), abs=1e-5)
        total -= found.fun
    assert best_gain(p, q) == pytest.approx(total, abs=1e-8)
    assert best_gain(q, p) == pytest.approx(best_gain(p, q), abs=1e-12)
    expected = -LOG4 + 2 * jensenshannon(p, q) ** 2
    assert best_gain(p, q) == pytest.approx(expected, abs=1e-12)
    assert -LOG4 <= best_gain(p, q) <= 0


def test_the_gain_of_the_best_attack_on_a_sample_is_that_of_its_cells():
    counts = np.array([[5, 1, 14], [10, 20, 10]])
    p, q = counts / counts.sum(1, keepdims=True)
    best = p / (p + q)
    members, others = np.repeat(best, counts[0]), np.repeat(best, counts[1])
    assert gain(members, others) == pytest.approx(best_gain(p, q), abs=1e-12)
    for change in (-0.05, 0.05):
        assert gain(members + change, others + change) < best_gain(p, q)


def test_the_best_gain_of_equal_and_of_disjoint_distributions():
    p = np.random.default_rng(0).dirichlet(np.ones(20), 200)
    assert best_gain(p[0], p[0]) == -LOG4
    assert best_gain([1, 0, 0], [0, 0.5, 0.5]) == pytest.approx(0, abs=1e-15)
    for row in p:  # as close as rounding lets them be: scipy's root is NaN here
        other = row * (1 + 1e-9 * np.sin(np.arange(20)))
        assert best_gain(row, other / other.sum()) == pytest.approx(-LOG4, abs=1e-12)


def gaussians_js(shift: float) -> float:
    """Integrate JS of N(0, 1) and N(shift, 1)."""

    def part(x):
        p, q = stats.norm.pdf(x), stats.norm.pdf(x - shift)
        middle = (p + q) / 2
        return 0.5 * (p * np.log(p / middle) + q * np.log(q / middle))

    return integrate.quad(part, -12, 12 + shift, epsabs=1e-12, limit=200)[0]


@pytest.mark.parametrize("shift", [0.0, 0.1, 1.0, 3.0])
def test_the_estimate_for_gaussians_is_the_integral(shift):
    rng = np.random.default_rng(2)
    x, y = rng.standard_normal(100_000), rng.standard_normal(100_000) + shift
    found, bias = jensen_shannon(x, y, bins=40, draws=200)
    assert bias == pytest.approx(39 / 400_000, rel=0.1)
    assert found - bias == pytest.approx(gaussians_js(shift), rel=0.01, abs=3e-4)


def test_of_equal_distributions_the_estimate_is_the_bias_on_average():
    rng = np.random.default_rng(3)
    pairs = [(rng.exponential(size=300), rng.exponential(size=700)) for _ in range(300)]
    found = [jensen_shannon(x, y, bins=10, draws=100) for x, y in pairs]
    estimates, biases = np.array(found).T
    theory = 9 * (1 / 300 + 1 / 700) / 8
    assert biases == pytest.approx(theory, rel=0.25)
    assert biases.mean() == pytest.approx(theory, rel=0.05)
    error = estimates.std() / np.sqrt(300)
    assert abs((estimates - biases).mean()) < 3 * error
    assert estimates.mean() > 20 * error  # uncorrected, it is far from 0


def test_the_bias_is_right_for_unequal_distributions_too():
    rng = np.random.default_rng(4)
    pairs = [(rng.uniform(size=250), rng.beta(2, 1, 250)) for _ in range(300)]
    found = [jensen_shannon(x, y, bins=4, draws=50) for x, y in pairs]
    # The quartiles of the mixture (x + x²)/2, and the mass that each side has there.
    edges = (np.sqrt(1 + 8 * np.arange(5) / 4) - 1) / 2
    truth = jensenshannon(np.diff(edges), np.diff(edges**2)) ** 2
    corrected = [estimate - bias for estimate, bias in found]
    error = np.std(corrected) / np.sqrt(300)
    assert abs(np.mean(corrected) - truth) < 3 * error
    assert abs(np.mean([e for e, _ in found]) - truth) > 3 * error


def test_the_bias_is_the_mean_over_shuffled_members():
    rng = np.random.default_rng(5)
    x, y = rng.integers(0, 6, 40), rng.integers(2, 9, 25)
    both, shuffled = np.concatenate([x, y]), []
    for _ in range(400):
        mixed = rng.permutation(both)
        shuffled.append(jensen_shannon(mixed[:40], mixed[40:], bins=5, draws=1)[0])
    _, bias = jensen_shannon(x, y, bins=5, draws=4000)
    error = np.std(shuffled) / np.sqrt(400)
    assert abs(bias - np.mean(shuffled)) < 3.5 * error


def test_only_the_order_of_the_scores_counts_and_few_values_are_their_own_bins():
    rng = np.random.default_rng(6)
    x, y = rng.standard_normal(500), rng.standard_normal(300) + 0.5
    found = jensen_shannon(x, y)
    assert jensen_shannon(np.exp(3 * x), np.exp(3 * y)) == found
    assert jensen_shannon(x, y, seed=1)[0] == found[0]
    assert jensen_shannon(x, y, seed=1)[1] != found[1]
    a, b = np.repeat([0, 1, 2], [10, 30, 20]), np.repeat([0, 1, 2], [30, 30, 10])
    cells = np.array([[10, 30, 20], [30, 30, 10]])
    expected = jensenshannon(*(cells / cells.sum(1, keepdims=True))) ** 2
    assert jensen_shannon(a, b)[0] == pytest.approx(expected, abs=1e-12)
    assert jensen_shannon([1, 1], [0, 0, 0])[0] == pytest.approx(np.log(2))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: gain([], [0.5]), r"members must have one dimension and an entry"),
        (lambda: gain([0.5], [[0.5]]), r"non_members must .*, got shape \(1, 1\)"),
        (lambda: gain([1.5], [0.5]), r"^members .* probabilities in \[0, 1\], got"),
        (lambda: gain([0.5], [-0.1]), r"non_members must be probabilities"),
        (lambda: gain([0.5], [np.nan]), "non_members must be finite, got"),
        (lambda: gain([0.5], [0.5], floor=0), r"floor must be in \(0, 0.5\).*, got 0"),
        (lambda: gain([0.5], [0.5], floor=0.5), "floor must be .*, got 0.5"),
        (lambda: best_gain([1], [0.5, 0.5]), r"as many cells, got \(1, 2\)"),
        (lambda: best_gain([0.5, 0.6], [0.5, 0.5]), "p must be >= 0 with the sum 1"),
        (lambda: best_gain([0.5, 0.5], [1.5, -0.5]), "q must be >= 0 with the sum 1"),
        (lambda: jensen_shannon([1], [2], bins=1), "bins must be .* >= 2, got 1"),
        (lambda: jensen_shannon([1], [2], draws=0), "draws must be .* >= 1, got 0"),
        (lambda: jensen_shannon([np.inf], [2]), "scores_in must be finite"),
        (lambda: jensen_shannon([1], []), "scores_out must have one dimension"),
    ],
)
def test_bad_input_of_the_gain_is_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
