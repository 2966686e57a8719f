"""Recovery: partial Bayes against enumeration, restorers against inverses."""

import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from scipy import stats
from torch import nn

from lottolab.images import datasets
from lottolab.modelguard.attacks import bayes, extraction, measures, restorer
from lottolab.modelguard.attacks.bayes import Table
from lottolab.nets import train

NETWORK = {"name": "cnn4", "width": 4}
RECIPE = train.Recipe(epochs=2, batch=16, flip=False)


def dirichlet(count, classes, seed=0, concentration=0.5):
    numbers = np.random.default_rng(seed)
    rows = numbers.dirichlet([concentration] * classes, count)
    return torch.from_numpy(rows).float()


def nothing(y, x=None):
    return y


def one_hot(y, x=None):
    return nn.functional.one_hot(y.argmax(1), y.shape[1]).float()


def rounded(y, x=None):
    return (10 * y).round() / 10


def mixed(y, x=None):
    """Mix with uniform: invertible, y = 2 ŷ − 1/C."""
    return 0.5 * y + 0.5 / y.shape[1]


DEFENCES = [nothing, one_hot, rounded, mixed]


# The table


def test_draws_have_the_mean_and_variance_of_the_dirichlet():
    means = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.25, 0.25, 0.25, 0.25]])
    table = bayes.lookup_table(means, mixed, draws=40_000, seed=0)
    assert torch.equal(table.perturbed, mixed(table.clean))
    for mean, drawn in zip(
        means.double(), table.clean.double().split(40_000), strict=True
    ):
        variance = mean * (1 - mean) / (8 * 4 + 1)
        error = (drawn.mean(0) - mean).abs()
        assert (error <= 4 * (variance / 40_000).sqrt() + 1e-9).all()
        assert torch.allclose(drawn.var(0), variance, rtol=0.05, atol=1e-12)
        ends = stats.beta(32 * mean[0], 32 * (1 - mean[0]))
        assert stats.kstest(drawn[:, 0], ends.cdf).pvalue > 1e-3
    assert (table.clean[:40_000, 3] == 0).all()
    wide = bayes.lookup_table(means, mixed, draws=4000, concentration=0.25, seed=0)
    spread = wide.clean[4000:].double().var(0)
    assert torch.allclose(spread, torch.full((4,), 0.1875 / 2).double(), rtol=0.1)


def test_a_table_keeps_means_together_with_their_images(monkeypatch):
    means, images = dirichlet(12, 3), torch.arange(12, dtype=torch.uint8).view(-1, 1)
    seen = []

    def defence(y, x):
        seen.append(x)
        return y

    before = torch.get_rng_state()
    table = bayes.lookup_table(means, defence, images=images, draws=5, seed=1)
    assert torch.equal(before, torch.get_rng_state())
    assert torch.cat(seen).flatten().tolist() == np.repeat(range(12), 5).tolist()
    assert torch.allclose(table.clean.sum(1), torch.ones(60))
    monkeypatch.setattr(bayes, "ROWS", 7)  # many small blocks, the same table
    small = bayes.lookup_table(means, defence, images=images, draws=5, seed=1)
    assert torch.equal(small.clean, table.clean)
    other = bayes.lookup_table(means, defence, images=images, draws=5, seed=2)
    assert not torch.equal(other.clean, table.clean)


def test_one_hot_and_underflowed_means_are_no_trouble():
    means = torch.tensor([[1.0, 0, 0], [1.0, 1e-38, 0.0], [0, 1 - 1e-7, 1e-7]])
    table = bayes.lookup_table(means, nothing, draws=3, seed=0)
    expected = torch.tensor([0, 0, 1]).repeat_interleave(3)
    assert torch.equal(table.clean.argmax(1), expected)
    assert table.clean.isfinite().all()
    assert torch.allclose(table.clean.amax(1), torch.ones(9))


def test_a_table_of_ones_own_is_drawn_around_the_substitutes_predictions():
    weights = torch.tensor([[0.0, 0], [1, -1], [-2, 2]])
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 3))
    model[1].weight.data, model[1].bias.data = weights, torch.zeros(3)
    images = torch.tensor([[10, 200], [90, 30]], dtype=torch.uint8).view(2, 1, 1, 2)
    scale = (torch.tensor([0.1]), torch.tensor([0.5]))
    found = bayes.own_table(model, images, scale, mixed, seed=0, draws=4)
    x = (images.view(2, 2) / 255 - 0.1) / 0.5
    means = (x @ weights.T).softmax(1)
    expected = bayes.lookup_table(means, mixed, seed=0, draws=4)
    assert torch.allclose(found.clean, expected.clean, atol=1e-4)


