"""The sampler's law by enumeration; what a team answers; transfer; masked gradients."""

import copy
import itertools
from collections import Counter
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn

from lottolab.ensembles import laws, masking, pgd, queries, sampler, transfer_matrix
from lottolab.ensembles.attacks import gradient
from lottolab.ensembles.laws import matched, one, theta
from lottolab.ensembles.sampler import Sampler
from lottolab.nets import models

pytestmark = pytest.mark.usefixtures("on_one_thread")


def constants(counts, classes=7):
    """Return networks that give an image one logit of their own, scaled by it."""

    class Constant(nn.Module):
        def __init__(self, place):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(classes) + place)

        def forward(self, x):
            return x.flatten(1).mean(1)[:, None] * self.weight

    with torch.random.fork_rng():
        torch.manual_seed(0)
        places = itertools.count()
        return {
            f"structure {i}": [Constant(next(places)) for _ in range(count)]
            for i, count in enumerate(counts)
        }


def drawn(law, counts, draws, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [law(counts, generator) for _ in range(draws)]


def fits(observed, probabilities):
    """Compare counts with probabilities by χ²; rare outcomes are put together."""
    assert set(observed) <= set(probabilities)
    assert sum(probabilities.values()) == pytest.approx(1)
    total = sum(observed.values())
    rows = [(total * p, observed[k]) for k, p in sorted(probabilities.items())]
    rows.sort(key=lambda row: row[0])  # by the expected alone, or ties would be biased
    merged = [[0.0, 0.0]]
    for expected, seen in rows:
        if merged[-1][0] >= 5:
            merged.append([0.0, 0.0])
        merged[-1][0] += expected
        merged[-1][1] += seen
    expected, seen = np.array(merged).T
    return len(merged) > 1 and stats.chisquare(seen, expected).pvalue > 1e-3


def enumerated(counts, sizes, replace):
    """Return the probability of every team, from the paper's steps B to D."""
    law = Counter()
    alphas = [a for a in itertools.product([0, 1], repeat=len(counts)) if any(a)]
    for alpha in alphas:
        chosen = [i for i, a in enumerate(alpha) if a]
        for ns in itertools.product(sizes, repeat=len(chosen)):
            draws = [
                list(
                    itertools.product(range(counts[i]), repeat=n)
                    if replace
                    else itertools.permutations(range(counts[i]), n)
                )
                for i, n in zip(chosen, ns, strict=True)
            ]
            chance = np.prod([sizes[n] for n in ns]) / len(alphas)
            chance /= np.prod([len(d) for d in draws])
            for parts in itertools.product(*draws):
                pairs = zip(chosen, parts, strict=True)
                team = [(i, j) for i, part in pairs for j in part]
                law[tuple(sorted(team))] += chance
    return law


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("sizes", [laws.SIZES, {1: 0.2, 3: 0.8}])
def test_teams_follow_the_stated_law(replace, sizes):
    counts = [3, 4, 3]
    law = enumerated(counts, sizes, replace)
    found = drawn(partial(theta, sizes=sizes, replace=replace), counts, 6000)
    assert fits(Counter(tuple(sorted(team)) for team in found), law)
    wrong = enumerated(counts, dict.fromkeys(sizes, 1 / 2), replace)
    assert not fits(Counter(tuple(sorted(team)) for team in found), wrong)


def test_the_papers_own_numbers():
    """Four structures of ten tickets: n_i, α, the ratios and the mean size."""
    found = drawn(theta, [10] * 4, 6000)
    sent = [Counter(i for i, _ in team) for team in found]
    sizes = Counter(n for s in sent for n in s.values())
    assert fits(sizes, {1: 0.65, 2: 0.35})
    alphas = Counter(tuple(sorted(s)) for s in sent)
    subsets = [c for r in range(1, 5) for c in itertools.combinations(range(4), r)]
    assert fits(alphas, dict.fromkeys(subsets, 1 / 15))
    ratios = Counter(j for team in found for _, j in team)
    assert fits(ratios, dict.fromkeys(range(10), 0.1))
    mean = np.mean([len(team) for team in found])
    assert mean == pytest.approx(4 * 8 / 15 * 1.35, abs=0.08)
    assert all(len(set(team)) == len(team) for team in found)


def test_r2s_draws_one_network_uniformly():
    counts = [2, 1, 4]
    found = drawn(one, counts, 3000)
    assert all(len(team) == 1 for team in found)
    every = [(i, j) for i, c in enumerate(counts) for j in range(c)]
    assert fits(Counter(t[0] for t in found), dict.fromkeys(every, 1 / 7))


def test_matched_teams_are_as_large_and_of_one_structure():
    sizes = Counter()
    for team, chance in enumerated([2] * 4, laws.SIZES, False).items():
        sizes[len(team)] += chance
    found = drawn(matched, [9], 4000)
    assert fits(Counter(len(team) for team in found), sizes)
    assert all(len(set(team)) == len(team) for team in found)
    members = Counter(m for team in found for m in team)
    chances = {(0, j): 1 / 9 for j in range(9)}
    assert set(members) == set(chances)
    assert max(members.values()) < 1.15 * min(members.values())
    capped = drawn(matched, [3], 2000)
    few = {n: sizes[n] for n in (1, 2)} | {3: sum(sizes[n] for n in range(3, 9))}
    assert fits(Counter(len(team) for team in capped), few)
    two = drawn(partial(matched, structures=2), [9], 500)
    assert max(len(team) for team in two) == 4


@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("sizes", [laws.SIZES, {1: 0.2, 3: 0.8}])
def test_teams_that_are_drawn_at_once_follow_the_same_law(replace, sizes):
    counts = [3, 4, 3]
    every = [(i, j) for i, c in enumerate(counts) for j in range(c)]
    law = enumerated(counts, sizes, replace)
    asked = partial(theta, sizes=sizes, replace=replace)
    found = laws.votes(asked, counts, 6000, torch.Generator().manual_seed(1))
    assert found.shape == (6000, 10)
    assert found.dtype == torch.int64
    teams = [
        tuple(m for m, n in zip(every, row, strict=True) for _ in range(n))
        for row in found.tolist()
    ]
    assert fits(Counter(teams), law)
    wrong = enumerated(counts, dict.fromkeys(sizes, 1 / 2), replace)
    assert not fits(Counter(teams), wrong)


def test_the_other_laws_are_drawn_at_once_too():
    made = torch.Generator().manual_seed(0)
    found = laws.votes(one, [2, 1, 4], 3000, made)
    assert (found.sum(1) == 1).all()
    assert fits(Counter(found.argmax(1).tolist()), dict.fromkeys(range(7), 1 / 7))
    sizes = Counter()
    for team, chance in enumerated([2] * 3, laws.SIZES, False).items():
        sizes[len(team)] += chance
    law = partial(matched, structures=3)
    found = laws.votes(law, [2, 2], 6000, made)
    assert found.max() == 1
    capped = {n: sizes[n] for n in (1, 2, 3)}
    capped[4] = sum(sizes[n] for n in range(4, 7))
    # Any team of a size is as likely as the others of it.
    chances = {
        team: capped[size] / stats.binom(4, 0.5).pmf(size) / 16
        for size in range(1, 5)
        for team in itertools.combinations(range(4), size)
    }
    teams = Counter(tuple(row.nonzero()[:, 0].tolist()) for row in found)
    assert fits(teams, chances)


def test_a_law_of_ones_own_is_called_image_by_image():
    def both(counts, generator):
        return [(0, 1), (1, int(torch.randint(2, (), generator=generator)))] * 2

    made = torch.Generator().manual_seed(0)
    found = laws.votes(both, [2, 2], 50, made)
    assert set(map(tuple, found.tolist())) == {(0, 2, 2, 0), (0, 2, 0, 2)}
    for odd, message in (
        (lambda c, g: [], "law must draw at least one network"),
        (lambda c, g: [(0, 2)], r"law must draw \(structure, network\) of \[2, 2\]"),
        (lambda c, g: [(-1, 0)], "law must draw .* got"),
        (partial(theta, sizes={3: 1.0}), "sizes must be at most 2"),
    ):
        with pytest.raises(ValueError, match=message):
            laws.votes(odd, [2, 2], 5, made)
    with pytest.raises(ValueError, match="rows must be a whole number >= 1, got 0"):
        laws.votes(one, [2, 2], 0, made)


# What it answers


X = torch.rand(9, 1, 4, 4, generator=torch.Generator().manual_seed(1))


def by_hand(networks, over, x):
    outputs = torch.stack([network(x) for network in networks])
    if over == "logits":
        return outputs.mean(0)
    return outputs.softmax(2).mean(0).log()


@pytest.mark.parametrize("over", ["logits", "probabilities"])
def test_a_team_answers_by_its_mean(over):
    networks = [n for group in constants([2, 1]).values() for n in group]
    team = sampler.Ensemble(networks, over)
    assert torch.allclose(team(X), by_hand(networks, over, X), atol=1e-5)
    alone = sampler.Ensemble(networks[:1], over)
    assert torch.allclose(alone(X).softmax(1), networks[0](X).softmax(1))


@pytest.mark.parametrize("over", ["logits", "probabilities"])
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("per", ["batch", "image"])
def test_each_batch_or_image_is_answered_by_the_team_drawn_for_it(per, over, replace):
    networks = constants([2, 3, 2])
    groups = list(networks.values())
    law = partial(theta, replace=replace)
    model = Sampler(networks, law=law, over=over, per=per, seed=4)
    generator = torch.Generator().manual_seed(4)
    for _ in range(3):
        x = X.clone().requires_grad_()
        found = model(x)
        if per == "batch":
            wanted = by_hand(
                [groups[i][j] for i, j in law([2, 3, 2], generator)], over, x
            )
        else:
            everyone = [network for group in groups for network in group]
            votes = laws.votes(law, [2, 3, 2], len(x), generator)
            rows = [
                by_hand(
                    [everyone[k] for k in row.nonzero()[:, 0] for _ in range(row[k])],
                    over,
                    x[i : i + 1],
                )
                for i, row in enumerate(votes)
            ]
            wanted = torch.cat(rows)
        assert torch.allclose(found, wanted, atol=1e-5)
        slopes = [torch.autograd.grad(v[:, 0].sum(), x)[0] for v in (found, wanted)]
        assert torch.allclose(*slopes, atol=1e-5)
    model.reseed(4)
    again = [model(X) for _ in range(2)]
    model.reseed(4)
    assert torch.equal(again[0], model(X))
    assert not torch.equal(again[0], again[1])


@pytest.mark.parametrize("over", ["logits", "probabilities"])
@pytest.mark.parametrize("replace", [False, True])
@pytest.mark.parametrize("per", ["batch", "image"])
def test_many_draws_answer_as_so_many_calls(per, over, replace):
    given = {"law": partial(theta, replace=replace), "over": over, "per": per}
    model = Sampler(constants([2, 3, 2]), **given, seed=4)
    together, after = model.many(X, 9), model(X)
    model.reseed(4)
    for found in (*together, after):
        assert torch.allclose(found, model(X), atol=1e-6)


def test_many_draws_ask_each_network_once():
    networks = constants([2, 2])
    asked = Counter()
    for group in networks.values():
        for network in group:
            network.register_forward_hook(lambda n, *_: asked.update([n]))
    Sampler(networks, seed=0).many(X, 50)
    assert len(asked) == 4
    assert set(asked.values()) == {1}


@pytest.mark.parametrize("over", ["losses", "logits", "probabilities"])
def test_the_gradient_of_many_draws_is_that_of_single_ones(over):
    model, y = Sampler(constants([2, 3]), seed=2), torch.arange(len(X)) % 7
    given = {"loss": "ce", "eot": 6, "over": over}
    slope, mean = gradient.gradient(model, X, y, **given)
    model.reseed(2)
    one_by_one = gradient.gradient(lambda x: model(x), X, y, **given)
    assert torch.allclose(slope, one_by_one[0], atol=1e-6)
    assert torch.allclose(mean, one_by_one[1], atol=1e-6)
    model.reseed(2)
    merged = queries.merged(model, X, 6, "logits")
    model.reseed(2)
    assert torch.allclose(merged, sum(model(X) for _ in range(6)) / 6, atol=1e-6)


def test_probabilities_stay_finite_where_the_softmax_is_saturated():
    networks = constants([2, 2])
    for group in networks.values():
        for network in group:
            network.weight.data *= 1000
    model = Sampler(networks, over="probabilities", per="image", seed=0)
    x = X.clone().requires_grad_()
    model(x)[:, 0].sum().backward()
    assert x.grad.isfinite().all()
    assert model(X).isfinite().all()


def test_teams_for_an_attack_leave_the_defenders_draws_alone():
    networks = constants([3, 3])
    model = Sampler(networks, seed=0)
    teams = model.teams(40, seed=5)
    wanted = drawn(theta, [3, 3], 40, seed=5)
    assert [len(t.networks) for t in teams] == [len(t) for t in wanted]
    pool = [n for group in networks.values() for n in group]
    assert all(n in pool for t in teams for n in t.networks)
    assert torch.equal(model(X), Sampler(networks, seed=0)(X))


def test_rescoring_asks_as_often_as_it_says():
    networks = constants([3, 3])
    model = Sampler(networks, law=one, seed=0)
    y = torch.full((len(X),), 0)
    singles = [queries.correct(n, X, y) for group in networks.values() for n in group]
    found = sampler.repeated(model, X, y, draws=200, seed=1, batch=4)
    assert found.shape == (200, len(X))
    assert found.dtype == torch.bool
    wanted = torch.stack(singles).double().mean(0)
    assert (found.double().mean(0) - wanted).abs().max() < 0.15
    assert torch.equal(found, sampler.repeated(model, X, y, draws=200, seed=1, batch=4))


@pytest.mark.parametrize("over", ["logits", "probabilities"])
@pytest.mark.parametrize("per", ["batch", "image"])
@pytest.mark.parametrize("law", [theta, partial(theta, replace=True), one])
def test_rescoring_is_as_so_many_calls_and_asks_each_network_once(law, per, over):
    networks = constants([3, 2, 3], classes=4)
    x = torch.rand(60, 1, 4, 4, generator=torch.Generator().manual_seed(2))
    model = Sampler(networks, law=law, per=per, over=over, seed=0)
    y = model(x).argmax(1)
    asked = Counter()
    hooks = [
        n.register_forward_hook(lambda n, i, _: asked.update({n: len(i[0])}))
        for n in model.networks
    ]
    found = sampler.repeated(model, x, y, draws=30, seed=7, batch=25)
    assert set(asked.values()) == {60}
    for hook in hooks:
        hook.remove()
    model.reseed(7)
    calls = [queries.correct(model, x, y, 25) for _ in range(30)]
    assert torch.equal(found, torch.stack(calls))
    assert 0 < found.double().mean() < 1
    assert len(found.unique(dim=0)) > 1


def test_an_image_of_many_draws_is_asked_of_a_network_once():
    networks = constants([2, 2])
    model, asked = Sampler(networks, per="image", seed=0), Counter()
    for network in model.networks:
        network.register_forward_hook(lambda n, i, _: asked.update({n: len(i[0])}))
    model.many(X, 50)
    assert set(asked.values()) == {len(X)}


def test_rescoring_refuses_what_one_query_does():
    model = Sampler(constants([2, 2]), per="image", seed=0)
    y = torch.zeros(len(X), dtype=torch.int64)
    for labels, message in ((y - 1, "y must be in"), (y[:3], "y must be int64 of")):
        with pytest.raises(ValueError, match=message):
            sampler.repeated(model, X, labels, draws=2, seed=0)
    with torch.no_grad():
        model.networks[1].weight[0] = torch.nan
    with pytest.raises(ValueError, match="the model's logits must be finite"):
        sampler.repeated(model, X, y, draws=2, seed=0)


def test_a_sampler_can_be_attacked_and_does_what_the_attack_left():
    shape = {"channels": 1, "classes": 3}
    networks = {
        name: [models.build(name, **shape, width=2, seed=s).eval() for s in (0, 1)]
        for name in ("cnn4", "resnet8")
    }
    x, y = torch.rand(8, 1, 8, 8), torch.zeros(8, dtype=torch.int64)
    for per in ("batch", "image"):
        model = Sampler(networks, per=per, seed=0).train()
        before = copy.deepcopy(model.state_dict())
        found = pgd(
            model,
            x,
            y,
            epsilon=0.3,
            step=0.1,
            steps=5,
            eot=4,
            seed=0,
            over="probabilities",
        )
        assert (found - x).abs().max() <= 0.3 + 1e-6
        assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
        assert all(p.requires_grad for p in model.parameters())
        model.eval()
        losses = []
        for images in (x, found):
            model.reseed(9)
            margins = [queries.margin(model(images), y) for _ in range(20)]
            losses.append(torch.stack(margins).mean())
        assert losses[1] > losses[0]


@pytest.mark.parametrize(
    ("law", "message"),
    [
        (
            partial(theta, sizes={0: 0.5, 1: 0.5}),
            "sizes must be a whole number >= 1",
        ),
        (partial(theta, sizes={}), "sizes must be"),
        (partial(theta, sizes={1: 0.5, 2: 0.6}), "probabilities that sum to 1"),
        (partial(theta, sizes={1: 1.5, 2: -0.5}), "probabilities of sizes must be"),
        (partial(theta, sizes={4: 1.0}), "sizes must be at most 2, .* got 4"),
        (lambda counts, generator: [], "law must draw at least one network, got"),
        (partial(matched, structures=0), "structures must be a whole number >= 1"),
        (partial(matched, sizes={0: 1.0}), "sizes must be"),
    ],
)
def test_a_sampler_that_could_choose_nobody_is_refused(law, message):
    with pytest.raises(ValueError, match=message):
        Sampler(constants([2, 3]), law=law, seed=0)


def test_a_sampler_without_networks_is_refused():
    for networks in ({}, {"a": []}, constants([2]) | {"b": []}):
        with pytest.raises(ValueError, match="networks must hold at least one of each"):
            Sampler(networks, seed=0)
    for settings, message in (
        ({"per": "query"}, "per must be one of batch, image, got 'query'"),
        ({"over": "losses"}, "over must be one of logits, probabilities"),
    ):
        with pytest.raises(ValueError, match=message):
            Sampler(constants([2, 2]), seed=0, **settings)
    with pytest.raises(ValueError, match="a team must have at least one network"):
        sampler.Ensemble([])
    with pytest.raises(ValueError, match="draws must be a whole number >= 1, got 0"):
        sampler.repeated(Sampler(constants([2, 2]), seed=0), X, X, draws=0, seed=0)


# Transfer


def on_pixel(*weights):
    """Return a model of two classes that looks at some pixels alone."""
    weights = torch.tensor(weights)

    def model(x):
        first = x.flatten(1)[:, : len(weights)] @ weights - 0.5 * weights.sum() + 0.05
        return torch.stack([first, 0 * first], 1)

    return model


def test_the_rows_are_targets_and_the_columns_sources():
    """What fools a fools a; what fools both pixels' model fools each, not so back."""
    models_ = {
        "first": on_pixel(1.0),
        "second": on_pixel(0.0, 1.0),
        "both": on_pixel(0.3, 0.3),
    }
    x, y = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    settings = {"epsilon": 0.1, "step": 0.05, "steps": 4, "seed": 0}
    table = transfer_matrix(models_, x, y, **settings)
    assert list(table.index) == list(table.columns) == list(models_)
    assert table["both"].tolist() == [0.0, 0.0, 0.0]
    assert table.loc["first", "first"] == table.loc["second", "second"] == 0
    start = pgd(models_["first"], x, y, **settings | {"step": 0.0})
    found = pgd(models_["first"], x, y, **settings)
    assert torch.equal(found[:, 0, 0, 1], start[:, 0, 0, 1])
    right = queries.correct(models_["second"], found, y).double().mean()
    assert table.loc["second", "first"] == pytest.approx(float(right))
    assert table.index.name == "target"
    assert table.columns.name == "source"
    part = transfer_matrix(
        {"both": models_["both"]},
        x,
        y,
        targets={"second": models_["second"]},
        **settings,
    )
    assert part.shape == (1, 1)
    assert part.loc["second", "both"] == 0


def test_a_matrix_without_models_is_refused():
    x, y = torch.full((4, 1, 2, 2), 0.5), torch.zeros(4, dtype=torch.int64)
    settings = {"epsilon": 0.1, "step": 0.05, "steps": 4, "seed": 0}
    for models_ in ({}, {"a": on_pixel(1.0)}):
        with pytest.raises(ValueError, match="must hold at least one model, got 0"):
            transfer_matrix(models_, x, y, targets={}, **settings)
    with pytest.raises(ValueError, match="epsilon must be in"):
        transfer_matrix({"a": on_pixel(1.0)}, x, y, **settings | {"epsilon": -1.0})


# Masked gradients


@pytest.fixture(scope="module")
def honest():
    """Return a small network that tells dark images from bright ones, and images."""
    torch.set_num_threads(1)
    made = torch.Generator().manual_seed(0)
    y = torch.randint(2, (128,), generator=made)
    x = torch.rand(128, 1, 6, 6, generator=made) * 0.5 + y[:, None, None, None] * 0.25
    x[:, 0, 0, 0] = 0.5
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Flatten(), nn.Linear(36, 20), nn.Tanh(), nn.Linear(20, 2)
        )
    optimiser = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(60):
        loss = nn.functional.cross_entropy(model(x), y)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert queries.correct(model, x, y).double().mean() > 0.97
    return model, x, y


