"""The stages of chapter 4, on networks of a second each."""

import multiprocessing

import httpx
import pytest
import torch
import torch.nn.functional as F
import trainings

from lottolab.images import datasets
from lottolab.modelguard import ModelGuardS, queries
from lottolab.modelguard.attacks import extraction, measures
from lottolab.modelguard.experiments import (
    attackers,
    over_http,
    services,
    studies,
    thefts,
)
from lottolab.nets import predict, train

pytestmark = pytest.mark.usefixtures("on_one_thread")
RECIPE = {"epochs": 3, "batch": 20, "lr": 0.1, "crop": 1, "flip": False}
GLYPHS = {"name": "glyphs", "classes": 12, "images": 400, "first_class": 50}
SETTING = {
    "dataset": {"name": "digits", "size": 28},
    "sizes": {"train": 300, "val": 0, "test": 100, "holdout": 200},
    "network": {"name": "cnn4", "width": 4, "stem": "stride2"},
    "recipe": RECIPE,
    "rewind_at": 0,
    "outliers": GLYPHS,
    "seed": 3,
}
PLAN = {
    "public": "holdout",
    "budget": 120,
    "substitute": {"network": SETTING["network"], "recipe": RECIPE},
    "means": {
        "draws": 3,
        "shadows": 2,
        "recipe": {"epochs": 1},
        "widths": [16, 8],
        "epochs": 2,
        "batch": 32,
    },
}
ASKED = {k: PLAN[k] for k in ("public", "budget")}
NONE = {"name": "none"}
S = {"name": "ModelGuard-S", "epsilon": 0.6}
W = {"name": "ModelGuard-W", "epsilon": 1.0}


@pytest.fixture(scope="module", autouse=True)
def fits(tmp_path_factory):
    """Give the module a store of its own and list its trainings."""
    with trainings.noted(tmp_path_factory.mktemp("store")) as found:
        yield found


def steal(defence=NONE, jbda=0, **attack):
    given = PLAN | SETTING
    return thefts.stolen(attack=attack, defence=defence, jbda=jbda, **given)["metrics"]


def begin(defence=NONE, **attack):
    return thefts.begun(attack, defence, **PLAN, **SETTING)[0]


def study(stage, defence, **more):
    return stage(defence=defence, **ASKED, **SETTING, **more)


# ------------------------------------------------------------------ services


def test_the_target_is_unsure_of_its_outliers(fits):
    service, parts = services.trained(**SETTING)
    test, labels = parts["test"]
    known, odd = service(test), service(datasets.get(GLYPHS).images[:100])
    assert predict.accuracy(known, labels) > 0.5
    assert known.amax(1).mean() > odd.amax(1).mean() + 0.2


@pytest.mark.parametrize("name", sorted(services.DEFENCES))
def test_each_defence_can_be_named(name):
    own = {
        "RevSig": {"beta": 0.2, "gamma": 0.2},
        "AM": {"tau": 0.7},
        "Rounding": {"decimals": 1},
        "noise": {"epsilon": 1.0, "fixed": True, "seed": 0},
        "none": {},
        "Top-1": {},
    }.get(name, {"epsilon": 0.5})
    service, parts = services.defended({"name": name} | own, **SETTING)
    images = parts["test"][0][:20]
    answers, clean = service(images), services.trained(**SETTING)[0](images)
    assert answers.shape == (20, 10)
    assert torch.equal(answers, clean) == (name == "none")


def test_an_unknown_defence_is_refused():
    with pytest.raises(ValueError, match="did you mean ModelGuard-W"):
        services.defended({"name": "ModelGuard-V", "epsilon": 1.0}, **SETTING)


def test_the_liar_is_wrong_about_known_images():
    service, parts = services.defended({"name": "AM", "tau": 1.0}, **SETTING)
    test, labels = parts["test"]
    said = service(test)  # at τ = 1 nothing else is answered
    assert said.gather(1, labels[:, None]).mean() < 0.9 / 10
    assert (said > 0.1).double().mean() > 0.1


def test_a_warm_state_is_what_the_owner_asked():
    service, parts = services.defended(S | {"name": "warm ModelGuard-S"}, **SETTING)
    clean, _ = services.trained(**SETTING)
    images = parts["train"][0]
    held = service.defence
    assert held.peek(clean(images)).allclose(held(clean(images)))
    before = held.count
    assert before > services.defended(S, **SETTING)[0].defence.count == 0
    assert held.count == before