# Partial Bayes


def brute_force(answers, table, tolerance):
    """Look up answer by answer, in float64, as Equation 12 says."""
    perturbed, clean = (part.double().numpy() for part in table)
    found = []
    for answer in answers.double().numpy():
        rows = perturbed.argmax(1) == answer.argmax()
        rows = rows if rows.any() else np.ones_like(rows)
        distance = abs(perturbed[rows] - answer).sum(1)
        match = distance <= max(tolerance, distance.min()) + 1e-6
        found.append(clean[rows][match].mean(0))
    return np.array(found)


@pytest.mark.parametrize("defence", DEFENCES)
@pytest.mark.parametrize("tolerance", [0.0, 0.01, 0.3])
def test_recovery_equals_brute_force(defence, tolerance, monkeypatch):
    means = dirichlet(60, 4, seed=1)
    table = bayes.lookup_table(means, defence, draws=10, seed=0)
    other = defence(dirichlet(40, 4, seed=2))
    answers = torch.cat([defence(means), other, other[:10]])
    sizes, cdist = [], torch.cdist

    def spy(a, b, p):
        sizes.append(len(a) * len(b))
        return cdist(a, b, p)

    monkeypatch.setattr(torch, "cdist", spy)
    expected = brute_force(answers, table, tolerance)
    for elements in (2**25, 1000, 1):
        options = {"tolerance": tolerance, "elements": elements}
        found = bayes.recover_partial_bayes(answers, table, **options)
        assert np.allclose(found.numpy(), expected, atol=1e-5)
    sizes.clear()
    bayes.recover_partial_bayes(answers, table, elements=1000)
    assert max(sizes) <= 1000
    sizes.clear()
    bayes.recover_partial_bayes(answers.repeat(3, 1), table)
    assert sum(sizes) <= len(answers.unique(dim=0)) * len(table.clean)


def test_a_class_that_the_table_lacks_is_looked_up_in_all_of_it():
    table = Table(
        torch.tensor([[0.6, 0.4, 0.0], [0.4, 0.6, 0.0]]),
        torch.tensor([[0.5, 0.5, 0.0], [0.1, 0.8, 0.1]]),
    )
    answers = torch.tensor([[0.1, 0.42, 0.48], [0.42, 0.1, 0.48]], dtype=torch.float64)
    found = bayes.recover_partial_bayes(answers, table)
    assert found.dtype == torch.float64
    assert torch.allclose(found.float(), table.clean[[1, 0]])


def test_without_a_defence_recovery_stays_within_the_tolerance_or_the_nearest():
    truth, errors = dirichlet(150, 5), []
    for draws in (2, 20, 200):
        table = bayes.lookup_table(truth, nothing, draws=draws, seed=0)
        found = bayes.recover_partial_bayes(truth, table, tolerance=0.05)
        near = (truth[:, None] - table.clean.view(1, -1, 5)).abs().sum(2)
        kept = truth.argmax(1)[:, None] == table.clean.argmax(1)
        nearest = near.where(kept, torch.inf).amin(1)
        distance = (found - truth).abs().sum(1)
        assert (distance <= nearest.clamp(min=0.05) + 1e-5).all()
        errors.append(float(distance.mean()))
    assert errors[0] > errors[1] > errors[2]
    assert errors[2] < 0.03


def grid(steps):
    """List all points of the simplex at three classes whose parts are n/steps."""
    n = np.array([(i, j) for i in range(steps + 1) for j in range(steps + 1 - i)])
    points = np.column_stack([n, steps - n.sum(1)]) / steps
    return torch.from_numpy(points).float()


def coarse(y, x=None):
    """Keep the largest class and by how many tenths it leads the second."""
    (top, second), (first, next_) = y.topk(2, 1)[0].T, y.topk(2, 1)[1].T
    lead = (5 * (top - second + 1e-6)).floor() / 5
    answers = torch.zeros_like(y).scatter_(1, first[:, None], (1 + lead[:, None]) / 2)
    return answers.scatter_(1, next_[:, None], (1 - lead[:, None]) / 2)