SETTINGS = {"epsilon": 0.1, "step": 0.025, "steps": 10, "seed": 0}


def flagged(model, x, y, **settings):
    table = masking.findings(model, x, y, **SETTINGS | settings)
    assert list(table.columns) == ["check", "value", "limit", "masked"]
    assert (table["masked"] == (table["value"] > table["limit"])).all()
    return set(table.loc[table["masked"], "check"])


def test_an_honest_model_is_not_suspected(honest):
    model, x, y = honest
    noise = torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).sign()
    boxes = {"noise": (x + 0.1 * noise).clamp(0, 1)}
    assert flagged(model, x, y, black_box=boxes) == set()
    assert flagged(model, x, y, stop=True) == set()


def test_a_saturated_softmax_is_caught(honest):
    model, x, y = honest
    found = flagged(lambda x: 1e4 * model(x), x, y)
    assert found >= {"no gradient", "other loss", "large epsilon"}


def test_rounded_images_are_caught(honest):
    model, x, y = honest

    def rounded(x):
        return model((x * 8).round() / 8)

    own = pgd(model, x, y, **SETTINGS)
    found = flagged(rounded, x, y, black_box={"transfer": own})
    assert found >= {"no gradient", "random corners", "black box: transfer"}


def test_a_shattered_gradient_is_caught(honest):
    """The logits tremble: steep everywhere, and nowhere in the right direction."""
    model, x, y = honest

    def shattered(x):
        waves = (3000 * x).sin().flatten(1).sum(1)
        return model(x) + 0.3 * torch.stack([waves, -waves], 1)

    own = pgd(model, x, y, **SETTINGS)
    found = flagged(shattered, x, y, black_box={"transfer": own})
    assert found >= {"random corners", "black box: transfer"}