# ------------------------------------------------------------------ attackers


def test_a_naive_theft_is_an_extraction_from_the_answers():
    found = steal()
    clean, parts = services.trained(**SETTING)
    images, _ = attackers.gathered(**ASKED, **SETTING)
    model = extraction.extract(
        images,
        clean(images),
        SETTING["network"],
        train.recipe(RECIPE),
        seed=SETTING["seed"] + attackers.THIEF,
    )
    test, labels = parts["test"]
    logits = predict.logits(model, test, datasets.normalisation(images))
    assert found["accuracy"] == predict.accuracy(logits, labels)
    same = logits.argmax(1) == clean(test).argmax(1)
    assert found["fidelity"] == pytest.approx(float(same.double().mean()))
    assert found["recovery ℓ1"] == found["recovery ℓ2"] == 0
    assert found["asked"] == 120


def test_the_thief_has_no_image_of_the_target():
    _, parts = services.trained(**SETTING)
    images, labels = attackers.gathered(**ASKED, **SETTING)
    theirs = torch.cat([parts["train"][0], parts["test"][0]]).flatten(1)
    equal = (images.flatten(1)[:, None] == theirs[None]).all(2)
    assert not equal.any()
    everything, truth = datasets.get(SETTING["dataset"]).images, None
    place = (images[7] == everything).flatten(1).all(1).nonzero()[0]
    truth = datasets.get(SETTING["dataset"]).labels[place]
    assert labels[7] == truth


@pytest.mark.parametrize(
    ("ask", "times"),
    [("once", 1), ("smoothed", 3), ("voted", 10), ("repeated", 16), ("tenants", 4)],
)
def test_each_way_of_asking_asks_as_often_as_it_says(ask, times):
    theft = begin(S, ask=ask)
    answers = attackers.ask(theft, theft.images)
    assert answers.shape == (120, 10)
    assert theft.service.asked == times * 120
    assert (theft.exact is not None) == (ask in ("once", "tenants"))


def test_what_is_taken_to_be_exact_is_exact():
    for ask in ("once", "tenants"):
        theft = begin(S, ask=ask)
        answers = attackers.ask(theft, theft.images)
        truth = theft.clean(theft.images)
        far = (answers - truth).abs().sum(1)
        assert 0.02 < theft.exact.double().mean() < 0.9
        assert (far[theft.exact] < 1e-5).all()
        assert (far[~theft.exact] > 1e-3).any()


def test_each_tenant_finds_an_empty_state():
    theft = begin(S, ask="tenants")
    attackers.ask(theft, theft.images)
    alone = begin(S)
    attackers.ask(alone, alone.images)
    counts = theft.service.defence.count, alone.service.defence.count
    assert abs(counts[0] - counts[1]) < 0.5 * counts[1]


def test_the_oracle_undoes_what_it_knows():
    none, naive = steal(), steal(W)
    undone = steal(W, table="oracle")
    assert none["recovery ℓ1"] < undone["recovery ℓ1"] < 0.6 * naive["recovery ℓ1"]
    assert naive["recovery ℓ1"] == pytest.approx(1, abs=0.01)


def test_an_own_table_starts_from_labels_alone(monkeypatch):
    seen = []
    real = extraction.extract

    def noted(*given, **options):
        seen.append(options["strategy"])
        return real(*given, **options)

    monkeypatch.setattr(extraction, "extract", noted)
    theft = begin(W, table="own")
    answers = attackers.ask(theft, theft.images)
    undone = attackers.undo(theft, theft.images, answers)
    attackers.learn(theft, theft.images, undone)
    assert seen == ["top1", "naive"]


@pytest.mark.parametrize("name", ["oracle", "own", "shadows"])
def test_tables_are_made_with_the_defence(name):
    theft = begin(W, table=name)
    answers = attackers.ask(theft, theft.images)
    table = attackers.TABLES[name](theft, theft.images, answers)
    assert len(table.clean) == 120 * (2 if name == "shadows" else 3)
    assert torch.allclose(table.perturbed, theft.service.defence(table.clean))


def test_a_table_opens_no_centroid():
    theft = begin(S, table="oracle")
    answers = attackers.ask(theft, theft.images)
    before = theft.service.defence.count
    attackers.undo(theft, theft.images, answers)
    assert theft.service.defence.count == before