def test_with_the_complete_table_at_three_classes_recovery_is_the_posterior_mean():
    """Every y is in the table: the perfect attack, by enumeration."""
    y = grid(60)
    answers = coarse(y)
    frame = pd.DataFrame(y.double().numpy())
    cells = [tuple(row) for row in answers.tolist()]
    posterior = frame.groupby(pd.Series(cells)).transform("mean").to_numpy()
    found = bayes.recover_partial_bayes(answers, Table(answers, y)).double().numpy()
    assert len(set(cells)) < 40
    assert np.allclose(found, posterior, atol=1e-5)

    def error(guess):
        return ((np.asarray(guess) - y.double().numpy()) ** 2).sum(1).mean()

    best = error(found)
    assert best < 0.8 * error(answers)
    partial = {}
    for draws in (1, 20):
        table = bayes.lookup_table(y, coarse, draws=draws, seed=0)
        partial[draws] = error(bayes.recover_partial_bayes(answers, table))
    assert best <= partial[20] < partial[1]
    assert partial[20] < 1.05 * best  # partial Bayes comes close to the perfect attack


BIG = """
import resource, time, torch
from lottolab.modelguard.attacks import bayes
torch.set_num_threads(1)
generator = torch.Generator().manual_seed(0)
truth = (3 * torch.randn(50_000, 100, generator=generator)).softmax(1)
defence = lambda y, x: 0.5 * y + 0.005
answers = defence(truth, None)
began = time.perf_counter()
table = bayes.lookup_table(truth, defence, draws=20, seed=0)
built = time.perf_counter()
found = bayes.recover_partial_bayes(answers, table)
print(len(table.clean), built - began, time.perf_counter() - built)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20)
places = torch.arange(0, 50_000, 2500)
torch.save([answers[places], found[places], *table], "sample.pt")
"""


@pytest.mark.long
def test_a_million_rows_against_fifty_thousand_answers_fit_in_four_gigabytes(tmp_path):
    run = [sys.executable, "-c", BIG]
    text = subprocess.run(run, cwd=tmp_path, check=True, capture_output=True, text=True)
    (rows, *_), (peak,) = (line.split() for line in text.stdout.splitlines())
    assert int(rows) == 1_000_000
    assert float(peak) < 4.0
    answers, found, *table = torch.load(tmp_path / "sample.pt")
    expected = brute_force(answers, table, 0.01)
    assert np.allclose(found.numpy(), expected, atol=1e-5)


# Restorers


def test_a_restorer_inverts_what_can_be_inverted(on_one_thread):
    """y = 2 ŷ − 1/C: the distance that the defence makes must nearly vanish."""
    y, test = dirichlet(4000, 5, seed=0), dirichlet(500, 5, seed=1)
    before = torch.get_rng_state()
    options = {"epochs": 40, "batch": 128, "seed": 0}
    network = restorer.fit(Table(mixed(y), y), **options)
    assert torch.equal(before, torch.get_rng_state())
    found = restorer.restore(network, mixed(test).double())
    assert found.dtype == torch.float64
    assert torch.allclose(found.sum(1), torch.ones(500).double(), atol=1e-5)
    made = measures.recovery_distance(mixed(test), test)
    assert measures.recovery_distance(found, test) < 0.25 * made
    alone = torch.cat([restorer.restore(network, row[None]) for row in mixed(test)[:9]])
    assert torch.allclose(alone.double(), found[:9], atol=1e-5)  # whatever is beside it
    again = restorer.fit(Table(mixed(y), y), **options | {"epochs": 1})
    other = restorer.fit(Table(mixed(y), y), **options | {"epochs": 1, "seed": 1})
    third = restorer.fit(Table(mixed(y), y), **options | {"epochs": 1})
    assert torch.equal(again[0].weight, third[0].weight)
    assert not torch.equal(again[0].weight, other[0].weight)


def test_the_restorers_median_answer_is_the_l1_minimiser(on_one_thread):
    """All answers are alike, and y is (1, 0) three times in five: ℓ1 says (1, 0)."""
    clean = torch.tensor([[1.0, 0], [0, 1], [1, 0], [0, 1], [1, 0]]).repeat(200, 1)
    perturbed = torch.full((1000, 2), 0.5) + 0.01 * (dirichlet(1000, 2) - 0.5)
    network = restorer.fit(Table(perturbed, clean), epochs=60, batch=100, seed=0)
    found = restorer.restore(network, perturbed)
    assert found[:, 0].mean() > 0.75  # squared error would say 0.6


@pytest.mark.parametrize(
    ("classes", "widths"),
    [(10, (128, 64)), (11, (1024, 512)), (100, (1024, 512)), (200, (2048, 1024))],
)
def test_a_restorer_has_three_layers_as_wide_as_published(classes, widths):
    network = restorer.build(classes)
    shapes = [
        (m.in_features, m.out_features)
        for m in network
        if hasattr(m, "bias") and isinstance(m, nn.Linear)
    ]
    assert shapes == [(classes, widths[0]), widths, (widths[1], classes)]
    assert [type(m).__name__ for m in network] == [
        *["Linear", "BatchNorm1d", "LeakyReLU"] * 3,
        "Softmax",
    ]
    assert {m.negative_slope for m in network if isinstance(m, nn.LeakyReLU)} == {0.2}