def test_overfitting_to_one_step_is_caught():
    """Errors lie at 0.4 to 0.6 of the way, and a single full step goes beyond."""
    clean = torch.full((1, 1, 6, 6), 0.5)
    signs = torch.randn(36, generator=torch.Generator().manual_seed(0)).sign()

    def model(x):
        moved = (x - clean).flatten(1) / 0.1
        beyond = (moved.abs().mean(1) - 0.6).clamp(min=0)
        margins = (moved * signs).mean(1) - 0.4 - 20 * beyond
        return torch.stack([-margins, 0 * margins], 1)

    x, y = clean.repeat(20, 1, 1, 1), torch.zeros(20, dtype=torch.int64)
    assert "overfitted to one step" in flagged(model, x, y, step=0.004, steps=40)


def test_the_surface_climbs_along_the_gradient(honest):
    model, x, y = honest
    table = masking.surface(model, x, y, epsilon=0.1, points=5, seed=0)
    assert table.shape == (25, 3)
    grid = table.pivot(index="gradient", columns="random", values="margin")
    assert np.allclose(grid.index, np.linspace(-0.1, 0.1, 5))
    middle = grid[grid.columns[2]].to_numpy()
    assert (np.diff(middle) > 0).all()
    wanted = queries.margin(model(x), y).mean().item()
    assert middle[2] == pytest.approx(wanted, abs=1e-5)
    across = grid.iloc[2].to_numpy()
    assert np.ptp(across) < 0.5 * np.ptp(middle)