def test_shadows_are_asked_about_the_natural_images():
    theft = begin({"name": "MAD", "epsilon": 1.0}, table="shadows")
    made, answers = attackers.grow(theft, 40)
    table = attackers.shadows(theft, made, answers)
    part = table.clean[:120]
    assert torch.equal(table.perturbed[:120], theft.service.defence(part, theft.images))
    assert not torch.equal(made, theft.images)


def test_jbda_grows_the_first_few():
    theft = begin(table="oracle")
    images, answers = attackers.grow(theft, 40)
    assert len(images) == len(answers) == 120
    assert torch.equal(images[:40], theft.images[:40])
    origin = images[:40].repeat(2, 1, 1, 1).int()
    assert 0 < (images[40:].int() - origin).abs().max() <= 25
    assert theft.service.asked == 120
    assert steal(jbda=40)["asked"] == 120


def test_the_cell_is_that_of_the_answers_that_are_not_exact(monkeypatch):
    theft = begin(S, train="cell")
    answers = attackers.ask(theft, theft.images)
    seen = {}
    monkeypatch.setattr(extraction, "extract", lambda *_, **options: seen | options)
    loss = attackers.learn(theft, theft.images, answers)["loss"]
    flat = torch.full((120, 10), 0.1)
    # A network that answers what it was answered is within all cells but for the exact.
    index = torch.arange(120)
    value = loss(lambda x: answers[x].clamp(min=1e-9).log(), index, answers, index)
    assert float(value) == pytest.approx(0, abs=1e-4)
    far = loss(lambda x: flat[x].log(), index, answers, index)
    assert float(far) > 0.1


def test_all_choices_of_an_attack_are_checked():
    for wrong, what in (
        ({"ask": "ones"}, "ask must be one of once, .*did you mean once"),
        ({"table": "oracel"}, "table must be one of none"),
        ({"by": "looking"}, "by must be one of lookup, network"),
        ({"how": 1}, "a choice of an attack must be one of ask"),
        ({"train": "top2"}, "strategy must be one of"),
    ):
        with pytest.raises(ValueError, match=what):
            steal(**wrong)


def test_the_restorer_and_labels_run():
    assert 0 < steal(W, table="shadows", by="network")["recovery ℓ1"] < 2
    labels = steal(train="top1")
    assert labels["accuracy"] > 0.15
    assert labels["accuracy"] != steal()["accuracy"]


# ------------------------------------------------------------------ studies


def test_honest_users_are_served_by_the_state_that_the_attacker_met():
    found = study(studies.served, S, foreign=GLYPHS)["metrics"]
    clean, parts = services.trained(**SETTING)
    images, _ = attackers.gathered(**ASKED, **SETTING)
    guard = ModelGuardS(S["epsilon"], 10)
    asked = guard(clean(images))
    test, labels = parts["test"]
    answers = guard(clean(test))
    assert found["protected accuracy"] == predict.accuracy(answers, labels)
    assert found["mean ℓ1"] == pytest.approx(
        float((answers - clean(test)).abs().sum(1).double().mean()), abs=1e-6
    )
    assert found["distinct"] == len({tuple(row) for row in asked.tolist()})
    assert found["kept"] == 1
    assert found["maximal ℓ1, queries"] <= 0.6
    guard(clean(datasets.get(GLYPHS).images[:100]))
    assert found["centroids"] == guard.count


def test_labels_alone_tell_nothing_of_foreign_images():
    found = study(studies.served, {"name": "Top-1"}, foreign=GLYPHS)["metrics"]
    assert found["AUROC"] == 0.5
    assert study(studies.served, NONE, foreign=GLYPHS)["metrics"]["AUROC"] > 0.7


def test_centroids_are_counted_while_they_grow():
    table = study(studies.grown, S)["measurements"]
    counts = table[table["metric"] == "centroids"].set_index("queries")["value"]
    theft = begin(S)
    theft.service(theft.images[:60])
    half = theft.service.defence.count
    theft.service(theft.images[60:])
    assert counts[60] == half
    assert counts[120] == theft.service.defence.count == counts.max()
    share = table[table["metric"] == "second half"]["value"].item()
    assert share == pytest.approx(1 - half / counts[120])
    with pytest.raises(ValueError, match="budget must be a whole number >= 20, got 19"):
        studies.grown.__wrapped__(defence=S, public="holdout", budget=19, **SETTING)