def test_the_learning_rate_of_a_restorer_is_halved_half_way(monkeypatch):
    rates, step = [], torch.optim.SGD.step

    def spy(optimiser, *given):
        rates.append(optimiser.param_groups[0]["lr"])
        return step(optimiser, *given)

    monkeypatch.setattr(torch.optim.SGD, "step", spy)
    y = dirichlet(35, 3)
    restorer.fit(Table(y, y), epochs=4, batch=10, lr=0.4, seed=0)
    assert rates == [0.4] * 6 + [0.2] * 6


def test_shadows_learn_other_classes_and_predict_all_queries(
    on_one_thread, monkeypatch
):
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (90, 1, 8, 8), dtype=torch.uint8, generator=generator)
    labels, trained, seen = torch.arange(90) % 6, [], []
    extract = extraction.extract

    def spy(images, answers, *given, **options):
        trained.append((images, answers, options))
        return extract(images, answers, *given, **options)

    def defence(y, x):
        seen.append(x)
        return mixed(y)

    monkeypatch.setattr(restorer, "extract", spy)
    options = {"shadows": 4, "seed": 2}
    table = restorer.shadow_table(
        images, labels, 3, NETWORK, RECIPE, defence, **options
    )
    assert table.clean.shape == (4 * 90, 3)
    assert torch.equal(table.perturbed, mixed(table.clean))
    assert torch.allclose(table.clean.sum(1), torch.ones(360))
    assert all(x is images for x in seen)
    rows, orders = [x.numpy().tobytes() for x in images], set()
    for shown, told, options in trained:
        truth = labels[[rows.index(x.numpy().tobytes()) for x in shown]]
        assert (told.sum(1) == 1).all()
        order = tuple(int(truth[told[:, j] == 1].unique()) for j in range(3))
        assert len(set(order)) == 3
        assert len(truth) == 45
        orders.add(order)
        assert options["mean_std"][0] == datasets.normalisation(images)[0]
    assert len(orders) >= 3
    assert any(list(order) != sorted(order) for order in orders)
    parts = table.clean.split(90)
    assert not any(torch.equal(parts[0], part) for part in parts[1:])


# Measures


def test_fidelity_is_agreement_and_not_accuracy():
    a = torch.tensor([[2.0, 1, 0], [0, 1, 0], [0, 0, 1], [0.4, 0.3, 0.3]])
    b = torch.tensor([[0.5, 0.4, 0.1], [0, 0, 1], [0.1, 0.1, 0.8], [0.9, 0.1, 0]])
    assert measures.fidelity(a, b) == measures.fidelity(b, a) == 0.75


def test_recovery_distance_is_the_mean_norm_of_a_row():
    a = torch.tensor([[1.0, 0], [0.5, 0.5]])
    b = torch.tensor([[0.0, 1], [0.5, 0.5]])
    assert measures.recovery_distance(a, b) == 1.0
    assert measures.recovery_distance(a, b, p=2) == pytest.approx(2**0.5 / 2)


def test_the_strongest_attack_is_reported_on_seeds_that_did_not_choose_it():
    scores = pd.DataFrame(
        [("a", s, v, "W") for s, v in enumerate([0.9, 0.8, 0.1, 0.2])]
        + [("b", s, v, "W") for s, v in enumerate([0.5, 0.5, 0.6, 0.7])],
        columns=["attack", "seed", "score", "defence"],
    )
    found = measures.strongest(scores)
    assert found["attack"].tolist() == ["a", "a"]
    assert found["seed"].tolist() == [2, 3]
    assert found["score"].tolist() == [0.1, 0.2]
    assert found["defence"].tolist() == ["W", "W"]
    other = measures.strongest(scores, choose_on=[2, 3])
    assert other["score"].tolist() == [0.5, 0.5]
    three = scores[scores["seed"] < 3]
    assert measures.strongest(three)["seed"].tolist() == [2]


def test_choosing_and_reporting_on_the_same_seeds_would_be_too_large():
    """Twelve attacks that are equally strong: the maximum of means is not."""
    numbers, fair, greedy = np.random.default_rng(0), [], []
    names = np.repeat(list("abcdefghijkl"), 4)
    for _ in range(200):
        frame = pd.DataFrame({"attack": names, "seed": np.tile(range(4), 12)})
        frame["score"] = numbers.normal(size=48)
        fair.append(measures.strongest(frame)["score"].mean())
        greedy.append(frame.groupby("attack")["score"].mean().max())
    assert abs(np.mean(fair)) < 4 * np.std(fair) / 200**0.5
    assert np.mean(greedy) > 0.6