def test_a_value_at_its_limit_is_no_sign(honest, monkeypatch):
    """Two of a hundred images are 0.02, also where 0.52 − 0.5 is a little more."""
    left = iter([0.52, 0.5, 0.52, 0.52, 0.0])
    monkeypatch.setattr(masking, "_accuracy", lambda *_: next(left))
    table = masking.findings(*honest, **SETTINGS).set_index("check")
    assert table.loc["other loss", "value"] > 0.02
    assert not table.loc["other loss", "masked"]


def test_findings_refuse_what_they_cannot_use(honest):
    model, x, y = honest
    cases = {
        r"slack must be in \[0, 1\), got 1.5": {"slack": 1.5},
        "corners must be a whole number >= 1, got 0": {"corners": 0},
        "far must be within epsilon of x": {
            "black_box": {"far": (x + 0.3).clamp(0, 1)}
        },
        r"epsilon must be in \[0, 1\], got -0.1": {"epsilon": -0.1},
    }
    for message, setting in cases.items():
        with pytest.raises(ValueError, match=message):
            masking.findings(model, x, y, **SETTINGS | setting)
    with pytest.raises(ValueError, match="points must be a whole number >= 2, got 1"):
        masking.surface(model, x, y, epsilon=0.1, points=1, seed=0)