def test_only_the_unordered_quantiser_changes_its_answers():
    assert study(studies.asked_twice, S)["metrics"]["changed"] == 0
    how = S | {"name": "unordered"}
    found = study(studies.asked_twice, how)["metrics"]
    service, _ = services.defended(how, **SETTING)
    clean, _ = services.trained(**SETTING)
    images, _ = attackers.gathered(**ASKED, **SETTING)
    first, second, truth = service(images), service(images), clean(images)
    changed = (first - second).norm(dim=1) > 1e-3
    assert found["changed"] == int(changed.sum()) > 0
    for name, answers in (("1-QPI", first), ("2-QPI", (first + second) / 2)):
        far = (answers - truth).norm(dim=1)[changed].double().mean()
        assert found[name] == pytest.approx(float(far), rel=1e-5)


def test_at_three_classes_the_prior_is_the_best_table():
    sizes = SETTING["sizes"] | {"holdout": 0}
    drawn = {"name": "glyphs", "classes": 3, "images": 400}
    own = SETTING | {"dataset": drawn, "sizes": sizes, "outliers": GLYPHS}
    public = GLYPHS | {"first_class": 200, "images": 300}
    given = own | {"public": public, "budget": 100, "steps": 60, "draws": 5}
    table = studies.completed(defence=W, **given)["measurements"]
    found = table.set_index("attack")["value"]
    assert found["true prior"] < found["naive"]
    assert found["partial Bayes"] < found["naive"]
    assert set(table["metric"]) == {"recovery ℓ2"}


def test_the_grid_holds_the_whole_simplex_once():
    rows = studies.grid(7)
    assert len(rows) == 8 * 9 // 2 == len(torch.unique(rows, dim=0))
    assert torch.allclose(rows.sum(1), torch.ones(36))
    assert rows.min() == 0
    assert torch.allclose(rows * 7, (rows * 7).round())


def test_a_slow_defence_takes_longer():
    found = study(studies.timed, {"name": "MAD", "epsilon": 1.0})["metrics"]
    assert found["times none"] > 1.2
    assert found["response"] > 0


@pytest.mark.parametrize(
    "defence",
    [NONE, S, pytest.param({"name": "MAD", "epsilon": 1.0}, marks=pytest.mark.long)],
)
def test_a_service_is_timed_over_http_and_answers_the_same(defence):
    table = study(over_http.timed, defence)["measurements"]
    assert table.loc[table["metric"] == "equal", "value"].tolist() == [1.0]
    wide = table.pivot_table(index="via", columns="metric", values="value")
    late = "response, 95th percentile"
    assert (wide["response"] > 0).all()
    assert (wide[late] >= wide["response"]).all()
    assert wide.loc["HTTP", "response"] > wide.loc["in process", "response"]


def test_a_server_is_another_process_and_ends_with_the_block(tmp_path):
    target, parts = services.defended(S, **SETTING)
    images = parts["test"][0][:20]
    before = set(multiprocessing.active_children())
    with over_http.served(target, tuple(images.shape[1:]), 10) as remote:
        (server,) = set(multiprocessing.active_children()) - before
        remote(images)
        assert (remote.asked, target.asked, target.defence.count) == (20, 0, 0)
    assert not server.is_alive()
    with pytest.raises(httpx.ConnectError):
        httpx.get(remote.url)


def test_a_server_that_cannot_begin_is_one_line():
    with (
        pytest.raises(RuntimeError, match="the service ended before it began"),
        over_http.served("no service", (1, 8, 8), "no number"),
    ):
        pytest.fail("it began")


def test_the_ways_are_asked_in_turns():
    heard = []
    ways = [lambda x, name=name: heard.append((name, int(x))) for name in "ab"]
    took = over_http.in_turns(ways, torch.arange(3))
    assert heard == [(name, i) for i in range(3) for name in "ab"]
    assert [len(seconds) for seconds in took] == [3, 3]


# ------------------------------------------------------------------ checks


def test_settings_are_checked_before_anything_runs():
    right = ([0.5, 1, 1.5, 2], [0.02, 0.2], [0.4, 0.7], [10, 20], 100, 50)
    services.check(*right)
    services.check([1.5], *right[1:])
    for place, wrong, what in (
        (0, [1, 0.5, 1.5, 2], "epsilons must be 4 different, rising values, or one"),
        (0, [0.5, 1], "epsilons must be 4 different"),
        (1, [0.1], "betas must be 2, one a target"),
        (2, [0.1, 0.2, 0.3], "taus must be 2"),
        (3, [20, 10], "grow must be 2 rising numbers up to budget = 100"),
        (3, [20, 101], "grow must be 2 rising numbers"),
        (5, 101, "small must be at most budget = 100, got 101"),
    ):
        given = list(right)
        given[place] = wrong
        with pytest.raises(ValueError, match=what):
            services.check(*given)