# Bad input

Y = dirichlet(4, 3)
PAIRS = Table(Y, Y)
IMAGES = torch.zeros(4, 1, 8, 8, dtype=torch.uint8)
LABELS = torch.arange(4)
SCORES = pd.DataFrame({"attack": ["a", "a"], "seed": [0, 1], "score": [1.0, 2.0]})


def drawn(means=Y, **options):
    return bayes.lookup_table(means, nothing, seed=0, **options)


def shadowed(classes=3, labels=LABELS, **options):
    given = (IMAGES, labels, classes, NETWORK, RECIPE, nothing)
    return restorer.shadow_table(*given, seed=0, **options)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: drawn(Y * 1.1), "each row of probs must sum to 1"),
        (lambda: drawn(Y - 1), "probs must be >= 0, got -"),
        (lambda: drawn(Y[0]), r"\[N, C\] with N >= 1 and C >= 2, got"),
        (lambda: drawn(draws=0), "draws must be a whole number >= 1, got 0"),
        (lambda: drawn(concentration=0.0), "concentration must be > 0 .*got 0.0"),
        (lambda: drawn(images=IMAGES[:3]), "images must be 4, got 3"),
        (
            lambda: bayes.recover_partial_bayes(Y[:, :2], PAIRS),
            r"as many classes as the answers, got \[\[4, 2\], \[4, 3\], \[4, 3\]\]",
        ),
        (
            lambda: bayes.recover_partial_bayes(Y, Table(Y, Y[:3])),
            "as many classes as the answers, got",
        ),
        (
            lambda: bayes.recover_partial_bayes(Y, PAIRS, tolerance=-0.1),
            "tolerance must be >= 0 and finite, got -0.1",
        ),
        (
            lambda: bayes.recover_partial_bayes(Y, PAIRS, elements=0),
            "elements must be a whole number >= 1, got 0",
        ),
        (lambda: bayes.recover_partial_bayes(Y / 0, PAIRS), "finite and >= 0"),
        (lambda: bayes.recover_partial_bayes(Y, Table(Y[:0], Y[:0])), "N >= 1"),
        (lambda: bayes.pairs([(Y, None)], lambda y, x: y[1:]), "answers must be 4"),
        (lambda: restorer.fit(PAIRS, epochs=0, seed=0), "epochs must be .*got 0"),
        (lambda: restorer.fit(PAIRS, batch=1, seed=0), "batch must be .*got 1"),
        (lambda: restorer.fit(PAIRS, lr=0.0, seed=0), "lr must be > 0 .*got 0.0"),
        (lambda: restorer.fit(Table(Y[:1], Y[:1]), seed=0), "at least 2 pairs, got 1"),
        (lambda: restorer.restore(restorer.build(3), Y - 1), "finite and >= 0"),
        (lambda: shadowed(5), "labels must hold at least 5 classes, got 4"),
        (lambda: shadowed(1), "classes must be a whole number >= 2, got 1"),
        (lambda: shadowed(shadows=0), "shadows must be a whole number >= 1, got 0"),
        (lambda: shadowed(labels=LABELS[:3]), r"labels must be int64 of shape \[4\]"),
        (lambda: shadowed(), "at least batch = 16, got 3"),
        (lambda: measures.fidelity(Y, Y[:3]), r"one shape, got \[4, 3\] and \[3, 3\]"),
        (lambda: measures.recovery_distance(Y, Y[:3]), "both must be of one shape"),
        (lambda: measures.recovery_distance(Y, Y, p=3), "p must be one of 1, 2, got 3"),
        (lambda: measures.strongest(SCORES, [2]), r"among the seeds \[0, 1\], got \[2"),
        (lambda: measures.strongest(SCORES, [0, 1]), "some of the seeds .* not all"),
        (lambda: measures.strongest(SCORES[:1]), "some of the seeds .* not all"),
        (
            lambda: measures.strongest(pd.concat([SCORES, SCORES])),
            r"each attack once for each seed, got \{\('a', 0\): 2",
        ),
        (
            lambda: measures.strongest(
                pd.concat([SCORES, SCORES[:1].assign(attack="b")])
            ),
            r"each attack once for each seed, got \{\('b', 1\): 0",
        ),
    ],
)
def test_bad_input_says_what_is_wrong(call, message):
    with pytest.raises(ValueError, match=message):
        call()