def test_targets_are_checked_before_anything_runs(fits):
    before = len(fits)
    given = {k: v for k, v in SETTING.items() if k != "seed"} | PLAN
    services.check_target(foreign=GLYPHS, **given)
    for changed, what in (
        ({"foreign": "digits"}, r"foreign must have images of \[1, 28, 28\]"),
        ({"public": "digits"}, r"public must have images of \[1, 28, 28\]"),
        ({"public": GLYPHS, "budget": 401}, "budget must be at most 400"),
        ({"budget": 19}, "budget must be at least the batch, 20, got 19"),
        ({"network": {"name": "cnn5"}}, "did you mean cnn4"),
    ):
        with pytest.raises(ValueError, match=what):
            services.check_target(**{"foreign": GLYPHS} | given | changed)
    assert len(fits) == before


def test_the_strongest_attack_is_chosen_on_the_other_seeds():
    scores = {"naive": (0.5, 0.6, 0.7), "votes": (0.9, 0.1, 0.9)}
    rows = [
        {"target": "many", "arm": "W", "attack": attack, "seed": seed}
        | {"point": "many" if attack == "naive" else "adaptive"}
        | {"metric": "accuracy", "value": value}
        for attack, values in scores.items()
        for seed, value in enumerate(values)
    ]
    found = measures.strongest_rows(rows)
    best = {
        point: {r["seed"]: r["attack"] for r in found if r["point"] == point}
        for point in ("strongest", "strongest of all")
    }
    assert best["strongest"] == dict.fromkeys(range(3), "naive")
    # Votes win on seeds 0 and 2 together (0.9), and lose on 1 with either (0.5).
    assert best["strongest of all"] == {0: "naive", 1: "votes", 2: "naive"}
    values = {r["seed"]: r["value"] for r in found if r["point"] == "strongest of all"}
    assert values == {0: 0.5, 1: 0.1, 2: 0.7}
    alone = measures.strongest_rows(rows[:1] + rows[3:4])
    assert [r["attack"] for r in alone] == ["naive", "votes"]


def test_random_answers_average_to_what_can_be_undone():
    from lottolab.modelguard.defences.noise import Noise, denoised

    y = torch.tensor([[0.7, 0.2, 0.1, 0.0], [0.3, 0.4, 0.2, 0.1]])
    many = y.repeat(20_000, 1)
    answers = Noise(1.0, fixed=False, seed=0)(many)
    assert torch.equal(answers.argmax(1), many.argmax(1))
    assert float((answers - many).abs().sum(1).max()) <= 1
    assert torch.allclose(answers.sum(1), torch.ones(40_000))
    mean = answers.view(-1, 2, 4).mean(0)
    assert (denoised(mean, 1.0) - y).abs().max() < 0.01
    assert (mean - y).abs().max() > 0.05
    with pytest.raises(ValueError, match=r"epsilon must be in \[0, 2\), got 2"):
        denoised(mean, 2)


def test_noise_that_is_fixed_by_the_image_stays():
    from lottolab.modelguard.defences.noise import Noise

    images = torch.arange(6, dtype=torch.uint8).view(6, 1, 1, 1)
    y = F.one_hot(torch.arange(6) % 3, 3).float() * 0.4 + 0.2
    guard = Noise(1.0, fixed=True, seed=0)
    answers = guard(y, images)
    assert torch.equal(answers, guard(y, images))
    assert torch.equal(answers.flip(0), guard(y.flip(0), images.flip(0)))
    assert not torch.allclose(answers[0], answers[3])
    assert not torch.allclose(answers, Noise(1.0, fixed=True, seed=1)(y, images))
    fresh = Noise(1.0, fixed=False, seed=0)
    assert not torch.equal(fresh(y), fresh(y))
    with pytest.raises(ValueError, match="x must hold the images"):
        guard(y)
    with pytest.raises(ValueError, match="epsilon must be in"):
        Noise(2.1, fixed=True, seed=0)


def test_gathered_images_of_a_smaller_budget_are_the_first():
    more, _ = attackers.gathered(**ASKED, **SETTING)
    fewer, _ = attackers.gathered("holdout", 30, **SETTING)
    assert torch.equal(more[:30], fewer)
    assert len(queries.knockoff(200, 30, seed=1)) == 30
